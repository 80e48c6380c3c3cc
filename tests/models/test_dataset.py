"""Data sets as plain data: splits, checks, statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mipprune.errors import InputError
from mipprune.models import Augmentation, Dataset, make_dataset, stratified_holdout


def tiny(
    n: int = 40,
    *,
    labels: Tensor | None = None,
    images: Tensor | None = None,
    validation: int = 8,
    split_seed: int = 0,
) -> Dataset:
    """Images whose pixels all carry the index of the image."""
    if images is None:
        images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).clone()
    if labels is None:
        labels = torch.arange(n) % 4
    return make_dataset(
        "tiny",
        (images, labels),
        (images[:12] + 100, labels[:12]),
        n_classes=4,
        image_shape=(1, 4, 4),
        mean=(0.25,),
        std=(0.5,),
        validation=validation,
        augmentation=Augmentation(padding=1, flip=True),
        split_seed=split_seed,
    )


@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(lambda c: sum(c) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**70),
)
def test_holdout_is_a_stratified_partition(counts: list[int], fraction: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    n = len(labels)
    size = min(max(1, round(fraction * n)), n - 1)
    rest, held_out = stratified_holdout(labels, size, seed)
    assert np.array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(n))
    assert len(held_out) == size
    taken = np.bincount(labels.numpy()[held_out], minlength=len(counts))
    assert (np.abs(taken - np.array(counts) * size / n) < 1).all()


def test_holdout_depends_on_the_seed_only() -> None:
    labels = torch.arange(100) % 10
    first = stratified_holdout(labels, 20, 0)[1]
    assert np.array_equal(first, stratified_holdout(labels, 20, 0)[1])
    assert not np.array_equal(first, stratified_holdout(labels, 20, 1)[1])


@pytest.mark.parametrize("size", [0, 10, 11, -1])
def test_holdout_of_nothing_or_everything_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="hold out"):
        stratified_holdout(torch.zeros(10, dtype=torch.int64), size, 0)


def test_splits_are_disjoint_and_recorded() -> None:
    data = tiny()
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 12)
    together = torch.cat([data.train.indices, data.validation.indices])
    assert torch.equal(together.sort().values, torch.arange(40))
    for split in (data.train, data.validation):
        # Every image carries its index: images, labels and record agree.
        assert torch.equal(split.images()[:, 0, 0, 0].long(), split.indices)
        assert torch.equal(split.labels, split.indices % 4)
    assert torch.equal(torch.bincount(data.validation.labels), torch.full((4,), 2))
    assert torch.equal(data.test.images()[:, 0, 0, 0], torch.arange(100, 112, dtype=torch.uint8))


def test_split_seed_moves_validation_and_never_test() -> None:
    first, second = tiny(split_seed=0), tiny(split_seed=1)
    assert not torch.equal(first.validation.indices, second.validation.indices)
    assert torch.equal(first.test.indices, second.test.indices)


def test_normalise_bytes_and_floats() -> None:
    data = tiny()
    # 255 -> 1 -> (1 - .25) / .5 = 1.5; 0 -> -.5.
    bytes_ = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    out = data.normalise(bytes_)
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor([-0.5, 1.5]))
    floats = bytes_.float() / 255
    torch.testing.assert_close(data.normalise(floats), out)
    assert float(floats.max()) == 1.0  # the argument is not changed
    with pytest.raises(InputError, match=r"\(1, 4, 4\)"):
        data.normalise(torch.zeros(2, 3, 4, 4))


def test_limited_takes_stratified_subsets() -> None:
    data = tiny().limited(train=8, test=4)
    assert torch.equal(torch.bincount(data.train.labels), torch.full((4,), 2))
    assert len(data.validation) == 8
    assert len(data.test) == 4
    with pytest.raises(InputError, match="cannot take 13"):
        tiny().limited(test=13)
    with pytest.raises(InputError, match="unknown split"):
        tiny().limited(training=3)


def test_describe_holds_plain_types() -> None:
    described = tiny().describe()
    assert described["sizes"] == {"train": 32, "validation": 8, "test": 12}
    assert described["augmentation"] == {"padding": 1, "flip": True}


@pytest.mark.parametrize(
    ("images", "labels", "fragment"),
    [
        (None, torch.arange(40) % 5, "run from 0 to 4, expected 0 to 3"),
        (None, torch.arange(40) % 4 - 1, "run from -1"),
        (None, torch.zeros(40), "expected integers"),
        (None, torch.zeros(39, dtype=torch.int64), "40 images but labels"),
        (torch.zeros(40, 1, 4, 5), None, r"expected \(n, 1, 4, 4\)"),
        (torch.zeros(40, 4, 4), None, r"expected \(n, 1, 4, 4\)"),
        (torch.zeros(40, 1, 4, 4, dtype=torch.float64), None, "uint8 or float32"),
    ],
)
def test_wrong_images_and_labels_are_refused(
    images: Tensor | None, labels: Tensor | None, fragment: str
) -> None:
    with pytest.raises(InputError, match=fragment):
        tiny(images=images, labels=labels)


def test_wrong_statistics_are_refused() -> None:
    images, labels = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="mean and std"):
        make_dataset(
            "bad",
            (images, labels),
            (images, labels),
            n_classes=1,
            image_shape=(1, 2, 2),
            mean=(0.0,),
            std=(0.0,),
            validation=1,
        )


def test_negative_padding_is_refused() -> None:
    with pytest.raises(InputError, match="padding"):
        Augmentation(padding=-1)
