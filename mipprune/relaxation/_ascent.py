r"""First-order ascent on the Hadamard relaxation's dual, for layers of any width.

The dual point (Z, Psi, S) of :mod:`mipprune.relaxation._removal_root` is moved by
supergradients of the Gilmore-Lawler value: with X the 0/1 rows that attain it,

.. math:: \partial_S = -\tfrac14 (X - X^\top), \qquad
    \partial_\Psi = -\tfrac14 (X + X^\top)

Psi is projected onto the psd cone. The running mean of X approaches the primal point, and
Z moves towards :math:`(X \circ P)^{-1} (x \circ B)` at it, which is exact at the optimum.
Steps are Polyak's towards ``best + level``; the level shrinks, and the ascent returns to its
best point, when it stalls (Bertsekas 1999, section 6.3). Every iterate is a valid bound; an
iteration costs one n x n eigenvalue decomposition, every ``EVERY`` of them one d x d
factorisation.
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.relaxation._blocks import as_tensor
from mipprune.relaxation._hadamard import HadamardResult
from mipprune.relaxation._patterns import Patterns, RowProblems
from mipprune.relaxation._removal_root import Member, Root

__all__ = ["ascend"]

Floats = NDArray[np.float64]

EVERY = 20
PATIENCE = 40
SHRINK = 0.7
MEMORY = 0.02
BLEND = 0.3
SPREAD = 0.01


class _Rows:
    """Gilmore-Lawler value and the rows that attain it."""

    def __init__(self, removals: int) -> None:
        self.r = removals

    def __call__(
        self, linear: torch.Tensor, quadratic: torch.Tensor, skew: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        off = quadratic + skew
        off.fill_diagonal_(-torch.inf)
        top, index = torch.topk(off, self.r - 1, dim=1, sorted=False)
        rows = linear - 0.5 * quadratic.diagonal() - 0.5 * top.sum(1)
        chosen = torch.topk(rows, self.r, largest=False, sorted=False).indices
        pairs = torch.zeros_like(quadratic)
        pairs[chosen[:, None], index[chosen]] = 1.0
        pairs[chosen, chosen] = 1.0
        return float(rows[chosen].sum()), pairs


class _State:
    """One dual point with its pairwise data."""

    def __init__(
        self,
        directions: list[torch.Tensor],
        psd: torch.Tensor,
        skew: torch.Tensor,
        data: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        self.directions, self.psd, self.skew, self.data = directions, psd, skew, data


class _BlockRows:
    """The same for patterns of removals in blocks, on the CPU."""

    def __init__(self, patterns: Patterns, removals: int) -> None:
        self.patterns, self.r = patterns, removals
        self.problems = RowProblems(patterns, removals)

    def __call__(
        self, linear: torch.Tensor, quadratic: torch.Tensor, skew: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        gains = self.problems.closed((quadratic + skew).cpu().numpy())
        table = self.problems.inner(gains)
        left = self.r - self.patterns.weight
        inside = table[-1][np.arange(left.size), np.maximum(left, 0)]
        inside = np.where(left >= 0, inside, -np.inf)
        costs = (linear - 0.5 * quadratic.diagonal()).cpu().numpy() - 0.5 * inside
        outer = self.problems.outer(costs)
        every = np.array([self.r])
        chosen = np.flatnonzero(self.problems.picks(outer, -costs[None], np.array([0]), every)[0])
        pairs = np.zeros(gains.shape)
        pairs[chosen] = self.problems.picks(table, gains, chosen, left[chosen])
        pairs[chosen, chosen] = 1.0
        return -float(outer[-1, 0, self.r]), as_tensor(pairs, linear.device)


class _Terms:
    """P, B and channels (or patterns) of every term on the device."""

    def __init__(self, root: Root, start: Member, device: torch.device) -> None:
        prices = root.problem.prices + start.multipliers @ root.limits.rows
        prices = prices[root.undecided]
        if start.patterns is not None:
            prices = start.patterns.member @ prices
        self.n = prices.size
        self.prices = as_tensor(prices, device)
        self.parts = [
            (as_tensor(t.inverse, device), as_tensor(t.coefficients, device),
             as_tensor(t.channel, device))
            for t in root.terms_of(start.patterns)
        ]  # fmt: skip

    def pairwise(self, directions: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """b - prices (n,) and Q (n, n)."""
        linear = -self.prices
        quadratic = linear.new_zeros(self.n, self.n)
        for (inverse, coefficients, channel), z in zip(self.parts, directions, strict=True):
            linear = linear.index_add(0, channel, (coefficients * z).sum(1))
            product = inverse * (z @ z.mT)
            columns = product.new_zeros(self.n, product.shape[1]).index_add_(0, channel, product)
            quadratic = quadratic.index_add(0, channel, columns.mT.contiguous())
        return linear, 0.5 * (quadratic + quadratic.mT)

    def best_directions(self, pairs: torch.Tensor) -> list[torch.Tensor] | None:
        """``(X o P)^-1 (x o B)`` at the psd part of X; None where it is not definite.

        X gets a diagonal of ``SPREAD`` first: without it the direction of a channel or
        pattern that the mean has left goes to zero, and its row opens again.
        """
        spread = pairs + SPREAD * torch.eye(self.n, dtype=pairs.dtype, device=pairs.device)
        values, vectors = torch.linalg.eigh(spread)
        positive = (vectors * values.clamp_min(1e-6)) @ vectors.mT
        result = []
        for inverse, coefficients, channel in self.parts:
            matrix = positive[channel][:, channel] * inverse
            matrix.diagonal().mul_(1 + 1e-9)
            factor, info = torch.linalg.cholesky_ex(matrix)
            if int(info):
                return None
            share = positive.diagonal()[channel][:, None] * coefficients
            result.append(torch.cholesky_solve(share, factor))
        return result


def ascend(
    root: Root,
    removals: int,
    *,
    start: Member,
    tolerance: float,
    deadline: float,
    device: torch.device,
    max_iterations: int = 4000,
    ambition: float = 0.3,
    blend: float = BLEND,
) -> HadamardResult:
    """Improve ``start`` for 2 <= removals <= n - 1 until the level is below ``tolerance``.

    ``ambition`` is the first level, relative to the removal part of the bound: small where
    the start is good already. ``blend`` is the share of the way that Z moves at a time.
    """
    terms = _Terms(root, start, device)
    rows: _Rows | _BlockRows = _Rows(removals)
    if start.patterns is not None:
        rows = _BlockRows(start.patterns, removals)
    directions = [as_tensor(z, device) for z in start.directions]
    factor = as_tensor(start.factor, device)
    skew = as_tensor((start.skew - start.skew.T) / 2, device)
    state = _State(directions, factor @ factor.mT, skew, terms.pairwise(directions))
    best_state, best, stalled, level, mean = state, -np.inf, 0, 0.0, torch.zeros_like(skew)
    iterations, finished = 0, False
    while iterations < max_iterations and time.monotonic() < deadline:
        value, pairs = rows(state.data[0], state.data[1] + state.psd, state.skew)
        level = level or ambition * max(abs(value), 1e-12 * root.problem.energy)
        stalled += 1
        if value > best:
            stalled = 0 if value > best + 0.02 * level else stalled
            best, best_state = value, state
        symmetric = 0.5 * (pairs + pairs.mT)
        mean = torch.lerp(mean, symmetric, max(MEMORY, 1 / (iterations + 1)))
        if stalled > PATIENCE:
            level, stalled, state = SHRINK * level, 0, best_state
            finished = level <= tolerance * abs(best + root.constant(start.multipliers))
            if finished:
                break
            value, pairs = rows(state.data[0], state.data[1] + state.psd, state.skew)
        iterations += 1
        state = _stepped(state, pairs, best + level - value)
        if iterations % EVERY == 0:
            state = _turned(state, terms, mean, blend)
    member = _member(best_state, start)
    at = int(np.searchsorted(root.counts, removals))
    removed = np.asarray(mean.diagonal().cpu().numpy().copy())
    if start.patterns is not None:
        removed = start.patterns.member.T @ removed
    bound = float(root.bounds(member)[at])
    return HadamardResult(member, removed, np.inf, bound, iterations, finished)


def _stepped(state: _State, pairs: torch.Tensor, rise: float) -> _State:
    """Polyak step on S and Psi towards a value higher by ``rise``."""
    skew, psd = -0.25 * (pairs - pairs.mT), -0.25 * (pairs + pairs.mT)
    length = rise / float((skew**2).sum() + (psd**2).sum() + 1e-12)
    values, vectors = torch.linalg.eigh(state.psd + length * psd)
    projected = (vectors * values.clamp_min(0.0)) @ vectors.mT
    return _State(state.directions, projected, state.skew + length * skew, state.data)


def _turned(state: _State, terms: _Terms, mean: torch.Tensor, blend: float) -> _State:
    """Z moved towards the best response to the mean of X."""
    target = terms.best_directions(mean)
    if target is None:
        return state
    directions = [
        torch.lerp(z, goal, blend) for z, goal in zip(state.directions, target, strict=True)
    ]
    return _State(directions, state.psd, state.skew, terms.pairwise(directions))


def _member(state: _State, start: Member) -> Member:
    values, vectors = torch.linalg.eigh(state.psd)
    factor = vectors * values.clamp_min(0.0).sqrt()
    return Member(
        directions=tuple(np.asarray(z.cpu().numpy()) for z in state.directions),
        factor=np.asarray(factor.cpu().numpy()),
        skew=np.asarray(state.skew.cpu().numpy()),
        multipliers=start.multipliers,
        patterns=start.patterns,
    )
