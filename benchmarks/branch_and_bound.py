"""Our branch and bound on layers: time to a proof, gap over time, what each part contributes.

    python benchmarks/layers.py --out FOLDER                         (makes the layers)
    python benchmarks/branch_and_bound.py targets FOLDER --out FILE
    python benchmarks/branch_and_bound.py ablation FOLDER --out FILE
    python benchmarks/branch_and_bound.py table --out FILE           (as Markdown)

Times are the least of ``--repeats`` runs after warm-up, from nothing: matrices, first
incumbent and search. Processor seconds stand beside wall-clock ones: on a machine that
others use only they compare.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.problem import ChannelSelection, Solution
from mipprune.relaxation.removal import removal_form
from mipprune.solvers.branch_and_bound import _solve, branch_and_bound

TARGETS = {16: (12, 8, 4), 32: (28, 24, 20, 16, 4), 64: (60, 56, 52, 48), 128: (120,)}
"""Channels kept, by the number of channels."""

ABLATION = {16: (8,), 32: (24, 20), 64: (56,)}
POINTS = 40


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("targets", "ablation", "table"))
    parser.add_argument("folder", nargs="?", type=Path, help="holds problem files (.npz)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0, help="limit per search")
    parser.add_argument("--repeats", type=int, default=3, help="of searches under a second")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--channels", type=int, nargs="*", default=sorted(TARGETS))
    parser.add_argument("--match", default="", help="only files whose name contains this")
    parser.add_argument("--keep", type=int, nargs="*", help="only these numbers of channels kept")
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(options.out.read_text())["rows"]))
        return
    rows: list[dict[str, Any]] = []
    runner = {"targets": targets, "ablation": ablation}[options.what]
    for row in runner(options):
        rows.append(row)
        print({k: v for k, v in row.items() if k != "progress"}, flush=True)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        made = provenance()
        made["command"] = (
            f"python benchmarks/layers.py --out FOLDER; python benchmarks/branch_and_bound.py "
            f"{options.what} FOLDER --seconds {options.seconds:g} --threads {options.threads}"
        )
        record = {
            "provenance": made,
            "threads": options.threads,
            "load_of_the_machine": load,
            "rows": rows,
        }
        write_json(options.out, record)


def problems(
    options: argparse.Namespace, keeps: dict[int, tuple[int, ...]]
) -> Iterator[tuple[str, ChannelSelection]]:
    """Layers of the folder with every number of kept channels."""
    for path in sorted(options.folder.glob("*.npz")):
        problem = ChannelSelection.load(path)
        if problem.n_channels in options.channels and options.match in path.stem:
            for keep in keeps.get(problem.n_channels, ()):
                if not options.keep or keep in options.keep:
                    yield path.stem, problem.with_keep(keep)


def timed(problem: ChannelSelection, options: argparse.Namespace) -> tuple[Solution, float, float]:
    """Least wall-clock and processor seconds of a few runs."""
    walls, used = [], []
    for _ in range(options.repeats):
        began, processor = time.perf_counter(), time.process_time()
        solution = branch_and_bound(problem, time_limit=options.seconds, threads=options.threads)
        walls.append(time.perf_counter() - began)
        used.append(time.process_time() - processor)
        if walls[-1] > 1.0:
            break
    return solution, min(walls), min(used)


def measured(name: str, problem: ChannelSelection, options: argparse.Namespace) -> dict[str, Any]:
    """One search as a row of the result file."""
    solution, wall, used = timed(problem, options)
    everything = removal_form(problem).value_all
    thinned = [*solution.log[:: max(1, len(solution.log) // POINTS)], *solution.log[-1:]]
    first = solution.statistics["root_bound"]
    return {
        "layer": name,
        "problem_hash": problem.content_hash,
        "p": problem.n_channels,
        "keep": problem.keep,
        "value": solution.value,
        "bound": solution.bound,
        "gap": solution.gap,
        "status": solution.status.name,
        "nodes": solution.nodes,
        "nodes_per_processor_second": solution.nodes / max(used, 1e-9),
        "seconds": wall,
        "processor_seconds": used,
        "value_all_kept": everything,
        "root_ratio": first / solution.value if np.isfinite(first) else None,
        "drift": solution.statistics["drift"],
        "progress": [
            [p.seconds, p.nodes, p.value, p.bound]
            for p in thinned
            if np.isfinite(p.value) and np.isfinite(p.bound)
        ],
    }


def targets(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every layer at every keep count."""
    branch_and_bound(ChannelSelection(np.eye(3), np.ones((3, 1)), 4.0, [1, 1, 1], keep=1))
    for name, problem in problems(options, TARGETS):
        yield measured(name, problem, options)


def ablation(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The same searches without multipliers, with few and with many steps on them."""
    branch_and_bound(ChannelSelection(np.eye(3), np.ones((3, 1)), 4.0, [1, 1, 1], keep=1))
    usual = _solve.SUBGRADIENT_STEPS
    for name, problem in problems(options, ABLATION):
        for steps in (0, usual // 2, usual, 2 * usual):
            _solve.SUBGRADIENT_STEPS = steps
            try:
                yield {"steps": steps, **measured(name, problem, options)}
            finally:
                _solve.SUBGRADIENT_STEPS = usual


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line a search."""
    lines = [
        "| layer | p | keep | steps | value | gap | nodes | seconds | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['layer']} | {row['p']} | {row['keep']} | {row.get('steps', '')} "
        f"| {row['value']:.5g} | {row['gap']:.1e} | {row['nodes']} | {row['seconds']:.3f} "
        f"| {row['processor_seconds']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
