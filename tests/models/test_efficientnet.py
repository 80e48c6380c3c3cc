"""EfficientNet-lite0: sizes and TensorFlow's padding."""

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mipprune.models import build_model
from mipprune.models._efficientnet import _same_padding


def test_size_and_macs() -> None:
    model = build_model("efficientnet_lite0", num_classes=1000, image_size=224).eval()
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6) == 385


@pytest.mark.parametrize("size", [5, 6, 7, 8, 112])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_gives_ceil_of_size_over_stride_with_the_odd_pixel_behind(
    size: Any, kernel: int, stride: int
) -> None:
    left, right, top, bottom = _same_padding((size, size), kernel, stride)
    padded = size + left + right
    assert (left, right) == (top, bottom)
    assert 0 <= right - left <= 1
    assert (padded - kernel) // stride + 1 == math.ceil(size / stride)
    # No row or column of padding more than needed.
    assert left + right == 0 or (padded - 1 - kernel) // stride + 1 < math.ceil(size / stride)
