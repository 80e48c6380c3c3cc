"""Chains, residual sums, norms."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MEMBERS", "bn", "image"]


def image(channels: int = 3, size: int = 8, batch: int = 2) -> Tensor:
    """Random images."""
    return torch.randn(batch, channels, size, size)


def bn(channels: int) -> nn.BatchNorm2d:
    """Batch norm with random statistics and affine terms."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 1.5)
    return norm


def _conv_bn(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), bn(outputs), nn.ReLU())


def mlp() -> tuple[nn.Module, Tensor]:
    """Linear layers only."""
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 4))
    return net, torch.randn(3, 6)


def flatten_chain() -> tuple[nn.Module, Tensor]:
    """Convolutions, flatten, linear layers: a channel owns a block of inputs."""
    net = nn.Sequential(
        _conv_bn(3, 8), nn.MaxPool2d(2), _conv_bn(8, 10), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(40, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip
    return net, image()


def global_pool_chain() -> tuple[nn.Module, Tensor]:
    """Global pooling by mean over the two spatial dimensions."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(_conv_bn(3, 8), _conv_bn(8, 6))
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(self.body(x).mean((2, 3)))
            return out

    return Net(), image()


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1)
        self.bn1 = bn(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = bn(outputs)
        self.kind = kind
        self.front = (outputs - inputs) // 2
        self.back = outputs - inputs - self.front
        if kind == "projection":
            self.down = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=self.stride), bn(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.kind == "projection":
            x = self.down(x)
        elif self.kind == "zero-pad":
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.back))
        return F.relu(out + x)


def _residual_net(*blocks: _Residual) -> nn.Module:
    width = blocks[-1].conv2.out_channels
    return nn.Sequential(
        _conv_bn(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)
    )


def residual_identity() -> tuple[nn.Module, Tensor]:
    """Identity shortcuts: one stream through all blocks."""
    return _residual_net(_Residual(8, 8, "identity"), _Residual(8, 8, "identity")), image()


def residual_projection() -> tuple[nn.Module, Tensor]:
    """A 1x1 convolution in the shortcut starts a new stream."""
    return _residual_net(_Residual(8, 12, "projection"), _Residual(12, 12, "identity")), image()


def residual_zero_pad() -> tuple[nn.Module, Tensor]:
    """Zero channels in the shortcut; their number is an attribute that follows."""
    return _residual_net(_Residual(8, 14, "zero-pad"), _Residual(14, 14, "identity")), image()


def residual_in_place() -> tuple[nn.Module, Tensor]:
    """The sum is taken in place."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.norm = bn(8)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x), inplace=True)
            out = self.norm(self.conv(x))
            out += x
            result: Tensor = self.fc(F.relu_(out).mean((2, 3)))
            return result

    return Net(), image()


def pre_activation() -> tuple[nn.Module, Tensor]:
    """Norm and activation before the convolution."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.conv1 = bn(8), nn.Conv2d(8, 10, 3, padding=1)
            self.norm2, self.conv2 = bn(10), nn.Conv2d(10, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv1(F.relu(self.norm1(x)))
            result: Tensor = x + self.conv2(F.relu(self.norm2(out)))
            return result

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Block(), Block(), bn(8), nn.ReLU(), nn.AvgPool2d(8),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    return net, image()


def norm_after_activation() -> tuple[nn.Module, Tensor]:
    """The norm stands behind the activation: a dead channel is a constant."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), bn(8), nn.Conv2d(8, 6, 3, padding=1),
        nn.Softplus(), bn(6), nn.Conv2d(6, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    return net, image()


def group_norm() -> tuple[nn.Module, Tensor]:
    """GroupNorm: whole groups go, so that no other statistic changes."""
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 6, 3),
        nn.GroupNorm(6, 6), nn.ReLU(), nn.Conv2d(6, 4, 3),
    )  # fmt: skip
    return net, image()


def layer_norm_hidden() -> tuple[nn.Module, Tensor]:
    """LayerNorm over hidden units freezes them; the units behind stay prunable."""
    net = nn.Sequential(
        nn.Linear(6, 12),
        nn.LayerNorm(12),
        nn.ReLU(),
        nn.Linear(12, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )
    return net, torch.randn(4, 6)


def instance_norm() -> tuple[nn.Module, Tensor]:
    """InstanceNorm with affine terms: statistics of one channel only."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 5, 3)
    )
    return net, image()


def prelu() -> tuple[nn.Module, Tensor]:
    """One slope for each channel."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), nn.Conv2d(6, 4, 1)
    )
    return net, image()


MEMBERS = {
    "plain chains with flatten": {
        "mlp": mlp, "flatten_chain": flatten_chain, "global_pool_chain": global_pool_chain,
    },
    "residual sums": {
        "residual_identity": residual_identity, "residual_projection": residual_projection,
        "residual_zero_pad": residual_zero_pad, "residual_in_place": residual_in_place,
    },
    "norms and activations": {
        "pre_activation": pre_activation, "norm_after_activation": norm_after_activation,
        "group_norm": group_norm, "layer_norm_hidden": layer_norm_hidden,
        "instance_norm": instance_norm, "prelu": prelu,
    },
}  # fmt: skip
