"""CIFAR-10 and CIFAR-100 in their binary version (no pickles).

A record is the label byte (CIFAR-100: coarse, then fine) and 3072 bytes of
the image: red, green, blue plane of 32x32, row by row.

References
----------
Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mipprune.errors import DataFileError
from mipprune.models._dataset import Augmentation, Dataset, make_dataset
from mipprune.models._files import check_digest, find_file, read_bytes, search_folders

__all__ = ["CIFAR_SETS", "CifarSet", "load_cifar", "parse_cifar"]

_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class CifarSet:
    """Files, records per file, label bytes per record, statistics of a CIFAR set."""

    title: str
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    train_records: int
    label_bytes: int
    n_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    archive: str

    @property
    def how(self) -> str:
        """Commands that get the files."""
        return f"curl -LO https://www.cs.toronto.edu/~kriz/{self.archive} && tar xzf {self.archive}"


CIFAR_SETS: Mapping[str, CifarSet] = {
    "cifar10": CifarSet(
        title="CIFAR-10",
        folder="cifar-10-batches-bin",
        train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test_file="test_batch.bin",
        train_records=10_000,
        label_bytes=1,
        n_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        archive="cifar-10-binary.tar.gz",
    ),
    "cifar100": CifarSet(
        title="CIFAR-100",
        folder="cifar-100-binary",
        train_files=("train.bin",),
        test_file="test.bin",
        train_records=50_000,
        label_bytes=2,
        n_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        archive="cifar-100-binary.tar.gz",
    ),
}
_TEST_RECORDS = 10_000


def parse_cifar(content: bytes, label_bytes: int, name: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (n, 3, 32, 32) and labels int64 (n,), the last label byte of each record.

    Raises
    ------
    DataFileError
        If the length is not a positive multiple of the record's.
    """
    record = label_bytes + _IMAGE_BYTES
    if not content or len(content) % record:
        raise DataFileError(
            f"'{name}' has {len(content)} bytes, expected a multiple of {record}: the file is "
            "cut, damaged or not the binary version"
        )
    table = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    labels = torch.from_numpy(table[:, label_bytes - 1].astype(np.int64))
    images = torch.from_numpy(table[:, label_bytes:].reshape(-1, *_SHAPE).copy())
    return images, labels


def load_cifar(
    name: str, root: str | Path | None, *, validation: int, split_seed: int, verify: bool
) -> Dataset:
    """Read the binary files of ``CIFAR_SETS[name]``; see :func:`mipprune.models.load_data`."""
    known = CIFAR_SETS[name]
    folders = search_folders(root, (known.folder, name))
    files: dict[str, str] = {}

    def read(file_name: str, records: int) -> tuple[Tensor, Tensor]:
        path = find_file((file_name,), folders, known.title, known.how)
        content = read_bytes(path, known.how)
        images, labels = parse_cifar(content, known.label_bytes, str(path))
        if verify and len(images) != records:
            raise DataFileError(
                f"'{path}' has {len(images)} images, {known.title} has {records} in that file; "
                f"get it again: {known.how}; or pass verify=False for other data of this format"
            )
        files[file_name] = check_digest(content, path, None, known.how)
        return images, labels

    parts = [read(file_name, known.train_records) for file_name in known.train_files]
    return make_dataset(
        name,
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])),
        read(known.test_file, _TEST_RECORDS),
        n_classes=known.n_classes,
        image_shape=_SHAPE,
        mean=known.mean,
        std=known.std,
        validation=validation,
        augmentation=Augmentation(padding=4, flip=True),
        files=files,
        split_seed=split_seed,
    )
