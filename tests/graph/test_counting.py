"""Counted against predicted sizes, and against torch's own counter."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mipprune.graph import channel_groups, count_macs, count_parameters, random_masks, remove
from mipprune.models import build_model


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet20", (2, 3, 16, 16)),
        ("mobilenetv2", (1, 3, 32, 32)),
        ("vgg16", (1, 3, 32, 32)),
        ("lenet5", (2, 3, 28, 28)),
    ],
)
def test_macs_agree_with_torch_and_with_the_prediction(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, in_channels=3, image_size=shape[-1], num_classes=7).eval()
    example = torch.randn(shape)
    groups = channel_groups(model, example, rehearsal=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    flops = counter.get_total_flops()
    assert groups.macs() * shape[0] * 2 == pytest.approx(flops, rel=0.01)
    assert count_macs(model, example) == groups.macs()
    assert count_parameters(model) == groups.parameters()
    masks = random_masks(groups, np.random.default_rng(0))
    smaller = remove(model, groups, masks)
    kept = groups.kept(masks)
    assert count_macs(smaller, example) == groups.macs(kept)
    assert count_parameters(smaller) == groups.parameters(kept)


def test_macs_by_hand() -> None:
    # 5 * (3 * 9) * 36 + 5 * 36 * 2 multiply-accumulates for one image.
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 2))
    assert count_macs(model, torch.randn(4, 3, 8, 8)) == 4860 + 360


def test_cost_terms_are_bilinear_in_producer_and_consumer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.Conv2d(4, 2, 1))
    groups = channel_groups(model, torch.randn(1, 3, 4, 4))
    terms: dict[str, Any] = {t.name: t for t in groups.mac_terms}
    assert {name: len(t.axes) for name, t in terms.items()} == {"0": 1, "2": 2, "3": 1}
    assert terms["2"].coefficient == 4.0
    kept = np.ones(9, dtype=bool)
    kept[[0, 1, 8]] = False
    assert terms["2"].value(kept) == 4 * 3 * 3
