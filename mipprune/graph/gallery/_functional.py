"""Raw weights, reused modules, regions, in-place writes, what stays frozen."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from mipprune.graph.gallery._plain import bn, image

__all__ = ["MEMBERS"]

Example = tuple[nn.Module, object]


class RawWeights(nn.Module):
    """Functional calls on the module's own parameters; einsum; matmul."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 7
        self.a, self.b = nn.Parameter(torch.randn(7, 4)), nn.Parameter(torch.randn(7))
        self.c, self.d = nn.Parameter(torch.randn(7, 9)), nn.Parameter(torch.randn(6, 9))
        self.kernel = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.linear(x, self.a, self.b))
        x = torch.tanh(x @ self.c)
        x = torch.einsum("nc,dc->nd", x, self.d)
        return torch.addmm(x.new_ones(1, 3), F.relu(x), self.kernel.t())


def raw_weights() -> Example:
    """F.linear, matmul, einsum and addmm on parameters."""
    return RawWeights(), torch.randn(3, 4)


def channel_parameters() -> Example:
    """Scale, shift and a buffer for each channel; layer scale in a residual branch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
            self.scale = nn.Parameter(torch.randn(8, 1, 1))
            self.gamma = nn.Parameter(1e-6 * torch.ones(1, 8, 1, 1))
            self.offset: Tensor
            self.register_buffer("offset", torch.randn(8))
            self.head = nn.Conv2d(8, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x) * self.scale + self.offset.view(1, -1, 1, 1)
            x = x + self.gamma * self.body(F.relu(x))
            out: Tensor = self.head(F.relu(x))
            return out

    return Net(), image()


def weight_norm() -> Example:
    """Weight normalisation: outputs are prunable, its inputs enter a norm and stay."""
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip
    return net, torch.randn(3, 4)


def low_rank_update() -> Example:
    """LoRA: a weight plus a product of two narrow ones."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 6)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 6, bias=False)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x))
            out: Tensor = self.head(F.relu(self.second(x) + self.up(self.down(x))))
            return out

    return Net(), torch.randn(3, 4)


def used_twice() -> Example:
    """One module applied twice ties what it reads to what it writes."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.shared = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Conv2d(8, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            x = F.relu(self.shared(F.relu(self.shared(x))))
            out: Tensor = self.head(x)
            return out

    return Net(), image()


def no_grad_region() -> Example:
    """A region without gradients, which the exporter wraps."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.norm = nn.Conv2d(3, 8, 3), bn(8)
            self.mid, self.head = nn.Conv2d(8, 6, 3), nn.Conv2d(6, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = F.relu(self.norm(self.frozen(x)))
            out: Tensor = self.head(F.relu(self.mid(x)))
            return out

    return Net(), image()


def recurrent() -> Example:
    """LSTM and GRU are frozen; the layers around them that do not touch them are not."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.inp = nn.Linear(4, 7), nn.Linear(7, 5)
            self.lstm, self.gru = nn.LSTM(5, 6, batch_first=True), nn.GRU(6, 5, batch_first=True)
            self.after, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(F.relu(self.before(x)))
            x = self.gru(self.lstm(x)[0])[0]
            out: Tensor = self.head(F.relu(self.after(x)))
            return out

    return Net(), torch.randn(2, 5, 4)


def written_in_place() -> Example:
    """Zero channels by writing into a slice: those channels stay."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(10, 7, 3)
            self.head = nn.Conv2d(7, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            wide = torch.zeros(x.shape[0], 10, x.shape[2], x.shape[3], dtype=x.dtype)
            wide[:, 2:8] = x
            out: Tensor = self.head(F.relu(self.b(wide)))
            return out

    return Net(), image()


def picked_channels() -> Example:
    """Channels picked by constant numbers stay."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 7, 3)
            self.head = nn.Conv2d(7, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))[:, [4, 0, 2]]
            out: Tensor = self.head(F.relu(self.b(x)))
            return out

    return Net(), image()


def fixed_size() -> Example:
    """A size written into the forward pass: found when tried, and frozen."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Linear(216, 7)
            self.head = nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.relu(self.b(F.relu(self.a(x)).reshape(-1, 216))))
            return out

    return Net(), image()


def maxout() -> Example:
    """Maximum over pairs of channels: pairs go together."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 10, 3), nn.Conv2d(5, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            x = x.view(x.shape[0], -1, 2, x.shape[2], x.shape[3]).amax(2)
            out: Tensor = self.head(x)
            return out

    return Net(), image()


MEMBERS: dict[str, dict[str, Callable[[], Example]]] = {
    "raw weights, per-channel parameters and buffers": {
        "raw_weights": raw_weights, "channel_parameters": channel_parameters,
        "weight_norm": weight_norm, "low_rank_update": low_rank_update, "maxout": maxout,
    },
    "reuse and wrapped regions": {"used_twice": used_twice, "no_grad_region": no_grad_region},
    "frozen, with the reason": {
        "recurrent": recurrent, "written_in_place": written_in_place,
        "picked_channels": picked_channels, "fixed_size": fixed_size,
    },
}  # fmt: skip
