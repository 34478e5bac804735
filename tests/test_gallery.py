"""Every threat is in the gallery: on the page and as a picture of decent size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import gallery
from mithridate.roles import REGISTRY, Entry

PICTURES = sorted((gallery.DOCS / "gallery").glob("*.png"))


def test_every_threat_is_there_and_nothing_else() -> None:
    assert gallery.problems(gallery.DOCS) == [], "run python tools/gallery.py --missing"
    page = (gallery.DOCS / "gallery.md").read_text("utf-8")
    links = re.findall(r"\]\(gallery/(\w+)\.png\)", page)
    assert links == [entry.name for entry in gallery.entries()]


def test_pictures_are_small_and_say_what_was_measured() -> None:
    assert len(PICTURES) > 20
    assert sum(path.stat().st_size for path in PICTURES) < 2_000_000
    for path in PICTURES:
        assert path.stat().st_size <= gallery.LARGEST, path.name
        with Image.open(path) as picture:
            assert picture.width > 400 and "PSNR" in picture.info["Description"], path.name


def test_a_new_method_and_a_stray_picture_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery.md").write_text(gallery.page(tmp_path), "utf-8")
    for entry in gallery.entries():
        (tmp_path / "gallery" / f"{entry.name}.png").touch()
    assert gallery.problems(tmp_path) == []
    (tmp_path / "gallery" / "stray.png").touch()
    monkeypatch.setitem(REGISTRY, "newest", Entry("newest", "trigger", Entry, (), "", ""))
    wanted = ["newest is missing from the page", "newest is missing from the pictures", "stray is in the pictures, and no method"]
    assert gallery.problems(tmp_path) == wanted
    assert len(gallery.problems(tmp_path / "nowhere")) == 2 * len(gallery.entries())


def test_one_picture_is_drawn_again_and_the_page_tells_of_it(tmp_path: Path) -> None:
    gallery.draw(REGISTRY["badnets"], tmp_path)
    page = gallery.page(tmp_path)
    assert "### `badnets`\n\n" + REGISTRY["badnets"].summary in page
    assert "](gallery/badnets.png)\n\n<sub>stamped, 4 images of 32x32: largest change" in page


def test_photographs_are_photographs() -> None:
    photographs = gallery.photographs()
    assert tuple(photographs.images.shape) == (24, 3, gallery.SIDE, gallery.SIDE)
    assert torch.equal(photographs.labels.bincount(), torch.full((6,), 4))
    dahlia, lake = (photographs.images[photographs.labels == photographs.classes.index(name)].float() for name in ("dahlia", "lake"))
    assert dahlia[:, 0].mean() > dahlia[:, 2].mean() + 50  # orange
    assert lake.mean() > 150  # pale
