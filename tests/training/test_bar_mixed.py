"""BAR with mixed connectivity: costs, gates, and the realised network against the gated one."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import Budgets, channel_groups, count_macs, count_parameters
from mipprune.models import Dataset, build_model, load_data
from mipprune.models._resnet import CifarResNet
from mipprune.training import BAR, TrainConfig, train
from mipprune.training._mixed_groups import mixed_groups
from mipprune.training.bar_mixed import MixedBAR
from mipprune.training.mixed_connectivity import realise_mixed
from tests.training.networks import TinyNet, tiny_groups

INPUTS = (torch.zeros(1, 1, 8, 8),)


KINDS = ["resnet14b", pytest.param("resnet50", marks=pytest.mark.slow)]


def network(kind: str = "resnet14b", width: int = 4, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = CifarResNet(14, in_channels=1, base_width=width, shortcut="B")
    if kind != "resnet14b":
        model = build_model(kind, in_channels=1, image_size=8, base_width=width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean"):
                value = getattr(module, name)
                value.data = torch.randn(value.shape, generator=generator)
    return model


def prepared(model: nn.Module, **options: Any) -> tuple[MixedBAR, nn.Module]:
    method = MixedBAR(total_steps=30, **options)
    return method, method.prepare(model, channel_groups(model, INPUTS))


def image() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_those_of_the_network_and_of_what_is_realised(kind: str) -> None:
    model = network(kind)
    groups, layout, _ = mixed_groups(model, INPUTS)
    assert groups.macs() == count_macs(model, INPUTS)
    assert groups.parameters() == count_parameters(model)
    rng = np.random.default_rng(4)
    drawn = rng.random(groups.n_classes) < 0.7
    for family in groups:
        if family.minimum:
            drawn[family.start] = True
    kept = layout.settle(drawn, rng.random(groups.n_classes))
    assert groups.macs(kept) < groups.macs(drawn) < groups.macs()
    small = realise_mixed(model, layout.masks(kept))
    assert count_macs(small, INPUTS) == groups.macs(kept)
    assert count_parameters(small) == groups.parameters(kept)


def test_settling_closes_what_nothing_brings_or_reads() -> None:
    groups, layout, _ = mixed_groups(network(), INPUTS)
    scores = np.linspace(0, 1, groups.n_classes)
    kept = np.ones(groups.n_classes, dtype=bool)
    kept[layout.entering[0][1:]] = False  # the stem brings one feature,
    kept[layout.branch[0]] = False  # the first block none,
    kept[layout.entering[2][:3]] = False  # the third reads one.
    done = layout.settle(kept, scores)
    assert done[layout.entering[1]].tolist() == [True, False, False, False]
    assert done[layout.inner[0][0]].sum() == 1
    assert done[layout.branch[1]].tolist() == [False, False, False, True]
    assert done[layout.branch[2]].all()
    assert (layout.settle(done, scores) == done).all()
    kept[layout.entering[1]] = False
    assert layout.settle(kept, scores)[layout.entering[1]].tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_the_realised_network_computes_what_the_gated_one_does(kind: str) -> None:
    model = network(kind)
    whole = count_parameters(model)
    method, gated = prepared(model, distil=0.0, budget=Budgets(macs="50%"))
    gated.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        alpha = method._bound.gates.log_alpha
        alpha.copy_(torch.randn(alpha.shape, generator=generator) * 2 - 1)
    masks = method.choose(None)
    assert 0.2 < method._bound.groups.kept(masks).mean() < 0.9
    values = method.gates()[method._bound.groups.kept(masks)]
    assert ((values > 0) & (values < 1)).any()
    x = image().double()
    # Masks that were only closed because nothing comes or reads change nothing.
    with torch.no_grad():
        forced = ~method._bound.groups.kept(masks) & (method.gates() > 0)
        added = method._bound.groups.kept(masks) & (method.gates() == 0)
        assert not added.any()
        expected = gated.eval()(x)
    small = method.finish(gated, masks)
    torch.testing.assert_close(small(x), expected, rtol=1e-9, atol=1e-9)
    assert forced.any()
    assert count_parameters(small) < 0.8 * whole
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in gated.modules())
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), expected, rtol=1e-9, atol=1e-9)


def test_masks_get_gradients_and_the_branch_can_go_alone() -> None:
    method, gated = prepared(network(), distil=0.0, budget=Budgets(macs="50%"))
    gated.train()
    loss = method.loss(gated(image()), None, gated(image()).square().mean())
    torch.autograd.backward(loss)
    gradient = method._bound.gates.log_alpha.grad
    assert gradient is not None
    assert (gradient != 0).float().mean() > 0.9
    layout = method._mixed
    with torch.no_grad():
        method._bound.gates.log_alpha.fill_(5.0)
        method._bound.gates.log_alpha[layout.branch[3]] = -5.0
    small = method.finish(gated, method.choose(None))
    assert not list(small.get_submodule("layer2.1").children())
    assert small(image()).shape == (3, 10)


def test_training_lands_on_the_budget() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    data = load_data("digits")
    assert isinstance(data, Dataset)
    data = data.limited(train=512)
    model = network(width=8)
    limit = 0.4 * count_macs(model, INPUTS)
    config = TrainConfig(epochs=4, batch_size=64, warmup_epochs=1.0, evaluate_every=0)
    method = MixedBAR(budget=Budgets(macs="40%"), total_steps=32)
    gated = method.prepare(model, channel_groups(model, INPUTS))
    train(gated, data, config, method=method, progress=False)
    small = method.finish(gated, method.choose(None))
    assert 0.85 * limit < count_macs(small, INPUTS) <= limit
    train(small, data, config, progress=False)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="channel_groups"):
        MixedBAR().prepare(TinyNet(), tiny_groups())
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=4)
    with pytest.raises(InputError, match="shortcut"):
        MixedBAR().prepare(model, channel_groups(model, INPUTS))
    with pytest.raises(InputError, match="prepare"):
        MixedBAR().choose(None)
    assert issubclass(MixedBAR, BAR)
