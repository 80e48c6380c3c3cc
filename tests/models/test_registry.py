"""All networks by name: shapes, gradients, export, determinism."""

from typing import Any

import pytest
import torch

from mipprune.errors import InputError
from mipprune.models import build_model, model_names

LARGE = {
    "resnet50",
    "resnet18_imagenet",
    "resnet50_imagenet",
    "mobilenetv2_imagenet",
    "efficientnet_lite0",
    "resnet110",
    "resnet110b",
    "wrn28x10",
}
SIZES = {"resnet18_imagenet": 64, "resnet50_imagenet": 64, "mobilenetv2_imagenet": 64}
SIZES["efficientnet_lite0"] = 64


def small_input(name: str, n: int = 2) -> torch.Tensor:
    size = SIZES.get(name, 16)
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def build_small(name: str, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_model(name, num_classes=7, image_size=SIZES.get(name, 16), generator=generator)


@pytest.mark.parametrize("name", model_names())
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    model = build_small(name)
    out = model(small_input(name))
    assert out.shape == (2, 7)
    out.logsumexp(dim=1).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", sorted(set(model_names()) - LARGE))
def test_export_reproduces_the_network(name: str) -> None:
    model = build_small(name).eval()
    x = small_input(name)
    exported = torch.export.export(model, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(model_names()) - LARGE))
def test_weights_come_from_the_generator_alone(name: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = build_small(name), build_small(name), build_small(name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_default_generator_has_seed_zero() -> None:
    default = build_model("resnet20")
    explicit = build_model("resnet20", generator=torch.Generator().manual_seed(0))
    pairs = zip(default.parameters(), explicit.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown network 'resnet21'.*resnet20, .*module:factory"):
        build_model("resnet21")


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no option widht; it has: .*base_width"):
        build_model("resnet20", widht=3)


@pytest.mark.parametrize(
    "options",
    [{"in_channels": 0}, {"num_classes": -1}, {"image_size": 0}, {"image_size": (1, 2, 3)}],
)
def test_wrong_sizes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"in_channels|num_classes|image"):
        build_model("mlp", **options)


def test_other_wide_networks_can_be_named() -> None:
    model: Any = build_model("wrn10x2")
    assert model.layer3[0].conv1.out_channels == 128
