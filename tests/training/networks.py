"""A tiny network with hand-written channel groups, and data that it can learn."""

import numpy as np
import torch
from torch import Tensor, nn

from mipprune.graph.groups import Axis, ChannelGroups, CostTerm, Family
from mipprune.models import Dataset, make_dataset


class TinyNet(nn.Module):
    """conv 1-4, norm, conv 4-6, norm, mean, linear 6-3."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(4)
            self.conv2 = nn.Conv2d(4, 6, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(6)
            self.fc = nn.Linear(6, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        found: Tensor = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return found


def tiny_groups() -> ChannelGroups:
    """Channel groups of :class:`TinyNet` on 8 x 8 images."""
    first = np.arange(4)
    second = np.arange(4, 10)
    axes = [
        Axis("conv1.weight", 0, first, "produce"),
        Axis("conv1.bias", 0, first, "produce"),
        *(Axis(f"bn1.{n}", 0, first, "carry") for n in ("weight", "bias")),
        *(Axis(f"bn1.running_{n}", 0, first, "carry") for n in ("mean", "var")),
        Axis("conv2.weight", 1, first, "consume"),
        Axis("conv2.weight", 0, second, "produce"),
        *(Axis(f"bn2.{n}", 0, second, "carry") for n in ("weight", "bias")),
        *(Axis(f"bn2.running_{n}", 0, second, "carry") for n in ("mean", "var")),
        Axis("fc.weight", 1, second, "consume"),
    ]
    parameters = [
        CostTerm("conv1.weight", 9, (first,)),
        *(CostTerm(n, 1, (first,)) for n in ("conv1.bias", "bn1.weight", "bn1.bias")),
        CostTerm("conv2.weight", 9, (second, first)),
        *(CostTerm(n, 1, (second,)) for n in ("bn2.weight", "bn2.bias")),
        CostTerm("fc.weight", 3, (second,)),
        CostTerm("fc.bias", 3),
    ]
    macs = [
        CostTerm("conv1", 9 * 64, (first,)),
        CostTerm("conv2", 9 * 64, (second, first)),
        CostTerm("fc", 3, (second,)),
    ]
    return ChannelGroups(
        families=(
            Family("conv1", 0, 4, ("conv1",), ("conv2",)),
            Family("conv2", 4, 10, ("conv2",), ("fc",)),
        ),
        axes=tuple(axes),
        parameter_terms=tuple(parameters),
        mac_terms=tuple(macs),
    )


def tiny_data(n: int = 90) -> Dataset:
    """Three classes of 8 x 8 images: noise with a bright third."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 8, 8, generator=generator) * 0.5
    for k in range(3):
        images[labels == k, :, :, 3 * k : 3 * k + 2] += 0.5
    return make_dataset(
        "stripes",
        (images[: n // 2], labels[: n // 2]),
        (images[n // 2 :], labels[n // 2 :]),
        n_classes=3,
        image_shape=(1, 8, 8),
        mean=(0.4,),
        std=(0.3,),
        validation=9,
    )
