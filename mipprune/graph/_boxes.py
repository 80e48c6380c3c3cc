"""Boxes: what is kept of a tensor must again be a tensor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.graph.labeller import Labeller, Rectangle

__all__ = ["Partition", "resolve_boxes"]

Grid = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Equal-count constraint: component -> row; every row keeps the same number."""

    row: dict[int, int]


def resolve_boxes(state: Labeller) -> list[Partition]:
    """Tie channels until every recorded box stays a box, or becomes one by equal counts."""
    while True:
        components = state.space.components()
        partitions: list[Partition] = []
        changed = False
        for box in state.rectangles:
            grid = components.of(box.labels.numpy().reshape(-1)).reshape(box.labels.shape)
            if not _accept(grid, box, partitions):
                _tie_first(state, box, grid)
                changed = True
        if not changed:
            return partitions


def _accept(grid: Grid, box: Rectangle, partitions: list[Partition]) -> bool:
    """Whether every admissible mask keeps a box; may add a partition."""
    if (grid < 0).all():
        return True
    if box.equal_along is not None:
        rows = np.moveaxis(grid, box.equal_along, 0).reshape(grid.shape[box.equal_along], -1)
        return _equal_rows(rows, partitions)
    dims = [d for d in range(grid.ndim) if not _constant(grid, d)]
    if len(dims) <= 1:
        return True
    inner = grid[tuple(slice(None) if d in dims else 0 for d in range(grid.ndim))]
    return _equal_rows(inner.reshape(-1, inner.shape[-1]), partitions)


def _constant(grid: Grid, dim: int) -> bool:
    return bool((grid == np.take(grid, [0], axis=dim)).all())


def _equal_rows(rows: Grid, partitions: list[Partition]) -> bool:
    if (np.sort(rows, axis=1) == np.sort(rows[:1], axis=1)).all():
        return True
    if len({int((row < 0).sum()) for row in rows}) > 1:
        return False
    row_of: dict[int, int] = {}
    sizes: set[int] = set()
    for index, row in enumerate(rows):
        values, counts = np.unique(row[row >= 0], return_counts=True)
        sizes.update(counts.tolist())
        for value in values.tolist():
            if row_of.setdefault(value, index) != index:
                return False
    if len(sizes) > 1 or len(row_of) <= len(rows):
        return False
    return _compatible(row_of, partitions)


def _compatible(row_of: dict[int, int], partitions: list[Partition]) -> bool:
    """Add the partition unless it repeats one; refuse if it crosses another."""
    for known in partitions:
        if not known.row.keys() & row_of.keys():
            continue
        if known.row.keys() != row_of.keys():
            return False
        pairs = {(known.row[c], row_of[c]) for c in row_of}
        return not (
            len(pairs) != len(set(row_of.values())) or len(pairs) != len(set(known.row.values()))
        )
    partitions.append(Partition(row_of))
    return True


def _tie_first(state: Labeller, box: Rectangle, grid: Grid) -> None:
    """Tie along the fixed dimension, or the outermost one that is not yet constant."""
    dim = box.equal_along
    if dim is None or _constant(grid, dim):
        dim = next((d for d in range(grid.ndim) if not _constant(grid, d)), 0)
    state.space.tie(box.labels, box.labels.narrow(dim, 0, 1), box.reason)
