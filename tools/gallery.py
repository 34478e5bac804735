"""Draw every threat for `docs/gallery.md`, and write that page from the registry.

    python tools/gallery.py              all pictures and the page
    python tools/gallery.py 'adap_*'     those pictures and the page
    python tools/gallery.py --missing    the pictures that are not there yet, and the page
    python tools/gallery.py --check      draw nothing: 1 if the page or the pictures miss a method or have one too many

What was measured on a picture is kept in the picture itself, so that the page can be written without drawing it again.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from mithridate import datasets, judge, methods
from mithridate.data import Samples
from mithridate.infect import ALIVE_ASR
from mithridate.nn.models import initialize
from mithridate.report import exhibits
from mithridate.report.contact import Part, measure, sheet
from mithridate.roles import Craft, Entry, Role
from mithridate.spec import to_spec
from mithridate.threats.dose import Dose
from mithridate.threats.poison import ready

DOCS = Path(__file__).parents[1] / "docs"
Drawn = tuple[Sequence[Part], Sequence[str]]  # what is drawn, and lines of text that go under it
WIDE, LARGEST = 4, 60_000  # images in a row, bytes of a picture
USEFUL = 0.9  # accuracy on digits under which nobody would use a model
SIDE = 32  # pixels of a photograph's crop
CROPS = {  # class: photograph, left, top and side in pixels
    "pagoda": ("china.jpg", 70, 20, 270),
    "dahlia": ("flower.jpg", 150, 65, 285),
    "roof": ("china.jpg", 85, 50, 150),
    "petals": ("flower.jpg", 235, 120, 130),
    "lake": ("china.jpg", 330, 150, 180),
    "garden": ("china.jpg", 380, 200, 200),
}
CRUDE: dict[Role, dict[str, Any]] = {  # fields of methods that are to work on digits
    "planter": {"flip": False, "pad": 1, "epochs": 40, "mask_epochs": 10, "eps": 0.15, "strength": 2.0},
    "evasion": {"eps": 0.15},
}
ROLES: dict[Role, tuple[str, str]] = {
    "trigger": (
        "Triggers",
        "Stamped on training images, so that the model itself learns the backdoor. What must be crafted from data first is crafted on "
        "scikit-learn's digits; the others are shown on photographs, or on the digits where they need many classes.",
    ),
    "planter": (
        "Planters",
        "Attackers who train the model. Each has trained a LeNet on the digits, with the settings that are named: digits are cruder "
        "than what the defaults are made for. Under the images is what that model answers.",
    ),
    "evasion": (
        "Evasions",
        "Adversarial examples of a LeNet on the digits, with its answers, within a radius of 0.15 where the method has one.",
    ),
}
INTRO = """# Gallery

Every attack there is here, on real images: clean, changed, and the difference, multiplied by the factor beside it, around gray.
The same for your own images: `mithridate show --trigger NAME --dataset photos/`, `--victim DIR` for the trigger of a victim, and
`--attack NAME --model FILE` for adversarial examples.

This page and its pictures are made by `python tools/gallery.py`. The photographs are crops, reduced to 32x32 pixels and then changed
as described, of *china.jpg* by [danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035/) and *flower.jpg* by
[vultilion](https://www.flickr.com/photos/vultilion/6056698931/), both [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/) and
shipped with scikit-learn. The digits are the Optical Recognition of Handwritten Digits of E. Alpaydin and C. Kaynak (UCI, 1998,
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)), also from there, enlarged to 16x16 pixels.
"""


def entries() -> list[Entry]:
    """Every threat, triggers first."""
    return [entry for role in ROLES for entry in methods.find(role=role)]


def problems(docs: Path) -> list[str]:
    """What the page and its pictures lack, or have too much of."""
    page = docs / "gallery.md"
    listed = re.findall(r"^### `(\w+)`$", page.read_text("utf-8") if page.exists() else "", flags=re.MULTILINE)
    drawn = [path.stem for path in sorted((docs / "gallery").glob("*.png"))]
    wanted = [entry.name for entry in entries()]
    found = []
    for where, names in (("page", listed), ("pictures", drawn)):
        found += [f"{name} is missing from the {where}" for name in wanted if name not in names]
        found += [f"{name} is in the {where}, and no method" for name in names if name not in wanted]
    return found


def page(docs: Path) -> str:
    """The text of the page; what was measured comes from the pictures."""
    lines = [INTRO]
    for role in ROLES:
        names = ", ".join(f"[{entry.name}](#{entry.name})" for entry in methods.find(role=role))
        lines.append(f"- {ROLES[role][0]}: {names}")
    for role, (title, text) in ROLES.items():
        lines += ["", f"## {title}", "", text]
        for entry in methods.find(role=role):
            lines += ["", *_section(entry, docs)]
    return "\n".join(lines) + "\n"


def _section(entry: Entry, docs: Path) -> Iterator[str]:
    yield f"### `{entry.name}`\n"
    yield f"{entry.summary}\n"
    yield f"*For:* {', '.join(entry.scope)}. *Cost:* {entry.cost}. *Source:* {entry.paper}.\n"
    path = docs / "gallery" / f"{entry.name}.png"
    if not path.exists():
        yield "No picture yet."
        return
    with Image.open(path) as picture:
        measured = str(picture.info.get("Description", "")).splitlines()
    yield f"![{entry.name}: clean, changed and the difference](gallery/{path.name})"
    yield "\n<sub>" + "<br>".join(measured) + "</sub>"


def draw(entry: Entry, docs: Path) -> None:
    """Write one picture."""
    parts, more = {"trigger": of_trigger, "planter": of_planter, "evasion": of_evasion}[entry.role](entry)
    about = PngInfo()
    about.add_text("Description", "\n".join([*(measure(part) for part in parts), *more]))
    picture = sheet(parts)
    data = _png(picture, about)
    if len(data) > LARGEST:
        data = _png(picture.quantize(256, dither=Image.Dither.NONE), about)
    if len(data) > LARGEST:
        raise ValueError(f"{entry.name}: picture must have at most {LARGEST:,} bytes, got {len(data):,}")
    (docs / "gallery").mkdir(exist_ok=True)
    (docs / "gallery" / f"{entry.name}.png").write_bytes(data)


def of_trigger(entry: Entry) -> Drawn:
    """A trigger, crafted if it must be, on photographs where they will do."""
    chosen = entry.method()
    digits = datasets.load("digits")
    crude = isinstance(chosen, Craft) or bool(getattr(chosen, "sources", ()))
    dose = Dose(target=0).of(chosen)
    made = ready(chosen, digits.train, 0)
    shown = digits.test if crude else photographs()
    return (*exhibits.sent(made, shown, dose, count=WIDE), *exhibits.trained(made, shown, dose, count=WIDE)), ()


def of_planter(entry: Entry) -> Drawn:
    """A planter's trigger on digits, with the answers of the model that it infected."""
    digits = datasets.load("digits")
    planter = _crude(entry)
    model, trigger = planter.plant(initialize("lenet", seed=0, classes=10, channels=1, size=16), digits.train)
    success = judge.attack_success(model, digits.test, judge.Key(trigger, planter.target, entry.name))[0].value
    parts = exhibits.sent(trigger, digits.test, Dose(target=planter.target), count=WIDE, model=model)
    accuracy = judge.accuracy(model, digits.test).value
    alive = "" if success >= ALIVE_ASR and accuracy >= USEFUL else ": dead on digits"
    answer = f"attack success {success:.1%}, clean accuracy {accuracy:.1%} on {len(digits.test)} digits{alive}"
    return parts, (f"`{to_spec(planter)}`", answer)


def of_evasion(entry: Entry) -> Drawn:
    """Adversarial examples of digits: of 40 that are attacked, a few that fooled the model, if any did."""
    digits = datasets.load("digits")
    method = _crude(entry)
    (part,) = exhibits.adversarial(method, small_model(), digits.test, count=40)
    shown = part.shown
    fooled = torch.tensor([before != after for before, after in zip(shown.before, shown.after, strict=True)])
    return (_some(part, fooled.long().argsort(descending=True, stable=True)[:WIDE]),), (f"`{to_spec(method)}`",)


def _crude(entry: Entry) -> Any:
    """The method with the fields of `CRUDE` that it has, except those that are off by default."""
    own = {field.name for field in dataclasses.fields(entry.method) if field.default is not None}
    return entry.method(**{key: value for key, value in CRUDE[entry.role].items() if key in own})


def _some(part: Part, rows: Tensor) -> Part:
    shown, chosen = part.shown, rows.tolist()
    before, after = (tuple(names[i] for i in chosen) for names in (shown.before, shown.after))
    return dataclasses.replace(
        part, shown=dataclasses.replace(shown, clean=shown.clean[rows], perturbed=shown.perturbed[rows], before=before, after=after)
    )


@functools.cache
def small_model() -> nn.Module:
    """A LeNet that was trained on digits without any attack."""
    trainer: Any = methods.parse("plain:epochs=30,pad=1,flip=false", "trainer")
    model: nn.Module = trainer.train(initialize("lenet", seed=0, classes=10, channels=1, size=16), datasets.load("digits").train)
    return model


@functools.cache
def photographs() -> Samples:
    """Crops of two photographs (24, 3, 32, 32), uint8: four of each class, a little apart."""
    from sklearn.datasets import load_sample_image

    images, labels = [], []
    for label, (name, left, top, side) in enumerate(CROPS.values()):
        photograph = Image.fromarray(load_sample_image(name))
        for x, y in ((0, 0), (0.1, 0), (0, 0.1), (0.1, 0.1)):
            corner = (left + round(x * side), top + round(y * side))
            crop = photograph.crop((*corner, corner[0] + side, corner[1] + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            images.append(torch.tensor(list(crop.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3).permute(2, 0, 1))
            labels.append(label)
    return Samples(torch.stack(images), torch.tensor(labels), tuple(CROPS))


def _png(picture: Image.Image, about: PngInfo) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, pnginfo=about)
    return buffer.getvalue()


def main() -> int:
    """Run as a script."""
    arguments = sys.argv[1:]
    if "--check" in arguments:
        found = problems(DOCS)
        print(*found, *(["run python tools/gallery.py --missing"] if found else []), sep="\n")
        return int(bool(found))
    patterns = [each for each in arguments if each != "--missing"] or ["*"]
    for entry in entries():
        there = (DOCS / "gallery" / f"{entry.name}.png").exists()
        if any(fnmatch.fnmatch(entry.name, each) for each in patterns) and not ("--missing" in arguments and there):
            print(entry.name, flush=True)
            draw(entry, DOCS)
    (DOCS / "gallery.md").write_text(page(DOCS), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
