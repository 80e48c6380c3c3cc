"""Kinds of convolution."""

import torch
from torch import Tensor, nn

from mipprune.graph.gallery._plain import bn, image

__all__ = ["MEMBERS"]


def depthwise() -> tuple[nn.Module, Tensor]:
    """Inverted residuals as in MobileNetV2."""

    class Inverted(nn.Module):
        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, hidden, 1), bn(hidden), nn.ReLU6(),
                nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), bn(hidden), nn.ReLU6(),
                nn.Conv2d(hidden, width, 1), bn(width),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.body(x)
            return out

    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), Inverted(6, 12), Inverted(6, 10), nn.Flatten(), nn.Linear(216, 4)
    )
    return net, image()


def depthwise_multiplier() -> tuple[nn.Module, Tensor]:
    """Two outputs for each input channel of a depthwise convolution."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), nn.Conv2d(12, 5, 1)
    )
    return net, image()


def grouped() -> tuple[nn.Module, Tensor]:
    """Grouped convolution: equal numbers of outputs in each group."""
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), bn(12), nn.ReLU(), nn.Conv2d(12, 18, 3, groups=3), bn(18), nn.ReLU(),
        nn.Conv2d(18, 4, 1),
    )  # fmt: skip
    return net, image()


def shuffled() -> tuple[nn.Module, Tensor]:
    """Grouped 1x1 convolutions with a channel shuffle by view and transpose."""

    class Shuffle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)

    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 1, groups=3), bn(12), nn.ReLU(), Shuffle(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12), bn(12), nn.Conv2d(12, 9, 1, groups=3),
        nn.ReLU(), nn.Conv2d(9, 4, 1),
    )  # fmt: skip
    return net, image()


def shuffled_module() -> tuple[nn.Module, Tensor]:
    """nn.ChannelShuffle between two convolutions."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return net, image()


def transposed() -> tuple[nn.Module, Tensor]:
    """Transposed convolutions, plain and depthwise."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2), bn(6),
        nn.ReLU(), nn.ConvTranspose2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    return net, image()


def transposed_grouped() -> tuple[nn.Module, Tensor]:
    """Grouped transposed convolution."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2), nn.ReLU(),
        nn.Conv2d(12, 3, 1),
    )  # fmt: skip
    return net, image()


def one_dimensional() -> tuple[nn.Module, Tensor]:
    """1-d convolutions and pooling."""
    net = nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    return net, torch.randn(2, 2, 12)


def three_dimensional() -> tuple[nn.Module, Tensor]:
    """3-d convolutions and pooling."""
    net = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(6, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    return net, torch.randn(2, 1, 6, 6, 6)


def pixel_shuffle() -> tuple[nn.Module, Tensor]:
    """Sub-pixel upsampling: r*r channels make one."""
    net = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(5, 6, 3),
        nn.ReLU(), nn.PixelUnshuffle(2), nn.Conv2d(24, 3, 1),
    )  # fmt: skip
    return net, image()


def channels_last() -> tuple[nn.Module, Tensor]:
    """Weights in channels_last memory format."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), bn(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    return net.to(memory_format=torch.channels_last), image()  # type: ignore[call-overload]  # stub lacks it


MEMBERS = {
    "depthwise convolutions": {
        "depthwise": depthwise, "depthwise_multiplier": depthwise_multiplier,
    },
    "grouped and shuffled convolutions": {
        "grouped": grouped, "shuffled": shuffled, "shuffled_module": shuffled_module,
    },
    "transposed, 1-d and 3-d convolutions": {
        "transposed": transposed, "transposed_grouped": transposed_grouped,
        "one_dimensional": one_dimensional, "three_dimensional": three_dimensional,
        "channels_last": channels_last,
    },
    "pixel shuffle": {"pixel_shuffle": pixel_shuffle},
}  # fmt: skip
