"""torch-pruning's group-norm pruner as an outside peer, on the networks of compare_digits.toml.

The same dense networks, the same budgets in MACs as this library counts them,
the same fine-tuning. Run it after that comparison, in an environment of its own
in which torch, this package and torch-pruning can be imported; torch-pruning is
not a dependency:

    mipprune compare benchmarks/compare_digits.toml --out runs/compare_digits
    python -m venv peer && peer/bin/pip install . torch-pruning
    peer/bin/python benchmarks/methods_torch_pruning.py --runs runs/compare_digits

Two entries: ``group-norm`` cuts the network that the one-shot baselines start
from (8 epochs); ``group-norm-sparse`` takes the one of BAR and tapering (4
epochs), trains it 4 more with the pruner's own group-sparsity regularisation,
and cuts that. Channels go in steps of the pruner's global ranking until the
budget holds.
"""

import argparse
import copy
import statistics
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mipprune._support.files import write_json, write_text
from mipprune._support.provenance import provenance
from mipprune.graph import ChannelGroups, count_macs
from mipprune.models import Dataset, build_model, load_data
from mipprune.training import Method, TrainConfig, evaluate, train
from mipprune.training.baselines import Dense
from mipprune.training.checkpoint import CHECKPOINT_NAME, load_checkpoint

RESULTS = Path(__file__).resolve().parent / "results"
STEPS = 400
INPUTS = torch.zeros(1, 1, 8, 8)


class Sparse(Dense):
    """Plain training with the pruner's regularisation added to the gradients."""

    def __init__(self, pruner: Any, model: nn.Module) -> None:
        super().__init__()
        self.pruner = pruner
        self.bind(model)
        self.model = model

    def after_backward(self) -> None:
        """Add the gradient of the group norms."""
        self.pruner.regularize(self.model)

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        """Nothing to prepare: the network was given at the start."""
        return model

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The pruner rescales its regularisation by the norms of the moment."""
        self.pruner.update_regularizer()
        return {}


def config(seed: int, epochs: int, lr: float) -> TrainConfig:
    """Settings of a phase, those of the comparison."""
    return TrainConfig(
        epochs=epochs, lr=lr, batch_size=64, warmup_epochs=1.0, label_smoothing=0.1, seed=seed
    )


def dense(runs: Path, seed: int, which: str) -> nn.Module:
    """A dense network of the comparison."""
    network = build_model("resnet20", in_channels=1, image_size=8, base_width=8)
    content = load_checkpoint(runs / f"seed-{seed}" / which / CHECKPOINT_NAME)
    network.load_state_dict(content["model"])
    return network


def new_pruner(network: nn.Module, reg: float) -> Any:
    """Group-norm pruner with a global ranking and many small steps."""
    tp: Any = import_module("torch_pruning")
    return tp.pruner.GroupNormPruner(
        network,
        INPUTS,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.999,
        iterative_steps=STEPS,
        reg=reg,
        ignored_layers=[module for module in network.modules() if isinstance(module, nn.Linear)],
    )


@torch.no_grad()
def quick_macs(network: nn.Module) -> int:
    """What ``count_macs`` says of this network, from one forward pass instead of a trace."""
    total = 0

    def add(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += weight.numel() * (output.shape[2:].numel() if output.ndim == 4 else 1)

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    mode = network.training
    network.eval()(INPUTS)
    network.train(mode)
    for hook in hooks:
        hook.remove()
    return total


def cut(pruner: Any, limit: float) -> bool:
    """Prune until the network has at most ``limit`` MACs; False where it can not."""
    network = pruner.model
    for _ in range(STEPS):
        for group in pruner.step(interactive=True):
            if quick_macs(network) <= limit:
                return True
            group.prune()
    return quick_macs(network) <= limit


def accuracy(network: nn.Module, data: Dataset, split: str = "test") -> float:
    """In %."""
    return 100 * (evaluate(network, data, split).accuracy or 0.0)


def measure(runs: Path, data: Dataset, seed: int, options: argparse.Namespace) -> list[Any]:
    """All rows of one seed."""
    rows = []
    for name in ("group-norm", "group-norm-sparse"):
        network = dense(runs, seed, "start" if name == "group-norm" else "half")
        if name == "group-norm-sparse":
            method: Method = Sparse(new_pruner(network, options.reg), network)
            train(network, data, config(seed, 4, 0.1), method=method, progress=False)
        whole = count_macs(network, INPUTS)
        for budget in options.budgets:
            pruner = new_pruner(copy.deepcopy(network), options.reg)
            reached = cut(pruner, budget / 100 * whole)
            small = pruner.model
            before = accuracy(small, data)
            train(small, data, config(seed, 4, 0.02), progress=False)
            row = {
                "method": name,
                "seed": seed,
                "budget": budget,
                "reached": reached,
                "macs": count_macs(small, INPUTS) / whole,
                "dense": accuracy(network, data),
                "cut": before,
                "tuned": accuracy(small, data),
                "validation": accuracy(small, data, "validation"),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def table(rows: list[Any], budgets: list[float]) -> str:
    """Markdown, as that of the comparison."""
    lines = ["| method | " + " | ".join(f"{b:g}% MACs" for b in budgets) + " |"]
    lines.append("| :-- |" + " --: |" * len(budgets))
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for budget in budgets:
            own = [r for r in rows if (r["method"], r["budget"]) == (name, budget)]
            if not all(row["reached"] for row in own):
                cells.append(f"not reached ({100 * own[0]['macs']:.1f} %)")
                continue
            values = [row["tuned"] for row in own]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--budgets", type=float, nargs="+", default=[50, 25, 10])
    parser.add_argument("--reg", type=float, default=1e-4, help="of the sparse training")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("digits")
    if not isinstance(data, Dataset):
        raise TypeError("the digits are a data set in memory")
    rows: list[Any] = []
    for seed in options.seeds:
        rows += measure(options.runs, data, seed, options)
        write(rows, options.out, options.reg)
    print(table(rows, options.budgets))


def write(rows: list[Any], out: Path, reg: float) -> None:
    """JSON and a table of what is done so far."""
    peer = version("torch-pruning")
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    head = (
        f"# torch-pruning {peer}, group-norm pruner, on the networks of compare_digits\n\n"
        "Test accuracy in %, mean and deviation over the seeds (of which there are "
        f"{len({row['seed'] for row in rows})}); budgets in MACs of this library's counter; "
        f"regularisation {reg:g} (the pruner's default is 1e-4).\n\n"
    )
    write_text(out / "compare_digits_torch_pruning.md", head + table(rows, budgets) + "\n")
    content = {"torch_pruning": peer, "reg": reg, "rows": rows, "provenance": provenance(0)}
    write_json(out / "compare_digits_torch_pruning.json", content)


if __name__ == "__main__":
    main()
