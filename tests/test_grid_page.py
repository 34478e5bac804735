"""The page of a grid: the right numbers averaged over the right cards, nothing trusted, and usable in a real browser at any size."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import synthetic_grid
from browser import CHROMIUM, Browser
from mithridate.bench import Store
from mithridate.card import Card
from mithridate.cli.main import main
from mithridate.errors import BadFile, BadSpec
from mithridate.report import grid as pages
from mithridate.report.charted import ECHARTS
from mithridate.report.grid import Grid, Page, render
from mithridate.report.grid_columns import Pack
from mithridate.report.grid_labels import claims, methods, short, threats
from mithridate.report.grid_measures import measures
from mithridate.report.grid_published import Published, beside, published
from mithridate.report.grid_rows import Cards, cards, distinct

PLACE = {"dataset": "cifar10", "images": None, "model": "resnet18", "trainer": "plain"}
TERMS = {"robustness": [], "protocol": {"fit": 100}}
HOSTILE = "x</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\u202e=1+1"
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


def victim(attack: str | None = "badnets", rate: float | None = 0.1, seed: int = 0, **changed: Any) -> dict[str, Any]:
    dose = {} if attack is None else {"target": 0} | ({} if rate is None else {"rate": rate})
    config = PLACE | {"seed": seed, "attack": attack, "dose": dose} | changed
    return synthetic_grid.row("victim", config, {"clean_accuracy": [0.9, 0.88, 0.92]})


def judged(defense: str, role: str, metrics: dict[str, Any], status: str = "done", **rest: Any) -> dict[str, Any]:
    """A judgment; what `rest` says of the place, such as `seed=1`, goes into its config, what it says of the card, onto it."""
    of_card = {name: rest.pop(name) for name in ("reason", "seconds", "cost", "commit") if name in rest}
    config = victim(**rest)["config"] | {"defense": defense, "role": role, "evasion": None} | TERMS
    return synthetic_grid.row("judgment", config, metrics, status, **of_card)


def repaired(name: str, asr: float, accuracy: float = 0.8, **rest: Any) -> dict[str, Any]:
    return judged(name, "repair", {"asr": [asr, asr, asr], "clean_accuracy": [accuracy, accuracy, accuracy]}, **rest)


def unpacked(page: Page) -> tuple[dict[str, Any], Any]:
    """Header of the page's data, and what reads an array that it describes."""
    text = re.search(r'<script type="text/plain" id="cards">([^<]*)</script>', page.html)
    assert text
    whole = gzip.decompress(base64.b64decode(text[1]))
    (length,) = struct.unpack("<I", whole[:4])
    return json.loads(whole[4 : 4 + length]), lambda told: np.frombuffer(whole, told["type"], told["count"], 4 + length + told["at"])


def test_each_cell_is_there_once_with_its_newest_card() -> None:
    old, new = repaired("aft", 0.5, commit="old"), repaired("aft", 0.1, commit="new")
    old, new = old | {"key": "a" * 24}, new | {"key": "b" * 24}
    later = {"a" * 24: 2.0, "b" * 24: 1.0}
    assert [row["commit"] for row in cards([old, new]).rows] == ["new"]
    assert [row["commit"] for row in cards([old, new], written=later).rows] == ["old"]
    assert cards([old, new]).older == 1
    assert len(cards([old, repaired("aft", 0.1, seed=1)]).rows) == 2


def test_of_a_plan_only_its_cells_are_there_and_those_without_a_card_are_missing() -> None:
    there, absent, foreign = repaired("aft", 0.1), repaired("aft", 0.1, seed=1), repaired("nad", 0.1)
    found = cards([there, foreign], planned=[{"kind": each["kind"], "config": each["config"]} for each in (there, absent)])
    assert found.fields["status"] == ["done", "missing"]
    assert found.unplanned == 1
    assert [row["key"] for row in found.rows] == [there["key"], ""]
    assert found.count("missing") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "../../etc"}, "card '../../etc': its key must be 24 hex digits"),
        ({"kind": "audit"}, "kind must be victim or judgment, got 'audit'"),
        ({"status": "missing"}, "status must be done, dead or failed, got 'missing'"),
        ({"metrics": [1]}, r"metrics must be a table, got \[1\]"),
        ({"config": {"dataset": "x"}}, "config has no images"),
    ],
)
def test_what_is_no_card_of_a_grid_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadFile, match=said):
        cards([victim() | change])


def test_numbers_go_through_exactly() -> None:
    rows = [
        victim(),
        repaired("aft", 1 / 3, 0.7),
        judged("kde", "detector", {"auroc": 0.1 + 0.2, "right": True, "note": "x", "target": None}),
    ]
    header, array = unpacked(render(Grid(title="x", rows=rows)))
    asr, auroc = header["numbers"]["metrics"]["asr"], header["numbers"]["metrics"]["auroc"]
    assert asr["width"] == 3
    assert array(asr["values"]).tolist() == [1 / 3] * 3
    assert auroc["width"] == 1
    assert array(auroc["values"]).tolist() == [0.1 + 0.2]
    assert [bool(code) for code in array(auroc["codes"])] == [text == "kde" for text in _texts(header, array, "defense")]
    assert set(header["numbers"]["metrics"]) == {"asr", "clean_accuracy", "auroc", "right"}
    assert array(header["keys"]).tobytes() == b"".join(bytes.fromhex(row["key"]) for row in cards(rows).rows)
    assert [bool(code) for code in array(header["victim"])] == [True] * 3


def _texts(header: dict[str, Any], array: Any, name: str) -> list[str]:
    field = header["fields"][name]
    return [field["words"][code] for code in array(field["codes"])]


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(BadFile, match="damaged: a number of 401 digits"):
        Pack().numbers([victim() | {"metrics": {"asr": 10**400}}], "metrics")


def test_codes_take_as_few_bytes_as_they_need() -> None:
    pack = Pack()
    assert [pack.codes([0, highest])["type"] for highest in (255, 256, 65535, 65536)] == ["uint8", "uint16", "uint16", "uint32"]
    assert pack.codes([])["count"] == 0
    assert pack.size % 8 == 0


def test_names_are_short_where_that_leaves_no_doubt() -> None:
    assert short(["kde:bandwidth=1", "nad", "nad:epochs=3"]) == {"kde:bandwidth=1": "kde", "nad": "nad", "nad:epochs=3": "nad:epochs=3"}
    assert short(["neural_cleanse:steps=50+aft:lr=1e+05"]) == {"neural_cleanse:steps=50+aft:lr=1e+05": "neural_cleanse + aft"}
    assert methods("a:lr=1e+05+b_2:x=1") == ["a", "b_2"]
    assert methods("</b>") == ["</b>"]


def test_threats_are_told_apart_by_what_differs() -> None:
    rows = [repaired("aft", 0.1), repaired("aft", 0.1, rate=0.05), repaired("aft", 0.1, attack=None), repaired("aft", 0.1, model="vgg11")]
    found, codes = threats(cards(rows))
    assert [(each.group, each.name, each.rate, each.kind) for each in found] == [
        ("cifar10, resnet18", "clean, no attack", "", "clean"),
        ("cifar10, resnet18", "badnets", "0.05", "backdoor"),
        ("cifar10, resnet18", "badnets", "0.1", "backdoor"),
        ("cifar10, vgg11", "badnets", "0.1", "backdoor"),
    ]
    assert codes == [0, 1, 2, 3]
    other = repaired("aft", 0.1)
    other["config"] |= {"protocol": {"fit": 500}, "dose": {"target": 3, "rate": 0.1}}
    found, _ = threats(cards([rows[0], other]))
    assert sorted((each.group, each.name) for each in found) == [
        ("cifar10, resnet18, fit 100", "badnets (target 0)"),
        ("cifar10, resnet18, fit 500", "badnets (target 3)"),
    ]


def test_seeds_never_make_a_threat_of_their_own_and_victims_no_column() -> None:
    found, codes = threats(cards([repaired("aft", 0.1, seed=seed) for seed in range(3)]))
    assert len(found) == 1
    assert codes == [0, 0, 0]


def test_claims_are_the_registrys() -> None:
    told = claims(["neural_cleanse+aft:epochs=3", "nobody_knows_this", "none"])
    assert set(told) == {"neural_cleanse", "aft"}
    assert told["aft"]["role"] == "repair"
    assert told["aft"]["paper"]


def test_every_robust_accuracy_is_a_measure() -> None:
    found = {each["id"]: each for each in measures(["asr", "robust pgd:eps=0.1", "robust pgd:eps=0.1_before"])}
    assert found["robust pgd:eps=0.1"]["name"] == "robust pgd:eps=0.1"
    assert "robust pgd:eps=0.1_before" not in found
    assert found["asr"]["better"] == "low"


TOLD = {"paper": "Somebody", "source": "published", "dataset": "cifar10", "model": "resnet18", "attack": "badnets", "rate": 0.1}
TOLD |= {"defense": "aft", "metric": "asr", "value": 0.02, "where": "table 2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 98.2}, r"value must be a share in \[0, 1\], got 98.2"),
        ({"value": float("nan")}, "value must be a share"),
        ({"metric": "accuracy"}, "metric must be one of asr, clean_accuracy, .* or robust SPEC, got 'accuracy'"),
        ({"source": "rumor"}, "source: input should be 'published' or 'independent'"),
        ({"attak": "x"}, "attak: unexpected keyword argument"),
        ({"paper": None}, "paper: input should be a valid string"),
    ],
)
def test_a_published_number_that_is_wrong_is_named_with_its_table(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSpec, match=rf"published, table 2: .*{said}|published, table 2: {said}"):
        published([TOLD, TOLD | change])


def _beside(number: dict[str, Any], found: Cards) -> dict[str, Any]:
    return beside(published([TOLD | number]), found, threats(found)[1], distinct(found.fields["defense"])[1])[0]


def test_published_numbers_stand_beside_the_closest_cells_and_say_what_differs() -> None:
    rows = [victim(), repaired("aft:epochs=3", 0.1), repaired("aft:epochs=3", 0.1, rate=0.05), repaired("aft:epochs=3", 0.1, attack=None)]
    found = cards(rows)
    names = ("attack", "rate", "kind")
    told = zip(*(found.fields[name] for name in names), threats(found)[1], strict=True)
    places = {(attack, rate): place for attack, rate, kind, place in told if kind == "judgment"}
    defense = distinct(found.fields["defense"])[0].index("aft:epochs=3")
    exact = _beside({}, found)
    assert (exact["cells"], exact["differs"]) == ([(places["badnets", "0.1"], defense)], [])
    assert _beside({"attack": "badnets", "rate": 0.05}, found)["cells"] == [(places["badnets", "0.05"], defense)]
    other = _beside({"model": "vgg11"}, found)
    assert (other["cells"], other["differs"]) == (exact["cells"], ["our model is resnet18"])
    assert _beside({"rate": 0.01}, found)["differs"] == ["our rate is 10 %"]
    assert len(_beside({"rate": None}, found)["cells"]) == 2
    assert _beside({"attack": None, "rate": None}, found)["cells"] == [(places["", ""], defense)]
    for absent in ({"attack": "wanet"}, {"defense": "nad"}, {"dataset": "gtsrb"}):
        assert _beside(absent, found)["cells"] == []
    assert Published(**(TOLD | {"metric": "robust pgd"})).metric == "robust pgd"


def test_nothing_from_a_card_becomes_markup() -> None:
    rows = [
        victim(HOSTILE),
        repaired(HOSTILE, 0.1, attack=HOSTILE, reason=HOSTILE),
        judged("kde", "detector", {HOSTILE: 0.5}, attack=HOSTILE),
    ]
    html = render(Grid(title=HOSTILE, rows=[row | {"hardware": HOSTILE} for row in rows])).html
    assert "<img" not in html.replace("&lt;img", "")
    assert html.count("<script") == 3
    assert html.count("</script>") == 3
    assert "\u202e" not in html
    html.encode()


def test_the_policy_allows_just_the_pages_own_scripts_and_style() -> None:
    html = render(Grid(title="x", rows=[victim()])).html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    script = re.search(r'<script type="module">(.*?)</script>', html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert script
    assert style
    for text, kind in ((script[1].encode(), "script-src"), (style[1].encode(), "style-src"), (ECHARTS.read_bytes(), "script-src")):
        allowed = re.search(rf"{kind} ([^;]+)", policy[1])
        assert allowed
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" in allowed[1]
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_the_library_is_the_one_its_readme_names() -> None:
    readme = (ECHARTS.parent / "README.md").read_text()
    assert hashlib.sha256(ECHARTS.read_bytes()).hexdigest() in readme
    assert all((ECHARTS.parent / name).is_file() for name in re.findall(r"`((?:LICENSE|NOTICE)-\w+)`", readme))


def test_curves_and_pictures_are_few_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [victim(seed=seed) for seed in range(3)] + [judged("kde", "detector", {"auroc": 0.9}, seed=seed) for seed in range(3)]
    grid = Grid(title="x", rows=rows, curves=lambda key: {"roc": [[0.123456789, float("nan")]]}, picture=lambda key: PIXEL)
    header, _ = unpacked(render(grid))
    assert list(header["curves"].values()) == [{"roc": [[0.12346, None]]}] * 3
    assert len(header["pictures"]) == 3
    monkeypatch.setattr(pages, "CURVES", 2)
    monkeypatch.setattr(pages, "PICTURES", 1)
    header, array = unpacked(render(grid))
    assert sorted(_texts(header, array, "seed")[int(row)] for row in header["curves"]) == ["0", "1"]
    assert len(header["pictures"]) == 1
    for other in (b"GIF", PIXEL + b"\0" * pages.PICTURE_BYTES, None):
        assert unpacked(render(Grid(title="x", rows=rows, picture=lambda key, other=other: other)))[0]["pictures"] == {}


def test_the_head_says_where_the_numbers_come_from() -> None:
    rows = [victim(), repaired("aft", 0.1, commit="abc"), repaired("aft", 0.1, seed=1, status="failed")]
    page = render(Grid(title="A title", rows=rows, written={row["key"]: 1.7e9 + 1e5 * i for i, row in enumerate(rows)}))
    assert page.counts == {"done": 2, "dead": 0, "failed": 1, "missing": 0}
    for text in (
        "A title",
        "1 defense against 1 attack",
        "2023-11-14 to 2023-11-17",
        "NVIDIA H200",
        "5d59ece (2 cards), abc (1 cards)",
        "2.13.0",
    ):
        assert text in page.html
    assert "dead:" not in page.html.partition("<script")[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of a few cards, one victim with a picture."""
    made = Store(tmp_path / "my-grid")
    for row in (victim(), repaired("aft", 0.1), judged("kde", "detector", {"auroc": 0.9})):
        kept = {name: value for name, value in row.items() if name != "key"}
        curves = {"roc": [[0.0, 0.0], [1.0, 1.0]]} if row["config"].get("role") == "detector" else {}
        made.write(row["key"], Card(**kept, curves=curves))
    look = made.files(victim()["key"]) / "look.png"
    look.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(look)
    return made


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mithridate report` in this process; gives exit status and stderr."""

    def once(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mithridate", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    return once


def test_the_command_writes_the_page(store: Store, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "deep" / "page.html"
    code, said = run(store.folder, "--out", out)
    assert code == 0
    assert "3 done cells written to" in said
    header, _ = unpacked(Page(out.read_text("utf-8"), {}, 0, 0))
    assert header["title"] == "my-grid"
    assert len(header["pictures"]) == len(header["curves"]) == 1


PLAN = """
title = "Small"
datasets = ["digits"]
models = ["lenet"]
threats = ["badnets", "adap_blend"]
defenses = ["kde"]
[protocol]
fit = 100
calibration = 110
[one]
rates = [0.1]
waived = {rates = "a test"}
[[published]]
paper = "Somebody"
source = "independent"
dataset = "digits"
model = "lenet"
attack = "badnets"
rate = 0.1
defense = "kde"
metric = "auroc"
value = 0.5
where = "table 1"
"""


def test_a_plan_says_what_is_missing(store: Store, tmp_path: Path, run: Run) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    code, said = run(store.folder, "--plan", tmp_path / "plan.toml", "--size", "one", "--out", tmp_path / "page.html")
    assert code == 0
    assert "9 missing cells written to" in said
    assert "3 cards of cells that the plan has not left out" in said
    header, _ = unpacked(Page((tmp_path / "page.html").read_text("utf-8"), {}, 0, 0))
    assert header["title"] == "Small"
    assert len(header["published"][0]["cells"]) == 1


def test_what_is_wrong_is_one_line(store: Store, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "plan.toml").write_text(PLAN.replace('metric = "auroc"', 'metric = "luck"'))
    for arguments, said in (
        ((tmp_path / "nowhere",), "nowhere: no such folder"),
        ((tmp_path / "empty",), "empty: no cards in it"),
        ((store.folder, "--out", tmp_path), "it is a folder"),
        ((store.folder, "--size", "small"), "--size names a table of a plan, and needs --plan"),
        ((store.folder, "--plan", tmp_path / "plan.toml"), "published, table 1: metric must be one of"),
        ((store.folder, "--plan", tmp_path / "no.toml"), "no.toml: not a plan"),
    ):
        code, heard = run(*arguments)
        assert code == 2
        assert said in heard
        assert heard.count("\n") == 1
    damaged = store.card_path("c" * 24)
    damaged.parent.mkdir()
    for text, said in (("{", "not a card"), ('{"kind": "speed", "config": {}, "metrics": {}}', "not of a grid")):
        damaged.write_text(text)
        code, heard = run(store.folder, "--out", tmp_path / "page.html")
        assert code == 2
        assert said in heard
        assert "c" * 24 in heard
        assert heard.count("\n") == 1
        (store.folder / ".index.jsonl").unlink(missing_ok=True)


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a grid of some 2,200 cells."""
    path = tmp_path_factory.mktemp("pages") / "large.html"
    path.write_text(render(Grid(title="A large grid", rows=synthetic_grid.grid(), curves=synthetic_grid.curves)).html, "utf-8")
    return path


def write(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    path = folder / "page.html"
    path.write_text(render(Grid(title="A small grid", rows=rows, **more)).html, "utf-8")
    return path


WIDE = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .map, .cards, svg, dialog, #tip")
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
COLORS = """(() => { const c = document.querySelector("#map canvas");
  const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  const seen = new Set(); for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size })()"""
SECTIONS = ("standings", "map", "tradeoff", "costs", "cards-table")


def drawn(browser: Browser, *sections: str) -> None:
    """Wait until sections are drawn, having brought each into sight."""
    browser.until("document.documentElement.dataset.drawn")
    for name in sections:
        browser.run(f"document.getElementById('{name}').scrollIntoView()")
        browser.until(
            {
                "standings": "document.querySelector('.contest')",
                "map": "document.querySelector('#map canvas').height > 100",
                "tradeoff": "document.querySelector('.plot canvas')",
                "costs": "document.querySelector('#costs tbody tr')",
                "cards-table": "document.querySelector('.line')",
                "papers": "document.querySelector('#papers td')",
                "method": "document.querySelector('#method h2')",
            }[name]
        )


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_complains_of_nothing(browser: Browser, large: Path, width: int, dark: bool) -> None:
    browser.open(large, width, 900, dark=dark)
    drawn(browser, *SECTIONS)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(WIDE) == []
    assert browser.run(COLORS) > 20
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) == dark
    assert browser.trouble() == []
    assert [address for address in browser.asked() if not address.startswith(("file:", "data:", "about:"))] == []


def text(browser: Browser, selector: str) -> str:
    said = browser.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")
    assert isinstance(said, str)
    return said.replace("\u00a0", " ")


def fill(browser: Browser, selector: str, value: str) -> None:
    """Give a field a value as a reader does."""
    browser.run(
        f"(field => {{ field.value = {json.dumps(value)}; for (const each of ['input', 'change']) field.dispatchEvent(new Event(each)) }})"
        f"(document.querySelector({json.dumps(selector)}))"
    )


def at_map(browser: Browser, *keys: str) -> str:
    """What the note says after some keys pressed on the heat map."""
    drawn(browser, "map")
    browser.run("document.querySelector('.map').focus()")
    for key in keys:
        browser.press(key)
    return text(browser, "#tip")


@needs_browser
def test_seeds_are_averaged_and_what_is_not_done_is_not(browser: Browser, tmp_path: Path) -> None:
    rows = [
        judged("none", "none", {"asr": [1.0, 1.0, 1.0], "clean_accuracy": [0.9, 0.9, 0.9]}),
        repaired("aft", 0.2),
        repaired("aft", 0.4, seed=1),
        judged("aft", "repair", {"asr": [0.99, 0.9, 1.0]}, "dead", reason="success rate 10 %", seed=2),
        judged("aft", "repair", {}, "failed", reason="out of memory", seed=3),
        judged("aft", "repair", {}, "dead", attack="sig", reason="success rate 12 %"),
    ]
    browser.open(write(tmp_path, rows))
    drawn(browser, "standings")
    assert "from 100.0 % to 30.0 %, at 80.0 % clean accuracy (90.0 % before)" in text(browser, "#contest-repairs")
    assert "n = 1 threat, 2 with their seeds" in text(browser, "#contest-repairs")
    note = at_map(browser, "ArrowDown", "ArrowRight", "ArrowRight")
    assert "ASR after30.0 %" in note
    assert "mean of 2 seeds" in note
    assert "seed 2: success rate 10 %" in note
    assert "seed 3: out of memory" in note
    dead = at_map(browser, "ArrowDown")
    assert "dead seed 0: success rate 12 %" in dead
    assert "ASR" not in dead
    assert browser.run("document.querySelector('#tip').getAttribute('role')") == "status"
    browser.press("Enter")
    browser.until("document.querySelector('#panel').open")
    assert "success rate 12 %" in text(browser, "#panel")
    browser.press("Escape")
    browser.until("!document.querySelector('#panel').open")
    assert browser.trouble() == []


@needs_browser
def test_defenses_are_compared_over_the_threats_that_all_have_finished(browser: Browser, tmp_path: Path) -> None:
    rows = [
        repaired("aft", 0.2),
        repaired("aft", 0.9, attack="sig"),
        repaired("nad", 0.4),
        repaired("nad", 0.0, attack="wanet"),
        judged("nad", "repair", {}, "failed", attack="sig"),
        repaired("clp", 0.0, attack="blend"),
    ]
    browser.open(write(tmp_path, rows))
    drawn(browser, "standings")
    assert "No threat was finished by all" in text(browser, "#contest-repairs .headline")
    browser.run("document.querySelector('#contest-repairs input[aria-label=\"Compare clp\"]').click()")
    browser.until("document.querySelector('#contest-repairs .off')")
    assert "n = 1 threat, 1 with their seeds, that all 2 have finished" in text(browser, "#contest-repairs")
    values = browser.run("[...document.querySelectorAll('#contest-repairs li:not(.off)')].map(e => e.textContent)")
    assert values == ["aft20.0\u00a0%80.0\u00a0%", "nad40.0\u00a0%80.0\u00a0%"]
    assert "off=clp" in browser.run("location.hash")


@needs_browser
def test_measures_and_filters_change_the_page_and_its_address(browser: Browser, large: Path) -> None:
    browser.open(large)
    drawn(browser, "standings", "map")
    everything = text(browser, "#filters .count")
    before = browser.run(COLORS)
    fill(browser, "#map select", "seconds")
    browser.until("document.querySelector('#map .meaning').textContent.includes('Wall-clock')")
    assert browser.run(COLORS) != before
    assert "Seconds" in at_map(browser, "ArrowDown", "ArrowRight")
    browser.run("document.querySelector('#filters details[data-name=rate] label:nth-child(2) input').click()")
    fill(browser, "#filters input[type=search]", "badnets repair")
    rows = [row["config"] for row in synthetic_grid.grid()]
    wanted = [c for c in rows if c["attack"] == "badnets" and c.get("role") == "repair" and c["dose"]["rate"] == 0.05]
    assert text(browser, "#filters .count") == f"{len(wanted)} of {everything}"
    address = browser.run("location.hash")
    assert set(address[1:].split("&")) == {"metric=seconds", "rate=0.05", "text=badnets+repair"}
    browser.open(large, address=address)
    assert text(browser, "#filters .count") == f"{len(wanted)} of {everything}"
    drawn(browser, "map")
    browser.until("document.querySelector('#map .meaning').textContent.includes('Wall-clock')")
    assert text(browser, "#map .size") == "1 threat × 10 defenses"
    browser.run("document.querySelector('#filters .reset').click()")
    assert text(browser, "#filters .count") == everything


@needs_browser
def test_a_defense_has_a_page_of_its_own_and_the_way_back_works(browser: Browser, large: Path) -> None:
    browser.open(large)
    drawn(browser, "standings")
    browser.run("[...document.querySelectorAll('#contest-detectors button')].find(e => e.textContent === 'kde').click()")
    browser.until("!document.querySelector('#method').hidden && document.querySelector('#method h2')")
    said = text(browser, "#method")
    assert "Place " in said
    assert "claims to work against" in said
    assert browser.run("document.querySelectorAll('#method .threats tbody tr').length") > 15
    assert browser.run("document.querySelector('#standings').hidden")
    browser.run("history.back()")
    browser.until("document.querySelector('#method').hidden")
    assert not browser.run("document.querySelector('#standings').hidden")
    assert browser.trouble() == []


@needs_browser
def test_the_table_holds_only_the_lines_in_sight_and_sorts(browser: Browser, large: Path) -> None:
    browser.open(large)
    drawn(browser, "cards-table")
    assert browser.run("document.querySelectorAll('.line').length") < 60
    asr = "[...document.querySelectorAll('.heads button')].find(e => e.textContent.startsWith('ASR'))"
    browser.run(f"{asr}.click()")
    browser.run(f"{asr}.click()")
    browser.until("document.querySelector('[aria-sort=descending]')")
    top = browser.run(
        "[...document.querySelectorAll('.line')].slice(0, 9).map(e => parseFloat(e.children[7].textContent.replace('>', '')))"
    )
    assert top == sorted(top, reverse=True)
    assert top[0] > 90
    browser.run("document.querySelector('.cards').scrollTop = 20000")
    browser.until("document.querySelector('.line').style.top > '15000px'")
    browser.run("document.querySelector('.cards').focus()")
    browser.press("ArrowDown")
    browser.press("Enter")
    browser.until("document.querySelector('#panel').open")
    assert re.search(r"card=[0-9a-f]{24}", browser.run("location.hash"))


@needs_browser
def test_a_cells_panel_shows_curves_pictures_and_other_peoples_numbers(browser: Browser, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(buffer, "PNG")
    rows = [victim(), judged("kde", "detector", {"auroc": 0.9, "tpr": [0.5, 0.4, 0.6]}, cost={"forwards": 1234})]
    told = [TOLD | {"defense": "kde", "metric": "auroc", "value": 0.77}, TOLD | {"defense": "nad"}]
    more = {"curves": lambda key: {"roc": [[0, 0], [1, 1]]}, "picture": lambda key: buffer.getvalue(), "published": published(told)}
    browser.open(write(tmp_path, rows, **more), address=f"#card={rows[1]['key']}")
    browser.until("document.querySelector('#panel .curve canvas')")
    said = text(browser, "#panel")
    for part in ("kde against badnets 10 %", "50.0 % 40.0 % to 60.0 %", "1,234", "Somebody", "0.770", "0.900", rows[1]["key"]):
        assert part in said
    assert browser.run("document.querySelector('#panel img').naturalWidth") == 16
    browser.press("Escape")
    drawn(browser, "papers")
    papers = text(browser, "#papers")
    assert "0.770" in papers
    assert "2.0 %–not in this grid" in papers
    assert browser.trouble() == []


@needs_browser
def test_our_numbers_beside_one_of_another_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    several = (("aft", 0.1, 0.1), ("aft:epochs=3", 0.2, 0.1), ("aft", 0.3, 0.05))
    rows = [victim(), *(repaired(spec, asr, rate=rate) for spec, asr, rate in several)]
    told = [TOLD, TOLD | {"rate": None}, TOLD | {"rate": 0.05}]
    browser.open(write(tmp_path, rows, published=published(told)))
    drawn(browser, "papers")
    cells = "[...row.children].slice(-2).map(e => e.textContent.replaceAll('\u00a0', ' '))"
    notes = browser.run(f"[...document.querySelectorAll('#papers tbody tr')].map(row => {cells})")
    unknown = "the paper does not tell its rate; 1 seed"
    assert sorted(notes[:2]) == [["10.0 %", "aft; 1 seed"], ["20.0 %", "aft:epochs=3; 1 seed"]]
    assert ["30.0 %", f"aft; badnets 5 %; {unknown}"] in notes[2:5]
    assert notes[5:] == [["30.0 %", "1 seed"]]


@needs_browser
def test_a_long_name_beside_a_number_does_not_break_it(browser: Browser, tmp_path: Path) -> None:
    rows = [victim(), repaired("aft", 0.1), repaired("aft:" + "x" * 150, 0.2)]
    browser.open(write(tmp_path, rows, published=published([TOLD])))
    drawn(browser, "papers")
    heights = "[...document.querySelectorAll('#papers td button')].map(e => e.offsetHeight / parseFloat(getComputedStyle(e).lineHeight))"
    found = browser.run(heights)
    assert len(found) == 2 and max(found) < 1.5


@needs_browser
def test_hostile_names_are_text_everywhere_and_harmless_in_the_csv(browser: Browser, tmp_path: Path) -> None:
    formula = '=HYPERLINK("x")'
    rows = [
        victim(HOSTILE),
        repaired(formula, 0.25, attack=HOSTILE),
        judged("kde", "detector", {HOSTILE: 0.5}, "failed", attack=HOSTILE, reason=HOSTILE),
    ]
    told = published([TOLD | {"paper": HOSTILE, "attack": HOSTILE, "defense": formula}])
    browser.open(write(tmp_path, rows, published=told))
    drawn(browser, *SECTIONS, "papers")
    at_map(browser, "ArrowDown", "ArrowRight")
    browser.press("Enter")
    browser.until("document.querySelector('#panel').open")
    assert HOSTILE[:20] in text(browser, "#panel")
    browser.press("Escape")
    browser.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.querySelector('#download').click()")
    saved = tmp_path / "cards.csv"
    end = time.monotonic() + 30
    while not saved.is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    lines = saved.read_bytes().decode().split("\r\n")
    assert len(lines) == 1 + len(rows) + 1
    assert lines[0].startswith("key,kind,dataset,model,images,trainer,attack,rate,")
    repaired_line = next(line for line in lines if "HYPERLINK" in line)
    assert '"\'=HYPERLINK(""x"")"' in repaired_line
    assert ",0.25,0.25,0.25" in repaired_line
    assert browser.run("window.pwned") is None
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.trouble() == []


@needs_browser
@pytest.mark.parametrize("what", ["victims", "missing", "screens"])
def test_a_grid_that_has_hardly_begun_is_a_page_as_well(browser: Browser, tmp_path: Path, what: str) -> None:
    planned = [repaired("aft", 0.1), judged("none", "none", {}), judged("kde", "detector", {}, attack=None)]
    rows = {"victims": [victim(), victim(None)], "missing": [], "screens": [judged("scan", "screen", {"auroc": 0.7})]}[what]
    browser.open(write(tmp_path, rows, planned=planned if what == "missing" else None))
    browser.until("document.documentElement.dataset.drawn")
    drawn(browser, "cards-table")
    assert text(browser, "#filters .count") == {"victims": "2 cells", "missing": "3 cells", "screens": "1 cell"}[what]
    assert (
        text(browser, "#map .size")
        == {"victims": "0 threats × 0 defenses", "missing": "1 threat × 2 defenses", "screens": "1 threat × 1 defense"}[what]
    )
    assert "repairs" not in text(browser, "#standings")
    if what == "missing":
        assert "missing seed 0: no card yet" in at_map(browser, "ArrowDown", "ArrowRight", "ArrowRight")
        browser.press("Enter")
        browser.until("document.querySelector('#panel').open")
        assert "no card yet" in text(browser, "#panel")
    assert browser.trouble() == []
