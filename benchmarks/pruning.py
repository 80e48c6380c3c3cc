"""Accuracy of one pruning task over several seeds; used by the ``prune_*.py`` scripts.

Each seed is a run of ``mipprune prune`` in its own folder. A script that was
stopped goes on where it was: finished seeds are read, an unfinished one resumes.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.pipeline import PruneConfig, prune
from mipprune.report import PruneReport

RESULTS = Path(__file__).resolve().parent / "results"


def add_arguments(parser: argparse.ArgumentParser, seeds: Sequence[int], name: str) -> None:
    """Options that all scripts share."""
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--runs", type=Path, default=Path("runs") / name, help="folder of the runs")
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")


def study(config: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run every seed and write the table of all."""
    torch.set_num_threads(options.threads)
    reports = []
    for seed in options.seeds:
        out = options.runs / f"seed{seed}"
        result = prune(
            PruneConfig(**config, seed=seed),
            out,
            resume=(out / "config.json").exists(),
            progress=not options.quiet,
        )
        reports.append(result.report)
        table = summary(config, options.seeds, reports)
        write_json(options.json, table)
    print_table(table)
    return table


def summary(
    config: Mapping[str, Any], seeds: Sequence[int], reports: Sequence[PruneReport]
) -> dict[str, Any]:
    """Figures per seed, and mean and standard deviation over the seeds done."""
    rows: list[dict[str, Any]] = []
    for seed, report in zip(seeds, reports, strict=False):
        rows.append(
            {
                "seed": seed,
                "test": {stage.name: stage.test for stage in report.stages},
                "validation": {stage.name: stage.validation for stage in report.stages},
                "epochs": {stage.name: stage.epochs for stage in report.stages},
                "seconds": {stage.name: round(stage.seconds, 1) for stage in report.stages},
                "macs": {"dense": report.sizes[0].dense, "counted": report.sizes[0].counted},
                "parameters": {"dense": report.sizes[1].dense, "counted": report.sizes[1].counted},
                "latency_ratio": None if report.latency is None else report.latency.ratio,
            }
        )
    tests = [row["test"] for row in rows]
    stages = list(tests[0])
    loss = [test[stages[0]] - test[stages[-1]] for test in tests]
    return {
        "config": dict(config),
        "settings": dict(reports[0].settings),
        "runs": rows,
        "test_mean": {name: statistics.mean(test[name] for test in tests) for name in stages},
        "test_std": {
            name: statistics.stdev([test[name] for test in tests]) if len(tests) > 1 else None
            for name in stages
        },
        "points_lost": {"mean": 100 * statistics.mean(loss), "each": [100 * x for x in loss]},
        "macs_kept": [row["macs"]["counted"] / row["macs"]["dense"] for row in rows],
        "provenance": provenance(),
    }


def print_table(table: Mapping[str, Any]) -> None:
    """Mean test accuracy of each stage."""
    for name, mean in table["test_mean"].items():
        spread = table["test_std"][name]
        print(f"{name:<20}{100 * mean:7.2f} %" + (f" ± {100 * spread:.2f}" if spread else ""))
    print(f"points lost         {table['points_lost']['mean']:7.2f}")
    print("MACs kept           " + "  ".join(f"{100 * part:.2f} %" for part in table["macs_kept"]))
