r"""The Hadamard relaxation of removing r channels, by a barrier method in pair space.

.. math:: \min_{X} \tfrac12 \operatorname{tr}\big((x \circ B)^\top (X \circ P)^{-1}
    (x \circ B)\big), \quad x = \operatorname{diag} X,\; X e = r x,\; e^\top x = r,\;
    0 \le X_{ij} \le \min(x_i, x_j),\; X \succeq 0

(block-wise products). It is convex and contains every block split of the keeping side.
Its variables are the n (n + 1) / 2 pairs; with :math:`Z = (X \circ P)^{-1}(x \circ B)`,
:math:`T_{ij} = P_{ij} Z_j - [i = j] B_i` and :math:`N = (X \circ P)^{-1}`

.. math:: \partial_{ij} = -Q_{ij} \;(i < j), \quad \partial_{ii} = b_i - \tfrac12 Q_{ii},
    \quad \partial^2_{(ij),(kl)} = \sum \operatorname{tr}(T_{ij}^\top N_{ik} T_{kl})

summed over both orders of each pair. A Newton step is one dense factorisation in pair
space, no conic lifting. Z, the barrier's psd multiplier and its row multipliers are the
certificate at every step: the bound is evaluated by :mod:`mipprune.relaxation._removal_root`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.relaxation._blocks import as_tensor
from mipprune.relaxation._hadamard_terms import FixedTerm, PairIndex, PairTerm
from mipprune.relaxation._removal_root import Member, Root

__all__ = ["HadamardResult", "minimise_hadamard"]

Floats = NDArray[np.float64]
Solver = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

INSIDE = 0.9
START = 1.0


@dataclass(frozen=True, eq=False)
class HadamardResult:
    """Best certificate, the removed shares x, and the value of the relaxed point."""

    member: Member
    removed: Floats
    value: float
    bound: float
    iterations: int
    finished: bool


@dataclass(frozen=True, eq=False)
class _Step:
    """Changes of X, of the multipliers of ``x_i - X_ij``, ``X_ij`` and X psd, and alpha."""

    pairs: torch.Tensor
    above: torch.Tensor
    below: torch.Tensor
    psd: torch.Tensor
    alpha: torch.Tensor


class _Path:
    """X and its multipliers strictly inside; predictor-corrector Newton steps."""

    def __init__(
        self,
        root: Root,
        removals: int,
        multipliers: Floats,
        fixed: Sequence[Floats] | None,
        device: torch.device,
    ) -> None:
        n = root.size
        self.root, self.r, self.n, self.psd, self.device = root, removals, n, fixed is None, device
        self.multipliers = multipliers
        self.terms: list[PairTerm | FixedTerm] = (
            [PairTerm(term, n, device) for term in root.terms]
            if fixed is None
            else [FixedTerm(root, k, z, device) for k, z in enumerate(fixed)]
        )
        prices = root.problem.prices + multipliers @ root.limits.rows
        self.linear = -as_tensor(prices[root.undecided], device)
        share = removals / n
        pairs = torch.full((n, n), share * (removals - 1) / (n - 1), dtype=torch.float64)
        pairs.fill_diagonal_(share)
        self.pairs = pairs.to(device)
        self.off = ~torch.eye(n, dtype=torch.bool, device=device)
        self.index = PairIndex(n, device)
        self.i, self.j, self.own = self.index.first, self.index.second, self.index.own
        self.equalities = self._equalities()
        self.alpha = torch.zeros(n, dtype=torch.float64, device=device)
        self.n_constraints = 3 * n * (n - 1) // 2 + n * self.psd

    def begin(self, barrier: float) -> None:
        """Multipliers on the central path of ``barrier``."""
        room = self._room(self.pairs)
        self.above = torch.where(self.off, barrier / room, 0.0)
        self.below = torch.where(self.off, barrier / self.pairs, 0.0)
        zero = torch.zeros_like(self.pairs)
        self.dual = barrier * torch.linalg.inv(self.pairs) if self.psd else zero

    def _room(self, pairs: torch.Tensor) -> torch.Tensor:
        return torch.where(self.off, pairs.diagonal()[:, None] - pairs, 1.0)

    def _equalities(self) -> torch.Tensor:
        """Rows ``sum_j X_ij = r x_i`` and ``sum x = r`` over the pairs."""
        rows = torch.zeros(self.n + 1, len(self.i), dtype=torch.float64, device=self.device)
        column = torch.arange(len(self.i), device=self.device)
        off = ~self.own
        rows[self.i[off], column[off]] = 1.0
        rows[self.j[off], column[off]] = 1.0
        rows[self.i[~off], column[~off]] = 1.0 - self.r
        rows[self.n, column[~off]] = 1.0
        return rows

    def objective(self, pairs: torch.Tensor) -> float:
        """Value of the relaxed point, without the value of keeping everything."""
        total = sum((term.solve(pairs) for term in self.terms), pairs.new_zeros(()))
        return float(total + (self.linear * pairs.diagonal()).sum())

    def complementarity(
        self, pairs: torch.Tensor, above: torch.Tensor, below: torch.Tensor, dual: torch.Tensor
    ) -> float:
        """Mean product of slack and multiplier (each pair's ``X_ij >= 0`` counts once)."""
        total = (above * self._room(pairs))[self.off].sum() + 0.5 * (below * pairs)[self.off].sum()
        return float(total + (dual * pairs).sum()) / self.n_constraints

    def step(self) -> None:
        """One predictor-corrector step."""
        self.objective(self.pairs)
        slope, diagonal, solve = self._system()
        mean = self.complementarity(self.pairs, self.above, self.below, self.dual)
        affine = self._direction(slope, diagonal, solve, 0.0, None)
        length = self._length(affine, 1.0)
        ahead = self.complementarity(
            self.pairs + length * affine.pairs,
            self.above + length * affine.above,
            self.below + length * affine.below,
            self.dual + length * affine.psd,
        )
        centre = mean * min(1.0, max(ahead / mean, 1e-3)) ** 2
        step = self._direction(slope, diagonal, solve, centre, affine)
        length = min(1.0, self._length(step, INSIDE))
        self.pairs = self.pairs + length * step.pairs
        self.above = self.above + length * step.above
        self.below = self.below + length * step.below
        self.dual = self.dual + length * step.psd
        self.alpha = step.alpha

    def _direction(
        self,
        slope: torch.Tensor,
        diagonal: torch.Tensor,
        solve: Solver,
        centre: float,
        affine: _Step | None,
    ) -> _Step:
        """Newton direction towards complementarity ``centre``."""
        room, pairs, off = self._room(self.pairs), self.pairs, self.off
        target_above = torch.where(off, centre / room, 0.0)
        target_below = torch.where(off, centre / pairs, 0.0)
        if affine is not None:
            growth = affine.pairs.diagonal()[:, None] - affine.pairs
            target_above = target_above - torch.where(off, growth * affine.above / room, 0.0)
            target_below = target_below - torch.where(off, affine.pairs * affine.below / pairs, 0.0)
        pull = slope + target_above - 0.5 * target_below
        if self.psd:
            pull = pull - centre * self.inverse
        own = diagonal - target_above.sum(1)
        gradient = (pull + pull.mT)[self.i, self.j]
        gradient = torch.where(self.own, 0.5 * gradient + own[self.i], gradient)
        move, alpha = solve(gradient)
        change = torch.zeros_like(pairs)
        change[self.i, self.j] = move
        change[self.j, self.i] = move
        growth = torch.where(off, change.diagonal()[:, None] - change, 0.0)
        above = target_above - self.above - torch.where(off, self.above * growth / room, 0.0)
        below = target_below - self.below - torch.where(off, self.below * change / pairs, 0.0)
        psd = torch.zeros_like(pairs)
        if self.psd:
            psd = centre * self.inverse - self.dual - self.scaling @ change @ self.scaling
            psd = (psd + psd.mT) / 2
        return _Step(change, above, below, psd, alpha)

    def _length(self, step: _Step, share: float) -> float:
        """Longest step that keeps slacks and multipliers positive, times ``share``."""
        growth = step.pairs.diagonal()[:, None] - step.pairs
        ratios = [
            -step.pairs[self.off] / self.pairs[self.off],
            -growth[self.off] / self._room(self.pairs)[self.off],
            -step.above[self.off] / self.above[self.off],
            -step.below[self.off] / self.below[self.off],
        ]
        if self.psd:
            for base, change in ((self.pairs, step.pairs), (self.dual, step.psd)):
                factor = torch.linalg.cholesky(base)
                half = torch.linalg.solve_triangular(factor, change, upper=False)
                inner = torch.linalg.solve_triangular(factor, half.mT, upper=False)
                ratios.append(-torch.linalg.eigvalsh((inner + inner.mT) / 2)[:1])
        fastest = max(float(r.max()) for r in ratios)
        return min(1.0, share / max(fastest, 1e-300))

    def _system(self) -> tuple[torch.Tensor, torch.Tensor, Solver]:
        """Slope of the loss and a solver of the reduced Newton system."""
        pairs, off, index = self.pairs, self.off, self.index
        linear, quadratic = self.linear.clone(), torch.zeros_like(pairs)
        hessian = torch.zeros(index.size, index.size, dtype=torch.float64, device=self.device)
        for term in self.terms:
            b, q = term.first()
            linear, quadratic = linear + b, quadratic + q
            second = term.second(index)
            if second is not None:
                hessian += second
        if self.psd:
            self.inverse = torch.linalg.inv(pairs)
            self.inverse = (self.inverse + self.inverse.mT) / 2
            self.scaling = _scaling(pairs, self.dual)
            hessian += index.kronecker(self.scaling)
        i, j, own = index.first, index.second, index.own
        steep = torch.where(off, self.above / self._room(pairs), 0.0)
        curve = torch.where(off, self.below / pairs, 0.0) + steep + steep.mT
        hessian.diagonal().add_(torch.where(own, 0.0, curve[i, j]))
        # x_i - X_ij couples a pair with the diagonal entries of both channels.
        at = index.of.diagonal()
        hessian[at, at] += steep.sum(1)
        pair = torch.nonzero(~own)[:, 0]
        for first, second in ((i[pair], j[pair]), (j[pair], i[pair])):
            cross = -steep[first, second]
            hessian[pair, at[first]] += cross
            hessian[at[first], pair] += cross
        return -0.5 * quadratic, linear, self._solver(hessian)

    def _solver(self, hessian: torch.Tensor) -> Solver:
        scale = hessian.diagonal().rsqrt()
        scaled = hessian * scale[:, None] * scale
        scaled.diagonal().add_(1e-14)
        factor = torch.linalg.cholesky(scaled)
        rows = self.equalities * scale
        weight = torch.cholesky_solve(rows.mT, factor)
        inner = rows @ weight

        def solve(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            solved = torch.cholesky_solve((gradient * scale)[:, None], factor)[:, 0]
            price = torch.linalg.solve(inner, rows @ solved)
            return -scale * (solved - weight @ price), -price[: self.n]

        return solve

    def member(self) -> Member:
        """Multipliers at the current point."""
        self.objective(self.pairs)
        n = self.n
        skew = self.alpha[:, None] - self.alpha[None, :] + self.above - self.above.mT
        factor = torch.zeros(n, 0, dtype=torch.float64)
        if self.psd:
            values, vectors = torch.linalg.eigh(self.dual)
            factor = vectors * (2 * values).clamp_min(0).sqrt()
        return Member(
            directions=tuple(term.reduced() for term in self.terms),
            factor=np.asarray(factor.cpu().numpy()),
            skew=np.asarray(skew.cpu().numpy()),
            multipliers=self.multipliers,
        )


def _scaling(pairs: torch.Tensor, dual: torch.Tensor) -> torch.Tensor:
    """Nesterov-Todd scaling: the psd V with ``V X V = dual``."""
    values, vectors = torch.linalg.eigh(pairs)
    root = (vectors * values.clamp_min(1e-300).sqrt()) @ vectors.mT
    back = (vectors / values.clamp_min(1e-300).sqrt()) @ vectors.mT
    middle, frame = torch.linalg.eigh(root @ dual @ root)
    inner = (frame * middle.clamp_min(1e-300).sqrt()) @ frame.mT
    result: torch.Tensor = back @ inner @ back
    return 0.5 * result + 0.5 * result.mT


def minimise_hadamard(
    root: Root,
    removals: int,
    *,
    multipliers: Floats,
    fixed: Sequence[Floats] | None,
    tolerance: float,
    deadline: float,
    device: torch.device,
    max_iterations: int = 60,
) -> HadamardResult:
    """Follow the central path for 2 <= removals <= n - 1.

    Parameters
    ----------
    root : Root
    removals : int
        Exact number of channels removed; must be in ``root.counts``.
    multipliers : float64 (r,)
        Prices of the limits, taken into the objective.
    fixed : directions per term, or None
        None optimises Z and keeps X psd; given directions make it the linear
        program of the Adams-Johnson (RLT) linearisation.
    """
    path = _Path(root, removals, multipliers, fixed, device)
    base = root.constant(multipliers)
    at = int(np.searchsorted(root.counts, removals))
    scale = 1e-12 * root.problem.energy
    value = base + path.objective(path.pairs)
    path.begin(START * max(value - root.value_all, abs(value) * 1e-3, scale) / path.n_constraints)
    best = path.member()
    best_bound = float(root.bounds(best)[at])
    iterations, finished = 0, False
    while iterations < max_iterations and not finished and time.monotonic() < deadline:
        try:
            path.step()
        except RuntimeError:
            break  # rounding at the end of the path: the best bound stands
        iterations += 1
        value = base + path.objective(path.pairs)
        member = path.member()
        bound = float(root.bounds(member)[at])
        if bound > best_bound:
            best, best_bound = member, bound
        finished = value - best_bound <= tolerance * max(abs(value), scale)
    removed = np.asarray(path.pairs.diagonal().cpu().numpy().copy())
    return HadamardResult(best, removed, value, best_bound, iterations, finished)
