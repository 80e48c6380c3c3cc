"""Random small problems of every shape, and their optimum by complete enumeration."""

from itertools import product

import numpy as np

from mipprune.problem import ChannelSelection, Resource, Term

__all__ = ["brute_force", "random_problem"]


def brute_force(problem: ChannelSelection) -> float:
    """Least value over all feasible masks, inf where there is none."""
    masks = (np.array(bits, dtype=bool) for bits in product([0, 1], repeat=problem.n_channels))
    return min((problem.value(m) for m in masks if problem.is_feasible(m)), default=np.inf)


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
