"""Gates: where they sit, their law, and their removal."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mipprune.errors import InputError
from mipprune.graph import channel_groups, mask_model
from mipprune.graph.groups import ChannelGroups
from mipprune.models import build_model
from mipprune.training.gates import (
    ClampedGates,
    HardConcreteGates,
    attach_gates,
    bake_gates,
    gated_classes,
)
from tests.training.networks import TinyNet


def image(n: int = 5) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(9))


def by_hand(net: TinyNet, z: Tensor, x: Tensor) -> Tensor:
    """The network with feature maps multiplied by gates behind norm and activation."""
    x = torch.relu(net.bn1(net.conv1(x))) * z[:4].view(1, -1, 1, 1)
    x = torch.relu(net.bn2(net.conv2(x))) * z[4:].view(1, -1, 1, 1)
    found: Tensor = net.fc(x.mean(dim=(2, 3)))
    return found


def test_gates_act_on_feature_maps(net: TinyNet, groups: ChannelGroups) -> None:
    plain = copy.deepcopy(net)
    gates = ClampedGates(10)
    attach_gates(net, groups, gates)
    torch.testing.assert_close(net(image()), plain(image()))
    z = torch.linspace(0.05, 0.95, 10)
    with torch.no_grad():
        gates.theta.copy_(z)
    leaf = z.clone().requires_grad_()
    expected = by_hand(plain, leaf, image())
    found = net(image())
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(expected.square().sum())
    torch.autograd.backward(found.square().sum())
    torch.testing.assert_close(gates.theta.grad, leaf.grad, rtol=1e-4, atol=1e-5)


def test_gates_of_a_residual_network_equal_masking() -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    kept = np.random.default_rng(2).random(groups.n_classes) > 0.4
    for family in groups:
        kept[family.start] = True
    masked = mask_model(model, groups, groups.masks(kept)).eval()
    names = set(model.state_dict())
    gates = ClampedGates(groups.n_classes)
    with torch.no_grad():
        gates.theta.copy_(torch.from_numpy(kept))
    attach_gates(model, groups, gates)
    assert gated_classes(groups).all()
    model.eval()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x), masked(x), rtol=1e-4, atol=1e-5)
    bake_gates(model, groups)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(x), masked(x), rtol=1e-4, atol=1e-5)


def test_baking_keeps_the_deterministic_output(net: TinyNet, groups: ChannelGroups) -> None:
    gates = HardConcreteGates(10, initial=0.5, spread=1.5, seed=1)
    attach_gates(net, groups, gates)
    net(image())
    net.eval()
    expected = net(image())
    net.train()
    types = [type(module) for module in TinyNet().modules()]
    baked = bake_gates(net, groups)
    assert baked is net
    assert net.training
    assert [type(module) for module in net.modules()] == types
    assert list(dict(net.named_parameters())) == list(dict(TinyNet().named_parameters()))
    torch.testing.assert_close(net.eval()(image()), expected)
    assert not net._forward_pre_hooks


def test_baking_with_masks_zeroes_what_was_removed(net: TinyNet, groups: ChannelGroups) -> None:
    attach_gates(net, groups, ClampedGates(10, initial=0.5))
    masks = {"conv1": np.array([True, False, True, True])}
    weight = net.conv2.parametrizations["weight"].original.detach().clone()  # type: ignore[index,union-attr]
    bake_gates(net, groups, masks)
    assert (net.conv2.weight[:, 1] == 0).all()
    torch.testing.assert_close(net.conv2.weight[:, 0].detach(), 0.5 * weight[:, 0])


def test_hard_concrete_law() -> None:
    # Probabilities of exact zeros read off figure 2 of BAR: .60, .17 and .03.
    for log_alpha, share in ((-2.0, 0.60), (0.0, 0.17), (2.0, 0.03)):
        gates = HardConcreteGates(100_000, initial=log_alpha, spread=0.0, seed=5)
        gates.resample()
        z = gates().detach()
        assert float((z == 0).float().mean()) == pytest.approx(share, abs=0.006)
        active = gates.probability_active()[0].item()
        assert active == pytest.approx(float((z > 0).float().mean()), abs=0.005)
        assert z.min() >= 0
        assert z.max() <= 1
    gates.eval()
    with torch.no_grad():
        gates.log_alpha[:3] = torch.tensor([-2.3979, -2.3978, 9.0])
    values = gates()
    # Deterministic gates close at log(-gamma / zeta) = -2.3979.
    assert values[0] == 0
    assert values[1] > 0
    assert values[2] == 1


def test_noise_is_new_at_each_pass_and_repeats_with_the_seed(groups: ChannelGroups) -> None:
    def passes(draws: int) -> list[Tensor]:
        net = TinyNet()
        gates = HardConcreteGates(10, initial=0.0, seed=4)
        gates.draws = draws
        attach_gates(net, groups, gates)
        found = []
        for _ in range(3):
            net(image())
            found.append(gates().detach())
        return found

    first, again, later = passes(0), passes(0), passes(1)
    assert not torch.equal(first[0], first[1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(later[0], first[1])


def test_state_dict_holds_gates_once_and_the_count_of_draws(groups: ChannelGroups) -> None:
    net = TinyNet()
    attach_gates(net, groups, HardConcreteGates(10))
    net(image())
    state = net.state_dict()
    assert [k for k in state if "log_alpha" in k] == ["channel_gates.log_alpha"]
    other = TinyNet(seed=2)
    gates = HardConcreteGates(10)
    attach_gates(other, groups, gates)
    other.load_state_dict(state)
    assert gates.draws == 1


def test_copies_have_gates_of_their_own(net: TinyNet, groups: ChannelGroups) -> None:
    gates = ClampedGates(10)
    attach_gates(net, groups, gates)
    twin = copy.deepcopy(net)
    before = twin(image())
    with torch.no_grad():
        gates.theta.zero_()
    torch.testing.assert_close(twin(image()), before)
    assert not torch.allclose(net(image()), before)


def test_copies_are_baked_one_by_one(net: TinyNet, groups: ChannelGroups) -> None:
    attach_gates(net, groups, ClampedGates(10, initial=0.5))
    twin = copy.deepcopy(net)
    expected = net.eval()(image())
    for network in (twin, net):
        bake_gates(network, groups)
        torch.testing.assert_close(network.eval()(image()), expected)
        assert [type(module) for module in network.modules()] == [
            type(module) for module in TinyNet().modules()
        ]


def test_a_sequential_network_can_have_gates() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )
    groups = channel_groups(net, (image(1),))
    expected = net(image())
    attach_gates(net, groups, ClampedGates(4))
    torch.testing.assert_close(net(image()), expected)
    bake_gates(net, groups)
    assert len(net) == 4


def test_bad_use_is_refused(net: TinyNet, groups: ChannelGroups) -> None:
    with pytest.raises(InputError, match="9 gates for 10 classes"):
        attach_gates(net, groups, ClampedGates(9))
    with pytest.raises(InputError, match="no gates"):
        bake_gates(net, groups)
    attach_gates(net, groups, ClampedGates(10))
    with pytest.raises(InputError, match="already"):
        attach_gates(net, groups, ClampedGates(10))
    with pytest.raises(InputError, match="zeta"):
        HardConcreteGates(3, zeta=0.9)
    tied = ChannelGroups(
        groups.families,
        groups.axes,
        groups.parameter_terms,
        groups.mac_terms,
        aliases={"other.weight": "fc.weight"},
    )
    with pytest.raises(InputError, match="shared"):
        attach_gates(TinyNet(), tied, ClampedGates(10))
    assert math.isfinite(float(net(image()).sum().detach()))
