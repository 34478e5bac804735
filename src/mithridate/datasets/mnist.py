"""MNIST: 70,000 grey 28x28 images of handwritten digits (LeCun, Cortes and Burges 1998)."""

from __future__ import annotations

from pathlib import Path

from mithridate.datasets.download import Remote
from mithridate.datasets.idx import read_pair
from mithridate.datasets.published import Pair, Published


def read(root: Path) -> Pair | None:
    """60,000 training and 10,000 test images (n, 1, 28, 28), uint8, from `MNIST/raw`."""
    return read_pair(root / "MNIST" / "raw", MNIST.classes)


def _remote(name: str, md5: str, size: int) -> Remote:
    return Remote(f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", f"MNIST/raw/{name}", md5, size)


MNIST = Published(
    "mnist",
    tuple("0123456789"),
    False,
    read,
    (
        _remote("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
        _remote("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28881),
        _remote("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1648877),
        _remote("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4542),
    ),
    "its four IDX files in MNIST/raw",
)
