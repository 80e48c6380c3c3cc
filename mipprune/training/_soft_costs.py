"""Costs of gates between 0 and 1: the cost terms of the groups, multilinear in soft widths."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph.groups import ChannelGroups, CostTerm

__all__ = ["SoftCost", "volume_terms"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SoftCost:
    """``C(g) = sum_t coefficient_t * prod_axes (fixed + sum_{owned positions} g_owner)``.

    At gates of 0 and 1 it is the cost that is counted; autograd gives its
    gradient elsewhere.

    Parameters
    ----------
    terms : sequence of CostTerm
    n_classes : int
    """

    def __init__(self, terms: Sequence[CostTerm], n_classes: int) -> None:
        numbers: dict[bytes, int] = {}
        owners: list[NDArray[np.int64]] = []
        rows = []
        for term in terms:
            row = []
            for owner in term.axes:
                if owner.tobytes() not in numbers:
                    numbers[owner.tobytes()] = len(owners) + 1
                    owners.append(owner)
                row.append(numbers[owner.tobytes()])
            rows.append(row)
        width = max((len(row) for row in rows), default=0)
        factors = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            factors[i, : len(row)] = row
        # Axis 0 is a dummy with one position, for terms with fewer axes than others.
        self._fixed = torch.tensor(
            [1.0, *(float((owner < 0).sum()) for owner in owners)], dtype=torch.float64
        )
        owned = [np.unique(o[o >= 0], return_counts=True) for o in owners]
        axis = [np.full(classes.size, i + 1) for i, (classes, _) in enumerate(owned)]
        empty = np.empty(0, dtype=np.int64)
        self._axis = torch.from_numpy(np.concatenate([empty, *axis]))
        self._class = torch.from_numpy(np.concatenate([empty, *(c for c, _ in owned)]))
        self._times = torch.from_numpy(np.concatenate([empty, *(n for _, n in owned)])).double()
        self._factors = torch.from_numpy(factors)
        self._coefficients = torch.tensor([t.coefficient for t in terms], dtype=torch.float64)
        self.n_classes = n_classes

    def to(self, device: torch.device) -> "SoftCost":
        """Move the tables, in place."""
        if self._fixed.device != device:
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(device))
        return self

    def __call__(self, gates: Tensor) -> Tensor:
        """Cost of ``gates``, float (n_classes,); a float64 scalar with its gradient."""
        owned = gates.double().index_select(0, self._class) * self._times
        widths = self._fixed.index_add(0, self._axis, owned)
        values = self._coefficients
        for column in self._factors.unbind(1):
            values = values * widths.index_select(0, column)
        return values.sum()


def volume_terms(model: nn.Module, groups: ChannelGroups) -> tuple[CostTerm, ...]:
    """Activation volume: elements of the feature maps with prunable channels, per example.

    One term per producing layer, ``area * (number of kept channels)``. The area
    (height times width; length of a sequence) is the number of times the layer
    applies its weight, which the cost terms of the groups know.

    Parameters
    ----------
    model : nn.Module
    groups : ChannelGroups
        Of ``model``.
    """
    names = dict(model.named_parameters(remove_duplicate=False))
    found = []
    for axis in groups.axes:
        weight = names.get(axis.tensor)
        if axis.role == "produce" and weight is not None and weight.ndim > 1:
            module = axis.tensor.rpartition(".")[0]
            area = _applications(groups, axis.tensor, module, weight.numel())
            layer = model.get_submodule(module)
            if isinstance(layer, _TRANSPOSED):
                area *= math.prod(layer.stride)
            found.append(CostTerm(axis.tensor, area, (axis.owner,)))
    return tuple(found)


def _applications(groups: ChannelGroups, tensor: str, module: str, size: int) -> float:
    """MACs of a weight over its elements: how often it is applied to an example."""
    every = np.ones(groups.n_classes, dtype=bool)
    uses = [term for term in groups.mac_terms if term.name == module]
    elements = [term for term in groups.parameter_terms if term.name == tensor]
    if elements:
        axes = sorted(owner.tobytes() for owner in elements[0].axes)
        same = [t for t in uses if sorted(owner.tobytes() for owner in t.axes) == axes]
        if same:
            return sum(t.coefficient for t in same) / elements[0].coefficient
    return sum(term.value(every) for term in uses) / size if uses else 1.0
