"""idx files: tiny ones written here, and the real ones where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mipprune.errors import DataFileError, InputError
from mipprune.models import DATA_VARIABLE, Dataset, batches, load_data
from mipprune.models._idx import IDX_SETS, parse_idx
from tests.models.files import idx_bytes, write_idx_set


def load_tiny(root: Path, name: str = "mnist") -> Dataset:
    data = load_data(name, root, validation=10, verify=False)
    assert isinstance(data, Dataset)
    return data


def test_parse_reverses_the_writer() -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse_idx(idx_bytes(array), 3, "x"), array)


def test_parse_a_file_by_hand() -> None:
    content = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 9])
    assert parse_idx(content, 1, "x").tolist() == [7, 2, 9]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "begins with nothing"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1, 5]), "begins with 00 00 08 03"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 5]), "begins with 00 00 0d 01"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 2, 5]), "has 9 bytes.*makes 10"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 5, 5]), "has 10 bytes.*makes 9"),
        (bytes([0, 0, 8, 1, 0]), "cut or damaged"),
    ],
)
def test_damaged_files_are_refused(content: bytes, fragment: str) -> None:
    with pytest.raises(DataFileError, match=fragment):
        parse_idx(content, 1, "labels")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("folder", [".", "package/data", "mnist"])
def test_load_a_tiny_set(tmp_path: Path, compressed: bool, folder: str) -> None:
    write_idx_set(tmp_path / folder, compressed=compressed)
    data = load_tiny(tmp_path)
    assert data.image_shape == (1, 6, 6)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    for split in (data.train, data.validation, data.test):
        numbers = split.images()[:, 0, 3, 2].long()
        assert torch.equal(numbers, split.indices)
        assert torch.equal(numbers % 10, split.labels)
    assert set(data.files) == set(IDX_SETS["mnist"].digests)


def test_environment_variable_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx_set(tmp_path / "mnist", compressed=False)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert len(load_data("mnist", validation=10, verify=False).test) == 20  # type: ignore[arg-type]  # a Dataset's split


@pytest.mark.parametrize("name", sorted(IDX_SETS))
def test_other_content_fails_the_checksum(tmp_path: Path, name: str) -> None:
    write_idx_set(tmp_path, compressed=True)
    with pytest.raises(DataFileError, match=r"sha256.*verify=False"):
        load_data(name, tmp_path)


@pytest.mark.parametrize("name", sorted(IDX_SETS))
def test_missing_files_name_the_command(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFileError) as caught:
        load_data(name, tmp_path)
    assert IDX_SETS[name].how in str(caught.value)


def test_files_of_two_sets_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path, compressed=False)
    labels = idx_bytes(np.zeros(39, dtype=np.uint8))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataFileError, match="40 images goes with one of 39 labels"):
        load_tiny(tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path, compressed=False)
    labels = idx_bytes(np.full(40, 10, dtype=np.uint8))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(InputError, match="run from 10 to 10, expected 0 to 9"):
        load_tiny(tmp_path)


def test_the_real_fashion_mnist() -> None:
    try:
        data = load_data("fashion-mnist")
    except DataFileError as error:
        if "found no" not in str(error):
            raise
        pytest.skip(f"Fashion-MNIST is not here: {error}")
    assert isinstance(data, Dataset)
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert torch.equal(torch.bincount(data.validation.labels), torch.full((10,), 500))
    everything = torch.cat([data.train.images(), data.validation.images()]).float() / 255
    assert float(everything.mean()) == pytest.approx(data.mean[0], abs=5e-5)
    assert float(everything.std()) == pytest.approx(data.std[0], abs=5e-5)
    images, labels = next(batches(data, "test", 4))
    assert images.shape == (4, 1, 28, 28)
    assert labels.tolist() == [9, 2, 1, 1]  # ankle boot, pullover, trouser, trouser
