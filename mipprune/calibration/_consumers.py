"""Layers that read channels: where their inputs come from and whose rows are whose."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.calibration._design import CONSUMERS, TRANSPOSED, n_groups
from mipprune.graph import Axis, ChannelGroups

__all__ = ["Consumer", "Statistics", "find_consumers", "group_weights", "store_group_weights"]

Owner = NDArray[np.int64]


@dataclass(eq=False)
class Statistics:
    """Running sums of one group of one consumer, float64 on the network's device."""

    gram: Tensor
    cross: Tensor | None = None
    energy: Tensor | None = None
    rows: int = 0

    def add(self, x: Tensor, y: Tensor | None) -> None:
        """Add rows x (n, d) and, where given, targets y (n, m)."""
        self.gram += x.T @ x
        self.rows += len(x)
        if y is not None:
            if self.cross is None or self.energy is None:
                self.cross = x.new_zeros(x.size(1), y.size(1))
                self.energy = x.new_zeros(())
            self.cross += x.T @ y
            self.energy += (y**2).sum()


@dataclass(eq=False)
class Consumer:
    """One weight that reads channels, through one or several modules that share it.

    Attributes
    ----------
    name : str
        First module that holds the weight.
    modules : tuple of str
        All modules that hold it.
    owner : int64 (channels read,)
        Class of each position of the weight's reading axis.
    statistics : list of Statistics
        One per group of a grouped convolution.
    """

    name: str
    modules: tuple[str, ...]
    owner: Owner
    statistics: list[Statistics] = field(default_factory=list)

    def owner_of_group(self, group: int, groups: int, transposed: bool) -> Owner:
        """Classes of the positions that one group reads."""
        if transposed and groups > 1:
            size = self.owner.size // groups
            return self.owner[group * size : (group + 1) * size]
        return self.owner


def find_consumers(
    model: nn.Module, groups: ChannelGroups
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """Consumers by weight name, and why others cannot be observed (by weight name)."""
    holders: dict[int, list[str]] = {}
    layers = dict(model.named_modules())
    for name, layer in layers.items():
        if isinstance(layer, CONSUMERS):
            holders.setdefault(id(layer.weight), []).append(name)
    found: dict[str, Consumer] = {}
    refused: dict[str, str] = {}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for axis in _consume_axes(groups.axes):
        weight = tensors.get(axis.tensor)
        names = holders.get(id(weight), []) if weight is not None else []
        if not names:
            refused[axis.tensor] = f"'{axis.tensor}' is not the weight of a layer"
        elif axis.dim != (0 if isinstance(layers[names[0]], TRANSPOSED) else 1):
            refused[axis.tensor] = f"'{axis.tensor}' reads channels along axis {axis.dim}"
        else:
            found[axis.tensor] = Consumer(names[0], tuple(names), axis.owner)
    return found, refused


def _consume_axes(axes: Iterable[Axis]) -> list[Axis]:
    return [axis for axis in axes if axis.role == "consume"]


def group_weights(layer: nn.Module, group: int) -> Tensor:
    """Copy of one group's weights, float64 (rows, outputs), rows channel major then kernel."""
    weight = layer.weight
    assert isinstance(weight, Tensor)  # every consumer has one
    part = _group_part(layer, weight.detach().double().clone(), group)
    return part.flatten(0, -2)


def store_group_weights(layer: nn.Module, group: int, rows: Tensor) -> None:
    """Write what :func:`group_weights` reads."""
    weight = layer.weight
    assert isinstance(weight, Tensor)  # every consumer has one
    with torch.no_grad():
        part = _group_part(layer, weight, group)
        part.copy_(rows.reshape(part.shape).to(part))


def _group_part(layer: nn.Module, weight: Tensor, group: int) -> Tensor:
    """View of one group's weights as (channels read, *kernel, outputs)."""
    groups = n_groups(layer)
    size = weight.size(0) // groups
    part = weight[group * size : (group + 1) * size]
    return part.movedim(1, -1) if isinstance(layer, TRANSPOSED) else part.movedim(0, -1)
