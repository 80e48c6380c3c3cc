"""Networks by name."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from mipprune._support.checks import require_instance, require_text, suggestion
from mipprune.errors import InputError
from mipprune.models._checks import image_pair, positive
from mipprune.models._efficientnet import EfficientNetLite0
from mipprune.models._mobilenet import MobileNetV2
from mipprune.models._resnet import CifarResNet, ResNet
from mipprune.models._small import MLP, DigitCNN, LeNet5
from mipprune.models._vgg import VGG16
from mipprune.models._weights import build_with
from mipprune.models._wide_resnet import WideResNet

__all__ = ["build_model", "model_names"]

_WIDE = re.compile(r"wrn(\d+)x(\d+)")


def _networks() -> Mapping[str, Callable[..., nn.Module]]:
    table: dict[str, Callable[..., nn.Module]] = {}
    for depth in (20, 32, 56, 110):
        table[f"resnet{depth}"] = partial(CifarResNet, depth, shortcut="A")
        table[f"resnet{depth}b"] = partial(CifarResNet, depth, shortcut="B")
    for depth in (18, 50):
        table[f"resnet{depth}"] = partial(ResNet, depth, stem="cifar")
        table[f"resnet{depth}_imagenet"] = partial(ResNet, depth, stem="imagenet")
    for depth, widen in ((16, 4), (28, 10)):
        table[f"wrn{depth}x{widen}"] = partial(WideResNet, depth, widen)
    table["vgg16"] = VGG16
    table["vgg16_slim"] = partial(VGG16, width=0.4375)
    table["mobilenetv2"] = partial(MobileNetV2, stem="cifar")
    table["mobilenetv2_imagenet"] = partial(MobileNetV2, stem="imagenet", dropout=0.2)
    table["lenet5"] = LeNet5
    table["lenet300_100"] = partial(MLP, hidden=(300, 100))
    table["mlp"] = MLP
    table["digit_cnn"] = DigitCNN
    table["efficientnet_lite0"] = EfficientNetLite0
    return table


_NETWORKS = _networks()


def model_names() -> tuple[str, ...]:
    """Names that :func:`build_model` knows; ``wrn<depth>x<widen>`` takes other sizes too."""
    return tuple(_NETWORKS)


def build_model(
    name: str,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Module:
    """Build one of the networks of :func:`model_names`.

    Parameters
    ----------
    name : str
        A name of :func:`model_names`, or ``wrn<depth>x<widen>``.
    in_channels, num_classes : int
    image_size : int or (int, int)
        Height and width in pixels; read by networks whose layers depend on it.
    generator : torch.Generator, optional
        Source of the initial weights, on the CPU. Default: a new one with seed
        0. The global random state is neither read nor changed.
    **options
        Options of the network, for example ``base_width=8``, ``stem_stride=2``
        (ResNets), ``width=0.25`` (VGG, MobileNetV2), ``hidden=(64, 32)`` (MLP).

    Returns
    -------
    torch.nn.Module
        On the CPU, float32, in training mode; maps (n, c, h, w) to logits.

    Raises
    ------
    InputError
        Unknown name, or an option that the network does not have.

    Examples
    --------
    >>> from mipprune.models import build_model
    >>> net = build_model("resnet20", in_channels=1, image_size=8)
    >>> sum(p.numel() for p in net.parameters())
    269434
    """
    factory = _factory(require_text("name", name, "the name of a network"))
    if generator is not None:
        require_instance("generator", generator, torch.Generator)
    options |= {
        "in_channels": positive("in_channels", in_channels),
        "num_classes": positive("num_classes", num_classes),
    }
    accepted = inspect.signature(factory).parameters
    size = image_pair(image_size)
    if "image_size" in accepted:
        options["image_size"] = size
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        known = sorted(set(accepted) - {"in_channels", "num_classes", "image_size"})
        raise InputError(
            f"network '{name}' has no option {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    return build_with(lambda: factory(**options), generator)


def require_model_name(name: object) -> str:
    """``name`` if it is one of a network here, or of a factory of one's own; nothing is built."""
    text = require_text("model", name, "the name of a network, or 'package.module:factory'")
    if ":" not in text:
        _factory(text)
    return text


def _factory(name: str) -> Callable[..., nn.Module]:
    if name in _NETWORKS:
        return _NETWORKS[name]
    wide = _WIDE.fullmatch(name)
    if wide:
        return partial(WideResNet, int(wide[1]), int(wide[2]))
    raise InputError(
        f"unknown network '{name}'{suggestion(name, _NETWORKS)}; known are "
        f"{', '.join(_NETWORKS)}, wrn<depth>x<widen>, or your own as 'package.module:factory'"
    )
