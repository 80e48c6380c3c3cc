r"""The removing side at the root: reduced data, pairwise bounds, and their evaluation.

With x the indicator of the removed channels among the undecided ones, every Z gives

.. math:: f \ge f_{all} + b^\top x - \tfrac12 x^\top Q x, \quad
    b_j = \operatorname{tr}(B_j^\top Z_j),\; Q_{ij} = \operatorname{tr}(Z_i^\top P_{ij} Z_j)

and the right side is bounded over r removals by Gilmore-Lawler rows: for every psd
:math:`\Psi = F F^\top` and skew-symmetric S,

.. math:: b^\top x - \tfrac12 x^\top Q x \ge \min_{|T| = r} \sum_{i \in T} \Big[ b_i
    - \tfrac12 \tilde Q_{ii} - \tfrac12 \sum_{r - 1\ \text{largest}} (\tilde Q_{ij} + S_{ij})
    \Big], \quad \tilde Q = Q + \Psi.

Gilmore (1962), Lawler (1963); the skew terms are the multipliers of the
Adams-Johnson linearisation (RLT), Psi those of X psd.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._patterns import Patterns, blockwise
from mipprune.relaxation.removal import RemovalForm, removal_form

__all__ = ["Member", "Root", "RootTerm", "gilmore_lawler", "row_sums"]

Floats = NDArray[np.float64]

UNIT = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class RootTerm:
    """P and B of one term on the undecided channels, in admissible coordinates.

    Attributes
    ----------
    inverse : float64 (n_rows, n_rows)
    coefficients : float64 (n_rows, q)
    channel : int64 (n_rows,)
        Position among the undecided channels.
    basis : tuple of (rows, float64 (g_j, h_j))
        Rows of each undecided channel in the term and its admissible basis.
    """

    inverse: Floats
    coefficients: Floats
    channel: NDArray[np.int64]
    basis: tuple[tuple[NDArray[np.int64], Floats], ...]


@dataclass(frozen=True, eq=False)
class Member:
    """Multipliers of one bound: directions, Psi's factor, skew part, prices.

    With ``patterns`` the first three are per pattern of removals, not per channel.
    """

    directions: tuple[Floats, ...]
    factor: Floats
    skew: Floats
    multipliers: Floats
    patterns: Patterns | None = None


class Root:
    """A canonical problem seen from "every undecided channel kept"."""

    def __init__(self, problem: ChannelSelection, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.undecided = np.flatnonzero((limits.least == 0) & (limits.most == 1))
        self.kept = limits.least > 0
        self.source = _without(problem, problem.forced_out)
        self.form: RemovalForm = removal_form(self.source)
        self.terms = tuple(self._reduced(t) for t in range(len(self.form.terms)))
        self.counts = self._counts()
        self.value_all = self.form.value_all
        self.monotone = bool(np.all(problem.prices <= 0))

    @property
    def size(self) -> int:
        """Number of undecided channels n."""
        return int(self.undecided.size)

    def _reduced(self, index: int) -> RootTerm:
        term = self.form.terms[index]
        rows_of, channel, blocks = [], [], []
        for position, j in enumerate(self.undecided):
            block = term.block(int(j))
            rows = np.arange(block.start, block.stop)
            basis = term._admissible(rows)
            basis = np.eye(rows.size) if basis is None else basis
            rows_of.append((rows, basis))
            channel.append(np.full(basis.shape[1], position))
            blocks.append(basis)
        rows = np.concatenate([r for r, _ in rows_of]) if rows_of else np.zeros(0, dtype=int)
        inverse, coefficients = term.inverse[np.ix_(rows, rows)], term.coefficients[rows]
        if term.null_space.shape[1]:
            change = _block_diagonal(blocks)
            inverse, coefficients = change.T @ inverse @ change, change.T @ coefficients
        members = np.concatenate(channel) if channel else np.zeros(0, dtype=int)
        return RootTerm(inverse, coefficients, members.astype(np.int64), tuple(rows_of))

    def _counts(self) -> NDArray[np.int64]:
        """Numbers of removals among the undecided that no single limit forbids."""
        rows = self.limits.rows
        used = np.sort(rows[:, self.undecided], axis=1).cumsum(1)
        used = np.concatenate([np.zeros((len(rows), 1)), used], axis=1)
        used += (rows[:, self.kept].sum(1) - 1e-12 * np.abs(rows).sum(1))[:, None]
        fits = np.all(used <= self.limits.limits[:, None], axis=0)
        return np.flatnonzero(fits[::-1])

    def single_directions(self, patterns: Patterns | None = None) -> tuple[list[Floats], Floats]:
        """``P_jj^-1 B_j`` per term (reduced coordinates) and costs, j one channel or pattern."""
        n = self.size if patterns is None else len(patterns.items)
        directions, costs = [], np.zeros(n)
        for term in self.terms_of(patterns):
            z = np.zeros_like(term.coefficients)
            starts = np.searchsorted(term.channel, np.arange(n + 1))
            single = np.flatnonzero(np.diff(starts) == 1)
            rows = starts[single]
            own = term.inverse[rows, rows]
            z[rows] = (
                term.coefficients[rows] * np.divide(1.0, own, where=own > 0, out=0 * own)[:, None]
            )
            costs[single] += 0.5 * (term.coefficients[rows] * z[rows]).sum(1)
            for j in np.flatnonzero(np.diff(starts) > 1):
                block = slice(starts[j], starts[j + 1])
                b = term.coefficients[block]
                z[block] = np.linalg.lstsq(term.inverse[block, block], b, rcond=None)[0]
                costs[j] += 0.5 * float(np.vdot(b, z[block]))
            directions.append(z)
        return directions, costs

    def pairwise(
        self, directions: Sequence[Floats], patterns: Patterns | None = None
    ) -> tuple[Floats, Floats]:
        """b (n,) and Q (n, n) of directions in reduced coordinates, n channels or patterns."""
        n = self.size if patterns is None else len(patterns.items)
        linear, quadratic = np.zeros(n), np.zeros((n, n))
        for term, z in zip(self.terms_of(patterns), directions, strict=True):
            if not term.channel.size:
                continue
            # Rows come sorted by channel: sums of runs, where a product with 0/1 would cost d^2 n.
            present, starts = np.unique(term.channel, return_index=True)
            linear[present] += np.add.reduceat((term.coefficients * z).sum(1), starts)
            product = np.add.reduceat(term.inverse * (z @ z.T), starts, axis=0)
            quadratic[np.ix_(present, present)] += np.add.reduceat(product, starts, axis=1)
        return linear, (quadratic + quadratic.T) / 2

    def terms_of(self, patterns: Patterns | None) -> tuple[RootTerm, ...]:
        """The terms, with one copy of its rows per pattern that holds a channel."""
        if patterns is None:
            return self.terms
        result = []
        for term in self.terms:
            rows, pattern = patterns.rows(term.channel)
            inverse, coefficients = term.inverse[np.ix_(rows, rows)], term.coefficients[rows]
            result.append(RootTerm(inverse, coefficients, pattern, term.basis))
        return tuple(result)

    def by_pattern(self, member: Member, patterns: Patterns) -> Member:
        """A pairwise member as a member over patterns, which proves at least as much."""
        spread = patterns.member
        return Member(
            directions=tuple(
                z[patterns.rows(term.channel)[0]]
                for term, z in zip(self.terms, member.directions, strict=True)
            ),
            factor=spread @ member.factor,
            skew=spread @ member.skew @ spread.T,
            multipliers=member.multipliers,
            patterns=patterns,
        )

    def full_directions(self, member: Member) -> tuple[Floats, ...]:
        """Directions in the canonical problem's own rows and responses."""
        result = []
        for index, (term, z) in enumerate(zip(self.terms, member.directions, strict=True)):
            original = self.problem.terms[index]
            cross = original.cross[~self.problem.forced_out[original.channel_of_row]]
            if z.shape[1] != cross.shape[1]:
                # The form works in the coordinates of C = R'Q'; undo the rotation.
                z = z @ np.linalg.qr(cross.T)[0].T
            if member.patterns is None:
                result.append(self._spread(index, z))
                continue
            rows, pattern = member.patterns.rows(term.channel)
            parts = [np.zeros((0, z.shape[1]))]
            for number, channels in enumerate(member.patterns.items):
                own = np.zeros((len(term.channel), z.shape[1]))
                own[rows[pattern == number]] = z[pattern == number]
                ids = self.undecided[list(channels)]
                parts.append(self._spread(index, own)[np.isin(original.channel_of_row, ids)])
            result.append(np.concatenate(parts))
        return tuple(result)

    def _spread(self, index: int, z: Floats) -> Floats:
        """Reduced rows of one term as rows of the problem, zero where decided."""
        original = self.problem.terms[index]
        alive = ~self.problem.forced_out[original.channel_of_row]
        compact = np.zeros((int(alive.sum()), z.shape[1]))
        for j, (rows, basis) in enumerate(self.terms[index].basis):
            compact[rows] = basis @ z[self.terms[index].channel == j]
        full = np.zeros((len(alive), z.shape[1]))
        full[alive] = compact
        return full

    @property
    def present(self) -> NDArray[np.bool_]:
        """Channels forced in or undecided, bool (p,)."""
        present = self.kept.copy()
        present[self.undecided] = True
        return present

    def constant(self, multipliers: Floats) -> float:
        """Objective with every undecided channel kept and the limits priced in."""
        used = self.limits.rows[:, self.present].sum(1)
        price = float(multipliers @ (used - self.limits.limits))
        return self.value_all + float(self.problem.prices[self.present].sum()) + price

    def bounds(self, member: Member, pairs: tuple[Floats, Floats, Floats] | None = None) -> Floats:
        """Bound per entry of ``counts`` that one member proves, margins subtracted.

        ``pairs`` is ``pairwise`` of the member's directions and ``row_sums`` of its matrix
        where they are known; only for members of directions alone.
        """
        prices = self.problem.prices[self.undecided]
        prices = prices + member.multipliers @ self.limits.rows[:, self.undecided]
        if member.patterns is not None:
            prices = member.patterns.member @ prices
        sums: Floats | None = None
        if pairs is None:
            linear, quadratic = self.pairwise(member.directions, member.patterns)
        else:
            linear, quadratic, sums = pairs
        size = float(np.abs(linear).sum() + np.abs(quadratic).sum() + np.abs(prices).sum())
        size += float(np.abs(member.skew).sum() + (member.factor**2).sum() * len(linear))
        linear = linear - prices
        if pairs is None:
            quadratic = quadratic + member.factor @ member.factor.T
        base = self.constant(member.multipliers)
        if member.patterns is None:
            if sums is None:
                sums = row_sums(quadratic + (member.skew - member.skew.T) / 2)
            values = base + gilmore_lawler(linear, np.diag(quadratic), sums, self.counts)
        else:
            values = base + blockwise(linear, quadratic, member.skew, member.patterns, self.counts)
        if self.monotone and not np.any(member.multipliers):
            values = np.maximum.accumulate(values)
        return np.asarray(values - self._margin(member, size))

    def _margin(self, member: Member, size: float) -> float:
        """Rounding of the evaluation, at least twice what the checker takes off.

        Every quadratic form in the computed P is off by at most ``eta`` times itself,
        and B by ``tail`` in the norm of P.
        """
        n = self.size if member.patterns is None else len(member.patterns.items)
        margin = 4 * UNIT * (n + 2) * size
        for term, z, (eta, tail, lost) in zip(
            self.terms_of(member.patterns), member.directions, self.rounding, strict=True
        ):
            starts = np.searchsorted(term.channel, np.arange(n + 1))
            single = np.flatnonzero(np.diff(starts) == 1)
            rows = starts[single]
            forms = np.zeros(n)
            forms[single] = np.diag(term.inverse)[rows] * (z[rows] ** 2).sum(1)
            for j in np.flatnonzero(np.diff(starts) > 1):
                own = slice(starts[j], starts[j + 1])
                forms[j] = float(np.vdot(z[own], term.inverse[own, own] @ z[own]))
            most = float(np.sqrt(np.abs(forms)).sum())
            size_here = float(np.abs(term.coefficients * z).sum()) * len(term.inverse)
            margin += 2 * eta * most**2 + 4 * tail * (most + tail) + 4 * lost
            margin += 8 * UNIT * size_here
        return 2 * margin

    @cached_property
    def rounding(self) -> tuple[tuple[float, float, float], ...]:
        """Per term: relative error of P, error of B, and rounding of the loss."""
        result = []
        for form, term in zip(self.form.terms, self.source.terms, strict=True):
            h, b = term.damped_gram, form.coefficients
            cross = term.cross
            if cross.shape[1] != b.shape[1]:
                cross = np.linalg.qr(cross.T)[1].T
            rest = cross - h @ b
            eta = form.residual + 2 * UNIT * float(np.linalg.norm(h) * np.linalg.norm(form.inverse))
            tail = float(np.sqrt(abs(np.vdot(rest, form.inverse @ rest))))
            tail += (
                UNIT
                * float(np.sqrt(np.linalg.norm(form.inverse)))
                * float(np.linalg.norm(h) * np.linalg.norm(b))
            )
            size = len(h) * term.energy + float(np.vdot(np.abs(b), np.abs(h) @ np.abs(b)))
            result.append((eta, tail, 4 * UNIT * size))
        return tuple(result)


def row_sums(matrix: Floats) -> Floats:
    """Sum of the k largest entries of each row off the diagonal in column k, (n, n)."""
    off = matrix.copy()
    np.fill_diagonal(off, -np.inf)
    off.sort(axis=1)
    off[:, :1] = 0.0
    result: Floats = np.cumsum(np.hstack([off[:, :1], off[:, :0:-1]]), axis=1)
    return result


def gilmore_lawler(
    linear: Floats, diagonal: Floats, sums: Floats, counts: NDArray[np.int64]
) -> Floats:
    """Lower bound of ``linear'x - x'Q x / 2`` over r ones, for each r in counts.

    ``diagonal`` is that of Q, ``sums`` its ``row_sums``.
    """
    some = counts[counts > 0]
    rows = np.sort((linear - diagonal / 2) - sums.T[some - 1] / 2, axis=1)
    totals = [float(row[:r].sum()) for row, r in zip(rows, some, strict=True)]
    return np.concatenate([np.zeros(counts.size - some.size), totals])


def _without(problem: ChannelSelection, out: NDArray[np.bool_]) -> ChannelSelection:
    """The problem with no rows left for the channels ``out``."""
    if not np.any(out):
        return problem
    terms = []
    for term in problem.terms:
        rows = ~out[term.channel_of_row]
        terms.append(
            replace(
                term,
                gram=term.gram[np.ix_(rows, rows)],
                cross=term.cross[rows],
                dense=None,
                group_sizes=np.where(out, 0, term.group_sizes),
            )
        )
    return ChannelSelection.from_terms(terms, prices=problem.prices)


def _block_diagonal(blocks: Sequence[Floats]) -> Floats:
    result = np.zeros((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for block in blocks:
        result[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return result
