"""Residual networks: published sizes, shortcuts against a second formulation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mipprune.errors import InputError
from mipprune.models import build_model
from mipprune.models._resnet import CifarResNet, ResNet, ZeroPadShortcut


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("resnet20", {}, 269_722),
        ("resnet20", {"num_classes": 100}, 275_572),
        ("resnet56", {}, 853_018),
        ("resnet18", {}, 11_173_962),
        ("resnet50", {}, 23_520_842),
        ("resnet18_imagenet", {"num_classes": 1000, "image_size": 224}, 11_689_512),
        ("resnet50_imagenet", {"num_classes": 1000, "image_size": 224}, 25_557_032),
    ],
)
def test_parameter_totals_are_the_published_ones(
    name: str, options: dict[str, Any], published: int
) -> None:
    assert n_parameters(build_model(name, **options)) == published


@pytest.mark.parametrize("depth", [20, 32, 56, 110])
def test_projection_shortcuts_add_two_small_convolutions(depth: int) -> None:
    # 1x1 convolutions 16 -> 32 and 32 -> 64 and the scale and shift of their norms.
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert n_parameters(build_model(f"resnet{depth}b")) == (
        n_parameters(build_model(f"resnet{depth}")) + extra
    )


def test_base_width_scales_every_stage() -> None:
    model = CifarResNet(20, base_width=8)
    widths = [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [8] * 7 + [16] * 6 + [32] * 6


def test_zero_padding_puts_the_channels_in_the_middle() -> None:
    x = torch.arange(1.0, 1 + 2 * 4 * 4).view(1, 2, 4, 4)
    out = ZeroPadShortcut(2, 5, stride=2)(x)
    # Three zero channels: one in front (3 // 2), two behind.
    assert out.shape == (1, 5, 2, 2)
    assert torch.equal(out[0, 1], torch.tensor([[1.0, 3.0], [9.0, 11.0]]))
    assert torch.equal(out[0, 2], torch.tensor([[17.0, 19.0], [25.0, 27.0]]))
    assert not out[0, [0, 3, 4]].any()


@pytest.mark.parametrize("size", [7, 8])
def test_zero_padding_equals_a_projection_by_a_selection_matrix(size: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 16, size, size, generator=generator)
    selection = torch.zeros(32, 16, 1, 1)
    selection[torch.arange(8, 24), torch.arange(16)] = 1.0
    assert torch.equal(ZeroPadShortcut(16, 32, 2)(x), F.conv2d(x, selection, stride=2))


def test_stem_with_stride_two_needs_eight_and_a_half_million_macs() -> None:
    model = build_model("resnet20", in_channels=1, image_size=28, stem_stride=2).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    # By hand: stem 14^2*9*16; stages 6*14^2*9*16^2, (1+2*5)*7^2*9*16*32, same at 4^2; linear 640.
    stem = 14**2 * 9 * 16
    stages = 6 * 14**2 * 9 * 256 + 11 * 7**2 * 9 * 512 + 11 * 4**2 * 9 * 2048
    assert counter.get_total_flops() == 2 * (stem + stages + 640)


def test_a_block_is_the_sum_of_both_branches() -> None:
    model: Any = build_model("resnet20").eval()
    block = model.layer2[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 8, 8, generator=generator)
    inner = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    inner = block.bn2(F.conv2d(inner, block.conv2.weight, padding=1))
    padded = torch.zeros(2, 32, 4, 4)
    padded[:, 8:24] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), torch.relu(inner + padded))


@pytest.mark.parametrize(
    ("build", "fragment"),
    [
        (lambda: CifarResNet(21), "6n"),
        (lambda: CifarResNet(20, shortcut="C"), "'A' or 'B'"),
        (lambda: CifarResNet(20, base_width=0), "base_width"),
        (lambda: ResNet(34), "18 or 50"),
        (lambda: ResNet(18, stem="tiny"), "'cifar' or 'imagenet'"),
    ],
)
def test_wrong_options_are_refused(build: Callable[[], object], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        build()
