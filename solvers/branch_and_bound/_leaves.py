"""Nodes that need no children: everything kept, one or two removals left; compiled."""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._blocks import exact_pair
from mipprune.solvers.branch_and_bound._compiled import NOTHING, ZERO, compiled
from mipprune.solvers.branch_and_bound._limits import leaf_is_feasible
from mipprune.solvers.branch_and_bound._sets import exact_set
from mipprune.solvers.branch_and_bound._state import (
    BOX,
    DONE,
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

__all__ = ["all_kept", "few_triples", "one_removal", "two_removals"]

Floats = NDArray[np.float64]

INFINITY = np.inf


@compiled
def _settle(
    program: Program,
    stack: Stack,
    out: Output,
    value: float,
    level: int,
    first: int,
    second: int,
    third: int,
) -> None:
    """A complete mask: incumbent, or with a box a leaf to be solved outside."""
    n_upper = program.use.shape[0]
    for k in range(n_upper):
        need = stack.needs[level, k]
        if first >= 0:
            need -= program.use[k, first]
        if second >= 0:
            need -= program.use[k, second]
        if third >= 0:
            need -= program.use[k, third]
        if need > program.slack[k]:
            return
    for k in range(program.use_low.shape[0]):
        room = stack.rooms[level, k]
        if first >= 0:
            room -= program.use_low[k, first]
        if second >= 0:
            room -= program.use_low[k, second]
        if third >= 0:
            room -= program.use_low[k, third]
        if room < -program.slack[n_upper + k]:
            return
    if not leaf_is_feasible(stack.present, first, second, third, program.parts):
        return
    out.figures[LEAVES] += 1
    if program.flags[BOX] == 0:
        offer(out, stack, value, first, second, third)
    elif value < cutoff(out):
        emit(out, stack, level, ZERO, first, second, third, value)
    else:
        prune(out, value)


@compiled
def all_kept(program: Program, stack: Stack, out: Output, level: int) -> bool:
    """Offer the mask that keeps every undecided channel; whether upper limits are met."""
    for k in range(program.use.shape[0]):
        if stack.needs[level, k] > program.slack[k]:
            return False
    _settle(program, stack, out, stack.values[level], level, NOTHING, NOTHING, NOTHING)
    return True


@compiled
def one_removal(
    program: Program, stack: Stack, scratch: Scratch, out: Output, level: int, n: int
) -> None:
    """Offer every mask with one undecided channel removed."""
    for c in range(n):
        value = stack.values[level] + stack.delta[level, c] - scratch.price[c]
        _settle(program, stack, out, value, level, stack.ids[level, c], NOTHING, NOTHING)


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
            first, second = stack.ids[level, i], stack.ids[level, j]
            _settle(program, stack, out, value, level, first, second, NOTHING)


@compiled
def few_triples(
    program: Program,
    stack: Stack,
    scratch: Scratch,
    out: Output,
    level: int,
    n: int,
    kept: int,
    most: int,
) -> None:
    """Price the sets of three below children that have at most ``most`` of them open.

    Such a child is settled without its matrices; its bound becomes ``DONE``.
    """
    order, delta, q = stack.orders[level], stack.delta[level], scratch.q
    members, price = np.empty(3, dtype=np.int64), scratch.price
    for c in range(2, kept):
        if stack.bounds[level, c] == INFINITY:
            stack.bounds[level, c] = DONE
            continue
        i, count = order[c], 0
        for sweep in range(2):
            if sweep == 1 and count > most:
                break
            for b in range(c):
                if stack.drops[level, c, b] == 1:
                    continue
                j = order[b]
                for a in range(b):
                    if stack.drops[level, c, a] == 1:
                        continue
                    k = order[a]
                    total = delta[i] + delta[j] + delta[k]
                    base = stack.values[level] - price[i] - price[j] - price[k]
                    coupled = total + q[i, j] + q[i, k] + q[j, k]
                    estimate = base + total * total / coupled if coupled > 0.0 else base
                    if estimate >= cutoff(out):
                        if sweep == 1:
                            prune(out, estimate)
                        continue
                    if sweep == 0:
                        count += 1
                        continue
                    members[0], members[2] = min(i, j, k), max(i, j, k)
                    members[1] = i + j + k - members[0] - members[2]
                    value = base + _triple_cost(program, stack, scratch, level, n, members)
                    first, second = stack.ids[level, i], stack.ids[level, j]
                    third = stack.ids[level, k]
                    _settle(program, stack, out, value, level, first, second, third)
        if count <= most:
            stack.bounds[level, c] = DONE


@compiled
def _triple_cost(
    program: Program,
    stack: Stack,
    scratch: Scratch,
    level: int,
    n: int,
    members: NDArray[np.int64],
) -> float:
    cost = 0.0
    for t in range(program.sizes.size):
        g = program.sizes[t]
        cost += exact_set(
            square(stack.arena, stack.offsets[level, 3 * t], n * g),
            square(stack.arena, stack.offsets[level, 3 * t + 1], n * g),
            members,
            members.size,
            g,
            scratch.panel,
        )
    return cost
