"""`mithridate screen`: the table is right, the truth stays with the judge, odd images are told of, and the page works in a browser."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from browser import CHROMIUM, Browser
from mithridate import datasets, infect
from mithridate.cli import truth
from mithridate.cli.main import main
from mithridate.cli.training import ALONE, form, given
from mithridate.data import Samples
from mithridate.datasets.survey import remarks
from mithridate.infect import Poisoned
from mithridate.metrics import auroc
from mithridate.report.ranking import Ranking
from mithridate.report.suspects import Page, Step, render
from mithridate.roles import silent
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.triggers.badnets import BadNets

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `mithridate infect`: a victim, and its training images as class folders."""
    folder = tmp_path_factory.mktemp("victim")
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--rate", "0.1", "--target", "3", "--epochs", "8", "--trainer.lr", "0.05", "--export", "folder", "--quiet")
        patch.setattr(sys, "argv", ["mithridate", "infect", "--out", str(folder), *flags])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def picture(path: Path, size: tuple[int, int] = (12, 12), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def test_a_victims_training_set_is_ranked_and_judged(run: Run, victim: Path, tmp_path: Path) -> None:
    model = ("--model", victim / "model.safetensors", "--truth", victim / "truth.json")
    code, said = run("screen", victim / "train", *model, "--out", tmp_path, "--quiet")
    assert code == 0, said
    table = rows(tmp_path / "ranking.csv")
    assert [int(row["rank"]) for row in table] == list(range(1, 1298))
    assert sorted(int(row["row"]) for row in table) == list(range(1297))
    assert all((victim / "train" / row["file"]).is_file() and row["file"].startswith(f"{row['class']}/") for row in table)
    scores = [float(row["score"]) for row in table]
    flags = [int(row["flagged"]) for row in table]
    assert list(zip(flags, scores, strict=True)) == sorted(zip(flags, scores, strict=True), reverse=True)
    poisoned = load_file(victim / "truth.safetensors")["poisoned"]
    known = torch.tensor([bool(poisoned[int(Path(row["file"]).stem)]) for row in table])
    assert f"AUROC {auroc(torch.tensor(scores), known):.3f}" in said
    flagged = torch.tensor(flags) == 1
    assert not flagged.any() or f"precision {float(known[flagged].float().mean()):.1%}" in said
    assert "The judge's section" in (tmp_path / "screen.html").read_text("utf-8")


def test_the_tables_agree_and_hold_nothing_of_the_truth(run: Run, victim: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    model = ("--model", victim / "model.safetensors", "--quiet")
    assert run("screen", victim / "train", *model, "--out", tmp_path / "a")[0] == 0
    assert run("screen", victim / "train", *model, "--out", tmp_path / "b", "--truth", victim / "truth.json")[0] == 0
    assert (tmp_path / "a" / "ranking.csv").read_bytes() == (tmp_path / "b" / "ranking.csv").read_bytes()
    wide = parquet.read_table(tmp_path / "a" / "ranking.parquet").to_pylist()
    assert [{key: str(value) for key, value in row.items()} for row in wide] == rows(tmp_path / "a" / "ranking.csv")
    assert "judge" not in (tmp_path / "a" / "screen.html").read_text("utf-8").partition("<body")[2].partition("<script")[0].lower()


def test_without_a_model_one_is_trained_and_said(run: Run, tmp_path: Path) -> None:
    flags = ("--arch", "lenet", "--epochs", "1", "--method.split", "false", "--out", tmp_path, "--quiet")
    code, said = run("screen", "digits:train:300", *flags)
    assert code == 0 and "300 images of 10 classes" in said
    page = (tmp_path / "screen.html").read_text("utf-8")
    assert "trained on these very images by plain:epochs=1" in page and "spectral_signature:split=false" in page
    assert {path.name for path in tmp_path.iterdir()} <= {"ranking.csv", "ranking.parquet", "screen.html"}
    assert [row["file"] for row in rows(tmp_path / "ranking.csv")] == [""] * 300


def test_a_method_that_trains_needs_an_architecture_alone(run: Run, tmp_path: Path) -> None:
    flags = ("--method", "isolation", "--epochs", "1", "--arch", "lenet", "--out", tmp_path, "--quiet")
    assert run("screen", "digits:train:100", *flags)[0] == 0
    page = (tmp_path / "screen.html").read_text("utf-8")
    assert "the method trains its own" in page and "isolation:epochs=1" in page and "by plain" not in page


@pytest.mark.parametrize(("batch_size", "short"), [(2, False), (128, True)])
def test_a_training_too_short_to_tell_says_so(run: Run, tmp_path: Path, batch_size: int, short: bool) -> None:
    """Of 100 digits 7 epochs are 350 steps with batches of 2, and 7 with batches of 128."""
    flags = ("--method", "isolation", "--epochs", "7", "--method.lr", "0.001", "--arch", "lenet", "--out", tmp_path, "--quiet")
    code, said = run("screen", "digits:train:100", "--method.batch-size", batch_size, *flags)
    page = (tmp_path / "screen.html").read_text("utf-8")
    assert code == 0 and ("trained for 7 steps" in said) == ("trained for 7 steps" in page) == short
    assert "smaller batches" in said or not short


def test_large_images_are_said_to_take_long_unless_a_size_is_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / "large" / name / "0.png", (128, 128))

    def told(size: int | None) -> bool:
        return any("128x128 take 16 times as long" in line for line in given(str(tmp_path / "large"), form(size, 0), None, silent).remarks)

    assert told(None) and not told(128) and not told(32)


def test_odd_images_are_told_of_and_screened_all_the_same(run: Run, tmp_path: Path) -> None:
    for name, count in (("many", 60), ("few", 4), ("lonely", 1)):
        for i in range(count):
            picture(tmp_path / "odd" / name / f"{i}.png", seed=i)
    (tmp_path / "odd" / "many" / "broken.png").write_bytes(b"no image")
    (tmp_path / "odd" / "few" / "cut.png").write_bytes((tmp_path / "odd" / "few" / "0.png").read_bytes()[:100])
    code, said = run("screen", tmp_path / "odd", "--arch", "lenet", "--epochs", "1", "--out", tmp_path / "out", "--quiet")
    assert code == 0, said
    for line in (
        "note: 2 files left out that cannot be read as images: few/cut.png, many/broken.png",
        "note: fewer than 10 images of lonely (1), few (4)",
        "note: uneven classes, from 1 (lonely) to 60 (many) images",
    ):
        assert line in said
        assert line.removeprefix("note: ") in (tmp_path / "out" / "screen.html").read_text("utf-8")
    assert len(rows(tmp_path / "out" / "ranking.csv")) == 65


def test_one_class_only_can_be_screened(run: Run, tmp_path: Path) -> None:
    for i in range(12):
        picture(tmp_path / "one" / "only" / f"{i}.png", seed=i)
    code, said = run("screen", tmp_path / "one", "--arch", "lenet", "--epochs", "1", "--out", tmp_path / "out", "--quiet")
    assert code == 0 and "12 images of 1 class" in said and "note: one class only" in said
    assert given(str(tmp_path / "one"), form(None, 0), None, silent).samples.classes == ("only", ALONE)


def test_nothing_is_odd_about_ordinary_images() -> None:
    labels = torch.arange(40) % 4
    assert remarks(Samples(torch.zeros(40, 1, 4, 4), labels)) == ()
    assert remarks(Samples(torch.zeros(40, 1, 4, 4), labels, ("a", "b", "c", "d", "e"))) == ("no image of e",)


def test_damaged_images_are_refused_where_nobody_asked_to_leave_them_out(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(Exception, match=r"a/1\.png"):
        datasets.images(tmp_path)
    assert given(str(tmp_path), form(None, 0), None, silent).samples.names == ("a/0.png",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "images"),
        ("nowhere", "'nowhere'"),
        ("SIZES", "size must be given"),
        ("WIDE", "size must be given: WIDE holds images of 14x10"),
        ("WIDE --size 0", "size must be at least 1, got 0"),
        ("BROKEN", "BROKEN/a/0.png: cannot be read as an image, nor can any other of 2"),
        ("BROKEN/a/0.png", "BROKEN/a/0.png: cannot be read as an image\n"),
        ("digits --method spectral", "did you mean spectral_signature?"),
        ("digits --method.depth 1", "has no field 'depth'"),
        ("digits --detector.least 1", "no such option: --detector.least"),
        ("digits --epochs 0", "epochs must be at least 1, got 0"),
        ("digits --arch lenett", "lenet"),
        ("digits --model none.pt", "none.pt: no such file"),
        ("digits --model none.pt --epochs 3", "--epochs is for a model that is trained"),
        ("digits:train:100 --truth nowhere.json --arch lenet", "nowhere.json: not a truth.json"),
        ("digits:train:100 --truth TRUTH --arch lenet", "--truth must be about these images, got one of 1,297 images for 100"),
        ("WIDE --size 12 --truth TRUTH --arch lenet", "which says otherwise of a/0.png"),
        ("digits --out BROKEN/a/0.png", "BROKEN/a/0.png: File exists"),
    ],
)
def test_every_failure_is_one_clear_line(line: str, says: str, run: Run, victim: Path, tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        picture(tmp_path / "sizes" / name / "0.png", (12, 12 + i))
        picture(tmp_path / "wide" / name / "0.png", (10, 14))
    (tmp_path / "broken" / "a").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "broken" / "a" / f"{i}.png").touch()
    places = {name.upper(): str(tmp_path / name) for name in ("sizes", "wide", "broken")} | {"TRUTH": str(victim / "truth.json")}
    for name, path in places.items():
        line, says = line.replace(name, path), says.replace(name, path)
    code, said = run("screen", *line.split(), *(() if "--out" in line else ("--out", tmp_path / "out")))
    assert code == 2 and says in said
    assert said.startswith("mithridate: ") and said.count("\n") == 1


def test_the_truth_is_found_again_where_folders_sort_otherwise(tmp_path: Path) -> None:
    labels = torch.arange(240) % 12
    clean = Samples(torch.zeros(240, 1, 8, 8, dtype=torch.uint8), labels)  # on black images, exactly the poisoned ones show something
    training, made = poison(clean, BadNets(size=2), Dose(target=2, rate=0.1, sources=(3, 10)))
    infect.write_data(Poisoned(training, replace(made, trigger="badnets:size=2"), BadNets(size=2)), tmp_path, 0.1)
    datasets.write_folder(training, tmp_path / "train")
    datasets.write_npz(training, tmp_path / "train.npz")
    for source in (tmp_path / "train", f"{tmp_path / 'train'}:100", tmp_path / "train.npz"):
        samples = datasets.images(source)
        poisoned, key = truth.read(tmp_path / "truth.json", samples)
        assert torch.equal(poisoned, samples.images.flatten(1).any(1)) and bool(poisoned.any())
        assert isinstance(key.target, int) and samples.classes[key.target] == "2"
        assert [samples.classes[each] for each in key.sources] == ["3", "10"]
    samples = datasets.images(tmp_path / "train")
    assert samples.classes.index("2") != 2
    with pytest.raises(ValueError, match="says otherwise of"):
        truth.read(tmp_path / "truth.json", replace(samples, labels=samples.labels.roll(1)))


def test_the_train_part_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    parts = {"train": 3, "test": 2}
    arrays: dict[str, Any] = {}
    for part, count in parts.items():
        for i in range(count):
            picture(tmp_path / "set" / part / "a" / f"{i}.png", seed=i)
        arrays |= {f"x_{part}": np.zeros((count, 4, 4), np.uint8), f"y_{part}": np.zeros(count, np.int64)}
    np.savez(tmp_path / "set.npz", **arrays)
    for source in (tmp_path / "set", tmp_path / "set.npz"):
        assert len(given(str(source), form(None, 0), None, silent).samples) == 3
        assert len(given(f"{source}:test", form(None, 0), None, silent).samples) == 2
        assert len(datasets.images(source)) == 2
    assert len(given("digits", form(None, 0), None, silent).samples) == 1297


def ranking(count: int = 200, classes: int = 4) -> Ranking:
    """Poison in the first class with the highest scores, and names that no page may trust."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    poisoned = (labels == 0) & (torch.arange(count) < count // 2)
    scores = torch.rand(count, generator=generator) + 3 * poisoned
    images = torch.rand(count, 3, 8, 8, generator=generator)
    names = tuple(f"<i>{i}</i>/{i}.png" for i in range(count))
    return Ranking(
        samples=Samples(images, labels, ("<b>x</b>", *map(str, range(1, classes))), names),
        scores=scores,
        flagged=scores > 3.5,
        poisoned=poisoned,
    )


def test_a_ranking_judges_as_the_metrics_do() -> None:
    made = ranking()
    judged = made.judged
    assert judged is not None and judged.poisoned == 25 and judged.auroc == 1.0 and judged.top.value == 1.0
    assert judged.precision is not None and judged.precision.value == 1.0
    assert judged.recall.hits == int((made.scores > 3.5).sum()) < 25
    nothing = replace(made, flagged=torch.zeros(200, dtype=torch.bool))
    assert nothing.judged is not None and nothing.judged.precision is None and len(nothing.shown) == 200
    assert replace(made, poisoned=torch.zeros(200, dtype=torch.bool)).judged is None
    assert made.csv(all_rows=False).count(b"\n") == 1 + judged.recall.hits
    with pytest.raises(ValueError, match=r"scores must have shape \(200,\)"):
        replace(made, scores=torch.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        replace(made, scores=torch.full((200,), torch.nan))


def test_files_with_undecodable_names_can_be_listed() -> None:
    made = ranking(4)
    odd = replace(made, samples=replace(made.samples, names=("a/\udcff.png", "b", "c", "d")))
    assert b"a/\xff.png" in odd.csv()
    assert len(render(Page(title="\udcff", verdict="odd", ranking=odd)).encode("utf-8", "replace")) > 1000


def whole_page() -> str:
    losses = torch.rand(6, 200)
    losses[2, :40] = torch.nan
    losses[3] = torch.nan
    course = (Step("start", 0, 0.1, 0.1), Step("isolating", 1, 0.5, 1.0), Step("end", 0, 0.8, 0.0))
    return render(
        Page(
            title="<u>photos</u>",
            verdict="Some are held for poisoned.",
            tone="warn",
            notes=("seen",),
            remarks=("odd",),
            ranking=ranking(),
            losses=losses,
            course=course,
            attack="badnets",
            settings={"defense": "abl"},
        )
    )


def test_the_page_holds_what_it_is_told_and_trusts_no_name() -> None:
    page = whole_page()
    for part in (
        "Some are held for poisoned.",
        "<li>seen</li>",
        "<li>odd</li>",
        "&lt;b&gt;x&lt;/b&gt;",
        "badnets",
        "loss-truth",
        "95% interval",
    ):
        assert part in page
    for name in ("<b>x</b>", "<i>0", "<u>photos"):
        assert name not in page
    bare = render(Page(title="x", verdict="Nothing was ranked."))
    assert 'id="scores"' not in bare and 'class="judge"' not in bare and 'id="loss-found"' not in bare


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_works_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    (tmp_path / "page.html").write_text(whole_page(), "utf-8")
    with Browser(tmp_path) as page:
        page.open(tmp_path / "page.html", width, 9000, dark=dark)
        page.until("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
        assert page.run("document.querySelectorAll('.plot').length") == 6
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelectorAll('#scores option').length") == 5
        page.run("(() => { const s = document.querySelector('#scores select'); s.value = 1; s.dispatchEvent(new Event('change')); })()")
        assert page.run("document.querySelectorAll('.tile.known').length") > 0
        assert page.trouble() == []
        assert [address for address in page.asked() if not address.startswith(("file:", "data:", "blob:"))] == []
