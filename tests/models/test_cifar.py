"""CIFAR's binary version, on tiny files of the same format."""

from pathlib import Path

import pytest
import torch

from mipprune.errors import DataFileError, InputError
from mipprune.models import Dataset, load_data
from mipprune.models._cifar import CIFAR_SETS, parse_cifar
from tests.models.files import cifar_record


def write_cifar(root: Path, name: str, n: int = 20) -> None:
    known = CIFAR_SETS[name]
    folder = root / known.folder
    folder.mkdir(parents=True)
    for number, file_name in enumerate((*known.train_files, known.test_file)):
        records = []
        for i in range(n):
            labels = [i % known.n_classes] if known.label_bytes == 1 else [19, i % known.n_classes]
            records.append(cifar_record(labels, i, number, 7))
        (folder / file_name).write_bytes(b"".join(records))


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_records_are_label_then_planes(label_bytes: int) -> None:
    labels = [4] if label_bytes == 1 else [9, 4]
    content = cifar_record(labels, 10, 20, 30)
    # The second pixel of the second row of the green plane.
    place = label_bytes + 1024 + 32 + 1
    content = content[:place] + bytes([99]) + content[place + 1 :]
    images, got = parse_cifar(content, label_bytes, "x")
    assert images.shape == (1, 3, 32, 32)
    assert got.tolist() == [4]
    assert images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert int(images[0, 1, 1, 1]) == 99


@pytest.mark.parametrize("content", [b"", b"x" * 3072, b"x" * 3074])
def test_other_lengths_are_refused(content: bytes) -> None:
    with pytest.raises(DataFileError, match="multiple of 3073"):
        parse_cifar(content, 1, "x")


@pytest.mark.parametrize(("name", "n_train"), [("cifar10", 100), ("cifar100", 20)])
def test_load_a_tiny_set(tmp_path: Path, name: str, n_train: int) -> None:
    write_cifar(tmp_path, name)
    data = load_data(name, tmp_path, validation=10, verify=False)
    assert isinstance(data, Dataset)
    assert data.image_shape == (3, 32, 32)
    assert (len(data.train), len(data.validation), len(data.test)) == (n_train - 10, 10, 20)
    for split in (data.train, data.validation):
        images = split.images()
        assert torch.equal(images[:, 0, 0, 0].long() % data.n_classes, split.labels)
        # The green plane holds the number of the file.
        assert torch.equal(images[:, 1, 0, 0].long(), split.indices // 20)
    assert len(data.files) == len(CIFAR_SETS[name].train_files) + 1


@pytest.mark.parametrize("name", sorted(CIFAR_SETS))
def test_missing_and_short_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFileError, match="curl -LO"):
        load_data(name, tmp_path)
    write_cifar(tmp_path, name)
    with pytest.raises(DataFileError, match="has 20 images"):
        load_data(name, tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(cifar_record([10], 0, 0, 0))
    with pytest.raises(InputError, match="run from 10 to 10"):
        load_data("cifar10", tmp_path, validation=10, verify=False)
