"""The bound M on weight magnitudes, measured on a trained network."""

import math

from torch import nn

from mipprune._support.checks import require_number
from mipprune.errors import InputError
from mipprune.graph import ChannelGroups, require_groups, require_network
from mipprune.training.packing import carrier_axes, carrier_blocks, named_tensors

__all__ = ["measure_big_m"]


def measure_big_m(
    reference: nn.Module, groups: ChannelGroups, *, scale: float = 1.0, floor: float = 0.05
) -> dict[str, float]:
    """M of every parameter: largest magnitude in its layer of a trained network.

    M = max(floor, scale * max(|W|, |bias|, |norm scale|, |norm shift|)) per
    layer with its norm. Without the floor a dead layer of the reference would
    get M near 0 and could never be pruned.

    Parameters
    ----------
    reference : nn.Module
        Trained without SPR; same shape as the network to prune.
    groups : ChannelGroups
    scale : float
    floor : float

    Returns
    -------
    dict
        Parameter name -> M.

    Raises
    ------
    InputError
        Scale or floor not positive, or weights that are not finite.
    """
    require_network(reference, "reference")
    require_groups(groups)
    scale = require_number("scale", scale, above=0)
    floor = require_number("floor", floor, above=0)
    axes = carrier_axes(reference, groups)
    blocks = carrier_blocks(reference, groups, axes)
    tensors = named_tensors(reference)
    largest = dict.fromkeys(blocks, 0.0)
    for axis, block in zip(axes, blocks, strict=True):
        peak = float(tensors[axis.tensor].detach().abs().max())
        if not math.isfinite(peak):
            raise InputError(f"'{axis.tensor}' of the reference network is not finite")
        largest[block] = max(largest[block], peak)
    return {
        axis.tensor: max(floor, scale * largest[block])
        for axis, block in zip(axes, blocks, strict=True)
    }
