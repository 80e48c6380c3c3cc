import numpy as np
import pytest
import torch

from mipprune.problem import ChannelSelection
from mipprune.relaxation._ascent import ascend
from mipprune.relaxation._hadamard import minimise_hadamard
from mipprune.relaxation._hadamard_terms import PairIndex, PairTerm
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._removal_root import Member, Root
from tests.relaxation.instances import brute_force

CPU = torch.device("cpu")


def correlated(p: int, keep: int) -> ChannelSelection:
    rng = np.random.default_rng(p)
    inputs = rng.standard_normal((6 * p, 2 * p)) + 0.8 * rng.standard_normal((6 * p, 1))
    target = inputs @ rng.standard_normal((2 * p, 4))
    return ChannelSelection(
        inputs.T @ inputs / (6 * p),
        inputs.T @ target / (6 * p),
        float((target**2).sum() / (6 * p)),
        [2] * p,
        keep=keep,
        ridge=0.02,
    )


def start_of(root: Root) -> Member:
    singles, _ = root.single_directions()
    n = root.size
    return Member(tuple(0.9 * z for z in singles), np.zeros((n, 0)), np.zeros((n, n)), np.zeros(1))


def test_two_methods_reach_the_same_bound() -> None:
    # Newton's method in pair space and first-order ascent on its dual share only the evaluation.
    problem = correlated(10, 5)
    root = Root(problem, Limits.of(problem))
    start = start_of(root)
    first = ascend(root, 5, start=start, tolerance=1e-6, deadline=np.inf, device=CPU)
    second = minimise_hadamard(
        root,
        5,
        multipliers=np.zeros(1),
        fixed=None,
        tolerance=1e-6,
        deadline=np.inf,
        device=CPU,
    )
    optimum = brute_force(problem)
    assert second.bound <= second.value + 1e-12
    assert second.value - second.bound <= 1e-5 * second.value
    assert first.bound <= second.value
    assert first.bound >= 0.97 * second.bound
    assert max(first.bound, second.bound) <= optimum


def test_ascent_only_gains() -> None:
    problem = correlated(24, 12)
    root = Root(problem, Limits.of(problem))
    start = start_of(root)
    at = int(np.searchsorted(root.counts, 12))
    before = float(root.bounds(start)[at])
    bounds = [
        ascend(
            root,
            12,
            start=start,
            tolerance=1e-6,
            deadline=np.inf,
            device=CPU,
            max_iterations=steps,
        ).bound
        for steps in (1, 50, 400)
    ]
    assert before <= bounds[0] + 1e-12
    assert bounds == sorted(bounds)
    assert bounds[-1] > 1.05 * before


def test_gradient_of_the_pair_objective() -> None:
    # Finite differences of the value at X in a symmetric direction.
    problem = correlated(5, 2)
    root = Root(problem, Limits.of(problem))
    term = PairTerm(root.terms[0], 5, CPU)
    generator = torch.Generator().manual_seed(0)
    base = torch.full((5, 5), 0.3, dtype=torch.float64)
    base.fill_diagonal_(0.6)
    raw = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    direction = 0.1 * (raw + raw.mT)
    step = 1e-4
    plus, minus = (float(term.solve(base + sign * step * direction)) for sign in (1, -1))
    middle = float(term.solve(base))
    linear, quadratic = term.first()
    slope = float((linear * direction.diagonal()).sum() - 0.5 * (quadratic * direction).sum())
    assert (plus - minus) / (2 * step) == pytest.approx(slope, rel=1e-6)
    index = PairIndex(5, CPU)
    vector = direction[index.first, index.second]
    # The Newton matrix keeps the responses that carry 90 % of Z: it lies below the curvature.
    curvature = float(vector @ term.second(index) @ vector)
    exact = (plus - 2 * middle + minus) / step**2
    assert 0.5 * exact <= curvature <= exact * (1 + 1e-3)
