"""Public sets in their published layouts: tiny copies made here, hostile ones, and the real ones where they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import mithridate.datasets.registry as registry
from mithridate.datasets import DATASETS, data_root, images, load
from mithridate.datasets.cifar10 import read_batch
from mithridate.datasets.download import Remote, fetch
from mithridate.datasets.gtsrb import tracks
from mithridate.errors import BadFile, MissingData, MithridateError, UnsafeFile

RNG = np.random.default_rng(0)
REAL = os.environ.get("MITHRIDATE_DATA")


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# --- CIFAR-10


def cifar_batch(count: int, protocol: int = 2) -> tuple[bytes, np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    x, y = pixels(count, 3072), RNG.integers(0, 10, count).tolist()
    return pickle.dumps({"batch_label": "b", "labels": y, "data": x, "filenames": ["a.png"] * count}, protocol), x, y


@pytest.fixture
def cifar_files() -> dict[str, tuple[bytes, np.ndarray[Any, np.dtype[np.uint8]], list[int]]]:
    return {name: cifar_batch(4) for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar_batches_of_every_protocol_are_read_to_the_pixel(protocol: int) -> None:
    data, x, y = cifar_batch(3, protocol)
    got, labels = read_batch(data, "b")
    assert np.array_equal(got.numpy(), x.reshape(3, 3, 32, 32))
    assert labels.tolist() == y


def test_cifar_batch_as_python_2_wrote_it() -> None:
    x = pixels(2, 3072)
    raw = x.tobytes()
    state = (
        b"(I1\n(I2\nI3072\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nT"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )
    head = b"\x80\x02}(U\x06labels](I3\nI7\neU\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
    got, labels = read_batch(head + state + b"u.", "old")
    assert np.array_equal(got.numpy().reshape(2, -1), x)
    assert labels.tolist() == [3, 7]


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_cifar_folder_and_archive(tmp_path: Path, cifar_files: dict[str, Any], form: str) -> None:
    if form == "folder":
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, (data, _, _) in cifar_files.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(data)
    else:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            for name, (data, _, _) in cifar_files.items():
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    found = load("cifar10", root=tmp_path)
    assert (len(found.train), len(found.test), found.flips) == (20, 4, True)
    assert found.train.labels.tolist() == [y for i in range(1, 6) for y in cifar_files[f"data_batch_{i}"][2]]
    assert np.array_equal(found.test.images.numpy().reshape(4, -1), cifar_files["test_batch"][1])
    assert found.train.classes[3] == "cat"


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    with pytest.raises(BadFile, match="not a regular file"):
        load("cifar10", root=tmp_path)
    for data in (b"", b"no archive", path.read_bytes()[:-30], gzip.compress(bytes(1024))):
        path.write_bytes(data)
        with pytest.raises(BadFile, match="not a readable archive"):
            load("cifar10", root=tmp_path)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = pickle.dumps({"labels": [0], "data": Canary(canary)}, 2)
    with pytest.raises(UnsafeFile, match="system"):
        read_batch(data, "batch")
    assert not canary.exists()
    pickle.loads(data)
    assert canary.exists()  # the canary does sing where pickles are trusted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x02}.",
        b"\x80\x02]q\x00.",
        cifar_batch(2)[0][:-40],
        pickle.dumps({"labels": [0], "data": np.zeros((1, 100), np.uint8)}, 2),
        pickle.dumps({"labels": [0], "data": np.zeros((1, 3072), object)}, 2),
        pickle.dumps({"labels": ["x"], "data": np.zeros((1, 3072), np.uint8)}, 2),
        b"\x80\x02cnumpy\ndtype\n}U\x05_makeNs\x86b.",  # tries to change a stand-in
        b"\x80\x02c_codecs\nencode\nN}U\x05_makeNs\x86b.",
    ],
)
def test_damaged_batches_are_one_clear_error(data: bytes) -> None:
    with pytest.raises(BadFile, match="not a CIFAR-10 batch") as caught:
        read_batch(data, "batch")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [b"cbuiltins\neval\n", b"cos\nsystem\n", b"cnumpy\nload\n", b"ccodecs\nencode\n", b"cnumpy\nndarray.tofile\n"]
)
def test_no_other_name_is_looked_up(name: bytes) -> None:
    with pytest.raises(UnsafeFile, match="not part of a CIFAR-10 batch"):
        read_batch(b"\x80\x02" + name + b".", "batch")


def test_a_pickle_cannot_reserve_memory() -> None:
    with pytest.raises(UnsafeFile, match="memory slots"):
        read_batch(b"\x80\x02]r\xff\xff\xff\x7f.", "batch")


# --- IDX


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, packed: bool) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    folder.mkdir(parents=True)
    x, y = pixels(6, 28, 28), np.arange(6, dtype=np.uint8)
    for split in ("train", "t10k"):
        for name, array in ((f"{split}-images-idx3-ubyte", x), (f"{split}-labels-idx1-ubyte", y)):
            (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return x, y


@pytest.mark.parametrize(("name", "folder", "flips"), [("mnist", "MNIST", False), ("fashion_mnist", "FashionMNIST", True)])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_sets(tmp_path: Path, name: str, folder: str, flips: bool, packed: bool) -> None:
    x, y = write_idx(tmp_path / folder / "raw", packed)
    found = load(name, root=tmp_path)
    assert found.flips is flips
    assert np.array_equal(found.test.images[:, 0].numpy(), x)
    assert found.train.labels.tolist() == y.tolist()
    assert len(found.train.classes) == 10


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BadFile),
        (b"\0\0\x08\x03", BadFile),
        (idx(pixels(6, 28, 28))[:-1], BadFile),
        (idx(pixels(6, 28, 28)) + b"x", BadFile),
        (idx(pixels(6, 28)), BadFile),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 4), UnsafeFile),
        (idx(pixels(5, 28, 28)), BadFile),  # fewer than labels
    ],
)
def test_damaged_idx_files(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    write_idx(tmp_path / "MNIST" / "raw", packed=False)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(error, match="MNIST"):
        load("mnist", root=tmp_path)


# --- GTSRB


def ppm(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(size, size + 3, 3)).save(path)


def published_gtsrb(root: Path) -> None:
    for label in (0, 14):
        for track in (0, 1):
            for frame in (0, 29):
                ppm(root / f"GTSRB/Final_Training/Images/{label:05d}/{track:05d}_{frame:05d}.ppm", 20 + frame)
        (root / f"GTSRB/Final_Training/Images/{label:05d}/GT-{label:05d}.csv").write_text("Filename;ClassId\n")
    for i in range(3):
        ppm(root / f"GTSRB/Final_Test/Images/{i:05d}.ppm", 40)
    rows = "".join(f"{i:05d}.ppm;53;54;6;5;48;49;{label}\n" for i, label in enumerate((16, 1, 38)))
    (root / "GTSRB/Final_Test/Images/GT-final_test.csv").write_text("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n" + rows)


def test_gtsrb_as_published(tmp_path: Path) -> None:
    published_gtsrb(tmp_path)
    found = load("gtsrb", root=tmp_path)
    assert found.train.images.shape == (8, 3, 32, 32)
    assert found.train.labels.tolist() == [0] * 4 + [14] * 4
    assert found.train.names[1] == "00000/00000_00029"
    assert tracks(found.train).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.test.labels.tolist() == [16, 1, 38]
    assert found.train.classes[14] == "stop"
    assert not found.flips
    with pytest.raises(ValueError, match="track_frame"):
        tracks(found.test)


def test_gtsrb_archives_read_as_the_folders_do(tmp_path: Path) -> None:
    published_gtsrb(tmp_path / "plain")
    (tmp_path / "zipped").mkdir()
    for archive, inside, name in (
        ("GTSRB-Training_fixed.zip", "GTSRB/Final_Training/Images", "GTSRB/Training"),
        ("GTSRB_Final_Test_Images.zip", "GTSRB/Final_Test/Images", "GTSRB/Final_Test/Images"),
    ):
        with zipfile.ZipFile(tmp_path / "zipped" / archive, "w") as file:
            for path in sorted((tmp_path / "plain" / inside).rglob("*.ppm")):
                file.write(path, f"{name}/{path.relative_to(tmp_path / 'plain' / inside).as_posix()}")
    with zipfile.ZipFile(tmp_path / "zipped" / "GTSRB_Final_Test_GT.zip", "w") as file:
        file.write(tmp_path / "plain/GTSRB/Final_Test/Images/GT-final_test.csv", "GT-final_test.csv")
    plain, zipped = load("gtsrb", root=tmp_path / "plain"), load("gtsrb", root=tmp_path / "zipped")
    assert torch.equal(plain.train.images, zipped.train.images)
    assert torch.equal(plain.test.labels, zipped.test.labels)
    assert plain.train.names == zipped.train.names


def test_gtsrb_class_folders_and_a_list_that_does_not_fit(tmp_path: Path) -> None:
    for split in ("train", "test"):
        ppm(tmp_path / f"a/gtsrb/{split}/00042/00007.png", 32)
    assert load("gtsrb", root=tmp_path / "a").test.labels.tolist() == [42]
    published_gtsrb(tmp_path / "b")
    (tmp_path / "b/GTSRB/Final_Test/Images/GT-final_test.csv").write_text("Filename;ClassId\n00000.ppm;1\n")
    with pytest.raises(BadFile, match="does not fit"):
        load("gtsrb", root=tmp_path / "b")


# --- digits, npz, roots, missing sets


def test_digits_are_always_there_and_always_the_same(tmp_path: Path) -> None:
    first, second = load("digits", root=tmp_path), load("digits")
    assert (len(first.train), len(first.test), first.flips) == (1297, 500, False)
    assert first.train.images.shape[1:] == (1, 16, 16)
    assert first.test.labels.bincount().tolist() == [50] * 10
    assert torch.equal(first.train.images, second.train.images)
    assert int(first.train.images.max()) == 255


def test_a_single_npz_stands_for_a_set(tmp_path: Path) -> None:
    x, y = pixels(5, 32, 32, 3), np.arange(5)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    found = load("cifar10", root=tmp_path)
    assert np.array_equal(found.train.images.permute(0, 2, 3, 1).numpy(), x)
    assert found.test.classes == DATASETS["cifar10"].classes
    assert len(images("cifar10:train", root=tmp_path)) == 5
    assert len(images("cifar10", root=tmp_path)) == 2
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y + 9, x_test=x, y_test=y)
    with pytest.raises(BadFile, match="not cifar10"):
        load("cifar10", root=tmp_path)


def test_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MITHRIDATE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "a") == tmp_path / "a"
    monkeypatch.delenv("MITHRIDATE_DATA")
    assert "mithridate" in data_root().parts


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "mnist", "fashion_mnist"])
def test_without_network_the_error_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    def offline(*_: object) -> Path:
        raise OSError("no network")

    monkeypatch.setattr(registry, "fetch", offline)
    with pytest.raises(MissingData, match=rf"{name} is not in .*no network.*put {name}\.npz") as caught:
        load(name, root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(MissingData, match="did you mean cifar10"):
        load("cifar-10")
    with pytest.raises(ValueError, match="split of digits"):
        images("digits:validation")


# --- download

BODY = bytes(range(256)) * 40
GOOD = Remote("https://example.org/a/set.bin", "a/set.bin", hashlib.md5(BODY).hexdigest(), len(BODY))


def client(seen: list[str], status: int = 206, body: bytes = BODY) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Range", ""))
        start = int(seen[-1][6:-1] or 0) if seen[-1] and status == 206 else 0
        return httpx.Response(206 if start else 200 if status == 206 else status, stream=httpx.ByteStream(body[start:]))

    return httpx.Client(transport=httpx.MockTransport(answer))


def test_download_whole_then_found(tmp_path: Path) -> None:
    seen: list[str] = []
    steps: list[tuple[int, int]] = []
    path = fetch(GOOD, tmp_path, lambda task, done, total, note="": steps.append((done, total)), client(seen))
    assert path.read_bytes() == BODY
    assert steps[-1] == (len(BODY), len(BODY))
    assert fetch(GOOD, tmp_path, client=client(seen)) == path
    assert seen == [""]


@pytest.mark.parametrize(("status", "ranges"), [(206, ["bytes=1000-"]), (200, ["bytes=1000-"])])
def test_download_resumes_or_starts_anew(tmp_path: Path, status: int, ranges: list[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/set.bin.part").write_bytes(BODY[:1000])
    seen: list[str] = []
    assert fetch(GOOD, tmp_path, client=client(seen, status)).read_bytes() == BODY
    assert seen == ranges
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["set.bin"]


def test_a_part_that_is_whole_already_needs_no_network(tmp_path: Path) -> None:
    for size in (len(BODY), 0):  # known in advance, or told by the server
        seen: list[str] = []
        remote = Remote(GOOD.url, f"{size}.bin", GOOD.md5, size)
        (tmp_path / f"{size}.bin.part").write_bytes(BODY)
        assert fetch(remote, tmp_path, client=client(seen, 416)).read_bytes() == BODY
        assert seen == ([] if size else [f"bytes={len(BODY)}-"])


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", BODY[::-1], b""])
def test_a_wrong_download_is_removed(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(BadFile, match="MD5"):
        fetch(GOOD, tmp_path, client=client([], body=body))
    assert list((tmp_path / "a").iterdir()) == []


def test_a_refusing_server_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        fetch(GOOD, tmp_path, client=client([], status=404))


def test_a_fetched_set_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def online(remote: Remote, root: Path, progress: object) -> Path:
        if not (root / "MNIST").exists():
            write_idx(root / "MNIST" / "raw", packed=True)
        return root / remote.path

    monkeypatch.setattr(registry, "fetch", online)
    assert len(load("mnist", root=tmp_path).train) == 6


# --- the real sets


FACTS = {
    "cifar10": (50_000, 10_000, (0.4914, 0.4822, 0.4465)),
    "gtsrb": (None, 12_630, None),
    "mnist": (60_000, 10_000, (0.1307,)),
    "fashion_mnist": (60_000, 10_000, (0.2860,)),
}


@pytest.mark.skipif(not REAL, reason="MITHRIDATE_DATA is unset: no real data")
@pytest.mark.parametrize("name", FACTS)
def test_real_sets_have_their_published_counts_and_means(name: str) -> None:
    try:
        found = load(name, root=Path(REAL or ""))
    except MithridateError as error:
        pytest.skip(f"not under MITHRIDATE_DATA: {error}")
    train, test, mean = FACTS[name]
    assert train is None or len(found.train) == train
    assert len(found.test) == test
    if mean is not None:
        got = found.train.images.sum((0, 2, 3), dtype=torch.int64) / found.train.images[:, 0].numel() / 255
        torch.testing.assert_close(got, torch.tensor(mean), atol=1e-4, rtol=0)
