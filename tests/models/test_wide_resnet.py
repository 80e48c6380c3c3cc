"""Wide residual networks."""

import pytest
import torch

from mipprune.errors import InputError
from mipprune.models import build_model
from mipprune.models._wide_resnet import WideBlock, WideResNet


def test_wrn_28_10_has_the_published_size() -> None:
    # 36.5 M in Table 4 of the paper; 36,479,194 counted from the authors' layout.
    assert sum(p.numel() for p in build_model("wrn28x10").parameters()) == 36_479_194


def test_parameters_follow_the_closed_formula() -> None:
    n, widths = 2, (64, 128, 256)
    total, channels = 3 * 9 * 16, 16
    for width in widths:
        total += channels * width  # projection
        total += 2 * channels + 9 * channels * width + 2 * width + 9 * width * width
        total += (n - 1) * (2 * width + 9 * width * width) * 2
        channels = width
    total += 2 * channels + 10 * channels + 10
    assert sum(p.numel() for p in WideResNet(16, 4).parameters()) == total


def test_identity_block_adds_the_raw_input() -> None:
    block = WideBlock(8, 8, 1).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.linspace(-1, 1, 8 * 16).view(1, 8, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("depth", "widen"), [(17, 1), (16, 0)])
def test_wrong_sizes_are_refused(depth: int, widen: int) -> None:
    with pytest.raises(InputError, match=r"depth|widen"):
        WideResNet(depth, widen)
