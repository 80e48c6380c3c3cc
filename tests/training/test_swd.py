"""SWD: schedule, gradient of the extra term, selection by parameters, final cut."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune.errors import BudgetError, InputError
from mipprune.graph import ChannelGroups, channel_groups, count_parameters, remove
from mipprune.graph.budgets import Budgets
from mipprune.models import Dataset, build_model
from mipprune.training import SWD, TrainConfig, evaluate, train
from mipprune.training.swd import channels_for_parameters, decay_factor
from tests.training.networks import TinyNet, tiny_groups


def set_scales(net: nn.Module) -> None:
    """Importance 1..4 and 5..10; shifts alike."""
    with torch.no_grad():
        net.get_parameter("bn1.weight").copy_(torch.tensor([1.0, -2.0, 3.0, 4.0]))
        net.get_parameter("bn1.bias").fill_(0.5)
        net.get_parameter("bn2.weight").copy_(torch.arange(5.0, 11.0))
        net.get_parameter("bn2.bias").fill_(-0.5)


def test_factor_grows_geometrically() -> None:
    found = [decay_factor(s, 300, 0.1, 1e5) for s in (0, 100, 200, 300)]
    np.testing.assert_allclose(found, [0.1, 10.0, 1e3, 1e5], rtol=1e-12)
    assert decay_factor(400, 300, 0.1, 1e5) == pytest.approx(1e5)
    assert decay_factor(7, 9, 1.0, 1.0) == 1.0


def test_extra_gradient_is_that_of_the_penalty() -> None:
    net = TinyNet()
    set_scales(net)
    method = SWD(total_steps=10, keep=0.5, a_min=10.0, a_max=100.0, mu=1e-2)
    method.prepare(net, tiny_groups())
    base = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    gone = ~method._kept(method.scores())
    for step in range(2):
        net.zero_grad()
        loss = net(base).square().mean()
        torch.autograd.backward(loss)
        plain = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        factor = 10.0 * 10 ** (step / 10)
        norms = {"bn1": torch.from_numpy(gone[:4]), "bn2": torch.from_numpy(gone[4:])}
        extra = torch.zeros(())
        for name, selected in norms.items():
            for kind in ("weight", "bias"):
                extra = extra + (net.get_parameter(f"{name}.{kind}")[selected] ** 2).sum()
        net.zero_grad()
        torch.autograd.backward(factor * 1e-2 / 2 * extra + net(base).square().mean())
        expected = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        for name, parameter in net.named_parameters():
            parameter.grad = plain[name].clone()
        method.after_backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
        method.after_step(0.0)
    assert gone.any()
    assert not gone.all()


def test_filters_can_decay_too() -> None:
    net, groups = TinyNet(), tiny_groups()
    set_scales(net)
    method = SWD(
        total_steps=10, keep=0.5, filters=True, decoupled=True, a_min=1.0, a_max=1.0, mu=1.0
    )
    method.prepare(net, groups)
    gone = ~method._kept(method.scores())
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    method.after_backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())
    method.after_step(0.1)  # w <- w (1 - .1)
    first = torch.from_numpy(gone[:4])
    assert first.any()
    shrunk = before["conv1.weight"][first] * 0.9
    torch.testing.assert_close(net.conv1.weight.detach()[first], shrunk)
    assert torch.equal(net.conv1.weight.detach()[~first], before["conv1.weight"][~first])
    # Read by conv2: columns of selected channels; rows of its own selected ones as well.
    kept_rows = torch.from_numpy(~gone[4:])
    columns = net.conv2.weight.detach()[kept_rows][:, first]
    torch.testing.assert_close(columns, before["conv2.weight"][kept_rows][:, first] * 0.9)
    assert torch.equal(net.fc.bias.detach(), before["fc.bias"])


@pytest.mark.parametrize("keep", [0.6, 0.3, 0.1, 0.05])
def test_target_hits_the_number_of_parameters(keep: float) -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    scores = np.random.default_rng(5).random(groups.n_classes)
    kept = channels_for_parameters(groups, scores, keep)
    small = remove(model, groups, groups.masks(kept))
    limit = keep * count_parameters(model)
    assert count_parameters(small) == groups.parameters(kept) <= limit
    # By linear search: the threshold one score lower no longer fits.
    fits = [
        t for t in np.sort(scores) if groups.parameters(_above(groups, scores, float(t))) <= limit
    ]
    assert (kept == _above(groups, scores, min(fits))).all()
    # It is not the same as a share of channels.
    assert abs(kept.mean() - keep) > 0.01


def _above(
    groups: ChannelGroups, scores: NDArray[np.float64], threshold: float
) -> NDArray[np.bool_]:
    """Everything at least ``threshold``, and the best class of each family."""
    kept = scores >= threshold
    for family in groups:
        span = slice(family.start, family.stop)
        if not kept[span].any():
            kept[family.start + int(scores[span].argmax())] = True
    return kept


def test_target_out_of_reach_is_refused() -> None:
    groups = tiny_groups()
    with pytest.raises(BudgetError, match="cannot be reached"):
        channels_for_parameters(groups, np.arange(10.0), 0.01)


def test_selection_moves_with_the_scales_and_is_logged() -> None:
    net, groups = TinyNet(), tiny_groups()
    set_scales(net)
    method = SWD(total_steps=100, keep=0.5)
    method.prepare(net, groups)
    first = method.end_epoch({"loss": 1.0})
    assert first["swd_entered"] == first["swd_selected"] > 0
    assert first["swd_left"] == 0
    with torch.no_grad():
        net.bn1.weight.copy_(torch.tensor([9.0, -9.0, 9.0, 9.0]))
        net.bn2.weight.copy_(torch.tensor([1.0, 1.1, 1.2, 1.3, 20.0, 20.0]))
    second = method.end_epoch({"loss": 1.0})
    assert second["swd_left"] > 0
    assert second["swd_entered"] > 0
    assert (
        second["swd_selected"]
        == first["swd_selected"] + second["swd_entered"] - (second["swd_left"])
    )


def test_budget_of_the_run_selects_what_is_cut() -> None:
    net, groups = TinyNet(), tiny_groups()
    set_scales(net)
    budget = Budgets(macs="50%")
    method = SWD(total_steps=10, budget=budget)
    method.prepare(net, groups)
    own, rounded = groups.kept(method.choose()), groups.kept(method.choose(budget))
    assert (own == rounded).all()
    assert groups.macs(own) <= 0.5 * groups.macs()
    by_share = SWD(total_steps=10, budget=budget, keep=0.4)
    by_share.prepare(net, groups)
    kept = groups.kept(by_share.choose())
    assert groups.parameters(kept) <= 0.4 * groups.parameters()


def test_smallest_weights_decay_singly() -> None:
    net, groups = TinyNet(), tiny_groups()
    method = SWD(total_steps=10, structure="weights", keep=0.25)
    method.prepare(net, groups)
    figures = method.end_epoch({"loss": 1.0})
    total = 4 * 9 + 4 + 24 * 9 + 18 + 3  # convolutions and the linear layer, without norms
    assert figures["swd_selected"] == round(0.75 * total)
    every = torch.cat(
        [p.detach().reshape(-1).abs() for n, p in net.named_parameters() if "bn" not in n]
    )
    cut = float(every.sort().values[round(0.75 * total)])
    net.bn1.weight.data.fill_(1e-9)
    done = method.finish(net, method.choose())
    for name, parameter in done.named_parameters():
        if "bn" in name:
            assert (parameter != 0).any() or name.endswith("bias")
        else:
            assert ((parameter == 0) == (parameter.abs() < cut)).all()
    zeros = sum(int((p == 0).sum()) for n, p in done.named_parameters() if "bn" not in n)
    assert zeros == round(0.75 * total)


def test_channel_whose_weights_all_go_is_removed() -> None:
    net, groups = TinyNet(), tiny_groups()
    with torch.no_grad():
        net.conv1.weight[1].mul_(1e-6)
        net.conv1.bias[1] = 0.0  # type: ignore[index]  # there is a bias
    method = SWD(total_steps=10, structure="weights", keep=0.9)
    method.prepare(net, groups)
    method.end_epoch({"loss": 1.0})
    assert np.flatnonzero(~groups.kept(method.choose())).tolist() == [1]


def test_decay_stays_stable_at_a_constant_rate() -> None:
    net, groups = TinyNet(), tiny_groups()
    set_scales(net)
    method = SWD(total_steps=400, keep=0.5, a_max=1e9)
    method.prepare(net, groups)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(400):
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        method.after_backward()
        optimizer.step()
        method.after_step(0.1)
    figures = method.end_epoch({"loss": 1.0})
    assert figures["swd_largest_selected"] < 1e-6
    assert net.bn2.weight.detach()[-1].item() == pytest.approx(10.0)


def test_nothing_is_lost_at_the_final_cut(data: Dataset) -> None:
    net, groups = TinyNet(seed=1), tiny_groups()
    config = TrainConfig(epochs=30, batch_size=9, lr=0.1, evaluate_every=0, channels_last=False)

    def accuracy(model: nn.Module) -> float:
        found = evaluate(model, data, "train").accuracy
        assert found is not None
        return found

    method = SWD(total_steps=30 * 4, keep=0.5, filters=True, evaluate=accuracy)
    method.prepare(net, groups)
    history = train(net, data, config, method=method, progress=False).history
    assert all("swd_accuracy_after_cut" not in record for record in history[:-1])
    last = history[-1]
    assert last["swd_accuracy_before_cut"] == last["swd_accuracy_after_cut"] > 0.9
    assert last["swd_largest_selected"] < 0.05 < 0.5 < history[3]["swd_largest_selected"]
    masks = method.choose()
    inputs = (torch.zeros(1, 1, 8, 8),)
    small = remove(method.finish(net, masks), groups, masks, example_inputs=inputs)
    assert count_parameters(small) <= 0.5 * count_parameters(net)
    found = evaluate(small, data, "test").accuracy
    full = evaluate(net, data, "test").accuracy
    assert found == full


def test_wrong_settings_are_refused() -> None:
    wrong = (
        {"total_steps": 0}, {"keep": 1.0}, {"keep": 0}, {"structure": "rows"}, {"a_min": 0.0},
        {"a_min": 2.0, "a_max": 1.0}, {"mu": 0.0}, {"select_every": 0},
    )  # fmt: skip
    for options in wrong:
        with pytest.raises(InputError):
            SWD(**options)
    method = SWD()
    method.prepare(TinyNet(), tiny_groups())
    with pytest.raises(InputError, match="needs total_steps"):
        method.after_backward()
    assert math.isclose(method.keep, 0.1)
