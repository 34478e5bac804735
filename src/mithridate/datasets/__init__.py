"""Images: public sets by name, the user's own folders and files, and what writes them back."""

from mithridate.datasets.export import write_folder, write_npz
from mithridate.datasets.memmap import open_memmap, write_memmap
from mithridate.datasets.registry import DATASETS
from mithridate.datasets.root import data_root
from mithridate.datasets.sources import Dataset, images, load

__all__ = ["DATASETS", "Dataset", "data_root", "images", "load", "open_memmap", "write_folder", "write_memmap", "write_npz"]
