"""The user's own images: folders, zips, `.npz` files, hub sets; hostile ones too; memory maps and export."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import types
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mithridate.data import Samples
from mithridate.datasets import folder, images, listing, load, npz, open_memmap, pixels, write_folder, write_memmap, write_npz
from mithridate.datasets.sources import parse
from mithridate.datasets.wanted import Wanted, conform, match, take
from mithridate.errors import BadFile, MissingData, MissingExtra, MithridateError, UnsafeFile

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def png(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of three 8x8 RGB images, with things beside them that are no images."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "pets" / name / f"{i}.png").write_bytes(png(np.full((8, 8, 3), 100 * label + i, np.uint8)))
    (tmp_path / "pets" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("x")
    return tmp_path / "pets"


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


# --- folders


def test_class_folders(pets: Path) -> None:
    found = images(pets)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert found.names[4] == "dog/1.png"
    assert found.images.shape == (6, 3, 8, 8)


def test_folder_names_follow_the_models_classes(pets: Path) -> None:
    found = images(pets, classes=["bird", "Dog", "cat"])
    assert found.labels.tolist() == [2, 2, 2, 1, 1, 1]
    assert found.classes == ("bird", "Dog", "cat")
    with pytest.raises(ValueError, match=r"classes has no 'cat'.*bird, dog"):
        images(pets, classes=["bird", "dog"])


def test_numbers_and_odd_signs_match() -> None:
    assert match(["00001", "0"], ["stop", "yield"], "x") == [1, 0]
    assert match(["t-shirt_top"], ["bag", "t-shirt/top"], "x") == [1]
    with pytest.raises(ValueError, match="'2'"):
        match(["2"], ["stop", "yield"], "x")


def test_flat_folder_is_unlabeled(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(array(8, 8)))
    found = images(tmp_path)
    assert found.labels.tolist() == [0, 0, 0]
    assert found.names == ("0.png", "1.png", "2.png")
    assert found.images.shape[1] == 1
    assert images(tmp_path, classes=["a", "b"], channels=3).classes == ("a", "b")


def test_one_image_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(array(8, 8, 3)))
    assert images(tmp_path / "a.png", size=(4, 4)).images.shape == (1, 3, 4, 4)


def test_sizes_and_channels_are_made_as_wanted(pets: Path) -> None:
    (pets / "dog" / "big.png").write_bytes(png(np.full((16, 20), 7, np.uint8)))
    with pytest.raises(ValueError, match=r"size must be given: .*8x8 to 20x16"):
        images(pets)
    found = images(pets, size=(4, 6), channels=1)
    assert found.images.shape == (7, 1, 4, 6)
    assert found.images[-1].unique().tolist() == [7]


def test_train_and_test_folders(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("test", 2)):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "0.png").write_bytes(png(np.full((8, 8), value, np.uint8)))
    found = load(tmp_path)
    assert (found.train.images.unique().tolist(), found.test.images.unique().tolist()) == ([1], [2])
    assert images(tmp_path).images.unique().tolist() == [2]
    assert images(f"{tmp_path}:train").images.unique().tolist() == [1]


def test_load_splits_a_plain_folder_always_alike(pets: Path) -> None:
    for i in range(3, 10):
        for name in ("cat", "dog"):
            (pets / name / f"{i}.png").write_bytes(png(array(8, 8, 3)))
    first, second = load(pets), load(pets, flips=False)
    assert (len(first.train), len(first.test), first.name, first.flips, second.flips) == (16, 4, "pets", True, False)
    assert first.test.labels.tolist() == [0, 0, 1, 1]
    assert first.test.names == second.test.names
    assert not set(first.test.names) & set(first.train.names)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.png", b"this is text"),
        ("empty.png", b""),
        ("short.png", png(array(32, 32, 3))[:-200]),
        ("short.jpg", png(array(64, 64, 3), "JPEG")[:400]),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) run\n"),
        ("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ],
)
def test_damaged_images_are_named(pets: Path, name: str, data: bytes) -> None:
    (pets / "cat" / name).write_bytes(data)
    with pytest.raises(BadFile, match=name) as caught:
        images(pets, size=(8, 8), channels=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [9000, 10_000, 60_000])
def test_decompression_bombs_are_refused(pets: Path, side: int) -> None:
    (pets / "cat" / "bomb.png").write_bytes(png_header(side, side))
    for size in (None, (8, 8)):
        with pytest.raises(UnsafeFile, match="bomb.png.*pixels"):
            images(pets, size=size, channels=3)


def test_all_modes_become_grey_or_rgb() -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    assert np.array_equal(pixels.decode(png(deep), "deep", None, 1)[..., 0], (deep / 257).round().astype(np.uint8))
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (5, 4)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        for channels in (1, 3):
            assert pixels.decode(buffer.getvalue(), mode, None, channels).shape == (4, 5, channels)
    palette = Image.new("P", (4, 4))
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=b"\0\1\2")
    assert pixels.decode(buffer.getvalue(), "p", None, 3).shape == (4, 4, 3)


def test_folders_without_images(tmp_path: Path, pets: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingData, match="holds no images"):
        images(tmp_path / "none")
    with pytest.raises(MissingData, match="neither a file"):
        images(tmp_path / "absent")
    with pytest.raises(MissingData, match="no folder 'train'"):
        images(f"{pets}:train")
    (pets / "stray.png").write_bytes(png(array(8, 8)))
    with pytest.raises(BadFile, match=r"beside them \(stray.png\)"):
        images(pets)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_among_images_does_not_block(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe.png")
    assert len(images(pets)) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links(pets: Path, tmp_path: Path) -> None:
    (pets / "wolf").symlink_to(pets / "dog", target_is_directory=True)
    assert images(pets).classes == ("cat", "dog", "wolf")
    (pets / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"cannot be read.*gone\.png"):
        images(pets)


def test_a_file_that_is_too_large(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILE", 10)
    with pytest.raises(UnsafeFile, match="allowed for one image"):
        images(pets)


# --- zips


def test_a_zip_reads_as_its_folder_does(pets: Path, tmp_path: Path) -> None:
    entries = {f"wrapped/pets/{p.relative_to(pets).as_posix()}": p.read_bytes() for p in sorted(pets.rglob("*.*")) if p.is_file()}
    path = zipped(tmp_path / "pets.zip", {**entries, "__MACOSX/x.png": b"x"})
    plain, found = images(pets), images(path)
    assert torch.equal(plain.images, found.images)
    assert (plain.names, plain.classes) == (found.names, found.classes)
    assert images(f"{path}:4").labels.tolist() == [0, 0, 1, 1]
    assert load(path).train.classes == ("cat", "dog")


def test_a_zip_of_loose_images_is_flat(tmp_path: Path) -> None:
    path = zipped(tmp_path / "loose.zip", {f"loose/{i}.png": png(array(8, 8)) for i in range(2)})
    assert images(path, classes=["a", "b"]).labels.tolist() == [0, 0]
    assert images(path, classes=["a", "loose"]).labels.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png"])
def test_paths_that_climb_are_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", {name: png(array(8, 8)), "ok.png": png(array(8, 8))})
    with pytest.raises(UnsafeFile, match="outside of the archive"):
        images(path)


def test_zip_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILE", 2**16)
    path = zipped(tmp_path / "a.zip", {"a.png": b"\0" * 2**17})
    with pytest.raises(UnsafeFile, match="claims to unpack"):
        images(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24  # the directory's size of the entry
    data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(MithridateError):  # a lie about the size
        images(path)
    monkeypatch.setattr(listing, "MAX_TOTAL", 100)
    with pytest.raises(UnsafeFile, match="unpacks to"):
        images(zipped(tmp_path / "b.zip", {f"{i}.png": array(60).tobytes() for i in range(3)}))
    monkeypatch.setattr(listing, "MAX_ENTRIES", 2)
    with pytest.raises(UnsafeFile, match="3 entries"):
        images(tmp_path / "b.zip")


@pytest.mark.parametrize("data", [b"", b"PK\3\4 no zip", b"x" * 100])
def test_what_is_no_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(BadFile, match=r"neither an image nor a readable \.zip"):
        images(tmp_path / "a.zip")


def test_a_damaged_zip_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", png(array(8, 8)))
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadFile):
        images(path)


# --- npz


@pytest.mark.parametrize("form", ["nhwc", "nchw", "nhw", "float"])
@pytest.mark.parametrize("keys", [("x_train", "y_train"), ("images", "labels"), ("x", "y")])
def test_npz_forms(tmp_path: Path, form: str, keys: tuple[str, str]) -> None:
    x = array(4, 6, 5) if form == "nhw" else array(4, 6, 5, 3)
    stored: Any = {"nchw": x.transpose(0, 3, 1, 2) if x.ndim == 4 else x, "float": x / 255}.get(form, x)
    np.savez(tmp_path / "a.npz", **{keys[0]: stored, keys[1]: np.arange(4, dtype=np.int32)[:, None]})
    found = images(tmp_path / "a.npz")
    want = torch.tensor(x)[:, None] if form == "nhw" else torch.tensor(x).permute(0, 3, 1, 2)
    assert torch.equal((found.images * 255).round() if form == "float" else found.images, want)
    assert found.images.dtype == (torch.float32 if form == "float" else torch.uint8)
    assert found.labels.tolist() == [0, 1, 2, 3]


def test_npz_splits(tmp_path: Path) -> None:
    x = array(10, 4, 4, 3)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(10) % 2, x_test=x[:4], y_test=np.zeros(4, int))
    found = load(tmp_path / "a.npz")
    assert (len(found.train), len(found.test), found.test.classes, found.name) == (10, 4, ("0", "1"), "a")
    assert len(images(f"{tmp_path}/a.npz:train:6")) == 6
    np.savez(tmp_path / "b.npz", images=x)
    assert len(load(tmp_path / "b.npz").test) == 2
    assert images(tmp_path / "b.npz").classes == ("unlabeled",)
    assert images(tmp_path / "b.npz", classes=["cat", "dog"]).classes == ("cat", "dog")
    with pytest.raises(MissingData, match="no 'train' images"):
        images(f"{tmp_path}/b.npz:train")


@pytest.mark.parametrize(
    ("arrays", "error", "text"),
    [
        ({"pictures": array(2, 4, 4)}, BadFile, "needs x_train"),
        ({"x": array(2, 4, 4).astype(np.int64)}, ValueError, "x must be uint8 or floats"),
        ({"x": array(2, 4)}, ValueError, r"x must have shape.*\(2, 4\)"),
        ({"x": array(2, 4, 4, 5)}, ValueError, "1 or 3 channels"),
        ({"x": np.full((2, 4, 4), 3.5)}, ValueError, r"\[0, 1\], got \[3.5, 3.5\]"),
        ({"x": np.full((2, 4, 4), np.nan)}, ValueError, r"\[0, 1\]"),
        ({"x": array(2, 4, 4), "y": np.zeros(3, int)}, ValueError, "y must be 2 integers"),
        ({"x": array(2, 4, 4), "y": np.zeros(2)}, ValueError, "y must be 2 integers"),
        ({"x": array(2, 4, 4), "y": np.array([0, -1])}, ValueError, "got -1"),
        ({"x": np.array([{}, {}], dtype=object)}, BadFile, "never loaded"),
    ],
)
def test_npz_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], error: type[Exception], text: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(error, match=text) as caught:
        images(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_npz_that_lie_or_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 32, 32, 3)})
    with pytest.raises(UnsafeFile, match="claims shape"):
        images(zipped(tmp_path / "a.npz", {"x.npy": buffer.getvalue()}))
    with pytest.raises(BadFile, match="no readable header"):
        images(zipped(tmp_path / "b.npz", {"x.npy": b"no header"}))
    (tmp_path / "c.npz").write_bytes(b"no zip")
    with pytest.raises(BadFile, match=r"not a readable \.npz"):
        images(tmp_path / "c.npz")
    with pytest.raises(BadFile, match=r"not a readable \.npz"):
        load(tmp_path / "c.npz")
    monkeypatch.setattr(npz, "MAX_BYTES", 100)
    np.savez(tmp_path / "d.npz", x=array(2, 32, 32))
    with pytest.raises(UnsafeFile, match="unpacks to"):
        images(tmp_path / "d.npz")


# --- what is wanted


def test_limits_are_balanced_random_and_repeatable() -> None:
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    kept = take(labels, 30, 1)
    assert labels[kept].bincount().tolist() == [20, 8, 2]
    assert torch.equal(kept, take(labels, 30, 1))
    assert not torch.equal(kept, take(labels, 30, 2))
    assert torch.equal(kept, kept.unique())
    with pytest.raises(ValueError, match="at most the 100 images there are, got 101"):
        take(labels, 101, 0)


def test_limits_of_a_named_set() -> None:
    before = torch.get_rng_state()
    found = images("digits:test:100", size=(8, 8), channels=3, seed=3)
    assert found.images.shape == (100, 3, 8, 8)
    assert found.labels.bincount().tolist() == [10] * 10
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("cifar10", ("cifar10", None, None)),
        ("cifar10:test:1000", ("cifar10", "test", 1000)),
        ("cifar10:50", ("cifar10", None, 50)),
        ("C:\\data\\x.npz:train", ("C:\\data\\x.npz", "train", None)),
        ("hf:user/set:test:5", ("hf:user/set", "test", 5)),
    ],
)
def test_sources_are_taken_apart(source: str, parts: tuple[str, str | None, int | None]) -> None:
    assert parse(source) == parts


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"size": (0, 4)}, "size"), ({"channels": 2}, "channels"), ({"limit": 0}, "limit")],
)
def test_wishes_are_checked(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Wanted(**fields)


@pytest.mark.parametrize("size", [(8, 8), (20, 40)])
def test_arrays_are_resized_and_recolored_as_pillow_does(size: tuple[int, int]) -> None:
    x = array(16, 24, 3)
    samples = Samples(torch.tensor(x).permute(2, 0, 1)[None], torch.zeros(1, dtype=torch.int64))
    image = Image.fromarray(x)
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    got = conform(samples, Wanted(size=size), "x").images[0].permute(1, 2, 0).numpy()
    assert np.abs(got - resized).max() <= 1
    grey = conform(samples, Wanted(channels=1), "x").images[0, 0].numpy()
    assert np.abs(grey - np.asarray(image.convert("L")).astype(int)).max() <= 1
    assert conform(samples, Wanted(), "x") is samples


def test_classes_of_a_named_set_are_matched_to_the_models() -> None:
    reverse = tuple(reversed("0123456789"))
    assert images("digits:test", classes=reverse).labels[:5].tolist() == [9 - v for v in images("digits:test").labels[:5].tolist()]
    assert images("digits:test", classes=[f"class {i}" for i in range(10)]).classes[0] == "class 0"
    with pytest.raises(ValueError, match="classes has no"):
        images("digits:test", classes=["a", "b"])


# --- memory maps


def test_memory_map_round_trip_without_loading(tmp_path: Path) -> None:
    parts = [
        Samples(torch.tensor(array(n, 3, 4, 5)), torch.arange(n), ("a", "b", "c"), tuple(f"{n}_{i}" for i in range(n))) for n in (2, 3)
    ]
    write_memmap(iter(parts), tmp_path / "m")
    found = open_memmap(tmp_path / "m")
    assert torch.equal(found.images, torch.cat([p.images for p in parts]))
    assert found.labels.tolist() == [0, 1, 0, 1, 2]
    assert (found.classes, found.names[3]) == (("a", "b", "c"), "3_1")
    before = (tmp_path / "m" / "images.npy").read_bytes()
    found.images[0] = 0  # changes memory, never the file
    assert (tmp_path / "m" / "images.npy").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_opening_a_memory_map_does_not_read_its_pixels(tmp_path: Path) -> None:
    part = Samples(torch.zeros((1000, 3, 64, 64), dtype=torch.uint8), torch.zeros(1000, dtype=torch.int64), ("a",))
    write_memmap((part for _ in range(16)), tmp_path / "m")  # 197 MB
    script = f"""
from pathlib import Path
from mithridate.datasets import open_memmap
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
open_memmap(Path({str(tmp_path / "m")!r}))
before = resident()
found = open_memmap(Path({str(tmp_path / "m")!r}))
opened = resident() - before
sum(int(x.sum()) for x, _ in found[:4000].batches(500))
assert found.images.numel() == 196_608_000
print(opened, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    opened, read = map(int, done.stdout.split())
    assert opened < 5e6
    assert read > 4e7  # the ruler works: what is read does count


def test_memory_maps_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_memmap([], tmp_path / "m")
    floats = Samples(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="uint8"):
        write_memmap([floats], tmp_path / "m")
    small, large = (Samples(torch.zeros((1, 1, s, s), dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)) for s in (2, 3))
    with pytest.raises(ValueError, match="shape"):
        write_memmap([small, large], tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadFile, match="not a memory map"):
        open_memmap(tmp_path / "m")
    write_memmap([small], tmp_path / "m")
    write_memmap([large], tmp_path / "m")  # the first one stays
    assert open_memmap(tmp_path / "m").images.shape == (1, 1, 2, 2)
    data = (tmp_path / "m" / "images.npy").read_bytes()
    (tmp_path / "m" / "images.npy").write_bytes(data[:-1])
    with pytest.raises(BadFile):
        open_memmap(tmp_path / "m")


def test_large_folders_go_through_a_memory_map(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = images(pets)
    monkeypatch.setattr(folder, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(folder, "cache_folder", lambda *parts: tmp_path.joinpath("cache", *parts))
    found, again = images(pets), images(pets)
    assert torch.equal(found.images, plain.images)
    assert (found.names, found.labels.tolist()) == (plain.names, plain.labels.tolist())
    assert torch.equal(again.images, plain.images)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1
    (pets / "cat" / "new.png").write_bytes(png(array(8, 8, 3)))
    assert len(images(pets)) == 7
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


# --- export


def test_npz_round_trip(tmp_path: Path) -> None:
    for x in (torch.tensor(array(3, 3, 4, 5)), torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(0))):
        given = Samples(x, torch.tensor([1, 0, 1]), ("a/b", "ä"), ("x", "y", "z"))
        write_npz(given, tmp_path / "new" / "a.npz")
        found = images(tmp_path / "new" / "a.npz")
        assert torch.equal(found.images, given.images)
        assert (found.labels.tolist(), found.classes, found.names) == ([1, 0, 1], given.classes, given.names)


def test_folder_round_trip(tmp_path: Path) -> None:
    given = Samples(torch.tensor(array(3, 3, 4, 5)), torch.tensor([2, 0, 1]), ("a/b", "A_b", "../c"), ("x", "y", "z"))
    write_folder(given, tmp_path / "out")
    found = images(tmp_path / "out", classes=given.classes)
    order = found.labels.argsort()
    assert torch.equal(found.images[order], given.images[given.labels.argsort()])
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [row["source"] for row in rows] == ["x", "y", "z"]
    assert rows[0] == {"file_name": rows[0]["file_name"], "label": 2, "class": "../c", "source": "x"}
    assert all((tmp_path / "out" / row["file_name"]).is_file() for row in rows)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ValueError, match="new or empty"):
        write_folder(given, tmp_path / "out")


def test_floats_are_rounded_into_grey_files(tmp_path: Path) -> None:
    write_folder(Samples(torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 0])), tmp_path / "out")
    assert images(tmp_path / "out").images.unique().tolist() == [128]


# --- hub


class FakeRows(list[Any]):
    """As much of a hub data set as is used."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
        super().__init__(rows)
        self.features = features

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def cast_column(self, column: str, kind: Any) -> FakeRows:
        return self

    def select(self, index: list[int]) -> FakeRows:
        return FakeRows([list.__getitem__(self, i) for i in index], self.features)


class FakeImage:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class FakeLabel:
    names = ("cat", "dog")


def fake_hub(monkeypatch: pytest.MonkeyPatch, features: dict[str, Any]) -> None:
    rows = [{"img": {"bytes": png(np.full((8, 8, 3), i, np.uint8)), "path": None}, "label": i % 2} for i in range(6)]

    def load_dataset(name: str, split: str) -> FakeRows:
        if name == "absent":
            raise FileNotFoundError("Couldn't find it\nat all")
        return FakeRows(rows, features)

    module = types.SimpleNamespace(Image=FakeImage, ClassLabel=FakeLabel, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, {"img": FakeImage(), "label": FakeLabel()})
    found = images("hf:user/pets:test:4", classes=["dog", "cat"])
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1]
    assert [int(x.max()) % 2 for x in found.images] == [1 - y for y in found.labels.tolist()]
    assert load("hf:user/pets").name == "pets"
    with pytest.raises(MissingData, match="Couldn't find it") as caught:
        images("hf:absent")
    assert "\n" not in str(caught.value)
    fake_hub(monkeypatch, {"label": FakeLabel()})
    with pytest.raises(BadFile, match="no image column"):
        images("hf:user/pets")


def test_hub_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"mithridate\[hub\]"):
        images("hf:user/pets")
