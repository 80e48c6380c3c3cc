"""SPR: against the plain formula, and what it does to weights."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import channel_groups
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups
from mipprune.models import Dataset, batches, build_model
from mipprune.perspective import prox
from mipprune.training import SPR, Taylor, TrainConfig, measure_big_m, train
from tests.training.networks import TinyNet

ALPHA = 0.3


def rows_of(net: nn.Module, c: int) -> list[tuple[str, Tensor]]:
    """Parameters of class ``c`` of the tiny network, written out by hand."""
    conv, norm, k = ("conv1", "bn1", c) if c < 4 else ("conv2", "bn2", c - 4)
    names = [f"{conv}.weight", f"{norm}.weight", f"{norm}.bias"]
    names += [f"{conv}.bias"] if conv == "conv1" else []
    return [(name, net.get_parameter(name)[k].reshape(-1)) for name in names]


def plain_penalty(net: nn.Module, big_m: Mapping[str, float], strength: float) -> Tensor:
    """The table of cases, group by group, in float64."""
    sizes = [12] * 4 + [38] * 6
    s = math.sqrt(ALPHA / (1 - ALPHA))
    total = torch.zeros((), dtype=torch.float64)
    for c in range(10):
        rows = rows_of(net, c)
        w = torch.cat([row for _, row in rows]).double()
        norm = w.square().sum().sqrt()
        ratio = torch.stack([row.double().abs().max() / big_m[name] for name, row in rows]).max()
        if max(ratio.item(), s * norm.item()) >= 1:
            z = ALPHA * norm**2 + (1 - ALPHA)
        elif ratio <= s * norm:
            z = 2 * math.sqrt(ALPHA * (1 - ALPHA)) * norm
        else:
            z = ALPHA * norm**2 / ratio + (1 - ALPHA) * ratio
        total = total + strength * sizes[c] / sum(sizes) * z
    return total


def scaled(net: TinyNet) -> TinyNet:
    """Weights of very different size, so that all three cases occur."""
    with torch.no_grad():
        for c in range(10):
            factor = 0.02 * 1.8**c
            for name, row in rows_of(net, c):
                row.mul_(factor if "weight" in name else 1.0).add_(0.001)
    return net


@pytest.mark.parametrize("big_m", [0.4, 5.0, math.inf])
def test_penalty_and_gradient_equal_the_plain_formula(
    net: TinyNet, groups: ChannelGroups, big_m: float
) -> None:
    scaled(net)
    spr = SPR(alpha=ALPHA, strength=0.7, big_m=big_m)
    spr.prepare(net, groups)
    expected = plain_penalty(net, spr.big_m, 0.7)
    torch.testing.assert_close(spr.penalty().double(), expected, rtol=1e-6, atol=1e-8)
    torch.autograd.backward(spr.penalty())
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    torch.autograd.backward(plain_penalty(net, spr.big_m, 0.7))
    assert set(found) == {n for n, p in net.named_parameters() if p.grad is not None}
    for name, gradient in found.items():
        plain = net.get_parameter(name).grad
        torch.testing.assert_close(gradient, plain, rtol=1e-5, atol=1e-7)


def test_all_three_cases_were_compared(net: TinyNet, groups: ChannelGroups) -> None:
    spr = SPR(alpha=ALPHA, big_m=0.4)
    spr.prepare(scaled(net), groups)
    low = spr.state()
    assert low.case_bound > 0
    assert low.case_ridge > 0
    spr = SPR(alpha=ALPHA, big_m=math.inf)
    spr.prepare(net, groups)
    assert spr.state().case_norm > 0


def test_penalty_is_full_precision_under_autocast(net: TinyNet, groups: ChannelGroups) -> None:
    spr = SPR(alpha=ALPHA, big_m=0.4)
    spr.prepare(net, groups)
    outside = spr.penalty()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = spr.penalty()
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_gradient_equals_that_of_autograd(groups: ChannelGroups, channels_last: bool) -> None:
    gradients = []
    for fused in (False, True):
        net = scaled(TinyNet())
        net.fc.weight.requires_grad_(False)
        net.bn1.bias.requires_grad_(False)
        if channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stub
        spr = SPR(alpha=ALPHA, strength=0.7, big_m=0.4, fused=fused)
        spr.prepare(net, groups)
        x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        losses = []
        for part in (x[:2], x[2:]):
            outputs = net(part)
            loss = spr.loss(outputs, part, outputs.square().mean()) / 2
            torch.autograd.backward(loss)
            losses.append(loss.item())
        spr.after_backward()
        named = net.named_parameters()
        gradients.append({n: p.grad for n, p in named if p.grad is not None})
        gradients[-1]["losses"] = torch.tensor(losses)
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-5, atol=1e-7)


def test_penalty_reads_another_network_of_the_same_shape(
    net: TinyNet, groups: ChannelGroups
) -> None:
    spr = SPR(alpha=ALPHA, big_m=0.4)
    spr.prepare(net, groups)
    other = TinyNet(seed=5)
    assert not torch.equal(spr.penalty(other), spr.penalty())
    assert torch.equal(spr.penalty(net), spr.penalty())
    with pytest.raises(InputError, match="no parameter"):
        spr.penalty(nn.Linear(2, 2))


def test_uncoupled_penalty_splits_a_residual_stream_by_layer() -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    values = []
    for coupled in (True, False):
        spr = SPR(alpha=ALPHA, big_m=math.inf, coupled=coupled)
        spr.prepare(model, groups)
        values.append(spr.state().gates)
        assert spr.scores().shape == (groups.n_classes,)
    assert len(values[1]) > len(values[0])


def test_scores_order_channels_whose_gates_are_all_one(net: TinyNet, groups: ChannelGroups) -> None:
    with torch.no_grad():
        for c in range(10):
            for _, row in rows_of(net, c):
                row.fill_(1.0 + c)
    spr = SPR(alpha=0.5, big_m=0.5)
    spr.prepare(net, groups)
    assert (spr.gates() == 1).all()
    assert (np.diff(spr.scores()[:4]) > 0).all()
    # The larger of |w| / M and sqrt(alpha / (1 - alpha)) ||w||: 12 entries of 1, M = .5.
    assert spr.scores()[0] == pytest.approx(math.sqrt(12))


def test_removal_values_are_measured_or_the_penalty_paid(
    net: TinyNet, groups: ChannelGroups, data: Dataset
) -> None:
    def losses(model: nn.Module) -> list[Tensor]:
        return [F.cross_entropy(model(x), y) for x, y in batches(data, "train", 9, augment=False)]

    spr = SPR(alpha=ALPHA, big_m=1.0, losses=losses)
    spr.prepare(net, groups)
    taylor = Taylor(losses=losses)
    taylor.prepare(net, groups)
    np.testing.assert_allclose(spr.removal_values(), taylor.scores(), rtol=1e-5)
    spr = SPR(alpha=ALPHA, big_m=1.0, strength=2.0)
    spr.prepare(net, groups)
    root = np.sqrt(spr.removal_values())
    assert root.sum() == pytest.approx(spr.penalty().item(), rel=1e-5)
    assert (root > 0).all()


def test_the_penalty_paid_is_the_first_order_change_where_training_stands_still(
    net: TinyNet, groups: ChannelGroups
) -> None:
    """A quadratic loss whose minimiser, penalty included, is known: case 2 of z."""
    spr = SPR(alpha=ALPHA, big_m=math.inf, strength=1.0)
    spr.prepare(net, groups)
    parameters = [net.get_parameter(n) for n, _ in net.named_parameters() if "fc" not in n]
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(0.05)
    targets = []
    torch.autograd.backward(spr.penalty())
    for parameter in parameters:
        assert parameter.grad is not None
        targets.append(parameter.detach() + parameter.grad)
    assert spr.state().case_norm == 1.0

    def losses(model: nn.Module) -> list[Tensor]:
        pairs = zip(parameters, targets, strict=True)
        return [torch.stack([(p - t).square().sum() for p, t in pairs]).sum() / 2]

    measured = SPR(alpha=ALPHA, big_m=math.inf, strength=1.0, losses=losses)
    measured.prepare(net, groups)
    np.testing.assert_allclose(measured.removal_values(), spr.removal_values(), rtol=1e-4)


def test_a_budget_takes_value_over_marginal_cost_into_account(
    net: TinyNet, groups: ChannelGroups
) -> None:
    # y* of the first layer's small groups is far below that of the second layer's.
    with torch.no_grad():
        for c in range(10):
            for _, row in rows_of(net, c):
                row.fill_(0.02 if c < 4 else 0.05)
    budget = Budgets(macs="50%")
    spr = SPR(alpha=ALPHA, big_m=math.inf, ranking="indicator")
    spr.prepare(net, groups)
    by_indicator = groups.kept(spr.choose(budget))
    assert by_indicator[:4].sum() == 1
    spr = SPR(alpha=ALPHA, big_m=math.inf)
    spr.prepare(net, groups)
    spr.removal_values = lambda: np.array([4.0] * 4 + [1.0] * 6)  # type: ignore[method-assign]  # given
    by_value = groups.kept(spr.choose(budget))
    assert by_value[:4].all()
    assert groups.macs(by_value) <= 0.5 * groups.macs()
    with pytest.raises(InputError, match="ranking"):
        SPR(big_m=1.0, ranking="x")  # type: ignore[arg-type]  # wrong on purpose


def test_proximal_step_yields_exact_zeros_and_stays_in_the_box(
    net: TinyNet, groups: ChannelGroups
) -> None:
    spr = SPR(alpha=0.1, strength=1.0, big_m=0.25, proximal=True, proximal_every=2, momentum=0.5)
    spr.prepare(net, groups)
    base = torch.ones(())
    assert spr.loss(None, None, base) is base
    with torch.no_grad():
        for _, row in rows_of(net, 2) + rows_of(net, 7):
            row.mul_(1e-3)
    fc = net.fc.weight.detach().clone()
    before = [p.detach().clone() for p in net.parameters()]
    spr.after_step(0.25)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    spr.after_step(0.25)
    for c in (2, 7):
        assert all(bool((row == 0).all()) for _, row in rows_of(net, c))
    for c in (0, 5):
        assert any(bool((row != 0).any()) for _, row in rows_of(net, c))
    for c in range(10):
        assert all(float(row.detach().abs().max()) <= 0.25 for _, row in rows_of(net, c))
    assert torch.equal(net.fc.weight, fc)


def test_proximal_step_is_the_operator_of_the_term(net: TinyNet, groups: ChannelGroups) -> None:
    # Length .1 / (1 - .5) times strength times the group's share of the parameters.
    expected = {}
    for c, share in ((1, 12 / 276), (6, 38 / 276)):
        w = torch.cat([row.detach().double() for _, row in rows_of(net, c)])
        expected[c] = prox(w, 0.2 * 3.0 * share, ALPHA, torch.full_like(w, 0.6))
    spr = SPR(alpha=ALPHA, strength=3.0, big_m=0.6, proximal=True, proximal_every=1, momentum=0.5)
    spr.prepare(net, groups)
    spr.after_step(0.1)
    for c, moved in expected.items():
        found = torch.cat([row.detach().double() for _, row in rows_of(net, c)])
        torch.testing.assert_close(found, moved, rtol=1e-6, atol=1e-7)


def test_choose_without_budget_cuts_at_the_threshold(net: TinyNet, groups: ChannelGroups) -> None:
    with torch.no_grad():
        for c in (1, 4, 9):
            for _, row in rows_of(net, c):
                row.mul_(1e-6)
    spr = SPR(alpha=0.1, big_m=1.0)
    spr.prepare(net, groups)
    masks = spr.choose()
    assert np.flatnonzero(~groups.kept(masks)).tolist() == [1, 4, 9]
    assert spr.state().n_below == 3


def test_rule_of_the_authors_removes_whole_groups(net: TinyNet, groups: ChannelGroups) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
        for _, row in rows_of(net, 3) + rows_of(net, 8):
            row.fill_(0.01)
        net.conv2.weight[1, 0, 0, 0] = 0.01

    def accuracy(model: nn.Module) -> float:
        # Falls when a weight of .5 goes, not when those of .01 do.
        return float((model.get_parameter("conv2.weight") > 0.1).float().mean())

    spr = SPR(alpha=0.1, big_m=1.0, evaluate=accuracy)
    spr.prepare(net, groups)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    masks = spr.choose()
    assert np.flatnonzero(~groups.kept(masks)).tolist() == [3, 8]
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])


def test_state_survives_a_round_trip(net: TinyNet, groups: ChannelGroups) -> None:
    spr = SPR(alpha=ALPHA, reference=TinyNet(seed=4))
    spr.prepare(net, groups)
    again = SPR(alpha=ALPHA, big_m=math.inf)
    again.prepare(net, groups)
    again.load_state_dict(spr.state_dict())
    assert torch.equal(again.penalty(), spr.penalty())
    assert again.big_m == measure_big_m(TinyNet(seed=4), groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0, "big_m": 1.0}, "alpha"),
        ({"alpha": 1.0, "big_m": 1.0}, "alpha"),
        ({"alpha": math.nan, "big_m": 1.0}, "alpha"),
        ({"strength": -1.0, "big_m": 1.0}, "strength"),
        ({"momentum": 1.0, "big_m": 1.0}, "momentum"),
        ({"proximal_every": 0, "big_m": 1.0}, "proximal_every"),
        ({"big_m": -1.0}, "M must be positive"),
        ({"big_m": {"conv1.weight": 0.0}}, "M must be positive"),
        ({}, "reference="),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPR(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_missing_bounds_and_missing_prepare_are_named(net: TinyNet, groups: ChannelGroups) -> None:
    with pytest.raises(InputError, match="prepare"):
        SPR(big_m=1.0).penalty()
    with pytest.raises(InputError, match=r"no M for parameter 'conv1\.bias'"):
        SPR(big_m={"conv1.weight": 1.0}).prepare(net, groups)


def test_training_polarises_the_gates(net: TinyNet, groups: ChannelGroups, data: Dataset) -> None:
    config = TrainConfig(epochs=60, batch_size=9, lr=0.05, evaluate_every=0)
    reference = TinyNet(seed=1)
    train(reference, data, config, progress=False)
    spr = SPR(alpha=0.1, strength=0.5, reference=reference)
    model = spr.prepare(net, groups)
    before = spr.gates()
    result = train(model, data, config, method=spr, progress=False)
    after = spr.gates()
    assert (before > 0.2).all()
    assert 0 < (after < 0.05).sum() < 10
    assert (after > 0.5).any()
    assert result.history[-1]["spr_penalty"] < 0.75 * result.history[0]["spr_penalty"]
