"""Batches: order and augmentation from (seed, epoch, index) alone."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from mipprune.errors import InputError
from mipprune.models import (
    Augmentation,
    Dataset,
    augment_images,
    batches,
    check_data,
    make_dataset,
)


@pytest.fixture
def data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 2, 6, 5), generator=generator, dtype=torch.uint8)
    labels = torch.arange(60) % 3
    return make_dataset(
        "random",
        (images, labels),
        (images[:10], labels[:10]),
        n_classes=3,
        image_shape=(2, 6, 5),
        mean=(0.5, 0.4),
        std=(0.2, 0.3),
        validation=12,
        augmentation=Augmentation(padding=2, flip=True),
    )


def together(parts: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_test_batches_are_the_normalised_images_in_order(data: Dataset) -> None:
    images, labels = together(batches(data, "test", 4))
    mean, std = torch.tensor([0.5, 0.4]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)
    torch.testing.assert_close(images, (data.test.images() / 255.0 - mean) / std)
    assert images.dtype == torch.float32
    assert torch.equal(labels, data.test.labels)


def test_every_training_image_comes_once_per_epoch(data: Dataset) -> None:
    for epoch in (0, 1):
        images, labels = together(batches(data, "train", 7, epoch=epoch, augment=False))
        found = images.flatten(1)
        wanted = data.normalise(data.train.images()).flatten(1)
        distances = torch.cdist(found.double(), wanted.double())
        assert torch.equal(distances.argmin(dim=1).sort().values, torch.arange(48))
        assert torch.equal(labels, data.train.labels[distances.argmin(dim=1)])


def test_epochs_and_seeds_differ_and_repeat(data: Dataset) -> None:
    def first(epoch: int, seed: int) -> Tensor:
        batch: tuple[Tensor, Tensor] = next(batches(data, "train", 16, epoch=epoch, seed=seed))
        return batch[0]

    assert torch.equal(first(3, 5), first(3, 5))
    assert not torch.equal(first(3, 5), first(4, 5))
    assert not torch.equal(first(3, 5), first(3, 6))


def test_resuming_inside_an_epoch_gives_the_same_bits(data: Dataset) -> None:
    whole = list(batches(data, "train", 7, epoch=2, seed=1))
    resumed = list(batches(data, "train", 7, epoch=2, seed=1, start=3))
    assert len(resumed) == len(whole) - 3
    for (a, x), (b, y) in zip(whole[3:], resumed, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x, y)


def test_augmentation_does_not_depend_on_the_batch_size(data: Dataset) -> None:
    small, _ = together(batches(data, "train", 5, epoch=1))
    large, _ = together(batches(data, "train", 48, epoch=1))
    assert torch.equal(small, large)


def test_drop_last(data: Dataset) -> None:
    sizes = [len(labels) for _, labels in batches(data, "train", 10, drop_last=True)]
    assert sizes == [10] * 4
    assert sum(len(labels) for _, labels in batches(data, "train", 10)) == 48


def test_global_random_state_is_left_alone(data: Dataset) -> None:
    state = torch.random.get_rng_state()
    list(batches(data, "train", 8))
    assert torch.equal(torch.random.get_rng_state(), state)


def shifted(padded: Tensor, top: int, left: int, flip: bool) -> Tensor:
    crop = padded[:, top : top + 3, left : left + 4]
    return crop.flip(2) if flip else crop


def test_every_augmented_image_is_a_crop_of_the_padded_one() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(200, 1, 3, 4, generator=generator)
    augmented = augment_images(images, torch.arange(200), Augmentation(1, flip=True), 0, 0)
    seen = set()
    for image, result in zip(images, augmented, strict=True):
        padded = torch.zeros(1, 5, 6)
        padded[:, 1:4, 1:5] = image
        shifts = itertools.product(range(3), range(3), (False, True))
        matches = [shift for shift in shifts if torch.equal(result, shifted(padded, *shift))]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 18  # every shift and both mirrorings occur


def test_no_augmentation_leaves_the_image() -> None:
    images = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment_images(images, torch.arange(4), Augmentation(), 0, 0), images)


@pytest.mark.parametrize(
    ("split", "options", "fragment"),
    [
        ("training", {}, "unknown split"),
        ("train", {"batch_size": 0}, "batch_size"),
        ("train", {"epoch": -1}, "epoch"),
        ("train", {"start": -1}, "start"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    data: Dataset, split: str, options: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(InputError, match=fragment):
        batches(data, split, **{"batch_size": 4, **options})


@dataclass
class OwnData:
    train: Any = field(default_factory=lambda: [1, 2, 3, 4])
    validation: Any = field(default_factory=lambda: [5])
    test: Any = field(default_factory=lambda: [6])
    epochs: list[int] = field(default_factory=list)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_own_data_is_iterated_as_it_is() -> None:
    own = OwnData()
    source = check_data(own, "'own'")
    assert list(batches(source, "train", 128, epoch=4, start=1)) == [2, 3, 4]
    assert own.epochs == [4]


@pytest.mark.parametrize(
    ("own", "fragment"),
    [
        (OwnData(validation=None), "'validation' is missing"),
        (OwnData(test=3), "'test' is a int"),
        (OwnData(train=iter([1])), "only once"),
        ([1, 2], "returned a list whose 'train' is missing"),
    ],
)
def test_what_is_no_data_is_refused(own: Any, fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        check_data(own, "'own'")
