"""Costs of masks, updated in place as classes come and go."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.graph.groups import CostTerm

__all__ = ["CostState", "CostTable"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CostTable:
    """Cost terms of several resources over common axes.

    Attributes
    ----------
    coefficients : float64 (n_terms,)
    resource : int64 (n_terms,)
        Resource of each term.
    factors : int64 (n_terms, width)
        Axes of each term; axis 0 is a dummy with one position.
    fixed : float64 (n_axes,)
        Positions of each axis that nobody owns.
    kind : int64 (n_classes,)
        Classes of one kind have the same positions on the same axes.
    owned : tuple of (int64 (k,), int64 (k,)) for each kind
        Axes on which the class has positions, and how many.
    touching : tuple of int64 arrays
        Terms that contain an axis of the kind.
    n_resources : int
    """

    coefficients: Floats
    resource: Ints
    factors: Ints
    fixed: Floats
    kind: Ints
    owned: tuple[tuple[Ints, Ints], ...]
    touching: tuple[Ints, ...]
    n_resources: int

    @classmethod
    def build(cls, resources: Sequence[Sequence[CostTerm]], n_classes: int) -> "CostTable":
        """Collect the terms of each resource; equal axes are stored once."""
        axes: dict[bytes, int] = {}
        owners: list[Ints] = []
        rows: list[tuple[float, int, list[int]]] = []
        for index, terms in enumerate(resources):
            for term in terms:
                numbers = []
                for owner in term.axes:
                    key = owner.tobytes()
                    if key not in axes:
                        axes[key] = len(axes) + 1
                        owners.append(owner)
                    numbers.append(axes[key])
                rows.append((term.coefficient, index, numbers))
        width = max((len(r[2]) for r in rows), default=1) or 1
        factors = np.zeros((len(rows), width), dtype=np.int64)
        for i, (_, _, numbers) in enumerate(rows):
            factors[i, : len(numbers)] = numbers
        kind, owned = _kinds(owners, n_classes)
        by_axis = _terms_of_axes(factors, len(owners) + 1)
        return cls(
            np.array([r[0] for r in rows], dtype=np.float64),
            np.array([r[1] for r in rows], dtype=np.int64),
            factors,
            np.array([1.0, *((o < 0).sum() for o in owners)], dtype=np.float64),
            kind,
            owned,
            tuple(_union([by_axis[a] for a in axes.tolist()]) for axes, _ in owned),
            len(resources),
        )

    def start(self, kept: NDArray[np.bool_]) -> "CostState":
        """Costs of a mask, bool (n_classes,)."""
        counts = self.fixed.copy()
        for number, n in enumerate(np.bincount(self.kind[kept], minlength=len(self.owned))):
            axes, times = self.owned[number]
            counts[axes] += n * times
        return CostState(self, counts)


def _kinds(owners: list[Ints], n_classes: int) -> tuple[Ints, tuple[tuple[Ints, Ints], ...]]:
    positions: list[list[tuple[int, int]]] = [[] for _ in range(n_classes)]
    for index, owner in enumerate(owners, start=1):
        classes, counts = np.unique(owner[owner >= 0], return_counts=True)
        for j, n in zip(classes.tolist(), counts.tolist(), strict=True):
            positions[j].append((index, n))
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    kind = np.array([numbers.setdefault(tuple(p), len(numbers)) for p in positions], dtype=np.int64)
    owned = tuple(
        (np.array([a for a, _ in p], dtype=np.int64), np.array([t for _, t in p], dtype=np.int64))
        for p in numbers
    )
    return kind, owned


def _union(arrays: list[Ints]) -> Ints:
    return np.unique(np.concatenate(arrays)) if arrays else np.empty(0, dtype=np.int64)


def _terms_of_axes(factors: Ints, n_axes: int) -> tuple[Ints, ...]:
    found: list[list[int]] = [[] for _ in range(n_axes)]
    for term, numbers in enumerate(factors.tolist()):
        for axis in set(numbers) - {0}:
            found[axis].append(term)
    return tuple(np.array(f, dtype=np.int64) for f in found)


@dataclass(eq=False)
class CostState:
    """Kept positions of every axis for the current mask."""

    table: CostTable
    counts: Floats

    def total(self) -> Floats:
        """Cost of each resource, float64 (n_resources,)."""
        every = np.arange(self.table.coefficients.size)
        return self._value(every, self.counts)

    def change(self, classes: Sequence[int], sign: int) -> tuple[Floats, Floats]:
        """Difference in each cost if ``classes`` are added (+1) or removed (-1), and new counts."""
        table = self.table
        counts = self.counts.copy()
        kinds: set[int] = set()
        for j in classes:
            number = int(table.kind[j])
            axes, times = table.owned[number]
            counts[axes] += sign * times
            kinds.add(number)
        touched = [table.touching[k] for k in kinds]
        terms = touched[0] if len(touched) == 1 else _union(touched)
        return self._value(terms, counts) - self._value(terms, self.counts), counts

    def _value(self, terms: Ints, counts: Floats) -> Floats:
        table = self.table
        values = table.coefficients[terms] * counts[table.factors[terms]].prod(axis=1)
        costs: Floats = np.zeros(table.n_resources)
        np.add.at(costs, table.resource[terms], values)
        return costs
