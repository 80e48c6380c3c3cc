"""Mixed connectivity: the physical blocks against the masked network."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import count_macs
from mipprune.models import build_model
from mipprune.training.mixed_connectivity import (
    MixedConnectivityBlock,
    MixedMasks,
    mask_mixed,
    realise_mixed,
    residual_blocks,
)


def network(kind: str = "resnet20") -> nn.Module:
    options: dict[str, Any] = {"shortcut": "B"} if kind == "resnet20" else {}
    model = build_model(
        kind, in_channels=1, base_width=4, generator=torch.Generator().manual_seed(0), **options
    ).eval()
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean"):
                value = getattr(module, name)
                value.data = torch.randn(value.shape, generator=generator)
    return model


def widths(model: nn.Module) -> list[tuple[int, list[int]]]:
    found = []
    for _, block in residual_blocks(model):
        convs = [m for n, m in block.named_children() if n.startswith("conv")]
        shapes = [m.get_parameter("weight").shape for m in convs]
        found.append((shapes[0][1], [s[0] for s in shapes]))
    return found


def random_masks(model: nn.Module, seed: int, keep: float = 0.6) -> MixedMasks:
    rng = np.random.default_rng(seed)

    def draw(size: int) -> Any:
        mask = rng.random(size) < keep
        mask[rng.integers(size)] = True
        return mask

    shapes = widths(model)
    entering = [draw(size) for size, _ in shapes] + [draw(shapes[-1][1][-1])]
    return MixedMasks(
        tuple(entering),
        tuple(draw(outs[-1]) for _, outs in shapes),
        tuple(tuple(draw(size) for size in outs[:-1]) for _, outs in shapes),
    )


def image() -> Tensor:
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "seed"), [("resnet20", 0), ("resnet20", 1), ("resnet50", 2)])
def test_physical_network_computes_what_the_masked_one_does(kind: str, seed: int) -> None:
    model = network(kind).double()
    masks = random_masks(model, seed)
    x = image().double()
    small = realise_mixed(model, masks)
    torch.testing.assert_close(small(x), mask_mixed(model, masks)(x), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(
        p.numel() for p in model.parameters()
    )
    assert not torch.allclose(small(x), model(x))


def test_each_outcome_of_a_feature() -> None:
    model = network().double()
    everything = [np.ones(size, dtype=bool) for size, _ in widths(model)]
    first = everything[0].copy()
    first[:2] = False
    # Into the second block: features 0 and 1 are gone from the stream, 0 comes back as new.
    branch = np.array([True, False, False, True])
    shapes = widths(model)
    masks = MixedMasks(
        (everything[0], first, *everything[2:], np.ones(16, dtype=bool)),
        (
            np.ones(4, dtype=bool),
            branch,
            *(np.ones(outs[-1], dtype=bool) for _, outs in shapes[2:]),
        ),
        tuple((np.ones(outs[0], dtype=bool),) for _, outs in shapes),
    )
    small = realise_mixed(model, masks)
    block = small.get_submodule("layer1.1")
    assert isinstance(block, MixedConnectivityBlock)
    # 2 and 3 are passed on, 3 is added to, 0 is concatenated; 1 exists nowhere.
    assert block.stream.tolist() == [2, 3, 0]
    assert block.added_at.tolist() == [1]
    assert block.new_from.tolist() == [0]
    assert block.branch is not None
    assert block.branch[0].in_channels == 2
    torch.testing.assert_close(small(image().double()), mask_mixed(model, masks)(image().double()))
    # A block without branch features disappears.
    gone = MixedMasks(
        masks.entering, (masks.branch[0], np.zeros(4, dtype=bool), *masks.branch[2:]), masks.inner
    )
    small = realise_mixed(model, gone)
    block = small.get_submodule("layer1.1")
    assert isinstance(block, MixedConnectivityBlock)
    assert block.branch is None
    assert not list(block.parameters())
    torch.testing.assert_close(small(image().double()), mask_mixed(model, gone)(image().double()))


def test_physical_network_trains_and_is_counted() -> None:
    model = network()
    small = realise_mixed(model, random_masks(model, 4, keep=0.5)).train()
    small(image()).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    assert count_macs(small.eval(), (image(),)) < 0.5 * count_macs(model, (image(),))


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(InputError, match="shortcut"):
        residual_blocks(build_model("resnet20", in_channels=1, base_width=4, shortcut="A"))
    with pytest.raises(InputError, match="no residual network"):
        residual_blocks(nn.Sequential(nn.Linear(2, 2)))
    model = network()
    masks = random_masks(model, 0)
    with pytest.raises(InputError, match="expected masks for 9 blocks"):
        realise_mixed(model, MixedMasks(masks.entering[1:], masks.branch, masks.inner))
    wrong = (np.ones(5, dtype=bool), *masks.branch[1:])
    with pytest.raises(InputError, match=r"block 'layer1.0': expected bool masks of lengths"):
        realise_mixed(model, MixedMasks(masks.entering, wrong, masks.inner))
    dead = tuple(np.zeros_like(mask) for mask in masks.entering)
    with pytest.raises(InputError, match="without any feature"):
        realise_mixed(model, MixedMasks(dead, masks.branch, masks.inner))
    inner = ((np.zeros(4, dtype=bool),), *masks.inner[1:])
    whole = tuple(np.ones_like(mask) for mask in masks.entering)
    with pytest.raises(InputError, match="no channel left inside"):
        realise_mixed(model, MixedMasks(whole, masks.branch, inner))
