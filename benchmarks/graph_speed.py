"""Time to find channel groups and to remove channels: ResNet-50, a 12-block ViT, deep chains.

    python benchmarks/graph_speed.py [--out FILE]

Times are CPU seconds of one thread (other work on the machine does not count);
wall-clock stands beside them. Finding is split into the exporter's trace, our
labels, and the rehearsal (two forward passes in float32). Removal is split
into surgery and the float64 comparison, which is six forward passes.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.graph import channel_groups, random_masks, remove
from mipprune.models import build_model


class Attention(nn.Module):
    """Fused projections, heads, scaled_dot_product_attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) -> the same shape."""
        n, t, _ = x.shape
        y = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = y.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        out: Tensor = self.proj(y)
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + torch.as_tensor(self.down(F.gelu(self.up(self.norm2(x)))))


class VisionTransformer(nn.Module):
    """ViT-S/16: 12 blocks, width 384, 6 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 384, 16, stride=16)
        self.position = nn.Parameter(torch.randn(1, 196, 384))
        self.blocks = nn.Sequential(*(Block(384, 6) for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(384), nn.Linear(384, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) -> logits."""
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        out: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return out


def chain(layers: int) -> nn.Module:
    """Linear layers of width 16 with ReLU between them."""
    body: list[nn.Module] = [nn.Linear(8, 16)]
    for _ in range(layers - 2):
        body += [nn.ReLU(), nn.Linear(16, 16)]
    return nn.Sequential(*body, nn.ReLU(), nn.Linear(16, 4))


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Result, CPU and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {
        "cpu_s": round(time.process_time() - cpu, 3),
        "wall_s": round(time.perf_counter() - wall, 3),
    }


def measure(name: str, model: nn.Module, example: Tensor) -> dict[str, Any]:
    """All timings of one network."""
    _, found = timed(lambda: channel_groups(model, example, rehearsal=False))
    groups, rehearsed = timed(lambda: channel_groups(model, example))
    masks = random_masks(groups, np.random.default_rng(0))
    _, surgery = timed(lambda: remove(model, groups, masks, verify=False))
    _, removal = timed(lambda: remove(model, groups, masks))
    return {
        "network": name,
        "families": len(groups),
        "classes": groups.n_classes,
        "find": found,
        "find_with_rehearsal": rehearsed,
        "surgery": surgery,
        "remove_with_comparison": removal,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graph_speed.json"))
    parser.add_argument("--only", default="", help="measure networks whose name contains this")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    channel_groups(chain(3), torch.randn(1, 8))  # imports of the exporter
    cases: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
        "resnet50-224": lambda: (
            build_model(
                "resnet50", in_channels=3, image_size=224, num_classes=1000, stem="imagenet"
            ),
            torch.randn(1, 3, 224, 224),
        ),
        "vit-s-16-12-blocks": lambda: (VisionTransformer(), torch.randn(1, 3, 224, 224)),
        **{
            f"chain-{n}": lambda n=n: (chain(n), torch.randn(1, 8))  # type: ignore[misc]  # n bound now
            for n in (125, 250, 500, 1000)
        },
    }
    rows = []
    for name, build in cases.items():
        if arguments.only in name:
            rows.append(measure(name, *build()))
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": "python benchmarks/graph_speed.py",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": 1,
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
