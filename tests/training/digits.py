"""A small network trained on the digits, from which methods start."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipprune.graph import ChannelGroups, channel_groups
from mipprune.models import Dataset, load_data
from mipprune.training import TrainConfig, evaluate, train

BATCH = 128


class DigitsNet(nn.Module):
    """Four convolutions, 16-32-64-64 channels on 4 x 4 and 2 x 2 maps."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for before, after, stride in ((1, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 1)):
                conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
            self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(x))
        return found


@dataclass(frozen=True)
class DigitsReference:
    """The trained network, its groups and its data."""

    network: nn.Module
    groups: ChannelGroups
    data: Dataset

    def steps(self, epochs: int) -> int:
        return epochs * -(-len(self.data.train) // BATCH)

    @staticmethod
    def config(epochs: int, lr: float = 0.1) -> TrainConfig:
        return TrainConfig(
            epochs=epochs,
            lr=lr,
            batch_size=BATCH,
            warmup_epochs=1.0,
            label_smoothing=0.1,
            clip_norm=5.0,
            evaluate_every=0,
        )

    def accuracy(self, network: nn.Module) -> float:
        found = evaluate(network, self.data, "test").accuracy
        assert found is not None
        return found


def trained_reference() -> DigitsReference:
    network = DigitsNet()
    groups = channel_groups(network, (torch.zeros(1, 1, 8, 8),))
    data = load_data("digits")
    assert isinstance(data, Dataset)
    reference = DigitsReference(network, groups, data)
    train(network, reference.data, reference.config(12), progress=False)
    return reference
