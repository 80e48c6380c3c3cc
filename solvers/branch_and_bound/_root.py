"""The problem as the search sees it: padded matrices, limits and base values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.problem._resources import RELATIVE_SLACK
from mipprune.relaxation.removal import RemovalForm, TermRemoval
from mipprune.solvers.branch_and_bound._state import REMOVED, UNDECIDED, Program, Stack
from mipprune.solvers.branch_and_bound._twins import NO_TWIN, twin_labels

__all__ = ["Root", "binary_root", "removal_root"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Root:
    """Everything fixed during a search.

    Attributes
    ----------
    program : Program
    inverse, energy, coefficients : float64 (p * g, p * g) and (p * g, q) per term
        P, B B' and B with every channel padded to the term's largest group: a padded
        row has unit diagonal and no coefficient, so it costs nothing.
    value_all : float
        Objective with every channel kept, prices apart.
    linear : float64 (p,)
        Cost of removing one channel from all, where the objective is pairwise
        itself (variant mask); else zero.
    need, room : float64 (r,), (l,)
        What removal must free of each resource, and what it may free.
    """

    program: Program
    inverse: tuple[Floats, ...]
    energy: tuple[Floats, ...]
    coefficients: tuple[Floats, ...]
    value_all: float
    linear: Floats
    need: Floats
    room: Floats

    @property
    def n_channels(self) -> int:
        """Number of channels p."""
        return int(self.linear.size)

    def arena_size(self, n: int) -> int:
        """Entries of the arena for a node with n undecided channels, all levels."""
        blocks = float((self.program.sizes**2).sum())
        return int((2 * blocks + 1) * (n + 1) ** 3 / 3 + (blocks + 1) * (n + 2) ** 2) + 64

    def level_size(self, n: int) -> int:
        """Entries of one node with n undecided channels."""
        sizes = self.program.sizes
        return int((2 * (n * sizes) ** 2 + n * sizes**2).sum()) + n * n

    def load(self, state: Bytes, stack: Stack) -> int:
        """Write a node, computed afresh from the root, to level 0; its undecided channels."""
        undecided = np.flatnonzero(state == UNDECIDED)
        removed = np.flatnonzero(state == REMOVED)
        value, at = self.value_all, 0
        for inverse, energy, size in zip(
            self.inverse, self.energy, self.program.sizes.tolist(), strict=True
        ):
            p_new, k_new, cost = _reduced(inverse, energy, size, undecided, removed)
            value += cost
            stack.arena[at : at + p_new.size] = p_new.ravel()
            at += p_new.size
            stack.arena[at : at + k_new.size] = k_new.ravel()
            at += k_new.size + undecided.size * size * size
        if not self.inverse:
            extra = self.program.extra
            value += float(self.linear[removed].sum() - 0.5 * extra[np.ix_(removed, removed)].sum())
            stack.base[0, : undecided.size] = self.linear[undecided] - extra[
                np.ix_(undecided, removed)
            ].sum(1)
            stack.scales[0, : undecided.size] = 1.0
        else:
            stack.scales[0, : undecided.size] = 0.9
        stack.present[:] = state != REMOVED
        stack.values[0] = value + float(self.program.prices[state != REMOVED].sum())
        stack.ids[0, : undecided.size] = undecided
        stack.needs[0] = self.need - self.program.use[:, removed].sum(1)
        stack.rooms[0] = self.room - self.program.use_low[:, removed].sum(1)
        return int(undecided.size)


def _reduced(
    inverse: Floats, energy: Floats, size: int, undecided: Integers, removed: Integers
) -> tuple[Floats, Floats, float]:
    """P and K of the undecided channels once others are removed, and what that costs."""
    rows = (undecided[:, None] * size + np.arange(size)).ravel()
    p_new, k_new = inverse[np.ix_(rows, rows)], energy[np.ix_(rows, rows)]
    if not removed.size:
        return p_new, k_new, 0.0
    gone = (removed[:, None] * size + np.arange(size)).ravel()
    corner, panel = energy[np.ix_(gone, gone)], inverse[np.ix_(gone, rows)]
    both = np.linalg.solve(inverse[np.ix_(gone, gone)], np.hstack([panel, corner]))
    a, inner = both[:, : rows.size], both[:, rows.size :]
    product = a.T @ (energy[np.ix_(gone, rows)] - 0.5 * (corner @ a))
    return p_new - panel.T @ a, k_new - product - product.T, 0.5 * float(np.trace(inner))


def removal_root(problem: ChannelSelection, form: RemovalForm, steps: Integers) -> Root:
    """Root of a canonical problem of variant refit."""
    padded = [_padded(term) for term in form.terms]
    p = problem.n_channels
    program, need, room = _program(
        problem,
        np.array([size for size, _, _ in padded], dtype=np.int64),
        np.array(problem.prices),
        np.zeros((0, 0)),
        steps,
    )
    return Root(
        program=program,
        inverse=tuple(inverse for _, inverse, _ in padded),
        energy=tuple(matrix @ matrix.T for _, _, matrix in padded),
        coefficients=tuple(matrix for _, _, matrix in padded),
        value_all=form.value_all,
        linear=np.zeros(p),
        need=need,
        room=room,
    )


def binary_root(problem: ChannelSelection, steps: Integers) -> Root:
    """Root of a problem of variant mask, written for the removed channels."""
    matrix, vector, constant = problem.binary_quadratic()
    p = problem.n_channels
    program, need, room = _program(
        problem, np.zeros(0, dtype=np.int64), np.zeros(p), -np.array(matrix), steps
    )
    return Root(
        program=program,
        inverse=(),
        energy=(),
        coefficients=(),
        value_all=float(constant + vector.sum() + 0.5 * matrix.sum()),
        linear=-(vector + matrix.sum(1)),
        need=need,
        room=room,
    )


def _program(
    problem: ChannelSelection, sizes: Integers, prices: Floats, extra: Floats, steps: Integers
) -> tuple[Program, Floats, Floats]:
    upper = [r for r in problem.resources if np.isfinite(r.upper)]
    lower = [r for r in problem.resources if np.isfinite(r.lower) and r.lower > 0]
    p = problem.n_channels
    totals = np.array([float(r.costs.sum()) for r in (*upper, *lower)])
    need = totals[: len(upper)] - np.array([r.upper for r in upper])
    room = totals[len(upper) :] - np.array([r.lower for r in lower])
    free = ~(problem.forced_in | problem.forced_out)
    pure = sizes.size == 0
    box = problem.has_box and not pure
    monotone = not pure and not lower and not problem.parts and bool(np.all(prices[free] <= 0))
    twins = twin_labels(problem)
    program = Program(
        sizes=sizes,
        prices=prices,
        use=np.array([r.costs for r in upper], dtype=np.float64).reshape(len(upper), p),
        use_low=np.array([r.costs for r in lower], dtype=np.float64).reshape(len(lower), p),
        slack=RELATIVE_SLACK * totals,
        parts=np.array([_numbered(part) for part in problem.parts], dtype=np.int64).reshape(-1, p),
        twins=twins if np.any(twins != NO_TWIN) else np.zeros(0, dtype=np.int64),
        extra=extra,
        steps=steps,
        flags=np.array([monotone, box, pure], dtype=np.int64),
    )
    return program, need, room


def _numbered(part: Integers) -> Integers:
    """Labels as 0, 1, ... in order; negative ones stay out."""
    result = np.full(part.size, -1, dtype=np.int64)
    counted = part >= 0
    if counted.any():
        result[counted] = np.unique(part[counted], return_inverse=True)[1].ravel()
    return result


def _padded(term: TermRemoval) -> tuple[int, Floats, Floats]:
    sizes = np.diff(term.offsets)
    size = int(max(sizes.max(initial=1), 1))
    p = sizes.size
    if np.all(sizes == size):
        return size, np.ascontiguousarray(term.inverse), term.coefficients
    place = np.concatenate([j * size + np.arange(sizes[j]) for j in range(p)]).astype(np.int64)
    inverse = np.eye(p * size)
    coefficients = np.zeros((p * size, term.coefficients.shape[1]))
    inverse[np.ix_(place, place)] = term.inverse
    coefficients[place] = term.coefficients
    return size, inverse, coefficients
