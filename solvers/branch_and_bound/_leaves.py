"""Nodes that need no children: everything kept, one or two removals left; compiled."""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._blocks import exact_pair
from mipprune.solvers.branch_and_bound._compiled import NOTHING, ZERO, compiled
from mipprune.solvers.branch_and_bound._limits import leaf_is_feasible
from mipprune.solvers.branch_and_bound._state import (
    BOX,
    LEAVES,
    PURE_QUADRATIC,
    Output,
    Program,
    Scratch,
    Stack,
    cutoff,
    emit,
    offer,
    prune,
    square,
)

__all__ = ["all_kept", "one_removal", "two_removals"]

Floats = NDArray[np.float64]


@compiled
def _settle(
    program: Program,
    stack: Stack,
    out: Output,
    value: float,
    level: int,
    first: int,
    second: int,
) -> None:
    """A complete mask: incumbent, or with a box a leaf to be solved outside."""
    n_upper = program.use.shape[0]
    for k in range(n_upper):
        need = stack.needs[level, k]
        if first >= 0:
            need -= program.use[k, first]
        if second >= 0:
            need -= program.use[k, second]
        if need > program.slack[k]:
            return
    for k in range(program.use_low.shape[0]):
        room = stack.rooms[level, k]
        if first >= 0:
            room -= program.use_low[k, first]
        if second >= 0:
            room -= program.use_low[k, second]
        if room < -program.slack[n_upper + k]:
            return
    if not leaf_is_feasible(stack.present, first, second, program.parts):
        return
    out.figures[LEAVES] += 1
    if program.flags[BOX] == 0:
        offer(out, stack, value, first, second)
    elif value < cutoff(out):
        emit(out, stack, level, ZERO, first, second, value)
    else:
        prune(out, value)


@compiled
def all_kept(program: Program, stack: Stack, out: Output, level: int) -> bool:
    """Offer the mask that keeps every undecided channel; whether upper limits are met."""
    for k in range(program.use.shape[0]):
        if stack.needs[level, k] > program.slack[k]:
            return False
    _settle(program, stack, out, stack.values[level], level, NOTHING, NOTHING)
    return True


@compiled
def one_removal(
    program: Program, stack: Stack, scratch: Scratch, out: Output, level: int, n: int
) -> None:
    """Offer every mask with one undecided channel removed."""
    for c in range(n):
        value = stack.values[level] + stack.delta[level, c] - scratch.price[c]
        _settle(program, stack, out, value, level, stack.ids[level, c], NOTHING)


@compiled
def _pair_cost(
    program: Program, stack: Stack, scratch: Scratch, level: int, n: int, i: int, j: int
) -> float:
    cost: float = stack.delta[level, i]
    if program.flags[PURE_QUADRATIC] == 1:
        cost += stack.delta[level, j] - scratch.q[i, j]
        return cost
    for t in range(program.sizes.size):
        g = program.sizes[t]
        width = n * g
        at = stack.offsets[level, 3 * t + 2]
        cost += exact_pair(
            square(stack.arena, stack.offsets[level, 3 * t], width),
            square(stack.arena, stack.offsets[level, 3 * t + 1], width),
            min(i, j),
            max(i, j),
            g,
            stack.arena[at : at + width * g].reshape(width, g),
            scratch.panel,
        )
    return cost if i < j else cost + stack.delta[level, j] - stack.delta[level, i]


@compiled
def two_removals(
    program: Program,
    stack: Stack,
    scratch: Scratch,
    out: Output,
    level: int,
    n: int,
    kept: int,
) -> None:
    """Offer every mask with two of the first ``kept`` ordered channels removed.

    ``(d_i + d_j)^2 / (d_i + d_j + Q_ij)``, the pairwise bound at its best t,
    spares most of the exact costs.
    """
    order = stack.orders[level]
    for c in range(1, kept):
        i = order[c]
        for b in range(c):
            j = order[b]
            base = stack.values[level] - scratch.price[i] - scratch.price[j]
            both = stack.delta[level, i] + stack.delta[level, j]
            coupled = both + scratch.q[i, j]
            if program.flags[PURE_QUADRATIC] == 0:
                estimate = base
                if coupled > 0.0:
                    estimate += both * both / coupled
                if estimate >= cutoff(out):
                    prune(out, estimate)
                    continue
            value = base + _pair_cost(program, stack, scratch, level, n, i, j)
            _settle(program, stack, out, value, level, stack.ids[level, i], stack.ids[level, j])
