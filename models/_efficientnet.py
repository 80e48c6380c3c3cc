"""EfficientNet-lite0: inverted residuals without squeeze-excite, ReLU6 throughout.

Strided convolutions pad as TensorFlow does ("same": the odd pixel goes to the
end), because the published weights were trained that way.

References
----------
Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural
networks", ICML 2019, Table 1; the lite variant fixes stem and head.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.models._checks import image_pair

__all__ = ["EfficientNetLite0", "MBConv"]

# Kernel, expansion, channels, repeats, stride of the first repeat.
_LAYOUT = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
_EPS = 1e-3
_MOMENTUM = 0.01


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS, momentum=_MOMENTUM)


def _same_padding(size: tuple[int, int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) so that the output has ceil(size / stride) pixels."""
    pads = []
    for side in size:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return left, right, top, bottom


class MBConv(nn.Module):
    """1x1 expansion, depthwise, linear 1x1 projection; a sum where shapes agree."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand: nn.Module = (
            nn.Sequential(nn.Conv2d(in_channels, hidden, 1, bias=False), _norm(hidden), nn.ReLU6())
            if expansion != 1
            else nn.Identity()
        )
        self.padding = _same_padding(size, kernel, stride)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride=stride, groups=hidden, bias=False)
        self.depthwise_norm = _norm(hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.project_norm = _norm(out_channels)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, ceil(h/stride), ceil(w/stride))."""
        hidden = F.pad(self.expand(x), self.padding)
        hidden = F.relu6(self.depthwise_norm(self.depthwise(hidden)))
        out: Tensor = self.project_norm(self.project(hidden))
        return out + x if self.adds_input else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0, 4,652,008 parameters with 1000 classes.

    Stochastic depth of the original training is left out; it does not exist
    in evaluation.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : int or (int, int)
        The paddings are fixed for this size (any other even chain of sizes works too).
    dropout : float
        Before the linear layer, in [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int | tuple[int, int] = 224,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        size = image_pair(image_size)
        self.padding = _same_padding(size, 3, 2)
        self.stem = nn.Conv2d(in_channels, 32, 3, stride=2, bias=False)
        self.stem_norm = _norm(32)
        size = (-(-size[0] // 2), -(-size[1] // 2))
        blocks = []
        channels = 32
        for kernel, expansion, out_channels, repeats, first_stride in _LAYOUT:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                blocks.append(
                    MBConv(
                        channels,
                        out_channels,
                        kernel=kernel,
                        stride=stride,
                        expansion=expansion,
                        size=size,
                    )
                )
                size = (-(-size[0] // stride), -(-size[1] // stride))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels, 1280, 1, bias=False)
        self.head_norm = _norm(1280)
        self.dropout = dropout
        self.fc = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = F.relu6(self.stem_norm(self.stem(F.pad(x, self.padding))))
        out = F.relu6(self.head_norm(self.head(self.blocks(out))))
        out = F.dropout(out.mean(dim=(2, 3)), self.dropout, self.training)
        logits: Tensor = self.fc(out)
        return logits
