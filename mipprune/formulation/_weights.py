"""Weights, their squared norms and the two ways to write the loss."""

from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, Term, require_problem

__all__ = [
    "Split",
    "add_norms",
    "add_weights",
    "canonical_refit",
    "cross_of",
    "linear_loss",
    "quadratic_loss",
    "splits_of",
    "squares",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Split:
    """``G + ridge = R + blkdiag(D_j I)`` of one term.

    Attributes
    ----------
    rest : float64 (d, d), positive semidefinite
    factor : float64 (k, d)
        ``factor' factor = rest``.
    diagonal : float64 (p,)
        D_j, the ridge plus the smallest eigenvalue of the Gram matrix where taken.
    """

    rest: Floats
    factor: Floats
    diagonal: Floats


def canonical_refit(problem: ChannelSelection, formulation: str) -> ChannelSelection:
    """The equivalent problem in free weights, or an error for variant mask."""
    canonical = require_problem(problem).canonical()
    if canonical.variant == "mask":
        raise InputError(
            f"{formulation} has free weights and variant 'mask' has none; "
            "use binary_quadratic_model"
        )
    return canonical


def splits_of(problem: ChannelSelection, smallest_eigenvalue: bool = True) -> list[Split]:
    """One split per term: the ridge, and the smallest eigenvalue where asked for.

    Raises
    ------
    InputError
        Some D_j is zero: no ridge and a (nearly) singular Gram matrix.
    """
    result = []
    for term in problem.terms:
        eigenvalues, vectors = (
            np.linalg.eigh(term.gram) if term.n_rows else (np.ones(1), np.ones((1, 0)))
        )
        share = max(0.0, float(eigenvalues[0]) * (1 - 1e-6)) if smallest_eigenvalue else 0.0
        largest = max(float(eigenvalues[-1]), np.finfo(np.float64).tiny)
        if share < 1e-9 * largest:
            share = 0.0
        diagonal = term.ridge + share
        if np.any(diagonal[term.group_sizes > 0] <= 0):
            raise InputError(
                f"term '{term.name}' has no ridge and a singular Gram matrix, so it has no "
                "perspective; give a ridge (with_damping), or use big_m_model"
            )
        rest = term.gram - share * np.eye(term.n_rows)
        root = np.sqrt(np.maximum(eigenvalues - share, 0.0))[:, None] * vectors.T
        result.append(Split(rest, root[:, : term.n_rows], diagonal))
    return result


def cross_of(term: Term) -> Floats:
    """Right-hand side with as few columns as the term allows."""
    return term.cross if term.has_box else term.compressed_cross


def add_weights(
    model: pyo.ConcreteModel,
    problem: ChannelSelection,
    bounds: tuple[Floats, ...] | None = None,
) -> None:
    """``model.w[t, i, c]`` within the bounds, and ``|w| <= M y`` for the stated ones."""
    shapes = [cross_of(term).shape for term in problem.terms]
    entries = [(t, i, c) for t, (d, m) in enumerate(shapes) for i in range(d) for c in range(m)]
    model.entries = pyo.Set(initialize=entries, dimen=3)
    model.w = pyo.Var(model.entries)
    model.box = pyo.ConstraintList()
    for t, i, c in model.entries:
        term = problem.terms[t]
        j = int(term.channel_of_row[i])
        limit = float(term.big_m[j])
        reach = limit if bounds is None else min(limit, float(bounds[t][j]))
        if np.isfinite(reach):
            model.w[t, i, c].setlb(-reach)
            model.w[t, i, c].setub(reach)
        if np.isfinite(limit):
            model.box.add(model.w[t, i, c] <= limit * model.y[j])
            model.box.add(model.w[t, i, c] >= -limit * model.y[j])


def linear_loss(model: pyo.ConcreteModel, problem: ChannelSelection) -> pyo.Expression:
    """``sum_t e_t / 2 - tr(C_t' W_t)``."""
    total = problem.energy / 2
    for t, term in enumerate(problem.terms):
        cross = cross_of(term)
        total = total - pyo.quicksum(
            float(cross[i, c]) * model.w[t, i, c]
            for i in range(cross.shape[0])
            for c in range(cross.shape[1])
        )
    return total


def quadratic_loss(
    model: pyo.ConcreteModel, problem: ChannelSelection, grams: list[Floats]
) -> pyo.Expression:
    """``sum_t tr(W_t' grams[t] W_t) / 2``."""
    total = 0.0
    for t, term in enumerate(problem.terms):
        gram, columns = grams[t], range(cross_of(term).shape[1])
        total = total + pyo.quicksum(
            float(gram[i, k] * (0.5 if i == k else 1.0)) * model.w[t, i, c] * model.w[t, k, c]
            for i in range(len(gram))
            for k in range(i + 1)
            if gram[i, k] != 0
            for c in columns
        )
    return total


def add_norms(
    model: pyo.ConcreteModel,
    problem: ChannelSelection,
    bounds: tuple[Floats, ...] | None = None,
) -> list[tuple[int, int]]:
    """``model.s[t, j] >= 0`` for every channel that a term reads; returns the pairs (t, j)."""
    pairs = [
        (t, j)
        for t, term in enumerate(problem.terms)
        for j in range(problem.n_channels)
        if term.group_sizes[j] > 0
    ]
    model.s = pyo.Var(pairs, domain=pyo.NonNegativeReals)
    if bounds is not None:
        for t, j in pairs:
            term = problem.terms[t]
            entries = int(term.group_sizes[j]) * cross_of(term).shape[1]
            model.s[t, j].setub(entries * float(bounds[t][j]) ** 2)
    return pairs


def squares(model: pyo.ConcreteModel, term: Term, t: int, j: int) -> pyo.Expression:
    """``||W_tj||^2``."""
    rows = range(int(term.offsets[j]), int(term.offsets[j + 1]))
    columns = range(cross_of(term).shape[1])
    return pyo.quicksum(model.w[t, i, c] ** 2 for i in rows for c in columns)
