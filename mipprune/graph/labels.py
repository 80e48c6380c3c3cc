"""Labels of tensor elements: which channel each element belongs to.

Every position of every parameter axis gets an integer label. A tensor of the
traced network carries *fields*: integer tensors of its own shape, mostly
expanded (stride 0), in which equal numbers mean "removed together". Operators
that only move data are run on the fields themselves; the others relate labels
to each other (`LabelSpace.tie`) or declare that channels stay
(`LabelSpace.freeze`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["STAYS", "Components", "LabelSpace", "Labels", "compress", "grid", "line", "varying"]

STAYS = 0
"""Label of elements that are always present (network inputs, constants)."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one tensor.

    An element exists as long as every field's channel at its place exists. A
    tensor without fields is present as a whole; a ``wild`` one is a constant
    fill whose size the program presumably takes from another tensor.
    """

    shape: tuple[int, ...]
    fields: tuple[Tensor, ...] = ()
    wild: bool = False


def varying(field: Tensor) -> tuple[int, ...]:
    """Dimensions along which the field changes."""
    return tuple(d for d in range(field.dim()) if field.size(d) > 1 and field.stride(d) != 0)


def compress(field: Tensor) -> Tensor:
    """The same field with stride 0 along every dimension where it is constant."""
    shape = field.shape
    for dim in range(field.dim()):
        if field.size(dim) > 1:
            first = field.narrow(dim, 0, 1)
            if field.stride(dim) == 0 or bool((field == first).all()):
                field = first
    return field.expand(shape)


def grid(field: Tensor) -> Tensor:
    """The field along its varying dimensions only."""
    keep = set(varying(field))
    for dim in range(field.dim()):
        if dim not in keep:
            field = field.narrow(dim, 0, 1)
    return field.reshape([n for d, n in enumerate(field.shape) if d in keep])


def line(field: Tensor, dim: int) -> Tensor:
    """Labels (size,) along ``dim`` at the first place of the other dimensions."""
    return field[tuple(slice(None) if d == dim else 0 for d in range(field.dim()))]


@dataclass(frozen=True, eq=False)
class Components:
    """Result of all ties so far: ``index[label]`` and the reason of each frozen component."""

    index: NDArray[np.int64]
    reasons: dict[int, str]

    @cached_property
    def _stays(self) -> NDArray[np.bool_]:
        stays = np.zeros(int(self.index.max(initial=0)) + 1, dtype=bool)
        stays[list(self.reasons)] = True
        return stays

    @property
    def count(self) -> int:
        """Number of components."""
        return int(self._stays.size)

    def of(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Component of each label, -1 where it stays."""
        component = self.index[labels]
        return np.where((labels == STAYS) | self._stays[component], -1, component)


class LabelSpace:
    """Allocates labels and collects the relations between them."""

    def __init__(self) -> None:
        self._count = 1
        self._starts: list[int] = []
        self._sorted = torch.empty(0, dtype=torch.int64)
        self._origins: list[tuple[str, int]] = []
        self._edges: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._freezes: list[tuple[NDArray[np.int64], str]] = []

    def fresh(self, size: int, tensor: str, dim: int) -> Tensor:
        """New labels (size,) for axis ``dim`` of ``tensor``."""
        start = self._count
        self._count += size
        self._starts.append(start)
        self._origins.append((tensor, dim))
        return torch.arange(start, start + size)

    def origins(self, labels: Tensor) -> list[tuple[str, int]]:
        """The (tensor, dim) pairs whose own labels occur in ``labels``, oldest first."""
        numbers = torch.unique(labels)
        if self._sorted.numel() != len(self._starts):
            self._sorted = torch.tensor(self._starts)
        positions = torch.searchsorted(self._sorted, numbers[numbers != STAYS], right=True) - 1
        return [self._origins[i] for i in torch.unique(positions).tolist()]

    def tie(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Elements at the same place (after broadcasting) go together.

        Where one of the two stays, the other stays as well, for ``reason``.
        """
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = a.expand(shape), b.expand(shape)
        for dim in range(a.dim()):
            if a.size(dim) > 1 and a.stride(dim) == 0 and b.stride(dim) == 0:
                a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
        left, right = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        stays = (left == STAYS) | (right == STAYS)
        if stays.any():
            self._freeze(np.concatenate([left[stays], right[stays]]), reason)
            left, right = left[~stays], right[~stays]
        if left.size:
            self._edges.append((left, right))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These channels stay."""
        self._freeze(grid(labels).reshape(-1).numpy() if labels.dim() else labels.numpy(), reason)

    def freeze_numbers(self, labels: NDArray[np.int64], reason: str) -> None:
        """Like `freeze`, for an array."""
        self._freeze(labels, reason)

    def _freeze(self, labels: NDArray[np.int64], reason: str) -> None:
        labels = np.unique(labels[labels != STAYS])
        if labels.size:
            self._freezes.append((labels, reason))

    def components(self) -> Components:
        """Connected components of all ties, with the first reason of the frozen ones."""
        if self._edges:
            left = np.concatenate([e[0] for e in self._edges])
            right = np.concatenate([e[1] for e in self._edges])
            self._edges = [(left, right)]
            graph = coo_array(
                (np.ones(left.size, dtype=np.int8), (left, right)), shape=(self._count, self._count)
            )
            index = connected_components(graph, directed=False)[1].astype(np.int64)
        else:
            index = np.arange(self._count, dtype=np.int64)
        reasons: dict[int, str] = {}
        for labels, reason in self._freezes:
            for component in np.unique(index[labels]).tolist():
                reasons.setdefault(component, reason)
        return Components(index, reasons)
