"""Channels under layer and RMS norms: removal changes the statistics, on request."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.graph import (
    channel_groups,
    count_macs,
    count_parameters,
    mask_model,
    random_masks,
    remove,
    verify_removal,
)
from mipprune.graph.gallery import STRUCTURES


def hidden(norm: nn.Module) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), norm, nn.ReLU(), nn.Linear(6, 3)), torch.randn(5, 4)


def test_frozen_unless_asked_for() -> None:
    model, x = hidden(nn.LayerNorm(6))
    assert len(channel_groups(model, x)) == 0
    (family,) = channel_groups(model, x, prune_normalised=True)
    assert not family.removal_is_zeroing


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(6), nn.LayerNorm(6, elementwise_affine=False), nn.RMSNorm(6)]
)
def test_statistics_are_over_the_kept_channels_by_hand(norm: nn.Module) -> None:
    model, x = hidden(norm)
    groups = channel_groups(model, x, prune_normalised=True)
    mask = np.array([1, 1, 0, 1, 0, 1], bool)
    smaller: Any = remove(model, groups, {"0": mask})
    assert smaller[1].normalized_shape == (4,)
    h = model[0](x)[:, mask]
    if isinstance(norm, nn.RMSNorm):
        h = h / (h.square().mean(1, keepdim=True) + torch.finfo(h.dtype).eps).sqrt()
    else:
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected = F.relu(h) @ model[3].weight[:, mask].T + model[3].bias
    torch.testing.assert_close(smaller(x), expected)
    masked = mask_model(model, groups, {"0": mask})
    assert not torch.allclose(masked(x), expected)


def test_a_wrong_norm_is_still_noticed() -> None:
    model, x = hidden(nn.LayerNorm(6))
    groups = channel_groups(model, x, prune_normalised=True)
    mask = {"0": np.array([1, 1, 0, 1, 0, 1], bool)}
    smaller: Any = remove(model, groups, mask)
    smaller[1].eps = 1e-3
    assert not verify_removal(model, smaller, groups, mask).passed


@pytest.mark.parametrize("name", ["vision_transformer", "torch_encoder", "fused_unbind"])
def test_residual_streams_of_transformers(name: str) -> None:
    torch.manual_seed(0)
    model, example = STRUCTURES[name].build()
    if name != "vision_transformer":
        model = nn.Sequential(nn.Linear(12, 12), model, nn.Linear(12, 3))
    groups = channel_groups(model, example, prune_normalised=True)
    inexact = [f for f in groups if not f.removal_is_zeroing]
    assert [len(f) for f in inexact] == [12]
    for seed in range(2):
        masks = random_masks(groups, np.random.default_rng(seed))
        smaller = remove(model, groups, masks)
        kept = groups.kept(masks)
        assert count_parameters(smaller) == groups.parameters(kept)
    assert count_macs(smaller, example) == groups.macs(kept)
