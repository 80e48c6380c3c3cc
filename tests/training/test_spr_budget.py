"""SPR under a budget: prices follow the selection, zeros arrive at the budget."""

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.errors import BudgetError, InputError
from mipprune.graph import Budgets, remove
from mipprune.graph.groups import ChannelGroups
from mipprune.training import SPR, BudgetedSPR, train
from tests.training.digits import DigitsNet, DigitsReference
from tests.training.networks import TinyNet


def prepared(net: nn.Module, groups: ChannelGroups, **options: object) -> BudgetedSPR:
    given = {"big_m": 1.0, "total_steps": 10, "budget": Budgets(macs="30%"), **options}
    method = BudgetedSPR(**given)  # type: ignore[arg-type]  # options of several types
    method.prepare(net, groups)
    return method


def step(net: TinyNet, method: BudgetedSPR, seed: int) -> dict[str, torch.Tensor]:
    """Forward, backward and the hooks; the gradients of the data loss alone."""
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    net.zero_grad()
    base = net(x).square().mean()
    torch.autograd.backward(method.loss(None, x, base))
    plain = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    method.after_backward()
    method.after_step(0.1)
    return plain


def test_values_are_means_of_squared_first_order_changes(
    net: TinyNet, groups: ChannelGroups
) -> None:
    method = prepared(net, groups, start=0.8, end=1.0)
    expected = np.zeros(4)
    for seed in range(3):
        plain = step(net, method, seed)
        names = ("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias")
        for c in range(4):
            terms = [(plain[n][c] * net.get_parameter(n)[c]).sum().item() for n in names]
            expected[c] = 0.95 * expected[c] + 0.05 * sum(terms) ** 2
    found = method._class_values()[:4]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_before_the_start_it_is_spr(net: TinyNet, groups: ChannelGroups) -> None:
    method = prepared(net, groups, strength=0.7, alpha=0.3, start=0.8, end=1.0)
    plain = SPR(big_m=1.0, strength=0.7, alpha=0.3)
    plain.prepare(net, groups)
    step(net, method, 0)
    assert torch.equal(method.penalty(), plain.penalty())
    np.testing.assert_array_equal(method.multipliers, 0.0)


def test_multipliers_rise_with_y_where_the_budget_has_no_room(
    net: TinyNet, groups: ChannelGroups
) -> None:
    options = {"strength": 0.7, "alpha": 0.3, "rate": 0.2, "largest": 0.3}
    method = prepared(net, groups, start=0.0, end=0.1, select_every=1, **options)
    gates = method.gates()
    step(net, method, 0)
    assert groups.macs(method.selected) <= 0.3 * groups.macs()
    expected = np.where(method.selected, 0.0, np.minimum(0.3, 0.2 * gates))
    np.testing.assert_allclose(method.multipliers, expected, rtol=1e-6)
    # Each term is z times the share of the group plus its multiplier.
    base = SPR(big_m=1.0, strength=1.0, alpha=0.3)
    base.prepare(net, groups)
    shares = np.array([12] * 4 + [38] * 6) / 276
    z = base._terms(base._parameters(None)).value[:-1].detach().numpy() / shares
    weights = 0.7 * shares + method.multipliers
    assert method.penalty().item() == pytest.approx(float(weights @ z), rel=1e-5)
    for seed in range(4):
        step(net, method, seed)
    assert method.multipliers.max() == pytest.approx(0.3)
    masks = method.choose(None)
    assert (groups.kept(masks) == method.selected).all()
    assert (groups.kept(method.choose(Budgets(macs="30%"))) == method.selected).all()


def test_zeros_arrive_at_the_budget_and_the_cut_costs_little(
    digits_reference: DigitsReference,
) -> None:
    reference = digits_reference
    budget = Budgets(macs="10%")
    method = BudgetedSPR(
        budget=budget,
        total_steps=reference.steps(12),
        strength=3.0,
        end=0.5,
        reference=reference.network,
    )
    network = method.prepare(DigitsNet(seed=1), reference.groups)
    done = train(network, reference.data, reference.config(12), method=method, progress=False)
    last = done.history[-1]
    assert last["spr_macs_budget"] <= 0.1
    assert last["spr_macs"] < 0.2
    masks = method.choose(budget)
    small = remove(method.finish(network, masks), reference.groups, masks)
    assert reference.accuracy(small) > reference.accuracy(network) - 0.1
    assert reference.accuracy(small) > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0.5, "end": 0.5}, "start < end"),
        ({"total_steps": 0}, "total_steps"),
        ({"select_every": 0}, "select_every"),
        ({"rate": -1.0}, "rate"),
        ({"largest": 0.0}, "largest"),
    ],
)
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BudgetedSPR(big_m=1.0, **options)  # type: ignore[arg-type]  # one option of several types


def test_a_budget_out_of_reach(net: TinyNet, groups: ChannelGroups) -> None:
    with pytest.raises(BudgetError):
        prepared(net, groups, budget=Budgets(macs="0.01%"))
