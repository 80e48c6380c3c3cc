"""Which parameters carry a channel, packed into one flat vector.

The parameters of a class are its *filters* and what travels with them: weight
rows and biases of its producers, scales and shifts of its norms. What its
consumers read from it belongs to the consumers' own channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph.groups import Axis, ChannelGroups
from mipprune.perspective import SegmentLayout

__all__ = ["Packing", "carrier_axes", "carrier_blocks", "named_tensors", "pack_channels"]

_CARRIERS = ("produce", "carry")


@dataclass(frozen=True, eq=False)
class Packing:
    """The groups in the flat vector of :meth:`flat`.

    Attributes
    ----------
    names : tuple of str
        Parameters, in the order in which they are packed.
    blocks : tuple of str
        For each of them the module that produces its channels (its layer).
    layout : SegmentLayout
        Group of each entry; the last one, number ``n_groups``, collects the
        entries that belong to no class.
    n_groups : int
    class_of : int64 array (n_groups,)
        Class of each group; the identity where coupled channels are one group.
    sizes : int64 array (n_groups,)
        Parameters of each group.
    channel_dims : tuple of int
        Axis of each parameter that runs over channels.
    lengths : tuple of int
        Entries of each parameter.
    """

    names: tuple[str, ...]
    blocks: tuple[str, ...]
    layout: SegmentLayout
    n_groups: int
    class_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    channel_dims: tuple[int, ...]
    lengths: tuple[int, ...]

    def flat(self, parameters: Sequence[Tensor]) -> Tensor:
        """Pack ``parameters`` (in the order of ``names``) into one float vector (N,)."""
        return torch.cat(
            [_rows(p, dim).float() for p, dim in zip(parameters, self.channel_dims, strict=True)]
        )

    def views(self, flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Cut a vector of :meth:`flat`'s layout into views of the parameters' shapes."""
        parts = torch.split(flat, list(self.lengths))
        triples = zip(parameters, parts, self.channel_dims, strict=True)
        return [_shaped(part, parameter, dim) for parameter, part, dim in triples]

    def per_entry(self, values: Sequence[float]) -> Tensor:
        """One value per parameter -> one per entry, float32 (N,)."""
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(
            torch.tensor(self.lengths)
        )

    def per_class(self, values: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
        """Largest value over the groups of each class, float64 (n_classes,).

        A class without parameters of its own gets infinity: nothing says that
        it may go.
        """
        found = np.full(n_classes, -np.inf)
        np.maximum.at(found, self.class_of, values)
        found[np.isneginf(found)] = np.inf
        return found

    def total_per_class(self, values: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
        """Sum over the groups of each class, float64 (n_classes,); infinity where it has none."""
        found = np.zeros(n_classes)
        np.add.at(found, self.class_of, values)
        bare = np.ones(n_classes, dtype=bool)
        bare[self.class_of] = False
        found[bare] = np.inf
        return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name; tied ones under every name."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def carrier_axes(model: nn.Module, groups: ChannelGroups) -> list[Axis]:
    """Axes of parameters that carry channels (produce or carry), each parameter once.

    Raises
    ------
    InputError
        ``groups`` describe another network.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = named_tensors(model)
    axes: dict[str, Axis] = {}
    for axis in groups.axes:
        if axis.tensor not in tensors or (
            tensors[axis.tensor].shape[axis.dim : axis.dim + 1] != axis.owner.shape
        ):
            raise InputError(
                f"the channel groups describe another network: axis {axis.dim} of '{axis.tensor}' "
                f"should have size {len(axis.owner)}"
            )
        if axis.role in _CARRIERS and axis.tensor in parameters and (axis.owner >= 0).any():
            axes.setdefault(axis.tensor, axis)
    return list(axes.values())


def carrier_blocks(model: nn.Module, groups: ChannelGroups, axes: Iterable[Axis]) -> list[str]:
    """For each axis the layer whose channels it carries.

    A producer's own parameters belong to it; a norm belongs to the nearest
    producer of the same channels registered before it (else the first after).
    """
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    family_of = np.repeat(np.arange(len(groups)), [len(f) for f in groups])
    axes = list(axes)
    producers: dict[int, list[str]] = {}
    for axis in axes:
        if axis.role == "produce":
            for family in np.unique(family_of[axis.owner[axis.owner >= 0]]):
                producers.setdefault(int(family), []).append(_module(axis.tensor))
    blocks = []
    for axis in axes:
        module = _module(axis.tensor)
        first = int(family_of[axis.owner[axis.owner >= 0][0]])
        candidates = sorted(set(producers.get(first, [])), key=lambda name: order.get(name, 0))
        if axis.role == "produce" or not candidates:
            blocks.append(module)
            continue
        before = [name for name in candidates if order.get(name, 0) < order.get(module, 0)]
        blocks.append(before[-1] if before else candidates[0])
    return blocks


def pack_channels(model: nn.Module, groups: ChannelGroups, *, coupled: bool = True) -> Packing:
    """Pack the parameters that carry channels.

    Parameters
    ----------
    model : nn.Module
    groups : ChannelGroups
        Of ``model``.
    coupled : bool
        True: one group per class, across all its layers. False: one group per
        class and layer (filter, bias, scale and shift), as in the authors' code.

    Raises
    ------
    InputError
        ``groups`` describe another network, or no parameter carries a channel.
    """
    axes = carrier_axes(model, groups)
    if not axes:
        raise InputError("no parameter of this network carries a prunable channel")
    blocks = carrier_blocks(model, groups, axes)
    tensors = named_tensors(model)
    numbers = {name: place for place, name in enumerate(dict.fromkeys(blocks))}
    keys, lengths = [], []
    for axis, block in zip(axes, blocks, strict=True):
        layer = 0 if coupled else numbers[block]
        key = np.where(axis.owner >= 0, layer * groups.n_classes + axis.owner, -1)
        tensor = tensors[axis.tensor]
        keys.append(np.repeat(key, tensor.numel() // len(key)))
        lengths.append(tensor.numel())
    entries = np.concatenate(keys)
    found = np.unique(entries[entries >= 0])
    segment = np.where(entries >= 0, np.searchsorted(found, entries), len(found))
    sizes = np.bincount(segment, minlength=len(found) + 1)[: len(found)]
    layout = SegmentLayout.from_index(torch.from_numpy(segment), len(found) + 1)
    return Packing(
        names=tuple(axis.tensor for axis in axes),
        blocks=tuple(blocks),
        layout=layout.to(tensors[axes[0].tensor].device),
        n_groups=len(found),
        class_of=found % groups.n_classes,
        sizes=sizes,
        channel_dims=tuple(axis.dim for axis in axes),
        lengths=tuple(lengths),
    )


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _rows(parameter: Tensor, dim: int) -> Tensor:
    """Entries with the channel axis first; within a channel in the order of storage."""
    if parameter.ndim == 4 and dim == 0 and not parameter.is_contiguous():
        # A channels_last weight: this order is a view, the logical one a copy.
        return parameter.permute(0, 2, 3, 1).reshape(-1)
    return (parameter if dim == 0 else parameter.movedim(dim, 0)).reshape(-1)


def _shaped(part: Tensor, parameter: Tensor, dim: int) -> Tensor:
    """Inverse of :func:`_rows`, as a view of ``part`` in the parameter's shape."""
    if parameter.ndim == 4 and dim == 0 and not parameter.is_contiguous():
        out, into, height, width = parameter.shape
        return part.view(out, height, width, into).permute(0, 3, 1, 2)
    first = parameter if dim == 0 else parameter.movedim(dim, 0)
    return part.view(first.shape).movedim(0, dim)
