"""Random problems that mix everything a problem may have, at any scale of the data."""

import numpy as np

from mipprune.errors import BudgetError, InputError
from mipprune.problem import ChannelSelection, Resource, Term

__all__ = ["varied_problem"]

Floats = np.ndarray


def varied_problem(
    seed: int, variant: str = "refit", *, box: bool = False, most: int = 6
) -> ChannelSelection | None:
    """Up to ``most`` channels of 0 to 9 rows; None where no mask meets the limits drawn."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, most + 1))
    scales = 2.0 ** rng.integers(-20, 21, 2) if rng.random() < 0.4 else np.ones(2)
    try:
        terms = [_term(rng, p, scales, box) for _ in range(rng.choice([1, 1, 2, 3]))]
        return ChannelSelection.from_terms(
            terms,
            prices=_prices(rng, terms),
            resources=_resources(rng, p),
            keep=int(rng.integers(0, p + 1)) if rng.random() < 0.75 else None,
            variant=variant,
            forced_in=np.arange(p) == (rng.integers(p) if rng.random() < 0.25 else -1),
            forced_out=np.arange(p) == (rng.integers(p) if rng.random() < 0.25 else -1),
            parts=[np.arange(p) % 2] if p % 2 == 0 and rng.random() < 0.15 else [],
        )
    except (BudgetError, InputError):  # out of reach; a Gram matrix rounded to float32
        return None


def _inputs(rng: np.random.Generator, of_row: Floats, p: int) -> Floats:
    """Correlated inputs; sometimes few samples, a channel twice, a dead one."""
    d = of_row.size
    samples = max(1, d // 2) if rng.random() < 0.25 else 3 * d
    x = rng.standard_normal((samples, d)) * np.exp(rng.choice([0.3, 1]) * rng.standard_normal(d))
    x += rng.choice([0.0, 0.7, 3.0]) * rng.standard_normal((samples, 1))
    if rng.random() < 0.25:
        first, second = (np.flatnonzero(of_row == j) for j in rng.integers(p, size=2))
        shared = min(first.size, second.size)
        x[:, second[:shared]] = x[:, first[:shared]]
    if rng.random() < 0.2:
        x[:, of_row == rng.integers(p)] = 0.0
    return np.asarray(x)


def _term(rng: np.random.Generator, p: int, scales: Floats, box: bool) -> Term:
    sizes = rng.integers(0 if p > 1 else 1, 10 if rng.random() < 0.3 else 4, p)
    sizes[0] = max(sizes[0], 1)
    of_row = np.repeat(np.arange(p), sizes)
    x = _inputs(rng, of_row, p)
    (n, d), m = x.shape, int(rng.choice([1, 2, 3, 5, 40]))
    weights = rng.standard_normal((d, m))
    y = x @ weights + rng.choice([0.0, 0.1, 1.0]) * rng.standard_normal((n, m))
    y *= rng.random() > 0.08
    x, y, weights = x * scales[0], y * scales[1], weights * scales[1] / scales[0]
    gram, cross, energy = x.T @ x / n, x.T @ y / n, float((y**2).sum() / n) * (1 + 1e-9)
    damping = float(rng.choice([0, 1e-8, 1e-4, 1e-2, 0.1]))
    if rng.random() < 0.15:
        gram, cross = gram.astype(np.float32), cross.astype(np.float32)
        energy, damping = energy * (1 + 1e-4), max(damping, 1e-4)
    limit = rng.choice([0.2, 0.8, 2.0]) * scales[1] / scales[0] * rng.uniform(0.5, 1.5, p)
    return Term.create(
        gram,
        cross,
        energy,
        sizes,
        ridge=damping * np.diag(gram).mean() * rng.uniform(0.5, 2.0, p),
        big_m=limit if box else np.inf,
        dense=weights,
    )


def _prices(rng: np.random.Generator, terms: list[Term]) -> Floats:
    energy, p = sum(term.energy for term in terms), terms[0].n_channels
    return rng.uniform(-0.1, 0.3, p) * energy * (rng.random() < 0.3)


def _resources(rng: np.random.Generator, p: int) -> list[Resource]:
    """Up to two budgets, whole numbers or not, and sometimes a lower limit."""
    found = []
    for name in ("a", "b")[: rng.choice([0, 0, 1, 2])]:
        costs = rng.uniform(0.2, 2, p)
        costs = costs if rng.random() < 0.6 else np.round(2 * costs)
        found.append(Resource(name, costs, rng.uniform(0.3, 0.9) * costs.sum() + 1e-3))
    if rng.random() < 0.2:
        costs = rng.uniform(0.2, 2, p)
        lower = rng.uniform(0.1, 0.6) * costs.sum()
        found.append(Resource("least", costs, rng.choice([np.inf, 0.9 * costs.sum()]), lower))
    return found
