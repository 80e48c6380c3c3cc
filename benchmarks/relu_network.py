"""Whole ReLU networks to proof: our search beside HiGHS and SCIP, three formulations.

    python benchmarks/relu_network.py --widths 16 16 --samples 30 --time-limit 60
    python benchmarks/relu_network.py formulations --time-limit 60
    python benchmarks/relu_network.py bounds
    python benchmarks/relu_network.py scaling --time-limit 30

The networks are trained on the bundled digits with fixed seeds; every solver gets the
same tasks and the same starting masks. Writes JSON (and a figure for ``scaling``);
time-outs keep their gap.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import nn

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.errors import SolverError
from mipprune.formulation.relu_network import (
    FORMULATIONS,
    NetworkPruning,
    PreactivationBounds,
    ReLUNetwork,
    build_relu_network,
    propagate_bounds,
)
from mipprune.problem import LogPoint
from mipprune.solvers.relu_network import (
    NetworkSolution,
    greedy_masks,
    solve_network,
    tighten_bounds,
)

Masks = tuple[np.ndarray, ...]


def trained_network(
    widths: list[int], seed: int, steps: int
) -> tuple[ReLUNetwork, np.ndarray, float]:
    """An MLP on digits, the inputs in [0, 1], and its accuracy."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [64, *widths, 10]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        module = nn.Sequential(*layers[:-1])
        x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
        optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimiser.step()
        accuracy = float((module(x).argmax(1) == y).float().mean())
    return ReLUNetwork.from_module(module), images, accuracy


def tasks(network: ReLUNetwork, inputs: np.ndarray) -> dict[str, NetworkPruning]:
    """The questions asked of every network."""
    n = network.n_neurons
    return {
        "fewest neurons that keep every prediction": NetworkPruning(
            network, inputs, objective="neurons", keep_predictions=True
        ),
        "deviation, 3/4 of the neurons": NetworkPruning(network, inputs, max_neurons=3 * n // 4),
        "deviation, half of the neurons": NetworkPruning(network, inputs, max_neurons=n // 2),
        "misclassification, 3/8 of the neurons": NetworkPruning(
            network, inputs, objective="misclassification", max_neurons=3 * n // 8
        ),
        "hinge, half of the neurons": NetworkPruning(
            network, inputs, objective="hinge", max_neurons=n // 2
        ),
    }


def instance(options: argparse.Namespace, widths: list[int], samples: int, seed: int) -> Any:
    """Network, sample and accuracy of fixed instances."""
    network, images, accuracy = trained_network(widths, seed, options.steps)
    rng = np.random.default_rng(seed)
    return network, images[rng.choice(len(images), samples, replace=False)], accuracy


def figures(result: NetworkSolution) -> dict[str, object]:
    """What a row says of a result; bounds that are infinite are left out."""
    return {
        "value": result.value if np.isfinite(result.value) else None,
        "bound": result.bound,
        "gap": result.gap if np.isfinite(result.gap) else None,
        "nodes": result.nodes,
        "seconds": round(result.seconds, 2),
        "status": result.status.name,
        "rows": result.n_rows,
        "binaries": result.n_binaries,
    }


def compare(options: argparse.Namespace, save: Callable[..., None]) -> None:
    """Every solver and formulation on one network."""
    network, inputs, accuracy = instance(options, options.widths, options.samples, options.seed)
    runs = [("search", "perspective")]
    runs += [(solver, form) for solver in ("highs", "scip") for form in FORMULATIONS]
    rows: list[dict[str, object]] = []
    for name, task in tasks(network, inputs).items():
        start = greedy_masks(task)
        for solver, formulation in runs:
            limit = options.search_limit if solver == "search" else options.time_limit
            row: dict[str, object] = {"task": name, "solver": solver, "formulation": formulation}
            rows.append(row | solved(task, solver, formulation, limit, start))
            print(rows[-1], flush=True)
            save(rows, network={"widths": options.widths, "accuracy": accuracy})


def solved(
    task: NetworkPruning, solver: str, formulation: str, limit: float, start: Masks | None
) -> dict[str, object]:
    """One solve: its figures and CPU seconds, or the error."""
    began = time.process_time()
    try:
        result = solve_network(
            task, solver=solver, formulation=formulation, time_limit=limit, start=start
        )
    except SolverError as error:
        return {"error": str(error)}
    return figures(result) | {"cpu_seconds": round(time.process_time() - began, 2)}


def formulations(options: argparse.Namespace, save: Callable[..., None]) -> None:
    """Nodes and seconds of the formulations where HiGHS and SCIP finish; goes on with its file."""
    rows: list[dict[str, Any]] = []
    if options.out.is_file():
        rows = json.loads(options.out.read_text())["rows"]
    done = {tuple(map(str, (r["widths"], r["samples"], r["seed"], r["solver"], r["formulation"])))
            for r in rows}  # fmt: skip
    for size in options.sizes:
        width, samples = map(int, size.split("x"))
        for seed in range(1, options.seeds + 1):
            network, inputs, _ = instance(options, [width, width], samples, seed)
            hidden = network.preactivations(inputs)[:-1]
            alive = sum(int((values > 0).any(axis=0).sum()) for values in hidden)
            task = NetworkPruning(network, inputs, max_neurons=alive // 2)
            start = greedy_masks(task)
            best = solve_network(task, solver="search").value
            for solver, form in itertools.product(("highs", "scip"), FORMULATIONS):
                if tuple(map(str, ([width, width], samples, seed, solver, form))) in done:
                    continue
                row: dict[str, object] = {
                    "widths": [width, width], "samples": samples, "seed": seed,
                    "alive": alive, "max_neurons": alive // 2,
                    "solver": solver, "formulation": form, "search_value": best,
                }  # fmt: skip
                rows.append(row | solved(task, solver, form, options.time_limit, start))
                print(rows[-1], flush=True)
                save(rows, summary=geometric_means(rows))


def geometric_means(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Ratios to big-M over the instances that both close; nodes are counted from 1."""
    table: list[dict[str, object]] = []
    for solver, form in itertools.product(("highs", "scip"), FORMULATIONS[1:]):
        pairs = []
        for row in rows:
            if (row["solver"], row["formulation"]) != (solver, form):
                continue
            same = ("widths", "samples", "seed", "solver")
            other = next(
                r for r in rows
                if r["formulation"] == "big-m" and all(r[key] == row[key] for key in same)
            )  # fmt: skip
            if {row.get("status"), other.get("status")} == {"OPTIMAL"}:
                pairs.append((row, other))
        entry: dict[str, object] = {"solver": solver, "formulation": form, "instances": len(pairs)}
        for key, shift in (("nodes", 1.0), ("seconds", 0.01), ("cpu_seconds", 0.01)):
            ratios = [(a[key] + shift) / (b[key] + shift) for a, b in pairs]
            if ratios:
                entry[f"{key}_over_big_m"] = round(float(np.exp(np.mean(np.log(ratios)))), 3)
        table.append(entry)
    return table


def bounds(options: argparse.Namespace, save: Callable[..., None]) -> None:
    """How tight loose, propagated and LP-tightened bounds are, and what HiGHS makes of them."""
    rows: list[dict[str, object]] = []
    for widths, share in (([6, 6], 2), ([6, 6], 4), ([4, 4, 4], 2), ([5, 5, 5], 4)):
        network, inputs, _ = instance(options, widths, 10, options.seed)
        limit = 3 * network.n_neurons // (2 * share)
        free = NetworkPruning(network, inputs, max_neurons=limit)
        start = greedy_masks(free) or network.full_masks()
        most = float(np.abs(network.forward(inputs, start) - free.dense).max())
        task = replace(free, max_deviation=most)  # binds, and is met by the greedy masks
        kinds = {
            "loose": propagate_bounds(replace(task, max_neurons=None)),
            "propagated": propagate_bounds(task),
        }
        began = time.process_time()
        kinds["linear programs"] = tighten_bounds(task, kinds["propagated"])
        spent = time.process_time() - began
        for name, found in kinds.items():
            pairs = zip(found.lower[1:], found.upper[1:], strict=True)
            spans = [float((high - low).mean()) for low, high in pairs]
            row: dict[str, object] = {
                "widths": widths, "max_neurons": limit, "bounds": name,
                "max_deviation": round(most, 3), "best": round(task.value(start), 5),
                "mean_width_per_layer": [round(s, 3) for s in spans],
                "undecided": found.n_undecided,
                "cpu_seconds_to_tighten": round(spent, 2) if name == "linear programs" else 0.0,
                "relaxation": relaxation_value(task, found),
            }  # fmt: skip
            rows.append(row)
            print(row, flush=True)
            save(rows)


def relaxation_value(task: NetworkPruning, found: PreactivationBounds) -> dict[str, float | None]:
    """Value of the linear relaxation, per formulation; None where it is infeasible."""
    import pyomo.environ as pyo
    from pyomo.contrib.appsi.solvers import Highs

    values: dict[str, float | None] = {}
    for form in FORMULATIONS:
        model = build_relu_network(task, found, form)
        pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
        engine = Highs()
        engine.config.load_solution = False
        reached = engine.solve(model).best_feasible_objective
        values[form] = None if reached is None else round(float(reached), 5)
    return values


def scaling(options: argparse.Namespace, save: Callable[..., None]) -> None:
    """Our search on larger networks and samples: proven or the gap over time."""
    rows: list[dict[str, object]] = []
    cases = [
        ([16, 16], 30), ([16, 16], 100), ([16, 16], 300), ([24, 24], 30),
        ([24, 24], 100), ([32, 32], 30), ([32, 32, 32], 30), ([32], 30),
    ]  # fmt: skip
    for widths, samples in cases:
        network, inputs, accuracy = instance(options, widths, samples, options.seed)
        for name, task in tasks(network, inputs).items():
            if not name.startswith(tuple(options.tasks or [""])):
                continue
            began = time.process_time()
            result = solve_network(task, solver="search", time_limit=options.time_limit)
            row: dict[str, object] = {"widths": widths, "samples": samples, "task": name}
            row |= figures(result) | {
                "cpu_seconds": round(time.process_time() - began, 1),
                "accuracy": accuracy,
                "greedy": result.trace[0].value if np.isfinite(result.trace[0].value) else None,
                "trace": [
                    [round(p.seconds, 2), p.value if np.isfinite(p.value) else None, p.bound]
                    for p in thinned(result.trace)
                ],
            }
            rows.append(row)
            print({k: v for k, v in row.items() if k != "trace"}, flush=True)
            save(rows)
    draw_scaling(rows, options.out.with_suffix(".svg"))


def thinned(trace: Sequence[LogPoint], most: int = 40) -> list[LogPoint]:
    """At most ``most`` points, the first and the last among them."""
    places = np.unique(np.linspace(0, len(trace) - 1, most).astype(int))
    return [trace[k] for k in places]


def draw_scaling(rows: list[dict[str, Any]], path: Path) -> None:
    """Gap over time, one panel per task."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = plt.subplots(
        1, len(names), figsize=(4 * len(names), 3.4), sharey=True, squeeze=False
    )
    for axes, name in zip(grid[0], names, strict=True):
        for row in [row for row in rows if row["task"] == name]:
            points = [(s, v, b) for s, v, b in row["trace"] if v is not None]
            seconds = [max(s, 0.01) for s, _, _ in points]
            gaps = [100 * (v - b) / v if v > 0 else 0.0 for _, v, b in points]
            label = f"{'+'.join(map(str, row['widths']))}, {row['samples']} samples"
            axes.step(seconds, gaps, where="post", label=label, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("seconds")
    grid[0][0].set_ylabel("gap, % of the value")
    grid[0][-1].legend(fontsize=7)
    figure.tight_layout()
    with matplotlib.rc_context({"svg.hashsalt": "relu_network"}):
        figure.savefig(path, metadata={"Date": None})


STUDIES = {
    "compare": compare, "formulations": formulations, "bounds": bounds, "scaling": scaling,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES, nargs="?", default="compare")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 16])
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per solve")
    parser.add_argument("--search-limit", type=float, default=600.0, help="seconds, own search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="instances per size (formulations)")
    parser.add_argument(
        "--sizes", nargs="+", default=["4x10", "6x10"], help="WIDTHxSAMPLES (formulations)"
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tasks", nargs="+", help="beginnings of names of tasks (scaling)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is None:
        name = "relu_network" + ("" if options.study == "compare" else f"_{options.study}")
        options.out = Path(f"benchmarks/results/{name}.json")

    def save(rows: list[dict[str, object]], **more: object) -> None:
        head = {"provenance": provenance(options.seed), "time_limit": options.time_limit}
        write_json(options.out, head | {"samples": options.samples} | more | {"rows": rows})

    network, inputs, _ = instance(options, [4, 4], 4, 0)
    warm = NetworkPruning(network, inputs, max_neurons=4)
    for solver in ("search", "highs", "scip"):  # compiling and importing are not measured
        solve_network(warm, solver=solver)
    STUDIES[options.study](options, save)


if __name__ == "__main__":
    main()
