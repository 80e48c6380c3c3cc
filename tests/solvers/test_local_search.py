"""Local search: exact move prices, feasibility under every limit, quality, determinism."""

from collections.abc import Callable

import numpy as np
import pytest

from mipprune.problem import (
    ChannelSelection,
    LogPoint,
    Resource,
    SolutionStatus,
    Term,
    Termination,
)
from mipprune.solvers._engines import engine_for
from mipprune.solvers._limits import Limits
from mipprune.solvers.enumeration import enumerate_masks
from mipprune.solvers.local_search import search_locally

RandomProblem = Callable[..., ChannelSelection]
Ticking = Callable[[float], object]


def flipped(mask: np.ndarray, *channels: int) -> np.ndarray:
    result = mask.copy()
    for channel in channels:
        result[channel] ^= True
    return result


@pytest.mark.parametrize("seed", range(24))
def test_flip_and_pair_costs_are_differences_of_values(
    seed: int, random_problem: RandomProblem
) -> None:
    problem = random_problem(seed, 7).with_damping(0.05)
    generator = np.random.default_rng(seed)
    engine = engine_for(problem)
    p = problem.n_channels
    everything = np.arange(p)
    for _ in range(4):
        engine.flip(generator.choice(p, size=int(generator.integers(1, p + 1)), replace=False))
        base = problem.value(engine.mask)
        tolerance = 1e-9 * problem.energy
        singles, pairs = engine.flip_costs(), engine.pair_costs(everything, everything)
        for i in range(p):
            assert abs(singles[i] - problem.value(flipped(engine.mask, i)) + base) < tolerance
            for j in range(i):
                exact = problem.value(flipped(engine.mask, i, j)) - base
                assert abs(pairs[i, j] - exact) < tolerance


@pytest.mark.parametrize("seed", range(40))
def test_limits_agree_with_the_problem(seed: int, random_problem: RandomProblem) -> None:
    problem = random_problem(seed, 7)
    limits, p = Limits(problem), problem.n_channels
    feasible = [
        mask
        for mask in (np.array([i >> j & 1 for j in range(p)], dtype=bool) for i in range(2**p))
        if limits.admits(mask) == problem.is_feasible(mask) and problem.is_feasible(mask)
    ]
    count = sum(
        problem.is_feasible(np.array([i >> j & 1 for j in range(p)], bool)) for i in range(2**p)
    )
    assert len(feasible) == count
    cost = np.random.default_rng(seed).normal(size=p)
    found = limits.cheapest(cost)
    if not feasible:
        assert found is None
        assert limits.proven_empty
        return
    assert found is not None
    assert cost @ found == pytest.approx(min(cost @ mask for mask in feasible))
    mask = feasible[seed % len(feasible)]
    flips = limits.flips(mask)
    pairs = limits.pairs(mask, np.arange(p), np.arange(p))
    for i in range(p):
        assert flips[i] == problem.is_feasible(flipped(mask, i))
        for j in range(p):
            assert pairs[i, j] == (i != j and problem.is_feasible(flipped(mask, i, j)))


def test_finds_the_optimum_nearly_always(random_problem: RandomProblem) -> None:
    missed, n, worst = 0, 0, 1.0
    for seed in range(1000, 1060):
        problem = random_problem(seed, 10)
        best = enumerate_masks(problem)
        found = search_locally(problem, seed=seed)
        assert found.bound == -np.inf
        if best.mask is None:
            assert found.status is SolutionStatus.INFEASIBLE
            continue
        n += 1
        assert found.mask is not None
        if found.value > best.value + 1e-8 * abs(best.value) + 1e-9 * problem.energy:
            missed += 1
            worst = max(worst, found.value / best.value)
    assert n > 50
    assert missed <= 0.05 * n, f"missed {missed} of {n}, worst ratio {worst}"


def layer(p: int, rows: int, keep: int, seed: int = 0) -> ChannelSelection:
    generator = np.random.default_rng(seed)
    d = p * rows
    mixing = np.eye(d) + 0.05 * generator.normal(size=(d, d))
    x = np.maximum(generator.normal(size=(4 * d, d)) @ mixing, 0)
    y = x @ generator.normal(size=(d, 8))
    n = len(x)
    return ChannelSelection(
        x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [rows] * p, ridge=0.01, keep=keep
    )


def test_sixteen_groups_reach_the_proven_optimum() -> None:
    for seed in range(3):
        problem = layer(16, 3, 8, seed)
        assert search_locally(problem).value == pytest.approx(enumerate_masks(problem).value)


def test_the_same_seed_gives_the_same_mask() -> None:
    problem = layer(24, 2, 12)
    runs = [search_locally(problem, seed=5) for _ in range(2)]
    assert runs[0].mask is not None
    np.testing.assert_array_equal(runs[0].mask, runs[1].mask)
    assert runs[0].nodes == runs[1].nodes


def test_never_worse_than_the_start() -> None:
    problem = layer(12, 2, 6)
    best = enumerate_masks(problem)
    found = search_locally(problem, start=best.mask, rounds=0)
    assert found.value == pytest.approx(best.value)


def test_an_infeasible_start_is_repaired() -> None:
    problem = layer(12, 2, 6)
    found = search_locally(problem, start=np.ones(12, dtype=bool))
    assert found.mask is not None
    assert problem.is_feasible(found.mask)


def test_four_equal_parts_with_a_budget() -> None:
    term = layer(16, 2, 16, 3).terms[0]
    costs = np.arange(1.0, 17.0)
    problem = ChannelSelection.from_terms(
        [term],
        resources=[Resource("macs", costs, 0.6 * costs.sum(), 0.3 * costs.sum())],
        parts=[np.arange(16) // 4],
    )
    best = enumerate_masks(problem)
    found = search_locally(problem)
    assert found.value == pytest.approx(best.value, rel=1e-9)


def test_contradicting_limits_are_infeasible() -> None:
    term = Term.create(np.eye(4), np.ones((4, 1)), 4.0, [1] * 4)
    resources = [
        Resource("a", np.array([1.0, 1.0, 0.0, 0.0]), 2.0, 2.0),
        Resource("b", np.array([1.0, 0.0, 1.0, 1.0]), 0.5),
    ]
    problem = ChannelSelection.from_terms([term], resources=resources)
    found = search_locally(problem)
    assert found.status is SolutionStatus.INFEASIBLE
    assert found.mask is None


def test_the_first_look_at_the_clock_after_the_limit_stops_it(ticking: Ticking) -> None:
    problem = layer(24, 2, 12)
    assert search_locally(problem).nodes > 500
    ticking(0.01)
    found = search_locally(problem, time_limit=0.5, start=np.arange(24) < 12)
    assert found.termination is Termination.TIME_LIMIT
    assert found.seconds <= 0.5 + 3 * 0.01
    assert found.mask is not None
    assert found.nodes <= 50


def test_callback_and_interruption_return_the_incumbent() -> None:
    problem = layer(40, 6, 20)

    def stop(point: LogPoint) -> bool:
        return bool(np.isfinite(point.value))

    found = search_locally(problem, callback=stop)
    assert found.termination is Termination.CALLBACK
    assert found.status is SolutionStatus.FEASIBLE

    def interrupt(point: LogPoint) -> bool:
        if np.isfinite(point.value):
            raise KeyboardInterrupt
        return False

    found = search_locally(problem, callback=interrupt)
    assert found.termination is Termination.INTERRUPTED
    assert found.mask is not None


def test_all_channels_decided_or_none_may_stay() -> None:
    problem = layer(6, 1, 3)
    kept = np.arange(6) < 2
    assert search_locally(problem.with_forced(kept, ~kept)).value == problem.value(kept)
    assert search_locally(problem.with_keep(0)).value == problem.value(np.zeros(6, bool))


def test_a_box_is_respected() -> None:
    term = layer(8, 2, 8).terms[0]
    boxed = Term.create(
        term.gram, term.cross, term.energy, term.group_sizes, ridge=term.ridge, big_m=0.3
    )
    problem = ChannelSelection.from_terms([boxed], keep=4)
    found, best = search_locally(problem), enumerate_masks(problem)
    assert found.value == pytest.approx(best.value, rel=1e-9)
    assert np.abs(found.weights[0]).max() <= 0.3


def test_under_a_box_no_mask_is_solved_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    term = layer(8, 2, 8).terms[0]
    boxed = Term.create(
        term.gram, term.cross, term.energy, term.group_sizes, ridge=term.ridge, big_m=0.3
    )
    problem, solved = ChannelSelection.from_terms([boxed], keep=4), list[bytes]()
    original = ChannelSelection.value

    def value(self: ChannelSelection, mask: np.ndarray) -> float:
        solved.append(np.asarray(mask, dtype=bool).tobytes())
        return original(self, mask)

    monkeypatch.setattr(ChannelSelection, "value", value)
    found = search_locally(problem, rounds=24)
    assert found.nodes > len(solved)
    assert len(set(solved)) >= len(solved) - 1  # the result computes its own value once more
