"""Fashion-MNIST: 70,000 grey 28x28 images of clothes (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

from __future__ import annotations

from pathlib import Path

from mithridate.datasets.download import Remote
from mithridate.datasets.idx import read_pair
from mithridate.datasets.published import Pair, Published


def read(root: Path) -> Pair | None:
    """60,000 training and 10,000 test images (n, 1, 28, 28), uint8, from `FashionMNIST/raw`."""
    return read_pair(root / "FashionMNIST" / "raw", FASHION_MNIST.classes)


def _remote(name: str, md5: str, size: int) -> Remote:
    return Remote(f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}", f"FashionMNIST/raw/{name}", md5, size)


FASHION_MNIST = Published(
    "fashion_mnist",
    ("t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    True,
    read,
    (
        _remote("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880),
        _remote("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29515),
        _remote("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4422102),
        _remote("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5148),
    ),
    "its four IDX files in FashionMNIST/raw",
)
