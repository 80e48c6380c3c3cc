"""RNI: formulas against the numbers derived from the authors' code, exact conversion, resume."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from mipprune.errors import InputError
from mipprune.graph import channel_groups, remove
from mipprune.graph.budgets import Budgets
from mipprune.models import Dataset, build_model
from mipprune.training import RNI, TrainConfig, train
from mipprune.training.rni import receding_penalty, to_plain_norms, to_sigmoid_norms
from tests.training.networks import TinyNet, tiny_groups

CONFIG = TrainConfig(epochs=3, batch_size=9, lr=0.05, evaluate_every=0, channels_last=False)


def slope(gamma: float, shift: float = 0.0) -> float:
    """Of the penalty, by autograd in float64."""
    point = torch.tensor([gamma], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(receding_penalty(point, shift), point)
    return found.item()


def test_penalty_rises_from_zero_to_one() -> None:
    grid = torch.linspace(-12, 12, 200, dtype=torch.float64)
    values = [receding_penalty(g[None]).item() for g in grid]
    assert np.all(np.diff(values) > 0)
    assert 0 < values[0] < 1e-4
    assert 1 - 1e-8 < values[-1] < 1
    # s = 1/2: (1 + ln 2) / 2.
    assert receding_penalty(torch.zeros(2)).item() == pytest.approx(1 + math.log(2))


def test_pressure_is_largest_where_the_paper_s_code_has_it() -> None:
    found = minimize_scalar(lambda g: -slope(g), bounds=(-4, 2), method="bounded")
    assert found.x == pytest.approx(-1.18, abs=0.005)
    assert -found.fun == pytest.approx(0.260, abs=0.0005)
    assert 1 / (1 + math.exp(-found.x)) == pytest.approx(0.236, abs=0.001)
    # Important neurons (importance .5 and .018) for both shifts that the authors use.
    numbers = {(0, 0): 0.173, (0, 3): 0.0022, (-4, 0): 0.071, (-4, 3): 0.258}
    for (gamma, shift), expected in numbers.items():
        assert slope(gamma, shift) == pytest.approx(expected, rel=0.02)


def test_penalty_gradient_is_right_far_out() -> None:
    gammas = torch.tensor([-700.0, -90.0, -1.2, 0.0, 3.0, 90.0], dtype=torch.float64)
    gammas.requires_grad_()
    assert torch.autograd.gradcheck(lambda g: receding_penalty(g, 0.5), (gammas,))
    single = torch.tensor([-200.0], requires_grad=True)
    (found,) = torch.autograd.grad(receding_penalty(single), single)
    assert torch.isfinite(found).all()


def test_penalty_runs_over_every_batch_norm_as_a_plain_sum() -> None:
    method = RNI(strength=0.01, shift=3.0, seed=4)
    method.prepare(TinyNet(), tiny_groups())
    generator = torch.Generator().manual_seed(4)
    drawn = torch.cat([torch.randn(n, generator=generator) for n in (4, 6)])
    s = torch.sigmoid(drawn + 3)
    expected = 0.01 * (s * (1 - s.log())).sum()
    torch.testing.assert_close(method.penalty().detach(), expected)
    base = torch.tensor(2.0)
    torch.testing.assert_close(method.loss(None, None, base).detach(), 2 + expected)
    np.testing.assert_allclose(method.scores(), torch.sigmoid(drawn).double(), rtol=1e-6)


def test_scale_is_the_sigmoid_and_there_is_no_shift() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3))
    assert to_sigmoid_norms(net, torch.Generator().manual_seed(0)) == ("0",)
    assert [name for name, _ in net.named_parameters()] == ["0.parametrizations.weight.original"]
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    gamma = net.get_parameter("0.parametrizations.weight.original").detach()
    mean = x.mean((0, 2, 3), keepdim=True)
    var = x.var((0, 2, 3), keepdim=True, unbiased=False)
    expected = torch.sigmoid(gamma).view(1, 3, 1, 1) * (x - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(net(x), expected)
    with pytest.raises(InputError, match="parametrized already"):
        to_sigmoid_norms(net)


def test_scales_of_a_trained_network_can_be_kept() -> None:
    net = TinyNet()
    with torch.no_grad():
        net.bn1.weight.copy_(torch.tensor([0.1, -0.5, 0.9, 2.0]))
    to_sigmoid_norms(net)
    expected = torch.tensor([0.1, 0.5, 0.9, 1.0])
    torch.testing.assert_close(net.bn1.weight, expected, atol=1e-6, rtol=1e-6)


def test_gammas_have_their_own_rate_and_no_decay() -> None:
    method = RNI()
    network = method.prepare(TinyNet(), tiny_groups())
    weights, gammas = method.parameter_groups()
    assert (gammas["lr_scale"], gammas["weight_decay"]) == (10.0, 0.0)
    assert [p.numel() for p in gammas["params"]] == [4, 6]
    assert "lr_scale" not in weights
    found = {id(p) for p in (*weights["params"], *gammas["params"])}
    assert found == {id(p) for p in network.parameters()}


def test_plain_norms_compute_the_same_bit_for_bit(data: Dataset) -> None:
    method = RNI(strength=0.01)
    network = method.prepare(TinyNet(), tiny_groups())
    train(network, data, CONFIG, method=method, progress=False)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    before = network.eval()(x)
    plain = method.finish(network, method.choose(Budgets(macs="50%")))
    assert torch.equal(plain(x), before)
    fresh = TinyNet()
    assert list(plain.state_dict()) == list(fresh.state_dict())
    assert [type(m) for m in plain.modules()] == [type(m) for m in fresh.modules()]
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(fresh.eval()(x), before)
    assert plain.get_parameter("bn1.bias").abs().sum() == 0
    to_plain_norms(plain)  # nothing left to undo
    assert torch.equal(plain(x), before)


def test_a_receded_channel_really_outputs_nothing() -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=4)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    method = RNI()
    network = method.prepare(model, groups).eval()
    gone = groups.kept(method.choose(Budgets(macs="40%")))
    scales = method._scales
    assert scales is not None
    with torch.no_grad():
        for name, owner in zip(scales.modules, scales.owners, strict=True):
            gamma = network.get_parameter(f"{name}.parametrizations.weight.original")
            gamma[torch.from_numpy(~gone[owner])] = -80.0
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = network(x)
    masks = groups.masks(gone)
    small = remove(method.finish(network, masks), groups, masks)
    torch.testing.assert_close(small(x), before, rtol=1e-4, atol=1e-5)


def test_own_rule_is_a_global_quantile_with_a_minimum() -> None:
    method, groups = RNI(ratio=0.5, min_channels=3), tiny_groups()
    network = method.prepare(TinyNet(), groups)
    with torch.no_grad():
        network.get_parameter("bn1.parametrizations.weight.original").copy_(
            torch.tensor([-5.0, -4.0, -6.0, -3.0])
        )
        network.get_parameter("bn2.parametrizations.weight.original").copy_(
            torch.tensor([-2.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        )
    # The median of ten lies between -2 and 1; conv1 would lose all and keeps its best three.
    kept = groups.kept(method.choose())
    assert np.flatnonzero(kept).tolist() == [0, 1, 3, 5, 6, 7, 8, 9]
    # 10 % of the MACs cannot be met with three channels each; the budget wins.
    kept = groups.kept(method.choose(Budgets(macs="10%")))
    assert groups.macs(kept) <= 0.1 * groups.macs()


def test_networks_without_batch_norm_are_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.second(torch.relu(self.first(x)))
            return found

    net = Bare()
    with pytest.raises(InputError, match="no batch norm with a scale"):
        RNI().prepare(net, channel_groups(net, (torch.zeros(1, 4),)))
    for wrong in ({"strength": -1}, {"ratio": 1.0}, {"lr_scale": 0}, {"min_channels": 0}):
        with pytest.raises(InputError):
            RNI(**wrong)
