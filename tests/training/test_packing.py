"""Packing of channels: against counting by hand."""

import numpy as np
import pytest
import torch

from mipprune.errors import InputError
from mipprune.graph.groups import Axis, ChannelGroups
from mipprune.models import build_model
from mipprune.training.packing import carrier_axes, carrier_blocks, pack_channels
from tests.training.networks import TinyNet


def test_sizes_of_the_tiny_network(net: TinyNet, groups: ChannelGroups) -> None:
    packing = pack_channels(net, groups)
    # Filter, bias, scale and shift of conv1 and bn1; conv2 has no bias.
    assert packing.sizes.tolist() == [9 + 3] * 4 + [36 + 2] * 6
    assert packing.class_of.tolist() == list(range(10))
    assert packing.names == (
        *("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"),
        *("conv2.weight", "bn2.weight", "bn2.bias"),
    )
    assert packing.blocks == ("conv1",) * 4 + ("conv2",) * 3


@pytest.mark.parametrize("channels_last", [False, True])
def test_flat_and_views_are_inverse(
    net: TinyNet, groups: ChannelGroups, channels_last: bool
) -> None:
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in stub
    packing = pack_channels(net, groups)
    parameters = [net.get_parameter(name) for name in packing.names]
    before = [p.detach().clone() for p in parameters]
    flat = packing.flat(parameters).detach()
    for c in range(4):
        expected = torch.cat(
            [net.conv1.weight[c].reshape(-1)]
            + [
                t[c : c + 1]
                for t in (net.conv1.bias, net.bn1.weight, net.bn1.bias)
                if t is not None
            ]
        )
        found = flat[packing.layout.segment == c]
        torch.testing.assert_close(found.sort().values, expected.detach().sort().values)
    for view, old in zip(packing.views(flat, parameters), before, strict=True):
        assert torch.equal(view, old)
        if old.ndim == 4 and channels_last:
            assert view.is_contiguous(memory_format=torch.channels_last)


def test_frozen_positions_belong_to_no_group(net: TinyNet, groups: ChannelGroups) -> None:
    axes = [Axis(a.tensor, a.dim, np.where(a.owner == 2, -1, a.owner), a.role) for a in groups.axes]
    partly = ChannelGroups(groups.families, tuple(axes), groups.parameter_terms, groups.mac_terms)
    packing = pack_channels(net, partly)
    assert 2 not in packing.class_of
    assert int((packing.layout.segment == packing.n_groups).sum()) == 12
    found = packing.per_class(np.arange(9.0), 10)
    assert np.isposinf(found[2])
    assert found[3] == 2.0


def test_residual_blocks_and_their_norms() -> None:
    from mipprune.graph import channel_groups

    model = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    axes = carrier_axes(model, groups)
    blocks = dict(zip([a.tensor for a in axes], carrier_blocks(model, groups, axes), strict=True))
    assert blocks["layer2.1.bn2.weight"] == "layer2.1.conv2"
    assert blocks["bn1.bias"] == "conv1"
    coupled = pack_channels(model, groups)
    apart = pack_channels(model, groups, coupled=False)
    assert coupled.n_groups == groups.n_classes
    # One group per filter of the 19 convolutions.
    assert apart.n_groups == 8 * 7 + 16 * 6 + 32 * 6
    assert coupled.sizes.sum() == apart.sizes.sum()
    np.testing.assert_array_equal(
        np.bincount(apart.class_of, apart.sizes), coupled.sizes.astype(float)
    )


def test_groups_of_another_network_are_refused(groups: ChannelGroups) -> None:
    with pytest.raises(InputError, match="another network"):
        pack_channels(torch.nn.Sequential(torch.nn.Linear(3, 2)), groups)
