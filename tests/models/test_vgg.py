"""VGG-16 with one linear layer."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mipprune.errors import InputError
from mipprune.models import build_model


def test_parameter_total_is_the_published_one() -> None:
    assert sum(p.numel() for p in build_model("vgg16").parameters()) == 14_728_266


def test_slim_network_with_a_strided_stem_stays_below_nine_million_macs() -> None:
    model = build_model("vgg16_slim", in_channels=1, image_size=28, stem_stride=2).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    assert 8e6 < counter.get_total_flops() / 2 <= 9e6


@pytest.mark.parametrize("size", [8, 28, 32, 33, (16, 64)])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_every_image_size_has_an_output(size: Any, stem_stride: int) -> None:
    model = build_model("vgg16", image_size=size, width=1 / 16, stem_stride=stem_stride).eval()
    height, width = (size, size) if isinstance(size, int) else size
    assert model(torch.zeros(2, 3, height, width)).shape == (2, 10)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_wrong_widths_are_refused(width: float) -> None:
    with pytest.raises(InputError, match="positive factor"):
        build_model("vgg16", width=width)
