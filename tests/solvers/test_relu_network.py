"""Whole ReLU networks: every solver against all choices of neurons."""

import itertools
import math

import numpy as np
import pytest

from mipprune.errors import InputError, NoSolutionError
from mipprune.formulation.relu_network import FORMULATIONS, NetworkPruning, ReLUNetwork
from mipprune.problem import SolutionStatus, Termination
from mipprune.solvers.relu_network import greedy_masks, solve_network

CASES = [
    {"objective": "deviation", "max_neurons": 4},
    {"objective": "deviation", "max_neurons": 6, "max_deviation": 4.0},
    {"objective": "hinge", "max_neurons": 4},
    {"objective": "misclassification", "max_neurons": 3},
    {"objective": "neurons", "keep_predictions": True},
    {"objective": "neurons", "max_deviation": 2.0},
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
    result = solve_network(task, solver="search")
    assert result.status is SolutionStatus.OPTIMAL
    assert result.masks is not None
    assert task.is_feasible(result.masks)
    assert result.value == pytest.approx(brute_force(task), abs=1e-9)
    assert result.bound <= result.value


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("solver", ["highs", "scip"])
def test_programs_agree_with_all_choices(
    case: dict[str, object], formulation: str, solver: str
) -> None:
    network, inputs = random_network(7, 4, 3, 3, 3)
    task = NetworkPruning(network, inputs, **case)  # type: ignore[arg-type]
    result = solve_network(task, solver=solver, formulation=formulation)
    best = brute_force(task)
    assert result.value == pytest.approx(best, abs=1e-6)
    assert result.bound <= best + 1e-6
    assert result.status is SolutionStatus.OPTIMAL
    assert result.forward_error < 1e-5


@pytest.mark.parametrize("tighten", [False, True])
def test_three_hidden_layers(tighten: bool) -> None:
    network, inputs = random_network(11, 3, 3, 3, 2, 2)
    task = NetworkPruning(network, inputs, max_neurons=5)
    result = solve_network(task, tighten=tighten)
    assert result.solver == "highs"
    assert result.value == pytest.approx(brute_force(task), abs=1e-6)


def test_time_limit_leaves_a_valid_bound() -> None:
    network, inputs = random_network(5, 20, 16, 18, 4)
    task = NetworkPruning(network, np.repeat(inputs, 4, axis=0), max_neurons=17)
    solve_network(NetworkPruning(network, inputs, max_neurons=1), solver="search")  # compiles
    result = solve_network(task, solver="search", time_limit=0.3)
    assert result.termination is Termination.TIME_LIMIT
    assert result.masks is not None
    start = greedy_masks(task)
    assert start is not None
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
    with pytest.raises(InputError, match="two hidden layers"):
        solve_network(task, solver="search")
    with pytest.raises(InputError, match="start"):
        solve_network(task, start=[np.ones(3, dtype=bool)])
    with pytest.raises(InputError, match="time_limit"):
        solve_network(task, time_limit=0)
