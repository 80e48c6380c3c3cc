"""Depth-first elimination below one node, compiled.

A node is a set of kept and undecided channels S; its undecided ones are the
only rows of the working matrices. Children: fix an order of the undecided
channels, child c removes ``order[c]``, keeps everything behind it and leaves
what is before it undecided.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import NOTHING, ZERO, compiled
from mipprune.solvers.branch_and_bound._leaves import (
    all_kept,
    few_triples,
    one_removal,
    two_removals,
)
from mipprune.solvers.branch_and_bound._limits import least_removals, most_removals
from mipprune.solvers.branch_and_bound._nodes import (
    choose,
    descend,
    lay_out_root,
    pairwise,
    singles,
)
from mipprune.solvers.branch_and_bound._pairwise import child_bounds, tighten
from mipprune.solvers.branch_and_bound._sets import MOST_FOR_FOUR, set_bounds
from mipprune.solvers.branch_and_bound._state import (
    COUNT,
    DONE,
    MONOTONE,
    NEXT,
    NODE_CAP,
    NODES,
    PURE_QUADRATIC,
    REMOVED_CHANNEL,
    TAIL,
    WORK,
    WORK_CAP,
    Output,
    Program,
    Scratch,
    Stack,
    cutoff,
    emit,
    prune,
    square,
)
from mipprune.solvers.branch_and_bound._twins import skip_twins

__all__ = ["search"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

INFINITY = np.inf

FEW_TRIPLES = cast(int, np.int64(4))
"""Sets of three that are cheaper to price one by one than through a child's matrices."""


@compiled
def _arrange(
    stack: Stack, scratch: Scratch, out: Output, level: int, n: int, low: int, gain: float
) -> tuple[int, int]:
    """Order the channels that may go by their bounds, one that must go last.

    Returns how many there are and the first child.
    """
    value, limit = stack.values[level], cutoff(out)
    order, key = stack.orders[level], scratch.forced
    kept, must = 0, -1
    for c in range(n):
        if value + scratch.forced[c] >= limit:
            prune(out, value + scratch.forced[c])
            continue
        if value + scratch.without[c] >= limit:
            must = c
        k = kept
        while k > 0 and key[order[k - 1]] > key[c]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = c
        kept += 1
    if kept < low:
        return 0, 0
    if must < 0:
        return kept, low - 1
    prune(out, value + scratch.without[must])
    k = 0
    while order[k] != must:
        k += 1
    while k < kept - 1:
        order[k] = order[k + 1]
        k += 1
    order[kept - 1] = must
    return kept, kept - 1


@compiled
def _bound_children(
    program: Program,
    stack: Stack,
    scratch: Scratch,
    out: Output,
    level: int,
    n: int,
    kept: int,
    low: int,
    high: int,
    target: float,
) -> None:
    """Bounds of the children relative to the node's value, and what each must keep."""
    value = stack.values[level]
    skew = square(stack.arena, stack.offsets[level, 3 * program.sizes.size], n)
    pure = program.flags[PURE_QUADRATIC] == 1
    last = low if program.flags[MONOTONE] == 1 else high
    bounds = stack.bounds[level]
    by_sets = low == last and not pure and (low == 3 or (low == 4 and kept <= MOST_FOR_FOUR))
    if by_sets:
        least = set_bounds(
            kept,
            low,
            stack.orders[level],
            stack.delta[level],
            scratch.q,
            scratch.price,
            target,
            bounds,
            stack.drops[level],
            scratch.least[0 : kept + 1],
            scratch.row,
        )
        prune(out, value + least)
        if low == 3 and high == 3:
            few_triples(program, stack, scratch, out, level, n, kept, FEW_TRIPLES)
        for c in range(kept):
            if bounds[c] == INFINITY:
                bounds[c] = DONE
    elif low == last:
        least = child_bounds(
            kept,
            low,
            stack.orders[level],
            stack.delta[level],
            scratch.q,
            scratch.price,
            stack.scales[level],
            skew,
            target,
            bounds,
            stack.drops[level],
        )
        prune(out, value + least)
    else:
        for c in range(kept):
            bounds[c] = scratch.forced[stack.orders[level, c]]
            for b in range(c):
                stack.drops[level, c, b] = 0


@compiled
def _branch(
    program: Program,
    stack: Stack,
    scratch: Scratch,
    out: Output,
    level: int,
    n: int,
    low: int,
    high: int,
    inherited: float,
) -> None:
    """Bound a node by its pairwise matrix and lay out its children."""
    value = stack.values[level]
    pairwise(program, stack, scratch, level, n)
    skew = square(stack.arena, stack.offsets[level, 3 * program.sizes.size], n)
    pure = program.flags[PURE_QUADRATIC] == 1
    last = low if program.flags[MONOTONE] == 1 else high
    pairs = low == 2 and high == 2
    steps = program.steps[min(low, program.steps.size - 1)]
    target = cutoff(out) - value
    gain = tighten(
        n,
        low,
        last,
        stack.delta[level],
        scratch.q,
        scratch.price,
        stack.scales[level],
        skew,
        target,
        ZERO if pairs else steps,
        pure,
        scratch.forced,
        scratch.without,
    )
    bound = max(value + gain, inherited)
    if bound >= cutoff(out):
        prune(out, bound)
        return
    kept, first = _arrange(stack, scratch, out, level, n, low, gain)
    if kept == 0:
        return
    if pairs:
        two_removals(program, stack, scratch, out, level, n, kept)
        return
    _bound_children(program, stack, scratch, out, level, n, kept, low, high, target)
    bounds = stack.bounds[level]
    for c in range(first, kept):
        bounds[c] = max(value + bounds[c], bound)
    for c in range(kept, n):
        bounds[c] = INFINITY
    if program.twins.size > 0:
        skip_twins(program.twins, stack, level, first, kept)
    stack.counts[level, NEXT] = first


@compiled
def _enter(
    program: Program, stack: Stack, scratch: Scratch, out: Output, level: int, inherited: float
) -> None:
    """Settle, prune or branch the node of a level."""
    n = stack.counts[level, COUNT]
    stack.counts[level, NEXT] = n
    value = stack.values[level]
    monotone = program.flags[MONOTONE] == 1
    n_upper, n_lower = program.use.shape[0], program.use_low.shape[0]
    if all_kept(program, stack, out, level) and monotone:
        return
    if monotone and value >= cutoff(out):
        prune(out, max(value, inherited))
        return
    if n == 0:
        return
    ids, needs = stack.ids[level], stack.needs[level]
    low = max(least_removals(n, ids, program.use, needs, program.slack, n_upper), 1)
    high = most_removals(
        n,
        ids,
        program.use,
        needs,
        n_upper,
        program.use_low,
        stack.rooms[level],
        n_lower,
        program.slack,
        monotone,
    )
    if low > high:
        return
    singles(program, stack, scratch, level, n)
    if high == 1:
        one_removal(program, stack, scratch, out, level, n)
    else:
        _branch(program, stack, scratch, out, level, n, low, high, inherited)


@compiled
def search(
    program: Program, stack: Stack, scratch: Scratch, out: Output, n: int, inherited: float
) -> None:
    """Search below the node of level 0; what is not finished is left in ``out.opened``.

    Stops at ``control``, at the caps in ``figures`` or when ``opened`` fills up.
    """
    lay_out_root(program, stack, n)
    figures, bounds = out.figures, stack.bounds
    figures[NODES] += 1
    reserve = out.opened.shape[0] - 2 * n * n - 2
    level = ZERO
    _enter(program, stack, scratch, out, level, inherited)
    while level >= 0:
        c = stack.counts[level, NEXT]
        if c >= stack.counts[level, COUNT] or bounds[level, c] == INFINITY:
            gone = stack.counts[level, REMOVED_CHANNEL]
            if gone >= 0:
                stack.present[gone] = 1
            level -= 1
            continue
        stack.counts[level, NEXT] = c + 1
        if bounds[level, c] >= DONE:
            continue
        if bounds[level, c] >= cutoff(out):
            prune(out, bounds[level, c])
            continue
        i = stack.orders[level, c]
        m = choose(stack, scratch, level, c)
        area = m * m
        for t in range(program.sizes.size):
            width = m * program.sizes[t]
            area += 2 * width * width + width * program.sizes[t]
        if (
            out.control[0] != 0
            or figures[WORK] >= figures[WORK_CAP]
            or figures[NODES] >= figures[NODE_CAP]
            or out.opened_count[0] >= reserve
            or stack.counts[level, TAIL] + area > stack.arena.size
        ):
            for b in range(m):
                stack.ids[level + 1, b] = stack.ids[level, scratch.chosen[b]]
            gone = stack.ids[level, i]
            emit(out, stack, level + 1, m, gone, NOTHING, NOTHING, bounds[level, c])
            continue
        figures[NODES] += 1
        figures[WORK] += 40.0 * area + 20000.0
        descend(program, stack, scratch, level, i, m)
        level += 1
        _enter(program, stack, scratch, out, level, bounds[level - 1, c])
