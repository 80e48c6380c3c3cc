"""What the papers of BAR and tapering claim, on the digits and a small network.

- BAR lands on its budget and keeps accuracy where network slimming, cut to the
  same MACs, loses it; equal epochs, fine-tuning and dense start for both.
- Tapering: one run, the training loss against its limit, and a network at every
  level, each fine-tuned alike.

    python benchmarks/methods_signatures_bar_tapering.py --out benchmarks/results
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.graph import Budgets, ChannelGroups, channel_groups, remove
from mipprune.models import Dataset, load_data
from mipprune.training import BAR, Method, Slimming, Tapering, TrainConfig, evaluate, train

KEPT = (0.5, 0.25, 0.125, 0.0625)
BATCH = 128


class SmallNet(nn.Module):
    """Four convolutions, 16-32-64-64 channels on 4 x 4 and 2 x 2 maps."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 1)):
            conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 8, 8) -> logits (n, 10)."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Study:
    """Dense network, data and the settings that all runs share."""

    def __init__(self, seed: int, epochs: int, tune: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.epochs, self.tune = seed, epochs, tune
        data = load_data("digits")
        if not isinstance(data, Dataset):
            raise TypeError("the digits are a data set in memory")
        self.data, self.dense = data, SmallNet()
        self.groups: ChannelGroups = channel_groups(self.dense, (torch.zeros(1, 1, 8, 8),))
        train(self.dense, data, self.config(15, 0.1), progress=False)

    def config(self, epochs: int, lr: float) -> TrainConfig:
        """Settings of a phase."""
        return TrainConfig(
            epochs=epochs, lr=lr, batch_size=BATCH, warmup_epochs=1.0, label_smoothing=0.1,
            clip_norm=5.0, evaluate_every=0, seed=self.seed,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Optimizer steps of a method's phase."""
        return self.epochs * -(-len(self.data.train) // BATCH)

    def run(self, method: Method) -> tuple[nn.Module, tuple[Any, ...]]:
        """Train with ``method`` from the dense weights."""
        network = method.prepare(copy.deepcopy(self.dense), self.groups)
        settings = self.config(self.epochs, 0.1)
        return network, train(network, self.data, settings, method=method, progress=False).history

    def cut(self, method: Method, network: nn.Module, kept: float | None) -> dict[str, float]:
        """MACs and test accuracy of the network cut to ``kept`` (or by the method's own rule)."""
        masks = method.choose(None if kept is None else Budgets(macs=f"{100 * kept}%"))
        done = method.finish(copy.deepcopy(network), masks)
        small = remove(done, self.groups, masks)
        before = self.accuracy(small)
        train(small, self.data, self.config(self.tune, 0.02), progress=False)
        macs = self.groups.macs(self.groups.kept(masks)) / self.groups.macs()
        return {"macs": macs, "cut": before, "tuned": self.accuracy(small)}

    def accuracy(self, network: nn.Module) -> float:
        """On the test split, 0 to 1."""
        return evaluate(network, self.data, "test").accuracy or 0.0


def measure(study: Study) -> dict[str, Any]:
    """All runs of one seed."""
    bar = {}
    for kept in KEPT:
        budget = Budgets(macs=f"{100 * kept}%")
        method: Method = BAR(
            reference=study.dense, budget=budget, total_steps=study.steps, seed=study.seed
        )
        network, _ = study.run(method)
        bar[kept] = study.cut(method, network, None)
    method = Slimming(strength=1e-3)
    network, _ = study.run(method)
    slimming = {kept: study.cut(method, network, kept) for kept in KEPT}
    tapering = Tapering(total_steps=study.steps, levels=KEPT, allowance=0.1)
    network, history = study.run(tapering)
    names = ("taper_cost", "taper_soft_cost", "taper_loss", "taper_loss_limit", "taper_rate")
    return {
        "dense": study.accuracy(study.dense),
        "bar": bar,
        "slimming": slimming,
        "tapering": {kept: study.cut(tapering, network, kept) for kept in KEPT},
        "tapering_levels": {level.level: level.cost for level in tapering.levels},
        "tapering_run": [{name: record[name] for name in names} for record in history],
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Accuracy against MACs of the three, and the tapering run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    runs = list(found["seeds"].values())
    for name, marker in (("bar", "o"), ("tapering", "s"), ("slimming", "^")):
        macs = [sum(run[name][kept]["macs"] for run in runs) / len(runs) for kept in KEPT]
        mean = [sum(run[name][kept]["tuned"] for run in runs) / len(runs) for kept in KEPT]
        left.plot(macs, mean, marker=marker, label=name)
    left.axhline(sum(run["dense"] for run in runs) / len(runs), color="gray", ls=":", label="dense")
    left.set(xscale="log", xlabel="share of MACs", ylabel="test accuracy")
    left.legend()
    record = runs[0]["tapering_run"]
    right.plot([r["taper_loss"] for r in record[1:]], label="loss (average)")
    right.plot([r["taper_loss_limit"] for r in record[1:]], ls="--", label="its limit")
    right.plot([r["taper_cost"] for r in record[1:]], label="MACs, counted")
    right.plot([r["taper_soft_cost"] for r in record[1:]], label="MACs, soft")
    right.set(xlabel="epoch", title="tapering, one run")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Run, print, and write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--tune", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    seeds = {}
    for seed in range(options.seeds):
        seeds[seed] = measure(Study(seed, options.epochs, options.tune))
        for name in ("bar", "tapering", "slimming"):
            print(seed, name, {k: round(v["tuned"], 4) for k, v in seeds[seed][name].items()})
    found = {"epochs": options.epochs, "tune": options.tune, "seeds": seeds}
    if options.out is not None:
        name = "methods_signatures_bar_tapering"
        write_json(options.out / f"{name}.json", {**found, "provenance": provenance(0)})
        draw(found, options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
