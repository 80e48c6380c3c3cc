"""Randomly composed networks: whatever is found prunable must be exact to remove."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mipprune.graph import (
    channel_groups,
    count_macs,
    count_parameters,
    random_masks,
    remove,
    verify_removal,
)

BLOCKS = (
    "conv", "depthwise", "grouped", "residual", "dense", "gate", "chunk", "shuffle", "squeeze",
    "pixel", "attention", "norm", "pad", "twice", "half_flip",
)  # fmt: skip


class Composed(nn.Module):
    """A chain of blocks drawn from a list of names and widths; flatten or pooling at the end."""

    def __init__(self, blocks: list[tuple[str, int]], flatten: bool) -> None:
        super().__init__()
        self.names = [name for name, _ in blocks]
        self.layers = nn.ModuleList()
        self.flatten = flatten
        width, size = 3, 8
        for name, k in blocks:
            block, width, size = _block(name, width, 2 * k + 4, size)
            self.layers.append(block)
        self.head = nn.Linear(width * size * size if flatten else width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for name, block in zip(self.names, self.layers, strict=True):
            x = _apply(name, block, x)
        out: Tensor = self.head(x.flatten(1) if self.flatten else x.mean((2, 3)))
        return out


def _block(name: str, width: int, new: int, size: int) -> tuple[nn.ModuleDict, int, int]:
    """Modules of a block, the width and the size behind it."""
    entry = nn.Conv2d(width, new, 1)
    parts: dict[str, nn.Module] = {"entry": entry, "norm": nn.BatchNorm2d(new)}
    out = new
    if name == "conv":
        parts["a"] = nn.Conv2d(new, new, 3, padding=1)
    elif name == "depthwise":
        parts["a"] = nn.Conv2d(new, new, 3, padding=1, groups=new)
    elif name == "grouped":
        parts["a"] = nn.Conv2d(new, new, 3, padding=1, groups=2)
    elif name in ("residual", "twice"):
        parts["a"] = nn.Conv2d(new, new, 3, padding=1)
    elif name == "dense":
        parts["a"] = nn.Conv2d(new, 5, 3, padding=1)
        out = new + 5
    elif name in ("gate", "chunk"):
        out = new // 2
        parts["a"] = nn.Conv2d(new // 2, new // 2, 1)
    elif name == "squeeze":
        parts["a"], parts["b"] = nn.Linear(new, 3), nn.Linear(3, new)
    elif name == "pixel":
        parts["a"] = nn.Conv2d(new, 16, 1)
        out, size = (4, size * 2) if size <= 8 else (16, size)
    elif name == "attention":
        parts["a"], parts["b"] = nn.Linear(new, 24), nn.Linear(8, new)
    elif name == "norm":
        parts["a"] = nn.GroupNorm(2, new)
    elif name == "pad":
        out = new + 2
    return nn.ModuleDict(parts), out, size


def _apply(name: str, block: Any, x: Tensor) -> Any:
    x = F.relu(block["norm"](block["entry"](x)))
    if name in ("conv", "depthwise", "grouped", "norm"):
        return torch.sigmoid(block["a"](x))
    if name == "residual":
        return F.relu(x + block["a"](x))
    if name == "twice":
        return torch.tanh(block["a"](F.relu(block["a"](x))))
    if name == "dense":
        return torch.cat([x, torch.tanh(block["a"](x))], 1)
    if name == "gate":
        a, b = x.chunk(2, 1)
        return F.silu(block["a"](a)) * b
    if name == "chunk":
        a, b = x.chunk(2, 1)
        return block["a"](a) + block["a"](b)
    if name == "shuffle":
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    if name == "squeeze":
        gate = block["b"](F.relu(block["a"](x.mean((2, 3)))))
        return x * torch.sigmoid(gate)[:, :, None, None]
    if name == "pixel":
        x = block["a"](x)
        return F.pixel_shuffle(x, 2) if x.shape[-1] <= 8 else x
    if name == "attention":
        y = F.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        n, t, _ = y.shape
        q, k, v = block["a"](y).view(n, t, 3, -1, 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + block["b"](y).mean(1)[:, :, None, None]
    if name == "pad":
        return F.pad(x, (0, 0, 0, 0, 1, 1))
    return torch.cat(list(reversed(x.chunk(2, 1))), 1)


blocks = st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(0, 3)), min_size=2, max_size=4)


def check(chosen: list[tuple[str, int]], flatten: bool, seed: int) -> None:
    torch.manual_seed(seed)
    model, example = Composed(chosen, flatten), torch.randn(2, 3, 8, 8)
    groups = channel_groups(model, example)
    # The head's inputs can be pruned whatever the blocks are, unless the last one pads them.
    assert len(groups) > 0
    rng = np.random.default_rng(seed)
    for keep in (0.7, 0.3):
        masks = random_masks(groups, rng, keep)
        smaller = remove(model, groups, masks)
        result = verify_removal(model, smaller, groups, masks)
        assert result.passed
        assert result.tolerance == 1e-10
        kept = groups.kept(masks)
        assert count_parameters(smaller) == groups.parameters(kept)
    assert count_macs(smaller, example) == groups.macs(kept)


@settings(derandomize=True, max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks, st.booleans(), st.integers(0, 999))
def test_composed_networks(chosen: list[tuple[str, int]], flatten: bool, seed: int) -> None:
    check(chosen, flatten, seed)


@pytest.mark.slow
@settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(blocks, st.booleans(), st.integers(0, 999))
def test_many_composed_networks(chosen: list[tuple[str, int]], flatten: bool, seed: int) -> None:
    check(chosen, flatten, seed)
