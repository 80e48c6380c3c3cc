"""What is relied on in torch: operator names, wrapped regions, shared storage."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.graph.example import example_of
from mipprune.graph.finder import default_rules
from mipprune.graph.tracing import trace

# Names that are rules of ours for several operators, not operators themselves.
OURS = {"pointwise"}


def names(model: nn.Module, *args: Tensor) -> list[str]:
    graph = trace(model, example_of(args, None)).graph
    return [
        node.target._schema.name.removeprefix("aten::")
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    ]


def test_every_rule_names_an_operator_of_the_installed_torch() -> None:
    unknown = [n for n in default_rules() if n not in OURS and not hasattr(torch.ops.aten, n)]
    assert unknown == []


def test_supported_torch() -> None:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    assert (2, 8) <= (major, minor) < (3, 0)


def test_composite_operators_arrive_whole() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.linear = nn.Linear(8, 3)
            self.layer_norm, self.embed = nn.LayerNorm(2), nn.Embedding(5, 2)

        def forward(self, x: Tensor, i: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
            a, b = x.chunk(2, 1)
            x = torch.cat([b, a], 1).flatten(2).permute(0, 2, 1).softmax(-1)
            y = F.scaled_dot_product_attention(x, x, x) @ x.transpose(1, 2)
            y = y.mean(1, keepdim=True) + self.layer_norm(self.embed(i)).sum()
            out: Tensor = self.linear(F.pad(y.view(1, 1, 4), (2, 2)))
            return out

    found = names(Net(), torch.randn(1, 3, 6, 6), torch.tensor([1, 2]))
    assert found == [
        "conv2d", "batch_norm", "relu", "max_pool2d", "chunk", "cat", "flatten", "permute",
        "softmax", "scaled_dot_product_attention", "transpose", "matmul", "mean", "embedding",
        "layer_norm", "sum", "add", "view", "pad", "linear",
    ]  # fmt: skip


def test_regions_and_writes_to_views_are_dissolved() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.a(x)
            y = torch.zeros_like(x)
            y[:, :2] = x[:, 2:]
            return y

    graph = trace(Net(), example_of(torch.randn(2, 4), None)).graph
    assert all(node.op != "get_attr" for node in graph.nodes)
    found = names(Net(), torch.randn(2, 4))
    assert "slice_scatter" in found
    assert not any(name.endswith("_") for name in found)


def test_shared_and_overlapping_storage() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.randn(12)
            self.a, self.b = nn.Parameter(flat[:6]), nn.Parameter(flat[6:])
            self.c = nn.Parameter(flat[4:8])
            self.again = self.a
            self.register_buffer("copy", self.a.detach())

        def forward(self, x: Tensor) -> Tensor:
            return x + self.a.sum() + self.b.sum() + self.c.sum()

    traced = trace(Net(), example_of(torch.randn(2), None))
    assert traced.aliases == {"again": "a", "copy": "a"}
    assert set(traced.overlapping) == {"a", "b", "c"}
    assert set(traced.sources.values()) >= {"a", "b", "c"}
