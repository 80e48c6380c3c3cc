"""Batches of a split, in an order and with an augmentation that need no state.

Both derive from (seed, epoch, index of the sample) only: the batches of epoch
7 are the same whether epochs 0 to 6 ran before in this process or not.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mipprune._support.checks import require_integer, shown
from mipprune.errors import InputError
from mipprune.models._counter import counter_integers, counter_permutation
from mipprune.models._dataset import SPLITS, Augmentation, Dataset, Split

__all__ = ["DataSource", "augment_images", "batches", "check_data", "epoch_order"]

_ORDER, _ROW, _COLUMN, _FLIP = range(4)


@runtime_checkable
class DataSource(Protocol):
    """Anybody's data: three iterables of batches that start anew on every ``iter()``.

    Lists of batches, DataLoaders and objects with ``__iter__`` all fit; what a
    batch may be is said by :func:`mipprune.models.split_batch`. Optional
    attributes: ``set_epoch(epoch)``, called before each epoch (on the source
    or on the iterable); ``n_classes``; ``image_shape``.
    """

    @property
    def train(self) -> Iterable[Any]: ...

    @property
    def validation(self) -> Iterable[Any]: ...

    @property
    def test(self) -> Iterable[Any]: ...


def check_data(data: Any, where: str, splits: Sequence[str] = SPLITS) -> "Dataset | DataSource":
    """``data`` if it is a :class:`Dataset` or follows :class:`DataSource` in ``splits``.

    Raises
    ------
    InputError
        Naming the split that is missing, not iterable or can be read only once.
    """
    if isinstance(data, Dataset):
        return data
    for name in splits:
        part = getattr(data, name, None)
        if part is None or not isinstance(part, Iterable):
            raise InputError(
                f"{where} returned a {type(data).__name__} whose '{name}' is "
                f"{'missing' if part is None else 'a ' + type(part).__name__}; expected a Dataset "
                "of mipprune.models or an object with iterables of batches called "
                f"{', '.join(SPLITS)}"
            )
        if isinstance(part, Iterator):
            raise InputError(
                f"'{name}' of {where} is an iterator that can be read only once; give a list, a "
                "DataLoader or an object whose __iter__ starts anew"
            )
    source: DataSource = data
    return source


def batches(
    data: "Dataset | DataSource",
    split: str,
    batch_size: int,
    *,
    epoch: int = 0,
    seed: int = 0,
    shuffle: bool | None = None,
    augment: bool | Augmentation | None = None,
    drop_last: bool = False,
    start: int = 0,
) -> Iterator[Any]:
    """Batches ``(images, labels)`` of one epoch over a split.

    Images are float32 (b, c, h, w), normalised; labels int64 (b,). For a
    :class:`DataSource` the batches are its own and only ``epoch`` and
    ``start`` are used.

    Parameters
    ----------
    data : Dataset or DataSource
    split : {"train", "validation", "test"}
    batch_size : int
    epoch, seed : int
        Order and augmentation are functions of these and of the sample alone.
    shuffle : bool, optional
        Default: only ``train``.
    augment : bool or Augmentation, optional
        Default: only ``train``, with ``data.augmentation``.
    drop_last : bool
        Leave out a last batch that is not full.
    start : int
        Batches to skip at the beginning, for resuming inside an epoch.

    Raises
    ------
    InputError
        Unknown split, batch size below 1, negative epoch or start.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise InputError(f"unknown split {shown(split)}, expected one of {', '.join(SPLITS)}")
    for name, number in {"batch_size": batch_size, "epoch": epoch, "start": start}.items():
        require_integer(name, number)
    seed = require_integer("seed", seed)
    # Only the split asked for: training must not touch the test split.
    check_data(data, "data", (split,))
    if batch_size < 1 or epoch < 0 or start < 0:
        raise InputError(
            "batch_size must be at least 1, epoch and start not negative, "
            f"got {batch_size}, {epoch} and {start}"
        )
    if not isinstance(data, Dataset):
        return _own_batches(data, getattr(data, split), epoch, start)
    training = split == "train"
    chosen = data.split(split)
    order = epoch_order(len(chosen), epoch, seed, training if shuffle is None else shuffle)
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    order = order[start * batch_size :]
    wanted = training if augment is None else augment
    if isinstance(wanted, bool):
        wanted = data.augmentation if wanted else Augmentation()
    return _dataset_batches(data, chosen, order, batch_size, wanted, epoch, seed)


def epoch_order(n: int, epoch: int, seed: int, shuffle: bool = True) -> NDArray[np.int64]:
    """Order of the ``n`` positions of a split in an epoch, int64 (n,)."""
    if shuffle:
        return counter_permutation(seed, epoch, _ORDER, n)
    return np.arange(n, dtype=np.int64)


def _own_batches(data: Any, part: Iterable[Any], epoch: int, start: int) -> Iterator[Any]:
    for owner in (data, part):
        set_epoch = getattr(owner, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
    for index, batch in enumerate(part):
        if index >= start:
            yield batch


def _dataset_batches(
    data: Dataset,
    split: Split,
    order: NDArray[np.int64],
    batch_size: int,
    augmentation: Augmentation,
    epoch: int,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    for begin in range(0, len(order), batch_size):
        positions = torch.from_numpy(order[begin : begin + batch_size])
        images = split.images(positions)
        if augmentation:
            images = augment_images(images, split.indices[positions], augmentation, epoch, seed)
        yield data.normalise(images), split.labels[positions]


def augment_images(
    images: Tensor, indices: Tensor, augmentation: Augmentation, epoch: int, seed: int
) -> Tensor:
    """Crop and flip each image by draws that depend on its own index only.

    Parameters
    ----------
    images : (b, c, h, w), any dtype
    indices : int64 (b,)
        Identity of each image, e.g. its position in the file.
    augmentation : Augmentation
    epoch, seed : int

    Returns
    -------
    (b, c, h, w) of the same dtype.
    """
    n, _, height, width = images.shape
    keys = indices.numpy()
    pad = augmentation.padding
    top = counter_integers(seed, epoch, _ROW, keys, 2 * pad + 1)
    left = counter_integers(seed, epoch, _COLUMN, keys, 2 * pad + 1)
    rows = torch.from_numpy(top[:, None] + np.arange(height))
    columns = left[:, None] + np.arange(width)
    if augmentation.flip:
        mirrored = counter_integers(seed, epoch, _FLIP, keys, 2).astype(bool)
        columns[mirrored] = columns[mirrored, ::-1]
    padded = F.pad(images, (pad, pad, pad, pad)) if pad else images
    sample = torch.arange(n).view(n, 1, 1)
    # Indexing around the channel axis moves it last; put it back.
    picked = padded[sample, :, rows[:, :, None], torch.from_numpy(columns)[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()
