"""Latency as costs of the width program: measured per layer, saved, reused.

Every convolution and linear layer is timed alone at a grid of widths. To its
times a non-negative least-squares fit of

    t(n_in, n_out) = c0 + c1 n_in + c2 n_out + c3 n_in n_out      [ms]

is made, which are cost terms of the kind the program takes.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from mipprune._support.checks import require_integer
from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.errors import DataFileError, InputError
from mipprune.graph import ChannelGroups, CostTerm, require_network
from mipprune.models import run_model

__all__ = ["LatencyTable", "measure_layer_latency"]

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured times of the layers of one network on one device.

    Attributes
    ----------
    batch_size, threads : int
    device : str
    times : mapping
        Layer -> list of (n_in, n_out, milliseconds per batch).
    provenance : mapping
    """

    batch_size: int
    threads: int
    device: str
    times: Mapping[str, Sequence[tuple[int, int, float]]]
    provenance: Mapping[str, Any]

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        content = {
            "batch_size": self.batch_size,
            "threads": self.threads,
            "device": self.device,
            "times": {name: [list(row) for row in rows] for name, rows in self.times.items()},
            "provenance": dict(self.provenance),
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table.

        Raises
        ------
        DataFileError
            Missing or damaged file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            times = {
                str(name): [(int(a), int(b), float(t)) for a, b, t in rows]
                for name, rows in content["times"].items()
            }
            return cls(
                int(content["batch_size"]),
                int(content["threads"]),
                str(content["device"]),
                times,
                content["provenance"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFileError(f"{path} is not a latency table: {error!r}") from error

    def terms(self, groups: ChannelGroups) -> tuple[CostTerm, ...]:
        """Cost terms in milliseconds per batch, four per layer.

        Raises
        ------
        InputError
            The table misses a layer whose width can change.
        """
        axes: dict[str, dict[int, np.ndarray]] = {}
        for axis in groups.axes:
            name, _, parameter = axis.tensor.rpartition(".")
            if parameter == "weight" and axis.role in ("produce", "consume"):
                axes.setdefault(name, {})[axis.dim] = axis.owner
        missing = sorted(name for name in axes if name not in self.times)
        if missing:
            raise InputError(
                f"the latency table misses {', '.join(missing)}; measure it on this network"
            )
        terms: list[CostTerm] = []
        for name, rows in self.times.items():
            c0, c1, c2, c3 = _fit(rows)
            n_in, n_out = max(row[0] for row in rows), max(row[1] for row in rows)
            own = axes.get(name, {})
            # Frozen axes are written out: all their positions stay.
            reads = own.get(1, np.full(n_in, -1, dtype=np.int64))
            gives = own.get(0, np.full(n_out, -1, dtype=np.int64))
            terms += [
                CostTerm(name, c0),
                CostTerm(name, c1, (reads,)),
                CostTerm(name, c2, (gives,)),
                CostTerm(name, c3, (gives, reads)),
            ]
        return tuple(terms)


def _fit(rows: Sequence[tuple[int, int, float]]) -> tuple[float, float, float, float]:
    """Non-negative least squares of relative errors."""
    design = np.array([[1.0, a, b, float(a) * b] for a, b, _ in rows])
    times = np.array([t for _, _, t in rows])
    solution, _ = nnls(design / times[:, None], np.ones(len(rows)))
    c0, c1, c2, c3 = (float(x) for x in solution)
    return c0, c1, c2, c3


def measure_layer_latency(
    model: nn.Module, batch: Any, *, repeats: int = 20, seed: int = 0
) -> LatencyTable:
    """Time every plain convolution and linear layer of ``model`` at a grid of widths.

    Parameters
    ----------
    model : nn.Module
        In eval mode for the measurement; left as it was.
    batch
        What the model takes; its size is the one timed.
    repeats : int
        Runs per point, of which the median counts.

    Notes
    -----
    Grouped and depthwise layers are left out: their width is not free on both
    sides. Layers are timed alone, so norms and activations are not in the sum.
    """
    require_network(model)
    require_integer("repeats", repeats, at_least=1)
    seed = require_integer("seed", seed, at_least=0)
    shapes: dict[str, torch.Size] = {}
    handles = [
        layer.register_forward_pre_hook(_recorder(shapes, name))
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS) and getattr(layer, "groups", 1) == 1
    ]
    training = model.training
    try:
        with torch.no_grad():
            run_model(model.eval(), batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    times = {}
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
        times[name] = _grid(layer, shape, repeats, device, generator)
    size = next(iter(shapes.values()))[0]
    return LatencyTable(size, torch.get_num_threads(), str(device), times, provenance(seed))


def _recorder(shapes: dict[str, torch.Size], name: str) -> Any:
    def record(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        shapes.setdefault(name, args[0].shape)

    return record


def _grid(
    layer: nn.Module,
    shape: torch.Size,
    repeats: int,
    device: torch.device,
    generator: torch.Generator,
) -> list[tuple[int, int, float]]:
    out_full, in_full = (int(n) for n in layer.get_parameter("weight").shape[:2])
    widths_in = sorted({max(1, round(f * in_full)) for f in FRACTIONS})
    widths_out = sorted({max(1, round(f * out_full)) for f in FRACTIONS})
    return [
        (a, b, _time(_resized(layer, a, b), shape, a, repeats, device, generator))
        for a in widths_in
        for b in widths_out
    ]


def _resized(layer: nn.Module, n_in: int, n_out: int) -> nn.Module:
    """A layer of the same kind with other widths (its weights do not matter)."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(n_in, n_out, bias=layer.bias is not None)
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise InputError(f"cannot time a {type(layer).__name__}")
    settings: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "bias": layer.bias is not None,
    }
    return type(layer)(n_in, n_out, **settings)


def _time(
    layer: nn.Module,
    shape: torch.Size,
    n_in: int,
    repeats: int,
    device: torch.device,
    generator: torch.Generator,
) -> float:
    """Median milliseconds of one call."""
    sizes = list(shape)
    sizes[-1 if isinstance(layer, nn.Linear) else 1] = n_in
    x = torch.randn(sizes, generator=generator).to(device)
    layer = layer.to(device).eval()
    times = []
    with torch.no_grad():
        for index in range(repeats + 2):
            began = time.perf_counter()
            layer(x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index >= 2:  # the first two warm up
                times.append(1e3 * (time.perf_counter() - began))
    return max(statistics.median(times), 1e-6)
