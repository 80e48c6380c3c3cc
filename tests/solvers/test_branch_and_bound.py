"""Our branch and bound against brute force, and its behaviour at limits."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.errors import BudgetError, InputError
from mipprune.problem import (
    ChannelSelection,
    LogPoint,
    Resource,
    SolutionStatus,
    Term,
    Termination,
)
from mipprune.solvers.branch_and_bound import branch_and_bound

KINDS = ("plain", "plain", "duplicate", "dead", "few samples")


def draw_term(
    rng: np.random.Generator, sizes: NDArray[np.int64], m: int, damping: float, kind: str
) -> Term:
    d = int(sizes.sum())
    samples = max(d // 2, 1) if kind == "few samples" else 3 * d + 5
    mixing = np.eye(d) + rng.uniform(0, 1.6) * rng.standard_normal((d, d)) / np.sqrt(d)
    x = rng.standard_normal((samples, d)) @ mixing
    ends = np.cumsum(sizes)
    starts = ends - sizes
    if kind == "duplicate":
        a, b = len(sizes) - 1, len(sizes) - 2
        if sizes[a] == sizes[b]:
            x[:, starts[a] : ends[a]] = x[:, starts[b] : ends[b]]
    if kind == "dead":
        x[:, : sizes[0]] = 0.0
    dense = rng.standard_normal((d, m)) * np.repeat(rng.uniform(0.2, 2, len(sizes)), sizes)[:, None]
    y = x @ dense + 0.3 * rng.standard_normal((samples, m))
    gram = x.T @ x / samples
    energy = float((y**2).sum()) / samples
    ridge = damping * float(np.diag(gram).mean())
    return Term.create(gram, x.T @ y / samples, energy, sizes, ridge=ridge, dense=dense)


def draw_limits(rng: np.random.Generator, p: int, energy: float) -> dict[str, Any]:
    options: dict[str, Any] = {"resources": []}
    if rng.random() < 0.6:
        options["keep"] = int(rng.integers(0, p + 1))
    for k in range(int(rng.choice([0, 0, 1, 2]))):
        costs = rng.uniform(0, 3, p).round(1)
        lower = -np.inf if rng.random() < 0.6 else float(costs.sum() * rng.uniform(0, 0.4))
        upper = float(costs.sum() * rng.uniform(0.4, 1)) if rng.random() < 0.85 else np.inf
        options["resources"].append(Resource(f"r{k}", costs, upper, lower))
    if rng.random() < 0.4:
        least = -0.01 if rng.random() < 0.3 else 0.0
        options["prices"] = rng.uniform(least, 0.06, p) * energy
    if rng.random() < 0.3:
        draw = rng.random(p)
        options["forced_in"], options["forced_out"] = draw < 0.15, draw > 0.85
    if rng.random() < 0.25:
        options["parts"] = [rng.integers(-1, 3, p) if p > 3 else np.arange(p) % 2]
    return options


def draw_problem(seed: int, largest: int = 8) -> ChannelSelection | None:
    """A random instance of any kind; None where its limits cannot be met."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(2, largest + 1))
    kind, damping = str(rng.choice(KINDS)), float(rng.choice([0, 1e-3, 0.01, 0.1]))
    variant = str(rng.choice(["refit", "refit", "scale", "mask"]))
    terms = []
    for _ in range(int(rng.choice([1, 1, 2]))):
        sizes = rng.integers(0, 4, p)
        if rng.random() < 0.6:
            sizes = np.full(p, int(rng.choice([1, 2, 3, 9])))
        sizes[0] = max(sizes[0], 1)
        terms.append(draw_term(rng, sizes, int(rng.integers(1, 9)), damping, kind))
    limits = draw_limits(rng, p, sum(term.energy for term in terms))
    if variant != "mask" and rng.random() < 0.2:
        box = np.full(p, rng.uniform(0.3, 1.5))
        terms = [replace(term, big_m=box) for term in terms]
    try:
        return ChannelSelection.from_terms(terms, variant=variant, **limits)
    except BudgetError:
        return None


def brute_force(problem: ChannelSelection) -> float:
    """Least value over all masks, inf where none is feasible."""
    best = np.inf
    for bits in itertools.product([False, True], repeat=problem.n_channels):
        mask = np.array(bits)
        if problem.is_feasible(mask):
            best = min(best, problem.value(mask))
    return best


def check_against_brute_force(problem: ChannelSelection, threads: int = 1) -> None:
    optimum = brute_force(problem)
    solution = branch_and_bound(problem, gap=1e-9, threads=threads)
    assert solution.termination is Termination.COMPLETE
    if np.isinf(optimum):
        assert solution.status is SolutionStatus.INFEASIBLE
        assert solution.mask is None
        return
    assert solution.status is SolutionStatus.OPTIMAL
    assert solution.mask is not None
    assert problem.is_feasible(solution.mask)
    floor = 1e-12 * problem.energy
    assert abs(solution.value - optimum) <= 1e-8 * abs(optimum) + floor
    assert solution.bound <= optimum + 1e-13 * problem.energy
    margin = solution.statistics["margin"]
    assert solution.bound >= optimum - 1e-8 * abs(optimum) - floor - 2 * margin


@pytest.mark.parametrize("block", range(10))
def test_random_instances_of_every_kind(block: int) -> None:
    drawn = [draw_problem(seed) for seed in range(20 * block, 20 * block + 20)]
    problems = [problem for problem in drawn if problem is not None]
    assert len(problems) >= 15
    for problem in problems:
        check_against_brute_force(problem)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_larger_random_instances(block: int) -> None:
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        problem = draw_problem(seed, largest=12)
        if problem is not None:
            check_against_brute_force(problem, threads=1 + seed % 2)


def layer(seed: int, p: int, keep: int, *, size: int = 3, m: int = 8) -> ChannelSelection:
    rng = np.random.default_rng(seed)
    term = draw_term(rng, np.full(p, size), m, 0.01, "plain")
    return ChannelSelection.from_terms([term], keep=keep)


def test_one_thread_is_deterministic() -> None:
    first, second = (branch_and_bound(layer(0, 16, 8), threads=1) for _ in range(2))
    assert first.nodes == second.nodes
    assert first.mask is not None
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.bound == second.bound


def test_threads_agree() -> None:
    for seed in range(3):
        one = branch_and_bound(layer(seed, 14, 7), threads=1)
        two = branch_and_bound(layer(seed, 14, 7), threads=2)
        assert two.value == pytest.approx(one.value, rel=1e-6)


def test_time_limit_leaves_a_true_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, at = layer(1, 40, 20), [0.0]
    clock = SimpleNamespace(monotonic=lambda: at[0])
    monkeypatch.setattr("mipprune.solvers.branch_and_bound._frontier.time", clock)
    monkeypatch.setattr("mipprune.solvers.branch_and_bound._solve.time", clock)
    nodes: list[int] = []

    def late(point: LogPoint) -> None:
        nodes.append(point.nodes)
        at[0] = 1.0 if point.nodes > 0 else 0.0

    solution = branch_and_bound(problem, time_limit=0.5, callback=late)
    assert solution.termination is Termination.TIME_LIMIT
    assert solution.seconds == 1.0
    assert sum(seen > 0 for seen in nodes) == 1, "went on after the deadline"
    assert solution.mask is not None
    assert problem.value(np.ones(40, dtype=bool)) <= solution.bound <= solution.value
    assert solution.status is SolutionStatus.FEASIBLE


def test_node_limit_and_callback_stop_the_search() -> None:
    problem = layer(2, 30, 15)
    limited = branch_and_bound(problem, node_limit=200, threads=1)
    assert limited.termination is Termination.NODE_LIMIT
    assert 200 <= limited.nodes <= 210
    points: list[LogPoint] = []

    def stop(point: LogPoint) -> bool:
        points.append(point)
        return point.nodes > 0

    stopped = branch_and_bound(problem, callback=stop, threads=1)
    assert stopped.termination is Termination.CALLBACK
    assert points[-1].bound <= stopped.value
    assert stopped.mask is not None


def test_interrupt_returns_the_incumbent(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(point: LogPoint) -> bool:
        if point.nodes:
            raise KeyboardInterrupt
        return False

    solution = branch_and_bound(layer(3, 30, 15), callback=interrupt, threads=2)
    assert solution.termination is Termination.INTERRUPTED
    assert solution.bound <= solution.value < np.inf


def test_start_is_never_lost() -> None:
    problem = layer(4, 24, 12)
    best = branch_and_bound(problem, time_limit=20)
    again = branch_and_bound(problem, start=best.mask, node_limit=1, threads=1)
    assert again.value <= best.value * (1 + 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": 0.0}, "time_limit"),
        ({"gap": -1.0}, "gap"),
        ({"node_limit": 0}, "node_limit"),
        ({"threads": 0}, "threads"),
        ({"start": np.ones(6, dtype=bool)}, "breaks a limit"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        branch_and_bound(layer(0, 6, 3), **options)


def test_progress_line_states_value_bound_and_gap(capsys: pytest.CaptureFixture[str]) -> None:
    branch_and_bound(layer(5, 12, 6), log=True, threads=1)
    line = capsys.readouterr().err
    assert "nodes" in line
    assert "bound" in line
    assert "gap" in line
