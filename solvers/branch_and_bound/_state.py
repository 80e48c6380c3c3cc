"""What the compiled search reads and writes: named tuples of arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import compiled

__all__ = [
    "BOX",
    "COUNT",
    "DONE",
    "KEPT",
    "LEAVES",
    "MONOTONE",
    "NEXT",
    "NODES",
    "NODE_CAP",
    "PRUNED",
    "PURE_QUADRATIC",
    "REMOVED",
    "REMOVED_CHANNEL",
    "TAIL",
    "UNDECIDED",
    "WORK",
    "WORK_CAP",
    "Output",
    "Program",
    "Scratch",
    "Stack",
    "cutoff",
    "emit",
    "make_output",
    "make_scratch",
    "make_stack",
    "offer",
    "prune",
    "square",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

UNDECIDED, KEPT, REMOVED = 0, 1, 2
"""State of a channel in an open node."""

COUNT, NEXT, REMOVED_CHANNEL, TAIL = 0, 1, 2, 3
"""Columns of ``Stack.counts``."""

NODES, PRUNED, LEAVES, WORK, NODE_CAP, WORK_CAP = 0, 1, 2, 3, 4, 5
"""Entries of ``Output.figures``."""

MONOTONE, BOX, PURE_QUADRATIC = 0, 1, 2
"""Entries of ``Program.flags``."""

INFINITY = np.inf

DONE = 1e300
"""Bound of a child that has already been settled."""


class Program(NamedTuple):
    """The problem, fixed during a search.

    ``sizes`` (terms,) rows per channel; ``prices`` (p,); ``use`` (r, p) resources
    with upper and ``use_low`` with lower limits, ``slack`` their rounding;
    ``parts`` (k, p) equal counts; ``twins`` (p,) classes of channels that may change
    places, empty where there are none; ``extra`` (p, p) the Q of an objective that
    is itself pairwise (variant mask), without terms.
    """

    sizes: Integers
    prices: Floats
    use: Floats
    use_low: Floats
    slack: Floats
    parts: Integers
    twins: Integers
    extra: Floats
    steps: Integers
    flags: Integers


class Stack(NamedTuple):
    """Nodes on the path, one row a level; matrices lie in ``arena``."""

    arena: Floats
    offsets: Integers
    counts: Integers
    ids: Integers
    orders: Integers
    drops: Bytes
    bounds: Floats
    scales: Floats
    delta: Floats
    base: Floats
    values: Floats
    needs: Floats
    rooms: Floats
    present: Bytes


class Scratch(NamedTuple):
    """Work space without meaning between nodes."""

    left: Floats
    right: Floats
    panel: Floats
    flat: Floats
    q: Floats
    forced: Floats
    without: Floats
    price: Floats
    least: Floats
    row: Floats
    chosen: Integers


class Output(NamedTuple):
    """Incumbent (shared between threads), open nodes and figures."""

    control: Integers
    shared: Floats
    best_mask: Bytes
    best_value: Floats
    opened: Bytes
    opened_bounds: Floats
    opened_count: Integers
    figures: Floats


def make_stack(arena: Floats, n: int, p: int, n_terms: int, n_upper: int, n_lower: int) -> Stack:
    """Empty levels for a node with n undecided channels."""
    depth = n + 2
    return Stack(
        arena=arena,
        offsets=np.zeros((depth, 3 * n_terms + 1), dtype=np.int64),
        counts=np.zeros((depth, 4), dtype=np.int64),
        ids=np.zeros((depth, n), dtype=np.int64),
        orders=np.zeros((depth, n), dtype=np.int64),
        drops=np.zeros((depth, n, n), dtype=np.int8),
        bounds=np.zeros((depth, n)),
        scales=np.ones((depth, n)),
        delta=np.zeros((depth, n)),
        base=np.zeros((depth, n)),
        values=np.zeros(depth),
        needs=np.zeros((depth, n_upper)),
        rooms=np.zeros((depth, n_lower)),
        present=np.zeros(p, dtype=np.int8),
    )


def make_scratch(n: int, largest: int) -> Scratch:
    """Work space for n channels of at most ``largest`` rows."""
    return Scratch(
        left=np.empty((n * largest) ** 2),
        right=np.empty((n * largest) ** 2),
        panel=np.empty((6 * largest, max(n, 3) * largest)),
        flat=np.empty(7 * max(n, 1) * largest * largest),
        q=np.empty((n, n)),
        forced=np.empty(n),
        without=np.empty(n),
        price=np.empty(n),
        least=np.empty(n + 1),
        row=np.empty(n + 1),
        chosen=np.zeros(n, dtype=np.int64),
    )


def make_output(p: int, n: int, control: Integers, shared: Floats) -> Output:
    """Room for the open nodes of one search; :func:`_search.search` reserves the last part."""
    rows = 3 * n * n + 1024
    return Output(
        control=control,
        shared=shared,
        best_mask=np.zeros(p, dtype=np.int8),
        best_value=np.full(1, np.inf),
        opened=np.empty((rows, p), dtype=np.int8),
        opened_bounds=np.empty(rows),
        opened_count=np.zeros(1, dtype=np.int64),
        figures=np.zeros(6),
    )


@compiled
def square(arena: Floats, at: int, width: int) -> Floats:
    """A square matrix stored in the arena."""
    return arena[at : at + width * width].reshape(width, width)


@compiled
def cutoff(out: Output) -> float:
    """Bounds at or above this need no search: incumbent less the gap asked for."""
    value: float = out.shared[0]
    if value == INFINITY:
        return INFINITY
    limit: float = value - out.shared[1] * max(abs(value), out.shared[2])
    return limit


@compiled
def prune(out: Output, bound: float) -> None:
    """Remember the least bound at which something was discarded."""
    out.figures[PRUNED] = min(out.figures[PRUNED], bound)


@compiled
def offer(out: Output, stack: Stack, value: float, first: int, second: int, third: int) -> None:
    """Take the kept set ``present`` less up to three channels as incumbent where it is better."""
    if value < out.best_value[0] and value < out.shared[0]:
        out.best_value[0] = value
        out.shared[0] = value
        for j in range(stack.present.size):
            out.best_mask[j] = stack.present[j]
        if first >= 0:
            out.best_mask[first] = 0
        if second >= 0:
            out.best_mask[second] = 0
        if third >= 0:
            out.best_mask[third] = 0


@compiled
def emit(
    out: Output, stack: Stack, level: int, n: int, first: int, second: int, third: int, bound: float
) -> None:
    """Append an open node: ``present`` less up to three channels, n undecided ids of a level."""
    count = out.opened_count[0]
    row = out.opened[count]
    for j in range(stack.present.size):
        row[j] = KEPT if stack.present[j] == 1 else REMOVED
    for c in range(n):
        row[stack.ids[level, c]] = UNDECIDED
    if first >= 0:
        row[first] = REMOVED
    if second >= 0:
        row[second] = REMOVED
    if third >= 0:
        row[third] = REMOVED
    out.opened_bounds[count] = bound
    out.opened_count[0] = count + 1
