"""Enumeration against evaluating every mask by itself."""

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from mipprune.errors import InputError, SolverError
from mipprune.problem import ChannelSelection, LogPoint, SolutionStatus, Termination
from mipprune.solvers.enumeration import enumerate_masks

BruteForce = Callable[[ChannelSelection], tuple[float, np.ndarray | None]]
RandomProblem = Callable[..., ChannelSelection]
Ticking = Callable[[float], object]


@pytest.mark.parametrize("seed", range(60))
def test_finds_the_least_value(
    seed: int, random_problem: RandomProblem, brute_force: BruteForce
) -> None:
    problem = random_problem(seed, 8, box=seed % 5 == 0)
    best, _ = brute_force(problem)
    solution = enumerate_masks(problem)
    if best == np.inf:
        assert solution.status is SolutionStatus.INFEASIBLE
        assert solution.mask is None
        return
    assert solution.status is SolutionStatus.OPTIMAL
    assert solution.termination is Termination.COMPLETE
    assert solution.value == pytest.approx(best, rel=1e-10, abs=1e-11 * problem.energy)
    assert solution.bound <= best
    assert solution.value - solution.bound <= 1e-7 * problem.energy


def layer(p: int, rows: int = 1, seed: int = 0) -> ChannelSelection:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(4 * p * rows, p * rows))
    y = generator.normal(size=(len(x), 3))
    n = len(x)
    return ChannelSelection(
        x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [rows] * p, ridge=0.01, keep=p // 2
    )


def test_sixteen_groups_share_their_prefixes() -> None:
    solution = enumerate_masks(layer(16, 9))
    assert solution.gap < 1e-9
    assert solution.nodes < 2**17


def test_too_many_channels_are_refused_unless_decided() -> None:
    problem = layer(30)
    with pytest.raises(SolverError, match="at most 24"):
        enumerate_masks(problem)
    out = np.arange(30) >= 10
    solution = enumerate_masks(problem.with_forced(np.zeros(30, bool), out))
    assert solution.mask is not None
    assert not solution.mask[10:].any()


def test_all_channels_decided() -> None:
    problem = layer(4)
    kept = np.array([True, False, True, False])
    solution = enumerate_masks(problem.with_forced(kept, ~kept))
    assert solution.mask is not None
    assert solution.mask.tolist() == kept.tolist()


def test_keep_zero() -> None:
    solution = enumerate_masks(layer(4).with_keep(0))
    assert solution.value == pytest.approx(layer(4).energy / 2)


@pytest.mark.parametrize("ridge", [0.01, 0.0])
def test_stops_on_time_with_the_start_as_incumbent(ridge: float, ticking: Ticking) -> None:
    term = layer(22, 3).terms[0]
    gram = term.gram if ridge else np.ones_like(term.gram)
    cross = term.cross if ridge else np.ones_like(term.cross)
    problem = ChannelSelection(gram, cross, 5.0, [3] * 22, ridge=ridge, keep=11)
    start = np.arange(22) < 11
    ticking(0.1)
    solution = enumerate_masks(problem, time_limit=0.3, start=start)
    # Nothing is asked of the clock beyond the check that stops it and the result.
    assert solution.seconds <= 0.3 + 3 * 0.1
    assert solution.nodes < 2**19  # of some five million
    assert solution.termination is Termination.TIME_LIMIT
    assert solution.status is SolutionStatus.FEASIBLE
    assert solution.value == pytest.approx(problem.value(start))
    assert solution.bound == -np.inf


def test_callback_and_interruption_stop_it() -> None:
    problem = layer(20, 2)

    def stop(point: LogPoint) -> bool:
        return point.nodes > 1000

    solution = enumerate_masks(problem, callback=stop)
    assert solution.termination is Termination.CALLBACK

    def interrupt(_: LogPoint) -> bool:
        raise KeyboardInterrupt

    solution = enumerate_masks(problem, callback=interrupt)
    assert solution.termination is Termination.INTERRUPTED
    assert solution.status is SolutionStatus.NONE


@pytest.mark.parametrize("options", [{"time_limit": 0}, {"time_limit": -1.0}, {"gap": np.nan}])
def test_senseless_limits_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        enumerate_masks(layer(3), **options)  # type: ignore[arg-type]  # numbers only


def test_two_nearly_equal_channels_are_both_kept() -> None:
    """Loss 1/2 - c'(G^-1)c/2 with G = [[1, 1], [1, 1 + t]], c = (0, sqrt t): 1/2 - 1/2 = 0."""
    gram = [[1.0, 1.0], [1.0, 1.0 + 2.0**-40]]
    problem = ChannelSelection(gram, [[0.0], [2.0**-20]], 1.0, [1, 1], ridge=0.0, prices=0.1)
    solution = enumerate_masks(problem)
    assert solution.mask is not None
    assert solution.mask.all()
    assert solution.status is SolutionStatus.OPTIMAL
    assert solution.value == pytest.approx(0.2, abs=1e-9)
    assert 0.2 - 1e-13 <= solution.bound <= 0.2


def exact_value(problem: ChannelSelection, mask: np.ndarray) -> Fraction | None:
    """Least loss plus prices in rationals; None where the matrix is not positive definite."""
    term = problem.terms[0]
    rows = np.flatnonzero(term.rows(mask))
    right = [[Fraction(float(x)) for x in term.cross[i]] for i in rows]
    gram = [[Fraction(float(term.damped_gram[i, j])) for j in rows] for i in rows]
    total = Fraction(term.energy) / 2
    total += sum(Fraction(float(price)) for price in problem.prices[mask])
    for i in range(len(rows)):
        if gram[i][i] <= 0:
            return None
        total -= sum(x * x for x in right[i]) / gram[i][i] / 2
        for k in range(i + 1, len(rows)):
            factor = gram[k][i] / gram[i][i]
            gram[k] = [a - factor * b for a, b in zip(gram[k], gram[i], strict=True)]
            right[k] = [a - factor * b for a, b in zip(right[k], right[i], strict=True)]
    return total


def badly_conditioned(seed: int, digits: float) -> ChannelSelection:
    """Condition number 10^digits, targets that use every direction, prices."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3, int(rng.integers(3, 6)))
    d = int(sizes.sum())
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = 10.0 ** -rng.uniform(0, digits, d)
    values[:2] = 1.0, 10.0**-digits
    gram = (basis * values) @ basis.T
    weights = basis @ (rng.normal(size=(d, 2)) / np.sqrt(values)[:, None])
    cross = gram @ weights
    energy = 1.1 * float(np.vdot(weights, cross))
    return ChannelSelection(
        (gram + gram.T) / 2, cross, energy, sizes, prices=rng.uniform(0, 0.05, sizes.size) * energy
    )


@pytest.mark.parametrize("digits", [6, 8, 10, 11, 12, 13, 14, 15])
def test_no_bound_above_the_exact_optimum_of_badly_conditioned_problems(digits: int) -> None:
    compared = 0
    for seed in range(8):
        problem = badly_conditioned(seed, digits)
        masks = [np.array(m) for m in itertools.product([False, True], repeat=problem.n_channels)]
        values = [exact_value(problem, mask) for mask in masks]
        solution = enumerate_masks(problem)
        assert solution.bound <= min(problem.value(mask) for mask in masks)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            continue  # indefinite by the rounding of its entries: no exact optimum exists
        compared += 1
        best = min(known)
        assert Fraction(solution.bound) <= best, seed
        # The library's values themselves lose eps times the condition number.
        lost = 1e-15 * 10.0**digits * problem.energy
        if digits <= 13:
            assert float(best - Fraction(solution.bound)) <= 1e-11 * problem.energy + lost, seed
            assert solution.value == pytest.approx(float(best), abs=1e-12 * problem.energy + lost)
        if digits <= 8:
            assert solution.status is SolutionStatus.OPTIMAL
    assert compared >= (7 if digits <= 13 else 3)
