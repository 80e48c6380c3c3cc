"""Matrices of a node and of its children, compiled."""

from mipprune.solvers.branch_and_bound._blocks import costs_of_singles, downdate, interactions
from mipprune.solvers.branch_and_bound._compiled import ZERO, compiled
from mipprune.solvers.branch_and_bound._state import (
    COUNT,
    PURE_QUADRATIC,
    REMOVED_CHANNEL,
    TAIL,
    Program,
    Scratch,
    Stack,
    square,
)

__all__ = ["choose", "descend", "lay_out_root", "pairwise", "singles"]


@compiled
def singles(program: Program, stack: Stack, scratch: Scratch, level: int, n: int) -> None:
    """Cost of removing each undecided channel, and the pivots of the matrices."""
    delta = stack.delta[level]
    for c in range(n):
        delta[c] = stack.base[level, c]
        scratch.price[c] = program.prices[stack.ids[level, c]]
    for t in range(program.sizes.size):
        g = program.sizes[t]
        width = n * g
        at = stack.offsets[level, 3 * t + 2]
        costs_of_singles(
            square(stack.arena, stack.offsets[level, 3 * t], width),
            square(stack.arena, stack.offsets[level, 3 * t + 1], width),
            n,
            g,
            stack.arena[at : at + width * g].reshape(width, g),
            delta,
        )


@compiled
def pairwise(program: Program, stack: Stack, scratch: Scratch, level: int, n: int) -> None:
    """Q of the undecided channels at t = 1, zero diagonal."""
    q = scratch.q
    for i in range(n):
        for j in range(n):
            q[i, j] = 0.0
    if program.flags[PURE_QUADRATIC] == 1:
        for i in range(n):
            for j in range(n):
                if i != j:
                    q[i, j] = program.extra[stack.ids[level, i], stack.ids[level, j]]
    for t in range(program.sizes.size):
        g = program.sizes[t]
        width = n * g
        at = stack.offsets[level, 3 * t + 2]
        interactions(
            square(stack.arena, stack.offsets[level, 3 * t], width),
            square(stack.arena, stack.offsets[level, 3 * t + 1], width),
            n,
            g,
            stack.arena[at : at + width * g].reshape(width, g),
            square(scratch.left, ZERO, width),
            square(scratch.right, ZERO, width),
            q,
        )


@compiled
def choose(stack: Stack, scratch: Scratch, level: int, c: int) -> int:
    """Positions that stay undecided in child c, increasing; how many."""
    order, chosen = stack.orders[level], scratch.chosen
    m = 0
    for b in range(c):
        if stack.drops[level, c, b] == 0:
            j = order[b]
            k = m
            while k > 0 and chosen[k - 1] > j:
                chosen[k] = chosen[k - 1]
                k -= 1
            chosen[k] = j
            m += 1
    return m


@compiled
def descend(program: Program, stack: Stack, scratch: Scratch, level: int, i: int, m: int) -> None:
    """Build the child that removes position i and leaves ``chosen`` undecided."""
    below, n, n_terms = level + 1, stack.counts[level, COUNT], program.sizes.size
    arena, chosen = stack.arena, scratch.chosen
    gone = stack.ids[level, i]
    at = stack.counts[level, TAIL]
    for t in range(n_terms):
        g = program.sizes[t]
        width, wide = m * g, n * g
        pivot = stack.offsets[level, 3 * t + 2] + i * g * g
        stack.offsets[below, 3 * t] = at
        stack.offsets[below, 3 * t + 1] = at + width * width
        downdate(
            square(arena, stack.offsets[level, 3 * t], wide),
            square(arena, stack.offsets[level, 3 * t + 1], wide),
            i,
            chosen,
            m,
            g,
            square(arena, pivot, g),
            square(arena, at, width),
            square(arena, at + width * width, width),
            scratch.flat,
            square(scratch.left, ZERO, width),
            square(scratch.right, ZERO, width),
        )
        at += 2 * width * width
        stack.offsets[below, 3 * t + 2] = at
        at += width * g
    old = stack.offsets[level, 3 * n_terms]
    stack.offsets[below, 3 * n_terms] = at
    for a in range(m):
        j = chosen[a]
        stack.ids[below, a] = stack.ids[level, j]
        stack.scales[below, a] = stack.scales[level, j]
        stack.base[below, a] = stack.base[level, j]
        if program.flags[PURE_QUADRATIC] == 1:
            stack.base[below, a] -= program.extra[gone, stack.ids[level, j]]
        for b in range(m):
            arena[at + a * m + b] = arena[old + j * n + chosen[b]]
    stack.counts[below, TAIL] = at + m * m
    stack.counts[below, COUNT] = m
    stack.counts[below, REMOVED_CHANNEL] = gone
    stack.values[below] = stack.values[level] + stack.delta[level, i] - program.prices[gone]
    for k in range(program.use.shape[0]):
        stack.needs[below, k] = stack.needs[level, k] - program.use[k, gone]
    for k in range(program.use_low.shape[0]):
        stack.rooms[below, k] = stack.rooms[level, k] - program.use_low[k, gone]
    stack.present[gone] = 0


@compiled
def lay_out_root(program: Program, stack: Stack, n: int) -> None:
    """Offsets of level 0, whose matrices and multipliers the caller has put in place."""
    at = 0
    n_terms = program.sizes.size
    for t in range(n_terms):
        width = n * program.sizes[t]
        stack.offsets[0, 3 * t] = at
        stack.offsets[0, 3 * t + 1] = at + width * width
        at += 2 * width * width
        stack.offsets[0, 3 * t + 2] = at
        at += width * program.sizes[t]
    stack.offsets[0, 3 * n_terms] = at
    for k in range(n * n):
        stack.arena[at + k] = 0.0
    stack.counts[0, TAIL] = at + n * n
    stack.counts[0, COUNT] = n
    stack.counts[0, REMOVED_CHANNEL] = -1
