"""Whole ReLU networks: every solver against all choices of neurons."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mipprune.errors import InputError, NoSolutionError
from mipprune.formulation.relu_network import (
    FORMULATIONS,
    NetworkPruning,
    ReLUNetwork,
    reduce_losslessly,
)
from mipprune.problem import SolutionStatus, Termination
from mipprune.solvers.relu_network import _milp, _search, greedy_masks, solve_network
from mipprune.solvers.relu_network._tree import expand_many

CASES = [
    {"objective": "deviation", "max_neurons": 4},
    {"objective": "deviation", "max_neurons": 6, "max_deviation": 4.0},
    {"objective": "hinge", "max_neurons": 4},
    {"objective": "misclassification", "max_neurons": 3},
    {"objective": "neurons", "keep_predictions": True},
    {"objective": "neurons", "max_deviation": 2.0},
    {"objective": "deviation", "max_neurons": 5, "keep_predictions": True},
]


def random_network(seed: int, *widths: int) -> tuple[ReLUNetwork, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = list(zip(widths[1:], widths[:-1], strict=True))
    network = ReLUNetwork.create(
        [rng.normal(size=pair) for pair in pairs], [rng.normal(size=n) for n, _ in pairs]
    )
    return network, rng.normal(size=(6, widths[0]))


def brute_force(task: NetworkPruning) -> float:
    best = math.inf
    for bits in itertools.product([False, True], repeat=task.network.n_neurons):
        masks = np.split(np.array(bits), np.cumsum(task.network.widths)[:-1])
        if task.is_feasible(masks):
            best = min(best, task.value(masks))
    return best


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_search_agrees_with_all_choices(case: dict[str, object], seed: int) -> None:
    network, inputs = random_network(seed, 5, 4, 4, 3)
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    best = brute_force(task)
    if math.isinf(best):
        with pytest.raises(NoSolutionError, match="proven"):
            solve_network(task, solver="search")
        return
    result = solve_network(task, solver="search")
    assert result.status is SolutionStatus.OPTIMAL
    assert result.masks is not None
    assert task.is_feasible(result.masks)
    assert result.value == pytest.approx(best, abs=1e-9)
    assert result.bound <= best


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("solver", ["highs", "scip"])
def test_programs_agree_with_all_choices(
    case: dict[str, object], formulation: str, solver: str
) -> None:
    network, inputs = random_network(21, 4, 3, 3, 3)
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    result = solve_network(task, solver=solver, formulation=formulation)
    best = brute_force(task)
    assert result.value == pytest.approx(best, abs=1e-6)
    assert result.bound <= best + 1e-6
    assert result.status is SolutionStatus.OPTIMAL
    assert result.forward_error < 1e-5


def special_network() -> tuple[ReLUNetwork, np.ndarray]:
    """Dead, always-active, duplicate and parallel neurons in both layers; float32 weights."""
    network, inputs = random_network(21, 4, 4, 4, 3)
    w = [weight.copy() for weight in network.weights]
    b = [bias.copy() for bias in network.biases]
    b[0][0], b[0][1] = -100.0, 50.0
    w[0][3], b[0][3] = w[0][2], b[0][2]
    w[1][1], b[1][1] = 2.0 * w[1][0], 2.0 * b[1][0]
    b[1][2], b[1][3] = -1000.0, 200.0
    exact = [array.astype(np.float32) for array in w], [array.astype(np.float32) for array in b]
    return ReLUNetwork.create(*exact), inputs


NETWORKS = {
    "one hidden layer": lambda: random_network(31, 4, 7, 3),
    "three hidden layers": lambda: random_network(11, 3, 3, 3, 2, 2),
    "wider last layer": lambda: random_network(13, 3, 2, 5, 3),
    "special neurons": special_network,
}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("solver", ["search", "highs", "scip"])
def test_other_networks_agree_with_all_choices(
    case: dict[str, object], kind: str, solver: str
) -> None:
    network, inputs = NETWORKS[kind]()
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    best = brute_force(task)
    if math.isinf(best):
        with pytest.raises(NoSolutionError, match="proven"):
            solve_network(task, solver=solver)
        return
    result = solve_network(task, solver=solver, tighten=False)
    assert result.status is SolutionStatus.OPTIMAL
    assert result.masks is not None
    assert result.value == pytest.approx(best, abs=1e-6)
    assert result.bound <= best + 1e-6
    assert result.bound >= best - 1e-5 * (1 + best)
    # The value and the limits hold for the smaller network itself, run forward.
    smaller = network.without(result.masks)
    outputs = smaller.forward(task.inputs)
    np.testing.assert_allclose(
        outputs, network.forward(task.inputs, result.masks), rtol=1e-12, atol=1e-9
    )
    if task.max_deviation is not None:
        assert np.abs(outputs - task.dense).max() <= task.max_deviation + 1.001 * task.tolerance
    if task.keep_predictions:
        assert np.array_equal(outputs.argmax(axis=1), task.classes)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_enumeration_agrees_with_the_forward_pass(case: dict[str, object], kind: str) -> None:
    network, inputs = NETWORKS[kind]()
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    best = brute_force(task)
    if math.isinf(best):
        with pytest.raises(NoSolutionError, match="proven"):
            solve_network(task, solver="enumeration", start=network.full_masks())
        return
    result = solve_network(task, solver="enumeration", start=network.full_masks())
    assert result.value == pytest.approx(best, abs=1e-12)
    assert result.bound == result.value


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_search_bound_recomputed_by_enumeration(case: dict[str, object]) -> None:
    network, inputs = random_network(41, 5, 8, 8, 3)
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    result = solve_network(task, solver="search")
    checked = solve_network(task, solver="enumeration", start=result.masks)
    assert result.value == pytest.approx(checked.value, abs=1e-9)
    assert result.bound <= checked.value
    assert result.gap < 1e-6


@pytest.mark.parametrize("solver", ["highs", "scip"])
def test_tightened_program_on_three_hidden_layers(solver: str) -> None:
    network, inputs = random_network(11, 3, 3, 3, 2, 2)
    task = NetworkPruning(network, inputs, max_neurons=5)
    result = solve_network(task, solver=solver, tighten=True)
    assert result.value == pytest.approx(brute_force(task), abs=1e-6)
    assert result.nodes >= 0


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("widths", [(4, 4), (3, 3, 2)], ids=str)
def test_every_node_bound_is_below_everything_under_it(
    case: dict[str, object], widths: tuple[int, ...]
) -> None:
    network, inputs = random_network(51, 4, *widths, 3)
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    ordered, limit = _search._Ordered.of(task), task.max_neurons or network.n_neurons
    state = _search._State(None, math.inf)
    data = _search._data(
        task, ordered.network, limit, _search._multipliers(task, ordered, state, limit)
    )
    values = {}
    for bits in itertools.product([False, True], repeat=network.n_neurons):
        masks = ordered.masks(np.array(bits))
        values[bits] = task.value(masks) if task.is_feasible(masks) else math.inf
    total, checked = network.n_neurons, 0
    prefixes = np.zeros((1, total), dtype=bool)
    # The last layer has an order of its own at every node.
    for depth in range(total - widths[-1]):
        count = len(prefixes)
        reply = expand_many(
            prefixes, np.full(count, depth), np.zeros(count), np.full(count, depth + 1),
            math.inf, 10**6, data,
        )  # fmt: skip
        for row, bound in zip(reply.bits, reply.bounds, strict=True):
            head = tuple(row[: depth + 1])
            under = [v for bits, v in values.items() if bits[: depth + 1] == head]
            assert bound <= min(under) + 1e-9
            checked += bound > 0
        prefixes = reply.bits
    assert checked > 0


@pytest.mark.parametrize("solver", ["search", "highs", "scip"])
def test_no_deviation_at_all_after_lossless_reductions(solver: str) -> None:
    network, inputs = special_network()
    inputs = np.random.default_rng(2).random((6, 4))
    reduction = reduce_losslessly(network, 0.0, 1.0)
    assert reduction.n_dead >= 2
    assert reduction.n_parallel + reduction.n_dependent >= 2
    task = NetworkPruning(
        reduction.network, inputs, objective="neurons", max_deviation=0.0,
        reference=network.forward(inputs),
    )  # fmt: skip
    result = solve_network(task, solver=solver)
    assert result.status is SolutionStatus.OPTIMAL
    assert result.value == brute_force(task) <= reduction.network.n_neurons
    assert result.violation <= result.tolerance == task.tolerance
    # On the network as it was, dead neurons go and duplicates with a common reader stay.
    task = NetworkPruning(network, inputs, objective="neurons", max_deviation=0.0)
    result = solve_network(task, solver=solver)
    assert result.value == brute_force(task) < network.n_neurons


@pytest.mark.parametrize("solver", ["search", "highs", "scip"])
def test_the_tolerance_is_where_feasibility_ends(solver: str) -> None:
    # One neuron with the outputs 1e-3 and -1: removing it changes each by at most 1e-3.
    network = ReLUNetwork.create([[[1.0], [1.0]], [[1e-3, 1.0], [0.0, -1.0]]], [[0, 0], [0, 0]])
    inputs = np.ones((1, 1))
    for tolerance, expected in ((0.9e-3, 2.0), (1.1e-3, 1.0)):
        task = NetworkPruning(
            network, inputs, objective="neurons", max_deviation=0.0, margin=1.0,
            tolerance=tolerance,
        )  # fmt: skip
        result = solve_network(task, solver=solver)
        assert result.value == expected
        assert result.tolerance == tolerance
        assert result.violation <= tolerance


def test_solver_masks_outside_the_limits_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = random_network(21, 4, 3, 3, 3)
    task = NetworkPruning(network, inputs, objective="neurons", keep_predictions=True)
    best = brute_force(task)
    honest = _milp._run_highs
    calls = []

    def sloppy(model: object, *arguments: object) -> _milp._Reply:
        reply = honest(model, *arguments)  # type: ignore[arg-type]
        calls.append(len(model.rows))  # type: ignore[attr-defined]
        if len(calls) == 1:  # as if tolerances had let an infeasible choice through
            return dataclasses.replace(reply, keep=dict.fromkeys(reply.keep or {}, 0.0))
        return reply

    monkeypatch.setattr(_milp, "_run_highs", sloppy)
    result = solve_network(task, solver="highs")
    assert len(calls) == 2
    assert calls[1] == calls[0] + 1
    assert result.value == best
    assert result.status is SolutionStatus.OPTIMAL


@pytest.mark.parametrize("objective", ["deviation", "hinge", "misclassification", "neurons"])
def test_interrupted_search_returns_incumbent_and_bound(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inputs = random_network(5, 6, 6, 6, 3)
    limits: dict[str, object] = {"max_neurons": 6}
    if objective == "neurons":
        limits = {"keep_predictions": True}
    task = NetworkPruning(network, inputs, objective=objective, **limits)  # type: ignore[arg-type]
    best = solve_network(task, solver="search").value
    real, calls = _search._in_parallel, []

    def press_ctrl_c(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_search, "_in_parallel", press_ctrl_c)
    monkeypatch.setattr(_search, "FINISH", 2)
    start = network.full_masks() if objective == "neurons" else None
    result = solve_network(task, solver="search", start=start)
    if len(calls) == 3:
        assert result.termination is Termination.INTERRUPTED
        assert result.status is SolutionStatus.FEASIBLE
    assert result.masks is not None
    assert task.is_feasible(result.masks)
    assert 0.0 <= result.bound <= best <= result.value
    times = [point.seconds for point in result.trace]
    assert times == sorted(times)
    bounds = [point.bound for point in result.trace[:-1]]
    assert bounds == sorted(bounds)
    assert all(point.bound <= best for point in result.trace)


def test_interrupted_program_returns_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = random_network(21, 4, 3, 3, 3)
    task = NetworkPruning(network, inputs, max_neurons=3)

    def press_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_milp, "build_relu_network", press_ctrl_c)
    result = solve_network(task, solver="highs")
    assert result.termination is Termination.INTERRUPTED
    assert result.masks is not None
    assert result.bound == 0.0
    assert result.value == task.value(result.masks)


def test_time_limit_leaves_a_valid_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks a second whenever it is read: the limit comes after a few rounds."""
    network, inputs = random_network(5, 20, 16, 18, 4)
    task = NetworkPruning(network, np.repeat(inputs, 4, axis=0), max_neurons=17)
    start = greedy_masks(task, restarts=0)
    assert start is not None
    ticks = itertools.count()
    monkeypatch.setattr(_search, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    result = solve_network(task, solver="search", time_limit=15.5, start=start)
    assert result.termination is Termination.TIME_LIMIT
    assert result.nodes > 0
    assert result.masks is not None
    assert result.bound <= result.value <= task.value(start)
    assert math.isfinite(result.bound)


def test_impossible_limits_are_proven_impossible() -> None:
    network, inputs = random_network(3, 4, 3, 3, 3)
    task = NetworkPruning(network, inputs, max_neurons=0, max_deviation=1e-9)
    for solver in ("search", "highs"):
        with pytest.raises(NoSolutionError, match="proven"):
            solve_network(task, solver=solver)


def test_bad_input_is_named() -> None:
    network, inputs = random_network(3, 4, 3, 3, 2, 3)
    task = NetworkPruning(network, inputs)
    with pytest.raises(InputError, match="solver"):
        solve_network(task, solver="oracle")
    large, many = random_network(3, 4, 12, 12, 3)
    with pytest.raises(InputError, match="at most 22"):
        solve_network(NetworkPruning(large, many), solver="enumeration")
    with pytest.raises(InputError, match="start"):
        solve_network(task, start=[np.ones(3, dtype=bool)])
    with pytest.raises(InputError, match="time_limit"):
        solve_network(task, time_limit=0)
