"""Wide residual networks with pre-activation blocks.

References
----------
Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models._checks import positive

__all__ = ["WideBlock", "WideResNet"]


class WideBlock(nn.Module):
    """norm, relu, 3x3, norm, relu, 3x3, and an identity or 1x1 shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.projects = stride != 1 or in_channels != width
        self.shortcut: nn.Module = (
            nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)
            if self.projects
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, width, h/stride, w/stride)."""
        activated = F.relu(self.bn1(x))
        # A projection reads the activated input, an identity the raw one, as in the paper's code.
        shortcut: Tensor = self.shortcut(activated if self.projects else x)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + shortcut


class WideResNet(nn.Module):
    """WRN-depth-widen: three stages of widths 16k, 32k, 64k.

    Parameters
    ----------
    depth : int
        6n + 4: 10, 16, 22, 28, 40, ...
    widen : int
        Factor k of the widths.
    in_channels, num_classes, stem_stride : int
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 != 0:
            raise InputError(f"depth must be 6n + 4 (10, 16, 22, 28, 40, ...), got {depth}")
        widen = positive("widen", widen)
        stem_stride = positive("stem_stride", stem_stride)
        n_blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stride=stem_stride, padding=1, bias=False)
        stages = []
        channels = 16
        for width, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            blocks = [WideBlock(channels, width, stride)]
            blocks += [WideBlock(width, width, 1) for _ in range(n_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        out = F.relu(self.bn(out))
        logits: Tensor = self.fc(out.mean(dim=(2, 3)))
        return logits
