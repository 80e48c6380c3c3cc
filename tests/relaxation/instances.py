"""Random small problems of every shape, and their optimum by complete enumeration."""

from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Resource, Term

__all__ = ["brute_force", "exact_value", "near_singular", "random_problem"]


def brute_force(problem: ChannelSelection) -> float:
    """Least value over all feasible masks, inf where there is none."""
    masks = (np.array(bits, dtype=bool) for bits in product([0, 1], repeat=problem.n_channels))
    return min((problem.value(m) for m in masks if problem.is_feasible(m)), default=np.inf)


def exact_value(problem: ChannelSelection, mask: NDArray[np.bool_]) -> Fraction:
    """Loss of a mask in rational arithmetic: no rounding at any condition number."""
    total = Fraction(0)
    for term in problem.terms:
        rows = np.flatnonzero(term.rows(mask))
        gram = [[Fraction(float(term.gram[i, j])) for j in rows] for i in rows]
        cross = [[Fraction(float(x)) for x in term.cross[i]] for i in rows]
        for k, ridge in enumerate(term.ridge[term.channel_of_row][rows].tolist()):
            gram[k][k] += Fraction(ridge)
        total += Fraction(term.energy) / 2
        # Gauss elimination: each pivot takes (own cross moments)^2 / pivot / 2 off the loss.
        for k in range(len(rows)):
            total -= sum((x * x for x in cross[k]), Fraction(0)) / gram[k][k] / 2
            for i in range(k + 1, len(rows)):
                share = gram[i][k] / gram[k][k]
                gram[i] = [a - share * b for a, b in zip(gram[i], gram[k], strict=True)]
                cross[i] = [a - share * b for a, b in zip(cross[i], cross[k], strict=True)]
    return total


def near_singular(seed: int) -> ChannelSelection:
    """One to four channels, condition number 1e8 to 1e12, some with weights far apart."""
    rng = np.random.default_rng(seed)
    p, g = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    d, power = p * g, float(rng.choice([8.0, 10.0, 11.0, 12.0]))
    basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
    gram = (basis * np.logspace(0, -power, d)) @ basis.T
    gram = (gram + gram.T) / 2
    weights = rng.standard_normal((d, 3)) * np.exp(rng.choice([0, 3]) * rng.standard_normal((d, 1)))
    cross = gram @ weights
    energy = float(np.vdot(weights, cross)) * (1 + 1e-6)
    keep = int(rng.integers(0, p + 1))
    return ChannelSelection(gram, cross, energy, [g] * p, keep=keep, ridge=10.0**-power)


def random_term(rng: np.random.Generator, p: int, *, singular: bool, big_m: float = np.inf) -> Term:
    sizes = rng.integers(1, 4, p)
    d, m = int(sizes.sum()), int(rng.integers(1, 6))
    n = max(2, d // 2) if singular else 4 * d
    inputs = rng.standard_normal((n, d)) @ np.diag(np.exp(rng.standard_normal(d)))
    inputs += 0.7 * rng.standard_normal((n, 1))
    dense = rng.standard_normal((d, m))
    target = inputs @ dense + 0.1 * rng.standard_normal((n, m))
    gram = inputs.T @ inputs / n
    ridge = 0.0 if singular else float(rng.choice([1e-3, 1e-2, 0.1])) * np.diag(gram).mean()
    return Term.create(
        gram,
        inputs.T @ target / n,
        float((target**2).sum() / n),
        sizes,
        ridge=ridge,
        big_m=big_m,
        dense=dense,
    )


def random_problem(
    seed: int, variant: str = "refit", *, singular: bool = False, big_m: float = np.inf
) -> ChannelSelection:
    """At most seven channels; terms, limits, prices and forced channels drawn at random."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(2, 8))
    terms = [random_term(rng, p, singular=singular, big_m=big_m) for _ in range(rng.integers(1, 3))]
    resources = []
    keep: int | None = int(rng.integers(1, p + 1))
    if seed % 3 == 1:
        costs = rng.uniform(0.5, 2.0, (2, p))
        upper = max(0.6 * float(costs[0].sum()), float(costs[0, 0]))
        resources = [Resource("a", costs[0], upper), Resource("b", costs[1], 4.0)]
        keep = None if seed % 2 else p - 1
    if seed % 5 == 2 and keep is not None and keep > 1:
        resources.append(Resource("least", np.ones(p) + 0.25, lower=1.25))
    forced_in, forced_out = np.zeros(p, dtype=bool), np.zeros(p, dtype=bool)
    if seed % 4 == 3:
        forced_in[0] = True
        forced_out[p - 1] = p > 1
    prices = rng.uniform(-0.1, 0.3, p) * terms[0].energy if seed % 7 == 3 else 0.0
    return ChannelSelection.from_terms(
        terms,
        prices=prices,
        resources=resources,
        keep=keep,
        variant=variant,
        forced_in=forced_in,
        forced_out=forced_out,
    )
