"""Small networks: LeNet-5, multilayer perceptrons, the pretrained digit network.

References
----------
LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models._checks import image_pair, positive

__all__ = ["MLP", "DigitCNN", "LeNet5"]


class MLP(nn.Module):
    """Flatten, linear layers with ReLU between them.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : int or (int, int)
    hidden : sequence of int
        Units of the hidden layers; (300, 100) is LeNet-300-100.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        hidden: Sequence[int] = (256, 128),
    ) -> None:
        super().__init__()
        height, width = image_pair(image_size)
        sizes = [positive("in_channels", in_channels) * height * width]
        sizes += [positive("hidden units", units) for units in hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(sizes[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) or (n, features) -> logits (n, num_classes)."""
        logits: Tensor = self.fc(self.hidden(x.flatten(1)))
        return logits


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each with ReLU and a 2x2 max pool, then linear layers.

    The default is the variant of the pruning literature, 20-50-500-10 with
    431,080 parameters at 28x28x1; ``channels=(6, 16)``, ``hidden=(120, 84)``,
    ``padding=2`` has the widths of the paper.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : int or (int, int)
    channels : pair of int
    hidden : sequence of int
    padding : int
        Of the first convolution, 0 to 2; both convolutions get it where the
        image is smaller than 16 pixels.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        channels: Sequence[int] = (20, 50),
        hidden: Sequence[int] = (500,),
        padding: int | None = None,
    ) -> None:
        super().__init__()
        size = image_pair(image_size)
        small = min(size) < 16
        first = (2 if small else 0) if padding is None else padding
        second = 2 if small else 0
        if first not in (0, 1, 2):
            raise InputError(f"padding must be 0, 1 or 2, got {padding!r}")
        if len(channels) != 2:
            raise InputError(f"channels must be a pair, got {channels!r}")
        for pad in (first, second):
            size = ((size[0] + 2 * pad - 4) // 2, (size[1] + 2 * pad - 4) // 2)
        if min(size) < 1:
            raise InputError(
                f"images of {image_size} pixels are too small for LeNet-5, use 8 or more"
            )
        first_width, second_width = (positive("channels", c) for c in channels)
        self.conv1 = nn.Conv2d(in_channels, first_width, 5, padding=first)
        self.conv2 = nn.Conv2d(first_width, second_width, 5, padding=second)
        sizes = [second_width * size[0] * size[1]]
        sizes += [positive("hidden units", units) for units in hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(sizes[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out = F.max_pool2d(F.relu(self.conv1(x)), 2)
        out = F.max_pool2d(F.relu(self.conv2(out)), 2)
        logits: Tensor = self.fc(self.hidden(out.flatten(1)))
        return logits


class DigitCNN(nn.Module):
    """Convolutions 32-64-128 with pools, flatten, linear 1152-256-10 at 28x28x1.

    The names of its parameters are those of the published weights, which
    :func:`mipprune.models.load_digit_cnn` loads.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
    ) -> None:
        super().__init__()
        height, width = (side // 8 for side in image_pair(image_size))
        if min(height, width) < 1:
            raise InputError(f"images of {image_size} pixels are too small, use 8 or more")
        layers: list[nn.Module] = []
        channels = in_channels
        for out_channels in (32, 64, 128):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = out_channels
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(
            nn.Linear(channels * height * width, 256), nn.ReLU(), nn.Linear(256, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        logits: Tensor = self.fc_layers(self.conv_layers(x).flatten(1))
        return logits
