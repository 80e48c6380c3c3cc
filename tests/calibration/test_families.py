"""Problems of a calibrated family and weights back into the network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.calibration import CalibratedFamily, apply_weights, calibrate
from mipprune.errors import InputError
from mipprune.graph import channel_groups
from mipprune.problem import Resource


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.double()


def inputs(n: int = 50) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1)).double()


def family(model: nn.Module) -> CalibratedFamily:
    return calibrate(model, [inputs()], channel_groups(model, inputs(2)))["0"]


def test_limits_and_damping_are_added_to_the_terms() -> None:
    part = family(network())
    problem = part.problem(damping=0.1, keep=3, resources=[Resource("macs", np.arange(6.0), 9.0)])
    assert problem.keep == 3
    assert [r.name for r in problem.resources] == ["channels", "macs"]
    mean = np.diag(part.terms[0].gram).mean()
    np.testing.assert_allclose(problem.terms[0].ridge, 0.1 * mean)
    doubled = part.problem(damping=0.1, keep=3, weights=[2.0])
    mask = np.array([1, 0, 1, 0, 0, 1], dtype=bool)
    single = part.problem(damping=0.1, keep=3)
    assert doubled.value(mask) == pytest.approx(2 * single.value(mask))
    with pytest.raises(InputError, match="1 factors"):
        part.problem(weights=[1.0, 1.0])


def test_the_minimum_is_a_limit_where_keeping_nothing_may_pay() -> None:
    part = family(network())
    empty = np.zeros(6, dtype=bool)
    assert part.problem().is_feasible(empty)
    assert not part.problem(prices=1.0).is_feasible(empty)
    assert not part.problem(variant="mask").is_feasible(empty)


def test_refitted_weights_lower_the_error_of_the_network() -> None:
    model, x = network(), inputs()
    part = family(model)
    problem = part.problem(damping=0.0)
    mask = np.array([1, 0, 1, 1, 0, 1], dtype=bool)
    refitted, cut = copy.deepcopy(model), copy.deepcopy(model)
    apply_weights(refitted, part, problem.weights(mask))
    apply_weights(cut, part, part.problem(variant="mask").weights(mask))
    with torch.no_grad():
        errors = [0.5 * float(((m(x) - model(x)) ** 2).sum()) / len(x) for m in (refitted, cut)]
    assert errors[0] == pytest.approx(problem.value(mask), rel=1e-9)
    assert errors[0] < errors[1]
    assert torch.equal(refitted.get_parameter("2.bias"), model.get_parameter("2.bias"))
    assert not refitted.get_parameter("2.weight")[:, ~torch.from_numpy(mask)].any()


def test_wrong_weights_are_refused_before_anything_is_written() -> None:
    model = network()
    part = family(model)
    before = model.get_parameter("2.weight").clone()
    for weights in ([], [np.zeros((5, 3))], [np.full((6, 3), np.nan)]):
        with pytest.raises(InputError, match="weights"):
            apply_weights(model, part, weights)
    assert torch.equal(model.get_parameter("2.weight"), before)


def test_parametrized_layers_are_refused() -> None:
    model = network()
    part = family(model)
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(InputError, match="parametrization"):
        apply_weights(model, part, [np.zeros((6, 3))])


def test_ridge_towards_the_trained_weights() -> None:
    """Value and weights against the damped least squares written out with the data."""
    model, damping = network(), 0.3
    part = family(model)
    problem = part.problem(damping=damping, shrink_to="trained")
    with torch.no_grad():
        x = torch.relu(model[:1](inputs())).numpy()
        trained = model.get_parameter("2.weight").numpy().T
    rho = damping * (x**2).mean()
    mask = np.array([1, 0, 1, 1, 0, 1], dtype=bool)
    # Least squares over stacked rows: data, and sqrt(N rho) times the distance to the weights.
    root = np.sqrt(len(x) * rho) * np.eye(6)
    left, right = np.vstack([x, root]), np.vstack([x @ trained, root @ trained])
    weights = np.zeros_like(trained)
    weights[mask] = np.linalg.lstsq(left[:, mask], right, rcond=None)[0]
    expected = 0.5 * ((left @ weights - right) ** 2).sum() / len(x)
    assert problem.value(mask) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(problem.weights(mask)[0], weights, atol=1e-9)
    everything = np.ones(6, dtype=bool)
    assert problem.value(everything) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(problem.weights(everything)[0], trained, atol=1e-9)
    with pytest.raises(InputError, match="shrink_to"):
        part.problem(shrink_to="one")
