"""`mithridate show`: the sheet draws what it is given, the exhibits are what an attacker does, the command fails in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mithridate as mi
from mithridate.cli.main import main
from mithridate.data import Samples
from mithridate.methods import parse
from mithridate.report import contact, exhibits
from mithridate.report.contact import CELL, GAP, LARGEST, Part, measure, sheet
from mithridate.report.pictures import Attacked
from mithridate.threats.dose import Dose
from mithridate.threats.poison import stamp

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command line in this process; gives exit status, stdout and stderr."""

    def once(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mithridate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, shown.out, shown.err

    return once


def part(clean: Tensor, made: Tensor, names: tuple[str, ...] = ()) -> Part:
    return Part(name="made", shown=Attacked(clean=clean, perturbed=made, before=names, after=names))


def find(page: Image.Image, wanted: Tensor) -> list[tuple[int, int]]:
    """Where on the page these pixels (h, w, 3) stand, as (top, left)."""
    pixels, block = np.asarray(page), wanted.numpy()
    height, width = block.shape[:2]
    first = np.argwhere((pixels == block[0, 0]).all(2))
    return [(y, x) for y, x in first.tolist() if np.array_equal(pixels[y : y + height, x : x + width], block)]


def enlarged(image: Tensor, factor: int) -> Tensor:
    return image.expand(3, -1, -1).repeat_interleave(factor, 1).repeat_interleave(factor, 2).permute(1, 2, 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_becomes_a_square(channels: int) -> None:
    clean = torch.randint(0, 256, (2, channels, 10, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = clean.flip(3)
    before = clean.clone(), made.clone()
    page = sheet([part(clean, made, ("a", "b"))], "title")
    assert torch.equal(clean, before[0]) and torch.equal(made, before[1])
    factor = CELL // 10
    places = [find(page, enlarged(images[i], factor)) for images in (clean, made) for i in range(2)]
    assert [len(each) for each in places] == [1, 1, 1, 1]
    (a, b, c, d) = (each[0] for each in places)
    assert a[0] == b[0] < c[0] == d[0] and a[1] == c[1] < b[1] == d[1]
    assert b[1] - a[1] == 7 * factor + GAP


def test_the_difference_is_amplified_around_gray_and_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    plain = contact._plain
    monkeypatch.setattr(contact, "_plain", lambda text: labels.append(text) or plain(text))
    clean = torch.full((1, 1, 12, 12), 0.5)
    made = clean.clone()
    made[0, 0, :, 6:] += 0.05
    page = sheet([part(clean, made)])
    assert "difference x10" in labels
    wanted = torch.full((1, 12, 12), 128, dtype=torch.uint8)
    wanted[:, :, 6:] = 255
    assert len(find(page, enlarged(wanted, 8))) == 1


def test_large_images_shrink_and_odd_ones_are_drawn() -> None:
    large = sheet([part(torch.zeros(1, 3, 600, 300), torch.ones(1, 3, 600, 300))])
    assert 3 * LARGEST < large.height < 4 * LARGEST
    wide = sheet([part(torch.zeros(2, 1, 1, 400), torch.zeros(2, 1, 1, 400)), part(torch.zeros(0, 1, 3, 3), torch.zeros(0, 1, 3, 3))])
    assert wide.width > 2 * LARGEST
    with pytest.raises(ValueError, match="parts must hold at least one image"):
        sheet([part(torch.zeros(0, 1, 3, 3), torch.zeros(0, 1, 3, 3))])


def test_names_of_strangers_are_drawn_as_far_as_the_font_goes() -> None:
    assert contact._plain("café 猫 \x1b[2J\u202e") == "cafe ? \\x1b[2J\\u202e"
    assert contact._fit("automobile" * 9, 60).startswith("auto") and len(contact._fit("automobile" * 9, 60)) < 12
    many = ("", "a", "x" * 300)
    sheet([part(torch.zeros(3, 1, 8, 8), torch.zeros(3, 1, 8, 8), many)], "t" * 400, "s " * 400)


def test_measure_against_arithmetic() -> None:
    clean = torch.zeros(2, 1, 10, 10)
    made = clean.clone()
    made[:, :, 0, :5] = 0.2
    length, noise = 0.2 * 5**0.5, 10 * np.log10(100 / (5 * 0.04))
    wanted = f"made, 2 images of 10x10: largest change 51/255, mean L2 {length:.3f}, PSNR {noise:.1f} dB, 5% of the values changed"
    assert measure(part(clean, made)) == wanted
    assert measure(part(clean, clean)) == "made, 2 images of 10x10: no change at all"


def samples(count: int = 60, classes: int = 3, channels: int = 1) -> Samples:
    images = torch.randint(0, 200, (count, channels, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Samples(images, torch.arange(count) % classes, tuple("abcdef"[:classes]))


class Habits(nn.Module):
    """A trigger with every habit: it lightens at test time, darkens in training, and covers with a dot."""

    clean_label = True
    cover_ratio = 1.0

    def stamp(self, images: Tensor) -> Tensor:
        return (images + 0.1).clamp(0, 1)

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return (images - 0.1).clamp(0, 1)

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        made = images.clone()
        made[:, :, 0, 0] = 1
        return made

    def cross(self, images: Tensor) -> Tensor:
        return self.stamp(images.roll(1, 0))


def test_each_part_shows_what_poisoning_does() -> None:
    trigger, dose = Habits(), Dose(target=1)
    stamped, crossed = exhibits.sent(trigger, samples(), dose, count=5)
    assert (stamped.name, crossed.name) == ("stamped", "crossed")
    assert set(stamped.shown.before) == {"a", "c"} and set(stamped.shown.after) == {"wanted b"}
    assert torch.allclose(stamped.shown.perturbed / 255, trigger.stamp(stamped.shown.clean / 255), atol=0.51 / 255)
    assert stamped.shown.perturbed.dtype == torch.uint8 and len(stamped.shown.clean) == 5
    assert crossed.shown.after == tuple(f"still {name}" for name in crossed.shown.before)
    poisoned, cover = exhibits.trained(trigger, samples(), dose, count=5)
    assert set(poisoned.shown.before) == {"b"} and set(poisoned.shown.after) == {"label b"}
    assert bool((poisoned.shown.perturbed <= poisoned.shown.clean).all())
    assert len(cover.shown.clean) == len(poisoned.shown.clean) == 5
    assert bool((cover.shown.perturbed[:, :, 0, 0] == 255).all())
    assert cover.shown.after == tuple(f"label {name}" for name in cover.shown.before)


def test_dirty_labels_and_no_habits_need_but_one_part() -> None:
    trigger = mi.BadNets(size=3)
    (only,) = exhibits.sent(trigger, samples(), Dose(target=2), count=4)
    assert torch.equal(only.shown.perturbed, stamp(trigger, Samples(only.shown.clean, torch.zeros(4).long(), ("a",))).images)
    assert exhibits.trained(trigger, samples(), Dose(target=2), count=4) == ()


def test_only_the_sources_are_stamped_and_only_the_others_cover() -> None:
    trigger, dose = mi.BadNets(), Dose(target=0, sources=(2,))
    (only,) = exhibits.sent(trigger, samples(), dose, count=30)
    assert set(only.shown.before) == {"c"} and len(only.shown.before) == 20  # as many as there are
    tact = parse("tact:sources=2", "trigger")
    _, cover = [*exhibits.sent(tact, samples(), Dose()), *exhibits.trained(tact, samples(), Dose())]
    assert set(cover.shown.before) == {"a", "b"}


def test_pictures_without_labels_are_shown_all_the_same() -> None:
    (only,) = exhibits.sent(mi.BadNets(), samples(classes=1), Dose(), count=3)
    assert len(only.shown.clean) == 3


@pytest.mark.parametrize(
    ("dose", "says"),
    [
        (Dose(target=3), "target must lie in [0, 3), got 3"),
        (Dose(sources=(7,)), "sources must lie in [0, 3), got 7"),
        (Dose(target=1, sources=(1,)), "samples must hold images of the classes"),
    ],
)
def test_what_cannot_be_shown_is_refused(dose: Dose, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        exhibits.sent(mi.BadNets(), samples(), dose)


def test_evasions_show_what_the_model_answers() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).eval()
    data = samples()
    (only,) = exhibits.adversarial(mi.PGD(eps=0.1), model, data, target=1, count=6)
    shown = only.shown
    assert float((shown.perturbed - shown.clean).abs().max()) <= 0.1 + 1e-6
    for images, said in ((shown.clean, shown.before), (shown.perturbed, shown.after)):
        assert tuple(data.classes[i] for i in model(images).argmax(1).tolist()) == said
    assert "b" not in shown.before
    assert only.note == f"{shown.after.count('b')} of {len(shown.after)} succeed"
    with pytest.raises(ValueError, match=r"target must lie in \[0, 3\), got 5"):
        exhibits.adversarial(mi.PGD(), model, data, target=5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A color folder in two classes, a picture, an `.npz` file, a victim of each kind, and a file that is none of these."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "file").touch()
    draw = np.random.default_rng(0)
    for i in range(8):
        (folder / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / "photos" / "ab"[i % 2] / f"{i}.png")
    np.savez(folder / "set.npz", images=draw.integers(0, 255, (9, 14, 14), dtype=np.uint8), labels=np.arange(9) % 3)
    return folder


@pytest.mark.parametrize("dataset", ["digits", "PLACE/photos", "PLACE/set.npz", "PLACE/photos/a/0.png", "digits:train:50"])
def test_any_data_set(dataset: str, run: Run, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "picture.png"
    code, shown, err = run("show", "--trigger", "wanet", "--dataset", dataset.replace("PLACE", str(place)), "--out", str(out))
    assert (code, shown) == (0, ""), err
    assert "stamped, " in err and "largest change" in err and "PSNR" in err and f"written to {out}" in err
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > 300
    assert [path.name for path in out.parent.iterdir()] == ["picture.png"]


def test_fields_come_from_flags_and_the_picture_from_the_seed(run: Run, tmp_path: Path) -> None:
    pictures = []
    for name, spec in (("a", ["badnets:size=5"]), ("b", ["badnets", "--trigger.size", "5"]), ("c", ["badnets"])):
        assert run("show", "--trigger", *spec, "--out", str(tmp_path / f"{name}.png"))[0] == 0
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_what_has_to_be_crafted_is_crafted_from_so_many_images(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    crafted = type(parse("trojan_nn", "trigger"))

    def craft(self: object, clean: Samples, target: int, **options: object) -> Habits:
        seen.append((len(clean), target))
        return Habits()

    monkeypatch.setattr(crafted, "craft", craft)
    code, _, err = run("show", "--trigger", "trojan_nn", "--images", "70", "--target", "4", "--out", str(tmp_path / "x.png"))
    assert code == 0, err
    assert seen == [(70, 4)]


@pytest.mark.parametrize("attack", [["--trigger", "sig"], ["--planter", "lira", "--epochs", "1"]])
def test_a_victim_shows_its_trigger_and_answers(attack: list[str], run: Run, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "x.png"
    code, _, err = run("infect", *attack, "--epochs", "1", "--target", "3", *_own(attack), "--out", str(victim), "--quiet")
    assert code == 0, err
    code, _, err = run("show", "--victim", str(victim), "--count", "3", "--out", str(out))
    assert code == 0, err
    assert attack[1] in err.splitlines()[0] and "stamped, 3 images of 16x16" in err
    code, _, err = run("show", "--attack", "pgd:steps=2", "--model", str(victim / "model.safetensors"), "--count", "2", "--out", str(out))
    assert code == 0, err
    assert "adversarial, 2 images of 16x16: largest change 8/255" in err


def _own(attack: list[str]) -> list[str]:
    return ["--planter.target", "3"] if attack[0] == "--planter" else []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "one of --trigger, --victim and --attack"),
        ("--trigger badnets --attack pgd", "one of --trigger, --victim and --attack"),
        ("--trigger badnet", "did you mean badnets"),
        ("--trigger lira", "mithridate infect --planter lira"),
        ("--trigger badnets:size=99", "99"),
        ("--trigger.size 99 --trigger badnets", "99"),
        ("--trigger badnets --detector.least 3", "no such option: --detector.least"),
        ("--trigger badnets --dataset nowhere", "'nowhere'"),
        ("--trigger badnets --target 10", "target must lie in [0, 10), got 10"),
        ("--trigger badnets --count 0", "count must be at least 1, got 0"),
        ("--trigger badnets --size 0", "size must be at least 1, got 0"),
        ("--trigger trojan_nn --images 0", "images must be at least 1, got 0"),
        ("--trigger badnets --model x.pt", "go with --attack"),
        ("--trigger badnets --out x.jpg", "out must end in .png, got 'x.jpg'"),
        ("--trigger badnets --out FILE/x.png", "cannot write FILE/x.png: File exists"),
        ("--trigger badnets --out folder.png", "it is a folder"),
        ("--victim nowhere", "nowhere holds no truth.json"),
        ("--attack pgd", "needs a --model"),
        ("--attack pdg --model x.pt", "did you mean pgd?"),
        ("--attack pgd --model x.pt", "x.pt: no such file"),
    ],
)
def test_every_failure_is_one_clear_line(line: str, says: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "folder.png").mkdir(exist_ok=True)
    line, says = (text.replace("FILE", str(place / "file")) for text in (line, says))
    code, out, err = run("show", *line.split())
    assert (code, out) == (2, "") and err.startswith("mithridate: ") and err.count("\n") == 1, err
    assert says in err
    assert not (place / "trigger.png").exists()


def test_help_is_light() -> None:
    after = "print('ended', ended.code, 'torch' in sys.modules)"
    code = f"import sys; from mithridate.cli.main import main\ntry: main()\nexcept SystemExit as ended: {after}"
    shown = subprocess.run([sys.executable, "-W", "error", "-c", code, "show", "--help"], check=True, capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "ended 0 False" and "--victim" in shown.stdout
