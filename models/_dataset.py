"""What a labelled image data set is: splits, statistics, augmentation; plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipprune._support.checks import require_instance, require_integer, shown
from mipprune.errors import InputError
from mipprune.models._batch import check_labels
from mipprune.models._counter import counter_permutation

__all__ = [
    "SPLITS",
    "Augmentation",
    "Dataset",
    "ImageSource",
    "Split",
    "TensorSource",
    "make_dataset",
    "stratified_holdout",
]

SPLITS = ("train", "validation", "test")

# Streams of the counter-based draws; a number is never reused for something else.
_HOLDOUT_STREAM = 7
_SUBSET_STREAM = 8


@runtime_checkable
class ImageSource(Protocol):
    """Images by position: in memory, or decoded when asked for."""

    def __len__(self) -> int: ...

    def take(self, positions: Tensor) -> Tensor:
        """Images (k, c, h, w), uint8 in 0..255 or float32 in 0..1, for int64 (k,)."""


@dataclass(frozen=True, eq=False)
class TensorSource:
    """Images held in memory: uint8 or float32 (n, c, h, w)."""

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Tensor) -> Tensor:
        """Images (k, c, h, w) for int64 (k,)."""
        return self.images[positions]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes
    ----------
    source : ImageSource
        May hold more images than the split uses.
    indices : int64 tensor (n,)
        Positions of the split's images in ``source``, the record of the split.
    labels : int64 tensor (n,)
    """

    source: ImageSource
    indices: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, positions: Tensor | None = None) -> Tensor:
        """Raw images (k, c, h, w) at ``positions`` of the split, default all."""
        return self.source.take(self.indices if positions is None else self.indices[positions])

    def part(self, positions: Tensor) -> "Split":
        """The split restricted to ``positions``, int64 (k,)."""
        return Split(self.source, self.indices[positions], self.labels[positions])


@dataclass(frozen=True)
class Augmentation:
    """Random crop after padding with zeros (black), and horizontal flip.

    Attributes
    ----------
    padding : int
        Pixels on each side; the crop moves by up to that much each way.
    flip : bool
        Mirror left-right with probability 1/2.
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding must not be negative, got {self.padding}")

    def __bool__(self) -> bool:
        return self.padding > 0 or self.flip


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images with three disjoint splits.

    Attributes
    ----------
    name : str
    n_classes : int
    image_shape : (int, int, int)
        Channels, height, width.
    mean, std : tuple of float
        Per channel, of images scaled to 0..1; batches are ``(x - mean) / std``.
    train, validation, test : Split
        ``validation`` is taken from the training images, never from ``test``.
    augmentation : Augmentation
        What the training batches get by default.
    class_names : tuple of str
    files : mapping
        File name -> sha256 of its (decompressed) content, for the record.
    split_seed : int
        Seed of the choice of ``validation``.
    """

    name: str
    n_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation = Augmentation()
    class_names: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    split_seed: int = 0

    def __post_init__(self) -> None:
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise InputError(
                f"mean and std need {channels} values and std must be positive, "
                f"got {self.mean} and {self.std}"
            )
        for name in SPLITS:
            _check_split(self.split(name), self.n_classes, f"split '{name}' of '{self.name}'")

    def split(self, name: str) -> Split:
        """The split called ``name``: "train", "validation" or "test"."""
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}, expected one of {', '.join(SPLITS)}")
        split: Split = getattr(self, name)
        return split

    def normalise(self, images: Tensor) -> Tensor:
        """Raw images, uint8 or float (n, c, h, w) -> float32 ``(x - mean) / std``."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise InputError(
                f"'{self.name}' has images of shape {self.image_shape}, "
                f"got a batch of shape {tuple(images.shape)}"
            )
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return (images.to(torch.float32) - mean * unit) / (std * unit)

    def limited(self, **sizes: int) -> "Dataset":
        """The data set with stratified subsets, e.g. ``limited(train=2000, test=500)``.

        The choice depends on ``split_seed`` only; a smaller subset of the same
        split is not always part of a larger one.
        """
        smaller = {}
        for name, size in sizes.items():
            split = self.split(name)
            if not 1 <= size <= len(split):
                raise InputError(
                    f"cannot take {size} of the {len(split)} images of '{name}' of '{self.name}'"
                )
            chosen = _stratified(split.labels, size, self.split_seed, _SUBSET_STREAM)
            smaller[name] = split.part(torch.from_numpy(chosen))
        return replace(self, **smaller)  # type: ignore[arg-type]  # keys were checked by split()

    def describe(self) -> dict[str, Any]:
        """Plain types that identify the data, for reports and checkpoints."""
        return {
            "name": self.name,
            "n_classes": self.n_classes,
            "image_shape": list(self.image_shape),
            "sizes": {name: len(self.split(name)) for name in SPLITS},
            "split_seed": self.split_seed,
            "files": dict(self.files),
            "mean": list(self.mean),
            "std": list(self.std),
            "augmentation": {
                "padding": self.augmentation.padding,
                "flip": self.augmentation.flip,
            },
        }


def _check_split(split: Split, n_classes: int, where: str) -> None:
    if len(split.indices) != len(split.labels):
        raise InputError(f"{where} has {len(split.indices)} images but {len(split.labels)} labels")
    if len(split) == 0:
        raise InputError(f"{where} is empty")
    if int(split.indices.min()) < 0 or int(split.indices.max()) >= len(split.source):
        raise InputError(f"{where} has indices outside 0..{len(split.source) - 1}")
    check_labels(split.labels, n_classes, where)


def stratified_holdout(
    labels: Tensor, n_held_out: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split positions into (rest, held out), classes represented as in ``labels``.

    Class counts are the proportional ones, rounded by largest remainder; which
    members are held out depends on ``seed`` and the position only.

    Parameters
    ----------
    labels : int64 tensor (n,)
    n_held_out : int
        From 1 to n - 1.

    Returns
    -------
    Two sorted int64 arrays that partition ``0 .. n - 1``.
    """
    require_instance("labels", labels, Tensor)
    n, n_held_out = len(labels), require_integer("n_held_out", n_held_out)
    seed = require_integer("seed", seed)
    if not 1 <= n_held_out < n:
        raise InputError(f"cannot hold out {n_held_out} of {n} images")
    held_out = _stratified(labels, n_held_out, seed, _HOLDOUT_STREAM)
    rest = np.setdiff1d(np.arange(n, dtype=np.int64), held_out, assume_unique=True)
    return rest, held_out


def _stratified(labels: Tensor, size: int, seed: int, stream: int) -> NDArray[np.int64]:
    classes, inverse, counts = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    shares = counts * (size / len(labels))
    quotas = np.floor(shares + 1e-9).astype(np.int64)
    by_remainder = np.argsort(quotas - shares, kind="stable")
    quotas[by_remainder[: size - int(quotas.sum())]] += 1
    order = counter_permutation(seed, 0, stream, len(labels))
    grouped = inverse[order]
    chosen = [order[grouped == index][: quotas[index]] for index in range(len(classes))]
    return np.sort(np.concatenate(chosen))


def make_dataset(
    name: str,
    train: tuple[ImageSource | Tensor, Tensor],
    test: tuple[ImageSource | Tensor, Tensor],
    *,
    n_classes: int,
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    validation: int | tuple[ImageSource | Tensor, Tensor],
    augmentation: Augmentation | None = None,
    class_names: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Build a :class:`Dataset` from images and labels.

    Parameters
    ----------
    name : str
    train, test : (images, labels)
        Images uint8 (0..255) or float32 (0..1) of shape (n, c, h, w), or an
        :class:`ImageSource`; labels integers (n,).
    n_classes, image_shape, mean, std, augmentation, class_names, files, split_seed
        As in :class:`Dataset`.
    validation : int or (images, labels)
        How many training images to hold out (stratified), or images of its own.

    Raises
    ------
    InputError
        Wrong shapes or dtypes, labels out of range, more held out than there is.
    """
    source, labels = _as_source(train, image_shape, n_classes, f"training images of '{name}'")
    test_source, test_labels = _as_source(test, image_shape, n_classes, f"test images of '{name}'")
    if isinstance(validation, int):
        rest, held_out = (
            torch.from_numpy(part) for part in stratified_holdout(labels, validation, split_seed)
        )
        train_split = Split(source, rest, labels[rest])
        validation_split = Split(source, held_out, labels[held_out])
    else:
        train_split = Split(source, torch.arange(len(labels)), labels)
        own_source, own_labels = _as_source(
            validation, image_shape, n_classes, f"validation images of '{name}'"
        )
        validation_split = Split(own_source, torch.arange(len(own_labels)), own_labels)
    return Dataset(
        name=name,
        n_classes=n_classes,
        image_shape=image_shape,
        mean=tuple(mean),
        std=tuple(std),
        train=train_split,
        validation=validation_split,
        test=Split(test_source, torch.arange(len(test_labels)), test_labels),
        augmentation=augmentation or Augmentation(),
        class_names=tuple(class_names),
        files=dict(files or {}),
        split_seed=split_seed,
    )


def _as_source(
    pair: tuple[ImageSource | Tensor, Tensor],
    image_shape: tuple[int, int, int],
    n_classes: int,
    where: str,
) -> tuple[ImageSource, Tensor]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"{where}: expected a pair (images, labels), got {shown(pair)}")
    images, labels = pair
    require_instance(f"labels of {where}", labels, Tensor)
    if isinstance(images, Tensor):
        if images.dtype not in (torch.uint8, torch.float32):
            raise InputError(f"{where} are {images.dtype}, expected uint8 or float32")
        if images.ndim != 4 or tuple(images.shape[1:]) != image_shape:
            raise InputError(
                f"{where} have shape {tuple(images.shape)}, expected (n, "
                f"{', '.join(map(str, image_shape))})"
            )
        images = TensorSource(images)
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(f"{where}: {len(images)} images but labels {tuple(labels.shape)}")
    check_labels(labels, n_classes, where)
    return images, labels.to(torch.int64)
