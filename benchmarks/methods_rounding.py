"""One network trained with SPR, rounded to the same MACs in seven ways, then fine-tuned alike.

What the optimiser's rounding does is taken apart: its widths with the method's
own choice of channels, its masks with the weights as trained, and its masks with
refitted weights. Seeds that the results have already are not run again.

    python benchmarks/methods_rounding.py
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mipprune._support.files import write_json, write_text
from mipprune._support.provenance import provenance
from mipprune.graph import Budgets, ChannelGroups, Masks, channel_groups, remove
from mipprune.models import Dataset, batches, build_model, load_data
from mipprune.pipeline import CompressOptions, compress
from mipprune.training import SPR, TrainConfig, classification_loss, evaluate, train
from mipprune.training.choosing import choose_by_score

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, CALIBRATION = 64, 512


class Study:
    """Networks of one seed: dense reference, and one trained with SPR."""

    def __init__(self, seed: int, strength: float) -> None:
        data = load_data("digits")
        if not isinstance(data, Dataset):
            raise TypeError("the digits are a data set in memory")
        self.seed, self.data = seed, data
        reference = self.network(seed)
        self.groups: ChannelGroups = channel_groups(reference, (torch.zeros(1, 1, 8, 8),))
        self.fit(reference, 12, 0.1)
        self.spr = SPR(strength=strength, reference=reference, losses=self.losses)
        self.trained = self.spr.prepare(self.network(seed), self.groups)
        train(self.trained, data, self.config(8, 0.1), method=self.spr, progress=False)

    def network(self, seed: int) -> nn.Module:
        """Untrained ResNet-20 with 8, 16 and 32 channels."""
        generator = torch.Generator().manual_seed(seed)
        return build_model(
            "resnet20", in_channels=1, image_size=8, base_width=8, generator=generator
        )

    def config(self, epochs: int, lr: float) -> TrainConfig:
        """Settings of a phase, those of the recipe for the digits."""
        return TrainConfig(
            epochs=epochs, lr=lr, batch_size=BATCH, warmup_epochs=1.0, label_smoothing=0.1,
            evaluate_every=0, seed=self.seed,
        )  # fmt: skip

    def fit(self, network: nn.Module, epochs: int, lr: float) -> nn.Module:
        """Plain training."""
        train(network, self.data, self.config(epochs, lr), progress=False)
        return network

    def losses(self, network: nn.Module) -> Iterable[Tensor]:
        """Training losses, batch by batch."""
        for batch in batches(self.data, "train", BATCH, shuffle=False, augment=False):
            yield classification_loss(network(batch[0]), batch)

    def accuracy(self, network: nn.Module) -> float:
        """On the test split, in %."""
        return 100 * (evaluate(network, self.data, "test").accuracy or 0.0)

    def calibration(self) -> list[Any]:
        """Training images without augmentation."""
        source = batches(self.data, "train", 128, shuffle=True, augment=False, seed=self.seed)
        return list(islice(source, CALIBRATION // 128))


def with_counts(study: Study, masks: Masks, scores: np.ndarray) -> Masks:
    """As many channels of each family as ``masks`` keep, those with the largest scores."""
    kept = np.zeros(study.groups.n_classes, dtype=bool)
    for family in study.groups:
        own = scores[family.start : family.stop]
        best = np.argsort(-own, kind="stable")[: int(masks[family.name].sum())]
        kept[family.start + best] = True
    return study.groups.masks(kept)


def roundings(
    study: Study, budget: Budgets, seconds: float
) -> dict[str, Callable[[], tuple[nn.Module, Masks]]]:
    """Name -> the smaller network and its masks."""
    groups, spr = study.groups, study.spr
    copied = copy.deepcopy(study.trained).eval()
    options = CompressOptions(time_limit=seconds, seed=study.seed)
    found = compress(copied, study.calibration(), budget, options=options, groups=groups)
    paid = SPR(strength=spr.strength, big_m=dict(spr.big_m))
    paid.prepare(study.trained, groups)

    def cut(masks: Masks) -> tuple[nn.Module, Masks]:
        return remove(copy.deepcopy(study.trained), groups, masks), masks

    def by_chance() -> Masks:
        scores = np.random.default_rng(study.seed).random(groups.n_classes)
        return choose_by_score(groups, scores, budget)

    return {
        "random": lambda: cut(by_chance()),
        "y*": lambda: cut(choose_by_score(groups, spr.scores(), budget)),
        "penalty paid / marginal MACs": lambda: cut(paid.choose(budget)),
        "change of the loss / marginal MACs": lambda: cut(spr.choose(budget)),
        "widths of the optimiser, channels by y*": lambda: cut(
            with_counts(study, found.masks, spr.scores())
        ),
        "masks of the optimiser, weights as trained": lambda: cut(found.masks),
        "masks of the optimiser, weights refitted": lambda: (found.model, found.masks),
    }


def measure(study: Study, budgets: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """All rows of one seed."""
    rows = []
    for amount in budgets:
        ways = roundings(study, Budgets(macs=amount), seconds)
        for name, way in ways.items():
            network, masks = way()
            cut = study.accuracy(network)
            tuned = study.accuracy(study.fit(network, 4, 0.02))
            macs = study.groups.macs(study.groups.kept(masks)) / study.groups.macs()
            rows.append({"seed": study.seed, "budget": amount, "rounding": name, "macs": macs,
                         "cut": cut, "tuned": tuned})  # fmt: skip
            print(study.seed, amount, f"{name:44s} {macs:.4f} {cut:6.2f} {tuned:6.2f}", flush=True)
    return rows


def table(rows: Sequence[Mapping[str, Any]], budgets: Sequence[str]) -> str:
    """Markdown: test accuracy after the cut and after fine-tuning, mean and deviation."""
    head = [f"{b}, {stage}" for b in budgets for stage in ("cut", "tuned")]
    lines = ["| rounding | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for name in dict.fromkeys(row["rounding"] for row in rows):
        cells = []
        for amount in budgets:
            own = [r for r in rows if (r["rounding"], r["budget"]) == (name, amount)]
            for stage in ("cut", "tuned"):
                values = [row[stage] for row in own]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", nargs="+", default=["50%", "25%", "10%"])
    parser.add_argument("--strength", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each optimisation")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = finished(options)
    for seed in range(options.seeds):
        if any(row["seed"] == seed for row in rows):
            continue
        study = Study(seed, options.strength)
        print(seed, "before rounding", study.accuracy(study.trained), flush=True)
        rows += measure(study, options.budgets, options.seconds)
        write(rows, options.out, options.strength, options.seconds)
    print(table(rows, options.budgets))


def finished(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of an earlier run with the same settings, of seeds that were done with all budgets."""
    file = options.out / "methods_rounding.json"
    if not file.is_file():
        return []
    old = json.loads(file.read_text())
    if (old["strength"], old["seconds"]) != (options.strength, options.seconds):
        return []
    rows: list[dict[str, Any]] = old["rows"]
    wanted = set(options.budgets)
    done = {r["seed"] for r in rows}
    done = {s for s in done if wanted <= {r["budget"] for r in rows if r["seed"] == s}}
    return [row for row in rows if row["seed"] in done]


def write(rows: Sequence[Mapping[str, Any]], out: Path, strength: float, seconds: float) -> None:
    """JSON and a table of what is done so far."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    settings = {"strength": strength, "seconds": seconds}
    content = {**settings, "rows": list(rows), "provenance": provenance(0)}
    write_json(out / "methods_rounding.json", content)
    head = (
        "# SPR, one training, seven roundings\n\nResNet-20 with 8, 16 and 32 channels on the "
        f"digits, strength {strength:g}, 8 epochs, then 4 of fine-tuning; seeds: {seeds}; "
        f"{seconds:g} s for each optimisation. "
        "Test accuracy in %, mean and deviation; share of the MACs kept.\n\n"
    )
    write_text(out / "methods_rounding.md", head + table(rows, budgets) + "\n")


if __name__ == "__main__":
    main()
