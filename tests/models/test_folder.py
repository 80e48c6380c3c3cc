"""Image folders written here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mipprune.errors import DataFileError
from mipprune.models import Dataset, batches, load_data

image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def write_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_module.new("RGB", size, colour).save(path)


def write_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), n: int = 6) -> None:
    for part_number, part in enumerate(parts):
        for label, name in enumerate(("ant", "bee")):
            for i in range(n):
                colour = (10 * i, 100 * label, 50 * part_number)
                write_image(root / part / name / f"{i}.png", colour)
        (root / part / "ant" / "notes.txt").write_text("not an image")


def load(root: Path, size: int | tuple[int, int] = 8, validation: int | None = 4) -> Dataset:
    data = load_data("folder", root, image_size=size, validation=validation)
    assert isinstance(data, Dataset)
    return data


def test_two_parts_hold_validation_out_of_train(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = load(tmp_path)
    assert data.class_names == ("ant", "bee")
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 4, 12)
    for name, blue in (("train", 0), ("validation", 0), ("test", 50)):
        split = data.split(name)
        images = split.images()
        assert images.shape == (len(split), 3, 8, 8)
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 1, 4, 4].long(), 100 * split.labels)
        assert (images[:, 2] == blue).all()


def test_val_alone_is_the_test_set(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val"))
    data = load(tmp_path, validation=None)
    assert (len(data.train), len(data.validation), len(data.test)) == (11, 1, 12)


def test_three_parts_are_what_they_say(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val", "test"))
    data = load(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 12, 12)
    assert (data.validation.images()[:, 2] == 50).all()
    assert (data.test.images()[:, 2] == 100).all()


def test_the_crop_is_the_middle_of_the_resized_image(tmp_path: Path) -> None:
    write_folder(tmp_path)
    # 56 wide, 28 high, left half black, right half white: resized to 64x32, the middle 28 columns
    # run from 18 to 46, so that the edge at column 32 is at column 14 of the crop.
    pixels = np.zeros((28, 56, 3), dtype=np.uint8)
    pixels[:, 28:] = 255
    image_module.fromarray(pixels).save(tmp_path / "test" / "ant" / "0.png")
    crop = load(tmp_path, 28).test.images(torch.tensor([0]))[0]
    assert crop.shape == (3, 28, 28)
    assert not crop[:, :, :13].any()
    assert (crop[:, :, 15:] == 255).all()


def test_a_rectangle_can_be_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path)
    images, labels = next(batches(load(tmp_path, (12, 8)), "train", 3))
    assert images.shape == (3, 3, 12, 8)
    assert labels.shape == (3,)


def test_a_grey_image_becomes_rgb(tmp_path: Path) -> None:
    write_folder(tmp_path)
    image_module.new("L", (9, 9), 77).save(tmp_path / "test" / "ant" / "0.png")
    assert (load(tmp_path).test.images(torch.tensor([0])) == 77).all()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataFileError, match=r"3.png.*not a readable image"):
        load(tmp_path).test.images()
    whole = (tmp_path / "test" / "ant" / "1.png").read_bytes()
    (tmp_path / "test" / "bee" / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFileError, match=r"3.png.*not a readable image"):
        load(tmp_path).test.images()


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="needs root="):
        load_data("folder")
    with pytest.raises(DataFileError, match="sub-folders 'train' and"):
        load(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DataFileError, match="no sub-folder"):
        load(tmp_path)
    (tmp_path / "train" / "ant").mkdir()
    with pytest.raises(DataFileError, match="holds no image"):
        load(tmp_path)
    write_image(tmp_path / "train" / "ant" / "0.png", (0, 0, 0))
    write_image(tmp_path / "test" / "cow" / "0.png", (0, 0, 0))
    with pytest.raises(DataFileError, match="class cow"):
        load(tmp_path)
