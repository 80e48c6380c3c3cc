"""Concatenation, gates, U-shapes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.graph.gallery._plain import bn, image

__all__ = ["MEMBERS"]


def dense_block() -> tuple[nn.Module, Tensor]:
    """DenseNet: every layer reads all earlier ones."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3)
            self.norms = nn.ModuleList(bn(6 + 4 * i) for i in range(3))
            self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
            self.fc = nn.Linear(18, 5)

        def forward(self, x: Tensor) -> Tensor:
            features = [self.stem(x)]
            for norm, conv in zip(self.norms, self.convs, strict=True):
                features.append(conv(F.relu(norm(torch.cat(features, 1)))))
            out: Tensor = self.fc(torch.cat(features, 1).mean((2, 3)))
            return out

    return Net(), image()


def inception() -> tuple[nn.Module, Tensor]:
    """Parallel branches of different kernels, concatenated."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 5, 1)
            self.b = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1))
            self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(3, 3, 1))
            self.head = nn.Conv2d(14, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.relu(torch.cat([self.a(x), self.b(x), self.c(x)], 1)))
            return out

    return Net(), image()


def u_net() -> tuple[nn.Module, Tensor]:
    """Encoder and decoder with skip concatenations and both kinds of upsampling."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1 = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), bn(6), nn.ReLU())
            self.down2 = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), bn(8), nn.ReLU())
            self.bottom = nn.Conv2d(8, 10, 3, padding=1)
            self.up = nn.ConvTranspose2d(10, 7, 2, stride=2)
            self.mid = nn.Conv2d(15, 9, 3, padding=1)
            self.out = nn.Conv2d(15, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.down1(x)
            b = self.down2(F.max_pool2d(a, 2))
            c = F.relu(self.bottom(F.max_pool2d(b, 2)))
            d = F.relu(self.mid(torch.cat([self.up(c), b], 1)))
            d = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=False)
            out: Tensor = self.out(torch.cat([d, a], 1))
            return out

    return Net(), image()


def chunk_append() -> tuple[nn.Module, Tensor]:
    """C2f: a chunk in halves, the last part refined again and again, all concatenated."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cv1 = nn.Conv2d(3, 12, 1)
            self.m = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
            self.cv2 = nn.Conv2d(24, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = list(F.silu(self.cv1(x)).chunk(2, 1))
            for m in self.m:
                y.append(y[-1] + F.silu(m(y[-1])))
            out: Tensor = self.cv2(torch.cat(y, 1))
            return out

    return Net(), image()


def halves() -> tuple[nn.Module, Tensor]:
    """Two halves read by different layers: equal numbers must stay."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 10, 3)
            self.left, self.right = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 3, padding=1)
            self.head = nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = F.relu(self.stem(x)).chunk(2, 1)
            out: Tensor = self.head(F.relu(self.left(a) * self.right(b)))
            return out

    return Net(), image()


def unequal_split() -> tuple[nn.Module, Tensor]:
    """split_with_sizes whose sizes are attributes of the module."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 10, 3)
            self.first, self.second = 4, 6
            self.left, self.right = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)
            self.head = nn.Conv2d(5, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = F.relu(self.stem(x)).split((self.first, self.second), 1)
            out: Tensor = self.head(F.relu(self.left(a) + self.right(b)))
            return out

    return Net(), image()


def squeeze_excite() -> tuple[nn.Module, Tensor]:
    """Channel gates from pooled channels, with linear layers and view."""

    class Gate(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(width, 4), nn.Linear(4, width)

        def forward(self, x: Tensor) -> Tensor:
            n, c = x.shape[:2]
            gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
            return x * gate.view(n, c, 1, 1)

    net = nn.Sequential(nn.Conv2d(3, 8, 3), Gate(8), bn(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return net, image()


def squeeze_excite_conv() -> tuple[nn.Module, Tensor]:
    """Channel gates with 1x1 convolutions and hard sigmoid."""

    class Gate(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
            return x * F.hardsigmoid(gate)

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), Gate(8), nn.Conv2d(8, 4, 1))
    return net, image()


def glu_conv() -> tuple[nn.Module, Tensor]:
    """nn.GLU over channels, and the same by chunk."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(6, 10, 3)
            self.head = nn.Conv2d(5, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.glu(self.a(x), 1)
            value, gate = self.b(x).chunk(2, 1)
            out: Tensor = self.head(value * torch.sigmoid(gate))
            return out

    return Net(), image()


def spatial_attention() -> tuple[nn.Module, Tensor]:
    """CBAM's spatial gate reduces over channels: those are frozen, with the reason."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(2, 1, 3, padding=1)
            self.mid, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
            out: Tensor = self.head(F.relu(self.mid(x * torch.sigmoid(self.gate(pooled)))))
            return out

    return Net(), image()


def multi_output() -> tuple[nn.Module, Tensor]:
    """Nested outputs; a feature map that is handed out stays."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
            self.c, self.d = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 3, 1)

        def forward(self, x: Tensor) -> dict[str, object]:
            features = self.b(F.relu(self.a(x)))
            return {"features": features, "heads": [self.d(F.relu(self.c(features)))]}

    return Net(), image()


def multi_input() -> tuple[nn.Module, object]:
    """Several and nested inputs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.vector = nn.Conv2d(3, 6, 3), nn.Linear(5, 6)
            self.mid, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, other: dict[str, Tensor]) -> Tensor:
            joined = self.image(x).mean((2, 3)) * torch.tanh(self.vector(other["v"]))
            out: Tensor = self.head(F.relu(self.mid(joined)))
            return out

    return Net(), (image(), {"v": torch.randn(2, 5)})


MEMBERS: dict[str, dict[str, Callable[[], tuple[nn.Module, object]]]] = {
    "concatenation": {
        "dense_block": dense_block, "inception": inception, "u_net": u_net,
        "chunk_append": chunk_append, "halves": halves, "unequal_split": unequal_split,
    },
    "squeeze-excite and spatial gates": {
        "squeeze_excite": squeeze_excite, "squeeze_excite_conv": squeeze_excite_conv,
        "spatial_attention": spatial_attention,
    },
    "gated units": {"glu_conv": glu_conv},
    "several inputs and outputs": {"multi_output": multi_output, "multi_input": multi_input},
}  # fmt: skip
