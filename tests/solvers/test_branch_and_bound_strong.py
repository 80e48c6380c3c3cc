"""Nodes bounded by the pair relaxation: the ascent, its inheritance, and whole searches."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Resource, Term, Termination
from mipprune.relaxation import relax
from mipprune.relaxation.removal import removal_form
from mipprune.solvers.branch_and_bound import _explorers, _solve, _strong, branch_and_bound
from mipprune.solvers.branch_and_bound._frontier import Found, Frontier, Limits, Task
from mipprune.solvers.branch_and_bound._root import removal_root
from mipprune.solvers.branch_and_bound._state import KEPT, REMOVED, UNDECIDED
from mipprune.solvers.branch_and_bound._strong import StrongExplorer
from mipprune.solvers.branch_and_bound._volume import climb
from tests.solvers.test_branch_and_bound import (
    KINDS,
    brute_force,
    check_against_brute_force,
    draw_term,
)

Floats = NDArray[np.float64]


def layer(seed: int, p: int, terms: int = 1, size: int = 2, **limits: Any) -> ChannelSelection:
    rng = np.random.default_rng(seed)
    drawn = [draw_term(rng, np.full(p, size), 3, 0.01, "plain") for _ in range(terms)]
    return ChannelSelection.from_terms(drawn, **limits)


def explorer_of(problem: ChannelSelection) -> StrongExplorer:
    form = removal_form(problem)
    steps = np.full(problem.n_channels + 5, 4, dtype=np.int64)
    return StrongExplorer(removal_root(problem, form, steps), form.margin)


def ascended(
    s: int, linear: Floats, quadratic: Floats, steps: int, seed: int = 0
) -> tuple[float, Floats, Floats, Floats, Floats]:
    """Best bound, bounds per channel, Psi and S of an ascent from nothing."""
    n = linear.size
    psd, skew = np.zeros((n, n)), np.zeros((n, n))
    pairs = np.full((n, n), (s / n) ** 2)
    forced, without = np.full(n, -math.inf), np.full(n, -math.inf)
    best, _, _ = climb(
        s,
        linear,
        quadratic,
        psd,
        skew,
        pairs,
        math.inf,
        float(np.abs(linear).sum()),
        steps,
        np.array([1.0 / (1 + k) for k in range(steps)]),
        0.1,
        forced,
        without,
    )
    return best, forced, without, psd, skew


def pairwise_values(s: int, linear: Floats, quadratic: Floats) -> list[tuple[set[int], float]]:
    found = []
    for members in itertools.combinations(range(linear.size), s):
        x = np.zeros(linear.size)
        x[list(members)] = 1.0
        found.append((set(members), float(linear @ x - 0.5 * x @ quadratic @ x)))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_ascent_never_passes_any_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, s = int(rng.integers(3, 9)), 2 + seed % 2
    factor = rng.normal(size=(n, n))
    quadratic = factor @ factor.T * rng.uniform(0.1, 1) + np.diag(rng.uniform(0, 1, n))
    linear = rng.uniform(0.5, 4, n)
    values = pairwise_values(s, linear, quadratic)
    least = min(value for _, value in values)
    start = ascended(s, linear, quadratic, 1)[0]
    best, forced, without, psd, skew = ascended(s, linear, quadratic, 60)
    assert start <= best <= least + 1e-9
    for i in range(n):
        inside = min(value for members, value in values if i in members)
        outside = min((v for members, v in values if i not in members), default=math.inf)
        assert forced[i] <= inside + 1e-9
        assert without[i] <= outside + 1e-9
    np.testing.assert_array_equal(skew, -skew.T)
    np.testing.assert_array_equal(psd, psd.T)
    assert np.linalg.eigvalsh(psd)[0] >= -1e-12 * max(np.trace(psd), 1.0)


def test_long_ascent_reaches_the_pair_relaxation() -> None:
    problem = layer(3, 10, size=3, keep=5)
    explorer = explorer_of(problem)
    state = np.zeros(10, dtype=np.int8)
    relaxed = relax(problem, "sdp", tol=1e-5)
    everything = removal_form(problem).value_all
    node = explorer._bounded(state, np.arange(10), 5, relaxed.bound * 1.5, np.zeros(1, np.int64))
    assert node.bound - everything >= 0.97 * (relaxed.bound - everything)
    assert node.bound <= relaxed.value * (1 + 1e-9)


def test_inherited_psd_part_agrees_on_the_masks_of_the_child() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 6))
    psd = (factor @ factor.T).astype(np.float32)
    skew = np.triu(factor, 1) - np.triu(factor, 1).T
    means = np.full((6, 6), 0.2, np.float32)
    np.fill_diagonal(means, 0.5)
    point = _strong._Point(np.arange(6), (), psd, skew.astype(np.float32), means, 0.1)
    state = np.array([REMOVED, UNDECIDED, KEPT, UNDECIDED, UNDECIDED, UNDECIDED], dtype=np.int8)
    undecided = np.array([1, 3, 4, 5])
    inherited, its_skew, pairs, _ = _strong._started(point, state, undecided, 2)
    for chosen in itertools.combinations(range(4), 2):
        inner, whole = np.zeros(4), np.zeros(6)
        inner[list(chosen)] = 1.0
        whole[undecided] = inner
        whole[0] = 1.0
        expected = float(whole @ psd.astype(np.float64) @ whole)
        assert float(inner @ inherited @ inner) == pytest.approx(expected, rel=1e-5)
    assert np.linalg.eigvalsh(inherited)[0] >= -1e-14 * np.trace(inherited)
    np.testing.assert_array_equal(its_skew, -its_skew.T)
    assert np.trace(pairs) == pytest.approx(2.0)
    assert np.all((pairs > 0) & (pairs <= 1))


class OnlyStrong:
    """The explorer without its first, compiled slice."""

    def __init__(self, inner: StrongExplorer) -> None:
        self.inner = inner

    def explore(self, task: Task) -> Found:
        return self.inner.explore(replace(task, first=False))


CASES: dict[str, dict[str, Any]] = {
    "count": {"keep": 4},
    "two terms": {"keep": 5, "terms": 2},
    "two budgets": {
        "resources": [
            Resource("a", np.arange(9.0) + 1, 20.0, -np.inf),
            Resource("b", 9.0 - np.arange(9.0), 26.0, -np.inf),
        ]
    },
    "gains": {"keep": 5, "prices": -np.linspace(0, 0.5, 9)},
    "forced": {"keep": 5, "forced_in": np.arange(9) == 2, "forced_out": np.arange(9) == 7},
}


@pytest.mark.parametrize("case", CASES)
def test_search_with_strong_nodes_matches_brute_force(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_strong, "LEAST_REMOVALS", 2)
    monkeypatch.setattr(_strong, "LEAST_KEPT", 1)
    for seed in range(4):
        problem = layer(10 * seed + len(case), 9, **CASES[case])
        explorer = explorer_of(problem)
        state = np.zeros(9, dtype=np.int8)
        state[problem.forced_in], state[problem.forced_out] = KEPT, REMOVED
        optimum = brute_force(problem)
        frontier = Frontier(OnlyStrong(explorer), problem, Limits(gap=1e-9))
        if seed % 2:
            frontier.offer(_any_mask(problem))
            assert frontier.mask is not None
        frontier.push(state, -math.inf)
        assert frontier.run() is Termination.COMPLETE
        assert frontier.value == pytest.approx(optimum, rel=1e-8)
        assert frontier.bound - frontier.margin <= optimum + 1e-13 * problem.energy
        assert frontier.bound >= optimum * (1 - 1e-8) - 2 * frontier.margin


def _any_mask(problem: ChannelSelection) -> NDArray[np.bool_]:
    """A feasible mask: channels leave one by one, the last first."""
    mask = ~problem.forced_out
    for j in range(problem.n_channels - 1, -1, -1):
        if problem.is_feasible(mask):
            break
        mask[j] = problem.forced_in[j]
    return np.asarray(mask)


@pytest.mark.parametrize("seed", range(3))
def test_every_node_bound_is_below_its_best_mask(seed: int) -> None:
    problem = layer(seed, 8, keep=4)
    explorer = explorer_of(problem)
    rng = np.random.default_rng(seed)
    shared = np.array([brute_force(problem) * 1.3, 1e-6, 1e-12])
    control = np.zeros(1, dtype=np.int64)
    for _ in range(12):
        state = np.zeros(8, dtype=np.int8)
        drawn = rng.permutation(8)
        state[drawn[: rng.integers(0, 3)]] = REMOVED
        state[drawn[3 : 3 + rng.integers(0, 2)]] = KEPT
        undecided = np.flatnonzero(state == UNDECIDED)
        removals = explorer._removals(state)
        node = explorer._bounded(state, undecided, removals, float(shared[0]), control)
        for members in itertools.combinations(undecided.tolist(), removals):
            mask = state != REMOVED
            mask[list(members)] = False
            value = problem.value(mask) + 1e-13 * problem.energy
            assert node.bound <= value
            for position, channel in enumerate(undecided.tolist()):
                side = node.forced if channel in members else node.without
                assert side[position] <= value


def awkward(seed: int) -> ChannelSelection:
    """Duplicate or dead channels, few samples, two terms, budgets and gains, any scale."""
    rng = np.random.default_rng(seed)
    p, kind = int(rng.integers(6, 10)), KINDS[1 + seed % (len(KINDS) - 1)]
    terms = []
    for _ in range(1 + seed % 2):
        size = np.full(p, int(rng.choice([1, 2, 9]))) if seed % 3 else rng.integers(0, 4, p)
        size[0] = max(size[0], 1)
        damping = float(rng.choice([1e-3, 0.01, 0.1]))
        drawn = draw_term(rng, size, int(rng.integers(1, 9)), damping, kind)
        scale = 2.0 ** rng.integers(-20, 21)
        gram, ridge = drawn.gram * scale**2, drawn.ridge * scale**2
        cross, energy = drawn.cross * scale, drawn.energy
        terms.append(Term.create(gram, cross, energy, size, ridge=ridge))
    energy = sum(term.energy for term in terms)
    costs = rng.uniform(0, 3, p) * 2.0 ** rng.integers(-20, 21)
    return ChannelSelection.from_terms(
        terms,
        keep=int(rng.integers(2, p - 2)),
        resources=[Resource("a", costs, 0.6 * float(costs.sum()), -np.inf)] if seed % 2 else [],
        prices=-rng.uniform(0, 0.1 * energy, p) * (seed % 5 == 0),
    )


def test_awkward_instances_match_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_strong, "LEAST_REMOVALS", 2)
    monkeypatch.setattr(_strong, "LEAST_KEPT", 1)
    monkeypatch.setattr(_strong, "TRIAL_BUDGET", 0.0)
    monkeypatch.setattr(_explorers, "FIRST_BUDGET", 0.0)
    monkeypatch.setattr(_solve, "addition_pays", lambda problem: False)
    opened: list[tuple[Any, Any, float]] = []
    usual = StrongExplorer._opened

    def watched(self: StrongExplorer, state: Any, *arguments: Any) -> Any:
        children = usual(self, state, *arguments)
        below = [(child, bound - self.margin) for child, bound in children]
        opened.append((state, below, arguments[-1].pruned - self.margin))
        return children

    monkeypatch.setattr(StrongExplorer, "_opened", watched)
    count = 0
    for seed in range(24):
        problem = awkward(seed)
        opened.clear()
        check_against_brute_force(problem)
        masks = np.array(list(itertools.product([False, True], repeat=problem.n_channels)))
        masks = masks[[problem.is_feasible(mask) for mask in masks]]
        values = np.array([problem.value(mask) for mask in masks]) + 1e-13 * problem.energy
        count += len(opened)
        for state, children, pruned in opened:
            lost = ((state == UNDECIDED) | ((state == KEPT) == masks)).all(1)
            for child, below in children:
                inside = ((child == UNDECIDED) | ((child == KEPT) == masks)).all(1)
                lost &= ~inside
                assert below <= values[inside].min(initial=math.inf), seed
            assert pruned <= values[lost].min(initial=math.inf), seed
    assert count > 100


def test_memory_limit_costs_quality_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_strong, "LEAST_REMOVALS", 2)
    monkeypatch.setattr(_strong, "LEAST_KEPT", 1)
    problem = layer(5, 9, keep=4)
    values = []
    for limit in (0, 1 << 28):
        monkeypatch.setattr(_strong, "MEMORY_LIMIT", limit)
        frontier = Frontier(OnlyStrong(explorer_of(problem)), problem, Limits(gap=1e-9))
        frontier.push(np.zeros(9, dtype=np.int8), -math.inf)
        frontier.run()
        values.append(frontier.value)
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_wide_problem_is_bounded_beyond_single_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_strong, "TRIAL_BUDGET", 1e6)
    bounded: list[float] = []
    usual = StrongExplorer._bounded

    def counted(self: StrongExplorer, *arguments: Any) -> Any:
        node = usual(self, *arguments)
        bounded.append(node.bound)
        return node

    monkeypatch.setattr(StrongExplorer, "_bounded", counted)
    problem = layer(1, 40, size=3, keep=20)
    solution = branch_and_bound(problem, node_limit=600, threads=1)
    assert solution.termination is Termination.NODE_LIMIT
    assert len(bounded) > 1
    assert relax(problem, "gl").bound < bounded[0] <= solution.bound <= solution.value
