"""Bounds from the keeping side: direct evaluation at a dual point, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Term
from mipprune.relaxation._blocks import Blocks, as_tensor
from mipprune.relaxation._limits import Limits

__all__ = ["DualValue", "evaluate_dual", "term_dual_value"]

Floats = NDArray[np.float64]

UNIT = float(np.finfo(np.float64).eps)
ABSENT = 1e-12
"""Residual accepted (relative to the cross moments) where a block has no range."""
RANGE = 1e-12
"""Relative eigenvalue below which a direction of a block counts as absent."""


@dataclass(frozen=True, eq=False)
class DualValue:
    """``constant - scores'y`` bounds the loss of every mask y from below.

    Attributes
    ----------
    constant : float
        e/2 - tr(V'RV)/2.
    scores : float64 (p,)
        tr(U_j' D_j^-1 U_j)/2 with U = C - R V.
    margin : float
        Bound on the rounding error of the whole expression.
    """

    constant: float
    scores: Floats
    margin: float


def term_dual_value(term: Term, split: Blocks, dual: Floats) -> DualValue:
    """Evaluate one term at the dual point ``dual``, float64 (d, m)."""
    device = split.stacks[0][1].device if split.stacks else torch.device("cpu")
    rest = split.added_to(as_tensor(term.damped_gram, device), -1.0)
    v, c = as_tensor(dual, device), as_tensor(term.cross, device)
    image = rest @ v
    size = rest.abs() @ v.abs()
    steps = term.n_rows + term.n_responses + term.n_channels + 8
    residual = c - image
    uncertain = UNIT * (term.n_rows + 4) * (c.abs() + size)
    constant = term.energy / 2 - 0.5 * float((v * image).sum())
    margin = UNIT * steps * (term.energy + float((v.abs() * size).sum()))
    scores, errors, outside = _scores(split, residual, uncertain)
    if outside > (ABSENT * float(c.norm())) ** 2:
        constant = -np.inf
    for rows, blocks in split.stacks:  # what is left of the residual where there is no split
        channels = np.flatnonzero(split.sizes == blocks.shape[1])
        absent = ~np.any(blocks.cpu().numpy(), axis=(1, 2))
        boxed = absent & np.isfinite(term.big_m[channels])
        pull = (residual[rows] * v[rows]).sum((-1, -2)).abs().cpu().numpy()
        edge = (residual[rows].abs() + uncertain[rows]).sum((-1, -2)).cpu().numpy()
        constant -= float(pull[absent & ~boxed].sum())
        scores[channels[boxed]] = term.big_m[channels[boxed]] * edge[boxed]
    margin += float(errors.sum()) + UNIT * steps * float(scores.sum())
    return DualValue(constant, scores, margin)


def _scores(
    split: Blocks, residual: torch.Tensor, uncertain: torch.Tensor
) -> tuple[Floats, Floats, float]:
    """Scores (p,), bounds on their rounding errors (p,), squared residual off the range."""
    outside = 0.0
    scores, errors = np.zeros(split.sizes.size), np.zeros(split.sizes.size)
    for rows, blocks in split.stacks:
        channels = np.flatnonzero(split.sizes == blocks.shape[1])
        values, vectors = torch.linalg.eigh(blocks)
        largest = values[:, -1:]
        active = (values > RANGE * largest) & (values > 0)
        inverse = torch.where(active, 1.0 / torch.where(active, values, 1.0), 0.0)
        parts = ((vectors.mT @ residual[rows]) ** 2).sum(-1)
        outside += float((parts * ~active).sum())
        score = 0.5 * (parts * inverse).sum(-1)
        worst = inverse.amax(-1)
        off = (uncertain[rows] ** 2).sum((-1, -2))
        condition = (largest[:, 0] * worst).clamp_min(1.0)
        error = (2 * score * worst * off).sqrt() + worst * off
        error = error + 8 * UNIT * blocks.shape[1] * condition * score
        scores[channels] = score.cpu().numpy()
        errors[channels] = error.cpu().numpy()
    return scores, errors, outside


def evaluate_dual(
    problem: ChannelSelection,
    limits: Limits,
    splits: Sequence[Blocks],
    duals: Sequence[Floats],
    multipliers: Floats | None = None,
) -> tuple[float, Floats, Floats]:
    r"""Valid lower bound on a canonical problem from any dual points.

    .. math:: \tfrac{e}{2} - \tfrac12 \operatorname{tr}(V^\top R V)
        - \max_{y} \sum_j y_j \big(\tfrac12 \operatorname{tr}(U_j^\top D_j^{-1} U_j) - \mu_j\big)

    summed over the terms, minus twice the rounding error that float64
    arithmetic can have made (the checker grants once).

    Returns
    -------
    bound : float
    multipliers : float64 (r,)
        Knapsack multipliers of the inner maximum.
    scores : float64 (p,)
    """
    values = [
        term_dual_value(term, split, dual)
        for term, split, dual in zip(problem.terms, splits, duals, strict=True)
    ]
    scores = sum((v.scores for v in values), np.zeros(problem.n_channels)) - problem.prices
    if multipliers is None:
        _, multipliers = limits.best(scores)
    best = limits.value(scores, multipliers)
    size = float(np.abs(scores).sum() + np.abs(multipliers * limits.limits).sum())
    size += float((multipliers @ np.abs(limits.rows)).sum())
    margin = sum(v.margin for v in values) + UNIT * (problem.n_channels + 8) * size
    return sum(v.constant for v in values) - best - 2 * margin, multipliers, scores
