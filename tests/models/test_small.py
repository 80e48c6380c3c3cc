"""LeNets, perceptrons and the digit network."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mipprune.errors import InputError
from mipprune.models import build_model


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("lenet5", {}, 431_080),
        # Widths of the 1998 paper with full connections: 61,706 with two pixels of padding.
        ("lenet5", {"channels": (6, 16), "hidden": (120, 84), "padding": 2}, 61_706),
        ("lenet300_100", {}, 266_610),
        ("digit_cnn", {}, 390_410),
        ("mlp", {"hidden": ()}, 7_850),
    ],
)
def test_parameter_totals(name: str, options: dict[str, Any], published: int) -> None:
    model = build_model(name, in_channels=1, image_size=28, **options)
    assert sum(p.numel() for p in model.parameters()) == published


def test_perceptron_is_matrix_products_and_relu() -> None:
    model = build_model("mlp", in_channels=2, image_size=(3, 5), num_classes=4, hidden=(7, 6))
    weights = dict(model.named_parameters())
    x = torch.linspace(-1, 1, 60).view(2, 2, 3, 5)
    out = x.reshape(2, 30)
    for layer in ("hidden.0", "hidden.2"):
        out = torch.relu(out @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"])
    out = out @ weights["fc.weight"].T + weights["fc.bias"]
    torch.testing.assert_close(model(x), out)


def test_digit_network_layer_by_layer() -> None:
    model = build_model("digit_cnn", in_channels=1, image_size=28)
    w = dict(model.named_parameters())
    x = torch.linspace(0, 1, 784).view(1, 1, 28, 28)
    out = x
    for index in (0, 3, 6):
        name = f"conv_layers.{index}"
        out = F.conv2d(out, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)
        out = F.max_pool2d(torch.relu(out), 2)
    assert out.shape == (1, 128, 3, 3)
    out = torch.relu(F.linear(out.view(1, -1), w["fc_layers.0.weight"], w["fc_layers.0.bias"]))
    out = F.linear(out, w["fc_layers.2.weight"], w["fc_layers.2.bias"])
    torch.testing.assert_close(model(x), out)


@pytest.mark.parametrize("size", [8, 16, 28, 32, (8, 28)])
def test_lenet_fits_small_and_large_images(size: Any) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    model = build_model("lenet5", in_channels=1, image_size=size)
    assert model(torch.zeros(3, 1, height, width)).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("lenet5", {"image_size": 3}, "too small"),
        ("lenet5", {"padding": 3}, "padding"),
        ("lenet5", {"channels": (6,)}, "pair"),
        ("digit_cnn", {"image_size": 7}, "too small"),
        ("mlp", {"hidden": (0,)}, "hidden units"),
    ],
)
def test_wrong_sizes_are_refused(name: str, options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        build_model(name, in_channels=1, **options)
