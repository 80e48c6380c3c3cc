"""Residual networks: the CIFAR family (He et al. 2016, section 4.2) and ResNet-18/50.

The shortcut without parameters ("A") puts the narrow channels in the middle
of the wide ones and fills with zeros on both sides; both counts are plain
attributes of :class:`ZeroPadShortcut`, so that removal can change them.

References
----------
He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models._checks import positive

__all__ = ["BasicBlock", "Bottleneck", "CifarResNet", "ResNet", "ZeroPadShortcut"]


class ZeroPadShortcut(nn.Module):
    """Sub-sampling and zero channels: the shortcut without parameters ("option A").

    Attributes
    ----------
    stride : int
    pad_front, pad_back : int
        Zero channels before and behind the channels of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.pad_front = (out_channels - in_channels) // 2
        self.pad_back = out_channels - in_channels - self.pad_front

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, pad_front + c + pad_back, ceil(h/stride), ceil(w/stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.pad_front, self.pad_back))

    def extra_repr(self) -> str:
        """Shown inside ``print(model)``."""
        return f"stride={self.stride}, pad_front={self.pad_front}, pad_back={self.pad_back}"


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _shortcut(in_channels: int, out_channels: int, stride: int, kind: str) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    return _projection(in_channels, out_channels, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ``expansion`` 1."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: str = "B") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, width, h/stride, w/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: str = "B") -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, 4 width, h/stride, w/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    n_blocks: int,
    stride: int,
    shortcut: str,
) -> nn.Sequential:
    blocks = []
    for index in range(n_blocks):
        blocks.append(block(in_channels, width, stride if index == 0 else 1, shortcut))
        in_channels = width * block.expansion
    return nn.Sequential(*blocks)


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2: three stages of n basic blocks, widths w, 2w, 4w.

    Parameters
    ----------
    depth : int
        20, 32, 44, 56, 110, ... (6n + 2).
    in_channels, num_classes : int
    base_width : int
        Channels of the stem and of the first stage.
    shortcut : {"A", "B"}
        Zero padding, or 1x1 projection with norm, where the shape changes.
    stem_stride : int
        2 halves the image at once and costs about a quarter of the MACs.
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        base_width: int = 16,
        shortcut: str = "A",
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6 != 0:
            raise InputError(f"depth must be 6n + 2 (20, 32, 44, 56, 110, ...), got {depth}")
        if shortcut not in ("A", "B"):
            raise InputError(f"shortcut must be 'A' or 'B', got {shortcut!r}")
        width = positive("base_width", base_width)
        stem_stride = positive("stem_stride", stem_stride)
        n_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(BasicBlock, width, width, n_blocks, 1, shortcut)
        self.layer2 = _stage(BasicBlock, width, 2 * width, n_blocks, 2, shortcut)
        self.layer3 = _stage(BasicBlock, 2 * width, 4 * width, n_blocks, 2, shortcut)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.fc(out.mean(dim=(2, 3)))
        return logits


class ResNet(nn.Module):
    """ResNet-18 or -50 with four stages of widths w, 2w, 4w, 8w.

    Parameters
    ----------
    depth : {18, 50}
        18: two basic blocks per stage; 50: 3, 4, 6, 3 bottlenecks.
    in_channels, num_classes, base_width : int
    stem : {"cifar", "imagenet"}
        3x3 without pooling, or 7x7 of stride 2 and a 3x3 max pool of stride 2.
    stem_stride : int, optional
        Stride of the stem's convolution; default 1 (cifar) or 2 (imagenet).
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        base_width: int = 64,
        stem: str = "cifar",
        stem_stride: int | None = None,
    ) -> None:
        super().__init__()
        layouts: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]]
        layouts = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}
        if depth not in layouts:
            raise InputError(f"depth must be 18 or 50, got {depth}")
        if stem not in ("cifar", "imagenet"):
            raise InputError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        block, counts = layouts[depth]
        width = positive("base_width", base_width)
        kernel, default_stride = (3, 1) if stem == "cifar" else (7, 2)
        stride = positive("stem_stride", default_stride if stem_stride is None else stem_stride)
        self.conv1 = nn.Conv2d(
            in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.pool: nn.Module = (
            nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, stride=2, padding=1)
        )
        stages = []
        channels = width
        for index, n_blocks in enumerate(counts):
            stages.append(
                _stage(block, channels, width << index, n_blocks, 1 if index == 0 else 2, "B")
            )
            channels = (width << index) * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = self.pool(F.relu(self.bn1(self.conv1(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.fc(out.mean(dim=(2, 3)))
        return logits
