"""The shape of a method, driven from loops that are not ours."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import BudgetError, InputError
from mipprune.graph import channel_groups, mask_model, remove
from mipprune.graph.budgets import Budgets
from mipprune.models import Dataset, batches, build_model
from mipprune.training import (
    Method,
    ParameterGroup,
    build_method,
    method_class,
    method_names,
    optimizer_groups,
)
from mipprune.training.gates import HardConcreteGates
from tests.training.networks import TinyNet, tiny_groups

OFFERED: dict[str, Any] = {"reference": TinyNet(seed=8), "seed": 2, "total_steps": 30}


def bare_loop(
    network: nn.Module,
    method: Method,
    data: Dataset,
    *,
    accumulate: int = 1,
    bf16: bool = False,
    epochs: int = 3,
) -> list[float]:
    """What a user writes; nothing of the library's loop."""
    optimizer = torch.optim.SGD(optimizer_groups(method.parameter_groups(), lr=0.05), momentum=0.9)
    losses = []
    for epoch in range(epochs):
        network.train()
        for index, batch in enumerate(batches(data, "train", 9, epoch=epoch)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                outputs = network(batch[0])
                base = F.cross_entropy(outputs, batch[1])
            torch.autograd.backward(method.loss(outputs, batch, base) / accumulate)
            losses.append(base.item())
            if (index + 1) % accumulate == 0:
                method.after_backward()
                optimizer.step()
                method.after_step(optimizer.param_groups[0]["lr"])
                optimizer.zero_grad()
        method.end_epoch({"loss": losses[-1]})
    return losses


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize(("accumulate", "bf16"), [(1, False), (2, False), (1, True)])
def test_every_method_in_a_bare_loop(name: str, accumulate: int, bf16: bool, data: Dataset) -> None:
    groups = tiny_groups()
    plain = TinyNet()
    method = build_method(name, offered=OFFERED)
    network = method.prepare(plain, groups)
    trained = [p for group in method.parameter_groups() for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in network.parameters()}
    assert len(trained) == len({id(p) for p in trained})
    losses = bare_loop(network, method, data, accumulate=accumulate, bf16=bf16, epochs=6)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    scores = method.scores()
    assert scores.shape == (10,)
    assert not np.isnan(scores).any()
    if name == "none":
        return
    masks = method.choose(Budgets(macs="50%"))
    kept = groups.kept(masks)
    assert groups.macs(kept) <= 0.5 * groups.macs()
    network.eval()
    done = method.finish(network, masks)
    assert list(done.state_dict()) == list(TinyNet().state_dict())
    assert [type(m) for m in done.modules()] == [type(m) for m in TinyNet().modules()]


@pytest.mark.parametrize("name", [n for n in method_names() if n != "none"])
def test_chosen_channels_can_be_removed_from_a_residual_network(name: str) -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    reference = build_model(
        "resnet20",
        in_channels=1,
        image_size=8,
        base_width=8,
        generator=torch.Generator().manual_seed(1),
    )
    method = build_method(name, offered={"reference": reference})
    network = method.prepare(model, groups)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = network(x)
    torch.autograd.backward(method.loss(outputs, (x, None), outputs.square().mean()))
    masks = method.choose(Budgets(macs="40%"))
    done = method.finish(network, masks).eval()
    small = remove(done, groups, masks)
    torch.testing.assert_close(small(x), mask_model(done, groups, masks)(x), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) == groups.parameters(groups.kept(masks))
    with pytest.raises(BudgetError):
        method.choose(Budgets(macs="0.001%"))


@pytest.mark.parametrize("name", method_names())
def test_methods_say_when_they_are_not_prepared(name: str) -> None:
    method = build_method(name, offered=OFFERED)
    with pytest.raises(InputError, match="prepare"):
        method.parameter_groups()
    with pytest.raises(InputError, match="prepare"):
        method.scores()


def test_optimizer_groups_carry_scale_and_decay() -> None:
    first, second = (nn.Parameter(torch.ones(1)) for _ in range(2))
    given: list[ParameterGroup] = [
        {"params": [first]},
        {"params": [second], "lr_scale": 10.0, "weight_decay": 0.0},
        {"params": []},
    ]
    entries = optimizer_groups(given, lr=0.1, weight_decay=5e-4)
    assert [(e["lr"], e["weight_decay"], e["lr_scale"]) for e in entries] == [
        (0.1, 5e-4, 1.0),
        (1.0, 0.0, 10.0),
    ]
    optimizer = torch.optim.SGD(entries, lr=0.1)
    for parameter in (first, second):
        parameter.grad = torch.ones(1)
    optimizer.step()
    assert first.item() == pytest.approx(1 - 0.1 * (1 + 5e-4))
    assert second.item() == pytest.approx(0.0)


def test_registry_names_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match=r"unknown method 'sprr'; known are .*spr"):
        method_class("sprr")
    with pytest.raises(InputError, match=r"no option aplha; it has: alpha, strength"):
        build_method("spr", big_m=1.0, aplha=0.1)
    with pytest.raises(InputError, match="offered values may be called"):
        build_method("spr", offered={"teacher": None})
    given = build_method("l0", offered={"seed": 5, "reference": None}, strength=0.3)
    assert (given.seed, given.strength) == (5, 0.3)  # type: ignore[attr-defined]  # of L0
    assert build_method("l0", offered={"seed": 5}, seed=6).seed == 6  # type: ignore[attr-defined]


def test_l0_loss_is_the_expected_share_of_parameters() -> None:
    groups = tiny_groups()
    method = build_method("l0", strength=0.5, initial=0.0)
    network = method.prepare(TinyNet(), groups)
    gates = network.get_submodule("channel_gates")
    assert isinstance(gates, HardConcreteGates)
    found = method.loss(None, None, torch.zeros(())).detach()
    # P(z > 0) = sigmoid(log_alpha - 2/3 log(.1/1.1)); 12 and 38 parameters a class of 276.
    active = torch.sigmoid(gates.log_alpha.detach() - 2 / 3 * np.log(0.1 / 1.1))
    expected = 0.5 * (active[:4].sum() * 12 + active[4:].sum() * 38) / 276
    torch.testing.assert_close(found, expected.float())
    with torch.no_grad():
        gates.log_alpha[:] = 3.0
        gates.log_alpha[5] = -4.0
    assert np.flatnonzero(~groups.kept(method.choose())).tolist() == [5]


def test_l1_norm_goes_by_magnitude() -> None:
    groups, net = tiny_groups(), TinyNet()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.1)
        net.conv1.weight[2].fill_(0.01)
        net.conv2.weight[3].fill_(0.02)
    overall = build_method("l1-norm", normalise="none")
    overall.prepare(net, groups)
    assert np.argsort(overall.scores(), kind="stable")[:2].tolist() == [7, 2]
    assert overall.scores()[2] == pytest.approx((9 * 0.01 + 3 * 0.1) / 12)
    per_layer = build_method("l1-norm")
    per_layer.prepare(net, groups)
    assert per_layer.scores()[:4].mean() == pytest.approx(1.0)
    with pytest.raises(InputError, match="without a budget"):
        per_layer.choose()
    with pytest.raises(InputError, match="normalise"):
        build_method("l1-norm", normalise="model")


def test_dense_keeps_everything_and_refuses_budgets() -> None:
    method = build_method("none")
    groups = tiny_groups()
    method.prepare(TinyNet(), groups)
    assert groups.kept(method.choose()).all()
    base: Tensor = torch.ones(())
    assert method.loss(None, None, base) is base
    with pytest.raises(InputError, match="no opinion"):
        method.choose(Budgets(macs="50%"))
