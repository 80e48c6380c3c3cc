"""MobileNetV2: inverted residuals with depthwise convolutions.

References
----------
Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and
linear bottlenecks", CVPR 2018, Table 2.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models._checks import positive

__all__ = ["InvertedResidual", "MobileNetV2"]

# Expansion, channels, repeats, stride of the first repeat.
_LAYOUT = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _multiple_of_eight(channels: float) -> int:
    """Nearest multiple of 8, at least 8, never more than 10 % below ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a sum where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand: nn.Module = (
            nn.Sequential(
                nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
            )
            if expansion != 1
            else nn.Identity()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h/stride, w/stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out + x if self.adds_input else out


class MobileNetV2(nn.Module):
    """MobileNetV2 for small images (default) or ImageNet.

    Parameters
    ----------
    in_channels, num_classes : int
    width : float
        Factor of the widths, rounded to multiples of 8.
    stem : {"cifar", "imagenet"}
        "cifar": stem and second stage have stride 1, so 32x32 ends at 4x4.
    stem_stride : int, optional
        Stride of the first convolution; default 1 (cifar) or 2 (imagenet).
    dropout : float
        Before the linear layer, in [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        width: float = 1.0,
        stem: str = "cifar",
        stem_stride: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise InputError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        if not width > 0:
            raise InputError(f"width must be a positive factor, got {width!r}")
        small = stem == "cifar"
        default_stride = 1 if small else 2
        stride = positive("stem_stride", default_stride if stem_stride is None else stem_stride)
        channels = _multiple_of_eight(32 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )
        blocks = []
        for index, (expansion, base, repeats, first_stride) in enumerate(_LAYOUT):
            out_channels = _multiple_of_eight(base * width)
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 and not (small and index == 1) else 1
                blocks.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        last = _multiple_of_eight(1280 * max(1.0, width))
        self.head = nn.Sequential(
            nn.Conv2d(channels, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6()
        )
        self.dropout = dropout
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))
        out = F.dropout(out, self.dropout, self.training)
        logits: Tensor = self.fc(out)
        return logits
