"""The three views: populations hold what reached its goal, distances are right, and the page can be explored in a real browser."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from browser import CHROMIUM, Browser
from mithridate import judge
from mithridate.cli.main import main
from mithridate.metrics import auroc
from mithridate.nn.modes import predict
from mithridate.report.views import render
from mithridate.spec import parse
from mithridate.threats.triggers.badnets import BadNets
from mithridate.views import analyse
from mithridate.views import populations as make
from mithridate.views.analysis import Analysis, Population
from mithridate.views.separation import gap, pairs
from small_victims import digits, victim
from views_fixture import NAMES, analysis


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def infected() -> Analysis:
    """Digits, a net with a backdoor, and PGD."""
    model, key = victim("badnets:size=2", 0.1)
    reference, rest = digits()[1].split(200, seed=0)
    shown = [make.benign(rest), make.evaded(model, parse("pgd:eps=0.2"), rest), make.triggered(model, key, rest)]
    return analyse("digits", model, reference, shown)


def test_populations_hold_what_reached_its_goal() -> None:
    model, key = victim("badnets:size=2", 0.1)
    clean = digits()[1]
    assert make.benign(clean).tried == len(make.benign(clean).images) == len(clean)
    fooled = make.evaded(model, parse("pgd:eps=0.2"), clean)
    assert 10 < len(fooled.images) <= fooled.tried < len(clean)
    assert bool((predict(model, fooled.images).argmax(1) != fooled.labels).all())
    stamped = make.triggered(model, key, clean)
    assert bool((predict(model, stamped.images).argmax(1) == 0).all())
    assert bool((stamped.labels != 0).all()) and stamped.tried == int((clean.labels != 0).sum())
    strange = make.suspected("inbox", clean)
    assert strange.labels.unique().tolist() == [-1]
    with pytest.raises(ValueError, match=r"pgd:eps=0.0001 must leave at least 10 inputs that reach their goal, got \d of "):
        make.evaded(model, parse("pgd:eps=0.0001"), clean)
    with pytest.raises(ValueError, match="badnets must leave at least 10 inputs"):
        make.triggered(model, judge.Key(BadNets(size=2), 5, "badnets"), clean)


def test_pairs_are_with_the_clean_and_of_different_kinds() -> None:
    kinds = {"c": "benign", "p": "adversarial", "q": "adversarial", "b": "backdoor", "s": "suspect"}
    shown = [Population(name, kind, torch.rand(2, 1, 8, 8), torch.zeros(2).long(), 2) for name, kind in kinds.items()]  # type: ignore[arg-type]
    assert list(pairs(shown)) == [("c", "p"), ("c", "q"), ("c", "b"), ("c", "s"), ("p", "b"), ("q", "b")]


def test_a_gap_is_auroc_and_mmd_whatever_the_unit() -> None:
    values = {"one": draw(90), "other": draw(60, seed=1) + 2}
    found = gap("view", "measure", values, ("one", "other"), 0)
    both = torch.cat(list(values.values()))
    assert found.auroc == auroc(both, torch.arange(150) >= 90)
    assert found.mmd > 0.3
    assert found.p_value == 1 / 200
    scaled = gap("view", "measure", {name: 1e6 * each - 5 for name, each in values.items()}, ("one", "other"), 0)
    assert scaled.mmd == pytest.approx(found.mmd, rel=1e-3)
    alike = gap("view", "layer", {"one": draw(90, 4), "other": draw(60, 4, seed=1)}, ("one", "other"), 0)
    assert alike.auroc is None and alike.mmd < 0.15 and alike.p_value > 0.05


def test_views_tell_malicious_inputs_apart(infected: Analysis) -> None:
    """What the paper says: adversarial inputs are unstable, backdoor inputs stable, and both switch class on their way."""
    clean, adversarial, backdoor = (each.name for each in infected.populations)
    chosen = next(level for level in infected.levels if level.chosen)
    assert 0.05 < float(chosen.rates[clean].mean()) < 0.15
    assert float(chosen.rates[backdoor].mean()) < float(chosen.rates[clean].mean()) < float(chosen.rates[adversarial].mean())
    assert [level.level for level in infected.levels] == sorted(level.level for level in infected.levels)
    first, last = infected.depths[0], infected.depths[-1]
    stamped = infected.populations[2]
    assert float((first.classes[backdoor] == stamped.labels).float().mean()) > 0.5
    assert float((last.classes[backdoor] == 0).float().mean()) > 0.9
    told = {(each.name, each.second): each.auroc for each in infected.gaps if each.first == clean}
    assert (told["class switches", backdoor] or 0) > 0.8
    assert (told["log density", adversarial] or 1) < 0.5
    assert all(each.points[clean].shape == (len(infected.populations[0].images), 2) for each in infected.depths)


def test_names_must_differ() -> None:
    model, _ = victim("badnets:size=2", 0.1)
    clean = make.benign(digits()[1])
    with pytest.raises(ValueError, match="populations must have different names, got clean images, clean images"):
        analyse("digits", model, digits()[1], [clean, clean])


def test_the_page_holds_the_numbers_and_trusts_no_name() -> None:
    page = render(analysis())
    assert "<b>badnets" not in page
    text = re.search(r'<script type="application/json" id="views">(.*?)</script>', page, re.DOTALL)
    assert text
    data = json.loads(text[1])
    assert [each["name"] for each in data["populations"]] == list(NAMES)
    assert data["path"][0]["shares"][2] == pytest.approx([0.1, 0.9, 0.0])
    assert data["path"][-1]["shares"][2] == [1.0, 0.0, 0.0]
    assert [level["chosen"] for level in data["levels"]] == [False, False, True]
    words = re.sub(r"<[^>]+>", "", page)
    assert "0.900" in words and "0.250" in words and "120 of 121 that reach their goal" in words


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_can_be_explored(tmp_path: Path, infected: Analysis, width: int, dark: bool) -> None:
    (tmp_path / "page.html").write_text(render(infected))
    with Browser(tmp_path) as page:
        page.open(tmp_path / "page.html", width, 4000, dark=dark)
        page.until("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelectorAll('figure[data-population]').length") == 3
        page.run("document.querySelector('.kind[data-population=\"1\"]').click()")
        assert page.run("document.querySelector('figure[data-population=\"1\"]').hidden")
        before = page.run("document.querySelector('#sensitivity output').textContent")
        page.run("(() => { const s = document.querySelector('#sensitivity input'); s.value = 0; s.dispatchEvent(new Event('input')); })()")
        assert page.run("document.querySelector('#sensitivity output').textContent") != before
        assert page.trouble() == []
        assert [address for address in page.asked() if not address.startswith(("file:", "data:", "blob:"))] == []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mithridate", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A victim of `mithridate infect` on the digits."""
    folder = tmp_path_factory.mktemp("victim")
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--trigger", "badnets", "--trainer", "plain:epochs=12,lr=0.05", "--quiet")
        assert run(patch, "infect", "--dataset", "digits", "--model", "lenet", *flags, "--out", folder) == 0
    return folder


def test_a_model_is_analysed_from_the_command_line(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = made / "model.safetensors", tmp_path / "page.html"
    flags = ("--truth", made / "truth.json", "--attack", "pgd:eps=0.2", "--suspect", "digits:train:60", "--quiet", "--out", out)
    assert run(monkeypatch, "analyse", model, "--clean", "digits:test", *flags) == 0
    said = capsys.readouterr().err
    assert "clean images / badnets" in said and "AUROC" in said
    page = out.read_text()
    assert all(name in page for name in ("badnets", "pgd:eps=0.2", "digits:train:60"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--clean", "nothing"), "'nothing' is neither a file or folder nor a data set"),
        (("--clean", "digits:test", "--count", "0"), "count must be at least 1, got 0"),
        (("--clean", "digits:test", "--attack", "pdg"), "did you mean pgd"),
        (("--clean", "digits:test", "--truth", "nothing.json"), "nothing.json"),
        (("--clean", "digits:test", "--out", "."), "it is a folder"),
    ],
)
def test_wrong_use_gets_one_clear_line(
    made: Path, flags: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "analyse", made / "model.safetensors", *flags, "--quiet") == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
