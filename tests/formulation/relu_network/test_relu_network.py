"""Whole ReLU networks: reading, reductions, bounds, and the program with masks fixed."""

import numpy as np
import pyomo.environ as pyo
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyomo.contrib.appsi.solvers import Highs

from mipprune.errors import BudgetError, InputError
from mipprune.formulation.relu_network import (
    FORMULATIONS,
    NetworkPruning,
    ReLUNetwork,
    build_relu_network,
    propagate_bounds,
    reduce_losslessly,
)


def random_network(rng: np.random.Generator, *widths: int) -> ReLUNetwork:
    pairs = list(zip(widths[1:], widths[:-1], strict=True))
    return ReLUNetwork.create(
        [rng.normal(size=pair) for pair in pairs], [rng.normal(size=n) for n, _ in pairs]
    )


def random_masks(rng: np.random.Generator, network: ReLUNetwork) -> tuple[np.ndarray, ...]:
    return tuple(rng.random(n) < 0.6 for n in network.widths)


def test_reads_a_torch_network_exactly() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(6, 5), torch.nn.ReLU(),
        torch.nn.Dropout(), torch.nn.Linear(5, 3, bias=False),
    ).double().eval()  # fmt: skip
    inputs = torch.randn(4, 2, 3, dtype=torch.float64)
    network = ReLUNetwork.from_module(module)
    expected = module(inputs).detach().numpy()
    np.testing.assert_allclose(network.forward(inputs.reshape(4, 6).numpy()), expected, atol=1e-14)


@pytest.mark.parametrize(
    "layers",
    [
        [torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)],
        [torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)],
        [torch.nn.Linear(3, 3), torch.nn.ReLU()],
    ],
)
def test_refuses_other_layers_by_name(layers: list[torch.nn.Module]) -> None:
    with pytest.raises(InputError, match="Linear"):
        ReLUNetwork.from_module(torch.nn.Sequential(*layers))


def test_smaller_network_equals_masked_network() -> None:
    rng = np.random.default_rng(1)
    network = random_network(rng, 4, 6, 5, 3)
    masks = random_masks(rng, network)
    inputs = rng.normal(size=(20, 4))
    smaller = network.without(masks)
    assert smaller.widths == tuple(int(mask.sum()) for mask in masks)
    np.testing.assert_allclose(smaller.forward(inputs), network.forward(inputs, masks), atol=1e-12)


def test_reductions_hand_case() -> None:
    # On 0 <= x <= 1: h0 dead (-x - 1), h1 constant 2, h2 = 2 x twice (parallel), h4 = h5 + h6.
    w = np.array([[-1, 0], [0, 0], [2, -1], [4, -2], [1, 1], [1, 0], [0, 1.0]])
    b = np.array([-1, 2, 0.5, 1, 3, 1, 1.0])
    out = np.arange(1.0, 15.0).reshape(2, 7)
    network = ReLUNetwork.create([w, out], [b, np.zeros(2)])
    reduction = reduce_losslessly(network, 0.0, 1.0)
    assert (reduction.n_dead, reduction.n_constant, reduction.n_parallel) == (1, 1, 1)
    assert reduction.n_dependent == 1
    inputs = np.random.default_rng(0).random((50, 2))
    np.testing.assert_allclose(
        reduction.network.forward(inputs), network.forward(inputs), rtol=1e-12
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_reductions_keep_the_function_on_the_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, 3, 8, 6, 2)
    w, b = network.weights[0].copy(), network.biases[0].copy()
    w[1], b[1] = 3.0 * w[0], 3.0 * b[0]
    b[2:6] += 8.0  # always active, more of them than inputs: some depend on the others
    b[6] -= 20.0
    network = ReLUNetwork((w, *network.weights[1:]), (b, *network.biases[1:]))
    reduction = reduce_losslessly(network, -1.0, 1.0)
    assert reduction.network.n_neurons < network.n_neurons
    inputs = rng.uniform(-1, 1, size=(64, 3))
    expected = network.forward(inputs)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        reduction.network.forward(inputs), expected, rtol=0, atol=1e-9 * scale
    )


@given(seed=st.integers(0, 2**32 - 1), limit=st.none() | st.integers(0, 9))
def test_bounds_hold_for_every_admitted_mask(seed: int, limit: int | None) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, 3, 4, 3, 2, 2)
    task = NetworkPruning(network, rng.normal(size=(5, 3)), max_neurons=limit)
    bounds = propagate_bounds(task)
    for _ in range(20):
        masks = random_masks(rng, network)
        if limit is not None and sum(int(mask.sum()) for mask in masks) > limit:
            continue
        for value, low, high in zip(
            network.preactivations(task.inputs, masks), bounds.lower, bounds.upper, strict=True
        ):
            assert np.all(low <= value)
            assert np.all(value <= high)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_program_with_fixed_masks_computes_the_network(formulation: str) -> None:
    rng = np.random.default_rng(3)
    network = random_network(rng, 3, 4, 3, 3, 2)
    task = NetworkPruning(network, rng.normal(size=(4, 3)))
    for _ in range(5):
        masks = random_masks(rng, network)
        model = build_relu_network(task, propagate_bounds(task), formulation)
        for (layer, j), variable in model.keep.items():
            variable.fix(int(masks[layer][j]))
        result = Highs().solve(model)
        outputs = network.forward(task.inputs, masks)
        for (i, c), variable in model.output.items():
            assert pyo.value(variable) == pytest.approx(outputs[i, c], abs=1e-6)
        assert result.best_feasible_objective == pytest.approx(task.value(masks), abs=1e-6)


def test_bad_input_is_named() -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng, 3, 4, 2)
    inputs = rng.normal(size=(4, 3))
    with pytest.raises(InputError, match="shape"):
        NetworkPruning(network, inputs[:, :2])
    with pytest.raises(InputError, match="NaN"):
        NetworkPruning(network, np.full((4, 3), np.nan))
    with pytest.raises(InputError, match="objective"):
        NetworkPruning(network, inputs, objective="speed")
    with pytest.raises(InputError, match="targets"):
        NetworkPruning(network, inputs, targets=np.array([0, 1, 2, 0]))
    for tolerance in (0.0, 1e-4, float("nan")):
        with pytest.raises(InputError, match="tolerance"):
            NetworkPruning(network, inputs, tolerance=tolerance)
    with pytest.raises(InputError, match="reference"):
        NetworkPruning(network, inputs, reference=np.zeros((4, 3)))
    with pytest.raises(BudgetError, match="max_neurons"):
        NetworkPruning(network, inputs, max_neurons=5)
    with pytest.raises(BudgetError, match="margin"):
        NetworkPruning(
            network, inputs, targets=1 - np.argmax(network.forward(inputs), 1),
            keep_predictions=True,
        )  # fmt: skip
    task = NetworkPruning(network, inputs)
    with pytest.raises(InputError, match="formulation"):
        build_relu_network(task, propagate_bounds(task), "magic")
    with pytest.raises(InputError, match="fit"):
        ReLUNetwork.create([np.ones((2, 3)), np.ones((2, 3))], [np.ones(2), np.ones(2)])
