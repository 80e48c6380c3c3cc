"""Slicing of parameters and buffers, zeroing, and size attributes."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import RemovalError
from mipprune.graph.groups import Axis, ChannelGroups, count_kept
from mipprune.graph.headwise import convert

__all__ = ["check_fits", "slice_model", "sliced", "zero_axes"]

Kept = NDArray[np.bool_]


def axes_of(groups: ChannelGroups) -> dict[str, list[Axis]]:
    """Tensor name -> its owned axes."""
    found: dict[str, list[Axis]] = {}
    for axis in groups.axes:
        found.setdefault(axis.tensor, []).append(axis)
    return found


def positions(axis: Axis, kept: Kept) -> Tensor:
    """Positions of an axis that stay, int64."""
    return kept_positions(axis.owner, kept)


def kept_positions(owner: NDArray[np.int64], kept: Kept) -> Tensor:
    """Positions whose owner stays or that nobody owns, int64."""
    stays = (owner < 0) | kept[np.where(owner < 0, 0, owner)]
    return torch.from_numpy(np.flatnonzero(stays))


def sliced(tensor: Tensor, axes: list[Axis], kept: Kept) -> Tensor:
    """A new tensor with the kept positions along each axis; memory format and grad flag kept."""
    result = tensor.detach() if axes else tensor.detach().clone()
    for axis in axes:
        result = result.index_select(axis.dim, positions(axis, kept).to(result.device))
    if result.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        result = result.contiguous(memory_format=torch.channels_last)
    return result


def check_fits(model: nn.Module, groups: ChannelGroups) -> None:
    """Refuse a model whose tensors do not have the sizes that the groups were found with."""
    tensors = dict(_tensors(model))
    for axis in groups.axes:
        tensor = tensors.get(axis.tensor)
        if tensor is None:
            raise RemovalError(
                f"the model has no tensor '{axis.tensor}'; these groups belong to another network"
            )
        if axis.dim >= tensor.dim() or tensor.size(axis.dim) != axis.owner.size:
            raise RemovalError(
                f"'{axis.tensor}' has shape {tuple(tensor.shape)}, the groups expect "
                f"{axis.owner.size} along dimension {axis.dim}; find them again for this model"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def slice_model(model: nn.Module, groups: ChannelGroups, kept: Kept) -> None:
    """Slice parameters, buffers and size attributes of ``model`` in place; ties survive."""
    fresh: dict[str, Tensor] = {}
    by_tensor = axes_of(groups)
    for name, tensor in list(_tensors(model)):
        first = groups.aliases.get(name, name)
        if first not in by_tensor:
            continue
        if first not in fresh:
            data = sliced(tensor, by_tensor[first], kept)
            fresh[first] = _like(tensor, data)
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        store = module._parameters if leaf in module._parameters else module._buffers
        store[leaf] = fresh[first]  # type: ignore[assignment]  # both are tensors by name
    _set_sizes(model, groups, kept)


def _like(old: Tensor, data: Tensor) -> Tensor:
    if not isinstance(old, nn.Parameter):
        return data
    new = nn.Parameter(data, requires_grad=old.requires_grad)
    # Marks that optimisers and distributed wrappers leave on parameters.
    new.__dict__.update({k: v for k, v in vars(old).items() if k not in ("grad", "data")})
    return new


def _set_sizes(model: nn.Module, groups: ChannelGroups, kept: Kept) -> None:
    for attribute in groups.attributes:
        module = model.get_submodule(attribute.module)
        size = count_kept(attribute.owner, kept) // attribute.divisor
        old = getattr(module, attribute.attribute)
        if size != old:
            convert(module)
        value = (*old[:-1], size) if isinstance(old, tuple) else size
        setattr(module, attribute.attribute, value)


def zero_axes(model: nn.Module, groups: ChannelGroups, kept: Kept, roles: frozenset[str]) -> None:
    """Zero the removed positions of all axes with one of the roles, in place."""
    tensors = dict(_tensors(model))
    with torch.no_grad():
        for axis in groups.axes:
            if axis.role in roles:
                gone = torch.from_numpy(np.flatnonzero((axis.owner >= 0) & ~kept[axis.owner]))
                if gone.numel():
                    tensor = tensors[axis.tensor]
                    tensor.index_fill_(axis.dim, gone.to(tensor.device), 0)


def kept_names(groups: ChannelGroups, masks: Mapping[str, Kept]) -> str:
    """Short text: which families lose how many classes."""
    parts = [f"{n}: {int(m.sum())} of {m.size}" for n, m in masks.items() if not m.all()]
    return ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
