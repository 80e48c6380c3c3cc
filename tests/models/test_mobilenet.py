"""MobileNetV2."""

from typing import Any

import pytest
import torch

from mipprune.errors import InputError
from mipprune.models import build_model
from mipprune.models._mobilenet import MobileNetV2


def test_parameter_total_is_the_published_one() -> None:
    model = build_model("mobilenetv2_imagenet", num_classes=1000, image_size=224)
    assert sum(p.numel() for p in model.parameters()) == 3_504_872


def test_small_images_keep_their_resolution_longer() -> None:
    model: Any = build_model("mobilenetv2").eval()
    maps = model.blocks(model.stem(torch.zeros(1, 3, 32, 32)))
    assert maps.shape == (1, 320, 4, 4)


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 1.4])
def test_widths_are_multiples_of_eight(width: float) -> None:
    model = MobileNetV2(width=width)
    widths = {m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(w % 8 == 0 for w in widths)


def test_depthwise_convolutions_have_one_filter_per_channel() -> None:
    model = build_model("mobilenetv2")
    depthwise = [
        m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    assert len(depthwise) == 18  # stem and 17 blocks
    assert all(m.groups == m.in_channels == m.out_channels for m in depthwise[1:])


def test_dropout_acts_in_training_only() -> None:
    model = build_model("mobilenetv2", dropout=0.5, width=0.25)
    x = torch.ones(2, 3, 32, 32)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(model(x), model(x))


def test_unknown_stem_is_refused() -> None:
    with pytest.raises(InputError, match="stem"):
        MobileNetV2(stem="big")
