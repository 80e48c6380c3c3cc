"""Side by side: our branch and bound, enumeration, HiGHS cuts and SCIP cones.

Every method gets the same instances, gap and time limit on one thread, in its
own process, so that no method warms another's caches. A run that does not close
the gap counts as its time limit, a lower limit, marked ``>=``.

    python benchmarks/solvers.py --layers FOLDER --time-limit 10 --out result.json
    python benchmarks/solvers.py --draw profile.svg --results result.json ...

The second command draws performance profiles (Dolan, More 2002), one panel per result
file, since their clocks and limits differ: the share of the instances that a method
closed within a factor of the fastest method's time on the same instance, of those that
it ran (their number is in the legend).
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # the thread counts above must be set first

from mipprune._support.files import atomic_path, write_json  # noqa: E402  # as above
from mipprune._support.provenance import provenance  # noqa: E402  # as above
from mipprune.problem import ChannelSelection  # noqa: E402  # as above
from mipprune.solvers import methods_for, solve  # noqa: E402  # as above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, object]

METHODS = ("branch-and-bound", "enumerate", "outer-approximation", "conic")
KEEPS = {16: (8,), 32: (24,)}
MAX_ENUMERATED = 16
FLOOR = 1e-4  # seconds; below it a clock says nothing
COLOURS = {
    "branch-and-bound": "#4477aa",
    "enumerate": "#ccbb44",
    "outer-approximation": "#ee6677",
    "conic": "#228833",
    "l0bnb": "#aa3377",
}


def autoregressive(p: int, correlation: float, ridge: float, seed: int = 0) -> ChannelSelection:
    """One scalar per channel, inputs with AR(1) correlation, keep half."""
    generator = np.random.default_rng(seed)
    n = 10 * p
    x = generator.normal(size=(n, p))
    for j in range(1, p):
        x[:, j] = correlation * x[:, j - 1] + math.sqrt(1 - correlation**2) * x[:, j]
    y = x @ generator.normal(size=(p, 1)) + generator.normal(size=(n, 1))
    problem = ChannelSelection(
        x.T @ x / n, x.T @ y / n, float((y**2).sum()) / n, [1] * p, keep=p // 2
    )
    return problem.with_damping(ridge)


def instances(
    layers: Path | None, sizes: tuple[int, ...]
) -> Iterator[tuple[str, ChannelSelection]]:
    """Name and problem of every instance, fixed beforehand."""
    for p in sizes:
        for correlation in (0.5, 0.9):
            for ridge in (0.01, 0.1):
                name = f"ar1 p={p} correlation={correlation} ridge={ridge}"
                yield name, autoregressive(p, correlation, ridge)
    if layers is None:
        return
    for path in sorted(layers.glob("*.npz")):
        base = ChannelSelection.load(path)
        for keep in KEEPS.get(base.n_channels, ()):
            name = f"layer {path.stem} keep={keep} damping=0.01"
            yield name, base.with_damping(0.01).with_keep(keep)


def applicable(problem: ChannelSelection) -> list[str]:
    """Methods that run on an instance."""
    taken = [method for method in METHODS if method in methods_for(problem)]
    return [m for m in taken if m != "enumerate" or problem.n_channels <= MAX_ENUMERATED]


def measure(problem: ChannelSelection, method: str, time_limit: float, gap: float) -> Row:
    """Run one method once."""
    solution = solve(problem, method, time_limit=time_limit, gap=gap)
    closed = bool(solution.mask is not None and solution.gap <= gap * 1.001)
    return {
        "method": method,
        # What a run overshoots the limit by is not held against it.
        "seconds": solution.seconds if closed else time_limit,
        "closed": closed,
        "value": solution.value,
        "bound": solution.bound if math.isfinite(solution.bound) else None,
        "gap": solution.gap if math.isfinite(solution.gap) else None,
        "nodes": solution.nodes,
        "termination": solution.termination.name,
        "version": solution.version,
    }


def _child(
    method: str,
    layers: Path | None,
    sizes: tuple[int, ...],
    limit: float,
    gap: float,
    queue: "multiprocessing.Queue[object]",
) -> None:
    small = autoregressive(6, 0.5, 0.1)
    measure(small, method, limit, gap)  # compile and load before the clock starts
    for name, problem in instances(layers, sizes):
        if method in applicable(problem):
            row = measure(problem, method, limit, gap)
            queue.put({"instance": name, "p": problem.n_channels, **row})
    queue.put(None)


def run(layers: Path | None, sizes: tuple[int, ...], limit: float, gap: float) -> list[Row]:
    """All methods on all instances, one process per method."""
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for method in METHODS:
        queue: multiprocessing.Queue[object] = context.Queue()
        child = context.Process(target=_child, args=(method, layers, sizes, limit, gap, queue))
        child.start()
        while True:
            row = queue.get()
            if not isinstance(row, dict):
                break
            rows.append(row)
            mark = "" if row["closed"] else ">= "
            sys.stderr.write(f"{row['instance']}  {method}  {mark}{row['seconds']:.3g} s\n")
        child.join()
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """Geometric means over the instances that both a method and ours ran."""
    ours = {r["instance"]: r for r in rows if r["method"] == "branch-and-bound"}
    result = []
    for kind in ("ar1", "layer"):
        for method in METHODS:
            mine = [
                r for r in rows if r["method"] == method and str(r["instance"]).startswith(kind)
            ]
            if not mine:
                continue
            logs = [math.log(max(float(str(r["seconds"])), 1e-4)) for r in mine]
            base = [math.log(max(float(str(ours[r["instance"]]["seconds"])), 1e-4)) for r in mine]
            mean = sum(logs) / len(logs)
            result.append(
                {
                    "kind": kind,
                    "method": method,
                    "instances": len(mine),
                    "closed": sum(bool(r["closed"]) for r in mine),
                    "geometric_mean_seconds": math.exp(mean),
                    "times_ours": math.exp(mean - sum(base) / len(base)),
                    "lower_limit": not all(r["closed"] for r in mine),
                }
            )
    return result


def profile(rows: list[Row]) -> dict[str, list[float]]:
    """Per method the ratios to the fastest time, sorted; inf where it did not close.

    Instances that a method did not run are left out of its list.
    """
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        seconds = max(float(str(row["seconds"])), FLOOR) if row["closed"] else math.inf
        times.setdefault(str(row["instance"]), {})[str(row["method"])] = seconds
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for by_method in times.values():
        best = min(by_method.values())
        for method, taken in by_method.items():
            ratios[method].append(taken / best if math.isfinite(taken) else math.inf)
    return {method: sorted(values) for method, values in ratios.items()}


def draw(files: list[Path]) -> "Figure":
    """One performance profile per result file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(files), 3.0), layout="constrained")
    panels = figure.subplots(1, len(files), squeeze=False, sharey=True).ravel().tolist()
    for path, axis in zip(files, panels, strict=True):
        content = json.loads(path.read_text(encoding="utf-8"))
        ratios = profile(content["runs"])
        ends = [r for values in ratios.values() for r in values if math.isfinite(r)]
        end = 1.5 * max(ends, default=1.0)
        for method, values in ratios.items():
            steps = [(r, (i + 1) / len(values)) for i, r in enumerate(values) if math.isfinite(r)]
            steps = [(1.0, sum(r <= 1.0 for r in values) / len(values)), *steps]
            steps.append((end, steps[-1][1]))
            x, y = zip(*steps, strict=True)
            axis.step(
                x,
                [100 * share for share in y],
                where="post",
                label=f"{method} ({len(values)})",
                color=COLOURS[method],
            )
        axis.set_xscale("log")
        axis.set_xlim(1.0, end)
        axis.set_ylim(-2, 104)
        limit = f"limit {content['time_limit']:g} s, {max(map(len, ratios.values()))} instances"
        axis.set_title(f"{path.stem}: {limit}", fontsize=8)
        axis.set_xlabel("time / fastest time", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("instances closed, %", fontsize=8)
    return figure


def save_figure(files: list[Path], target: Path) -> None:
    """Draw and write, byte for byte the same each time."""
    import matplotlib

    with (
        matplotlib.rc_context({"svg.hashsalt": "mipprune", "svg.fonttype": "none"}),
        atomic_path(target) as temporary,
    ):
        draw(files).savefig(temporary, format="svg", metadata={"Date": None})


def main() -> None:
    """Parse arguments, run, print the summary and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=Path, help="folder of problem files (.npz)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64])
    parser.add_argument("--time-limit", type=float, default=10.0)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path, help="SVG file: draw --results, run nothing")
    parser.add_argument("--results", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    if options.draw is not None:
        if not options.results:
            parser.error("--draw: name the result files with --results")
        save_figure(options.results, options.draw)
        return
    rows = run(options.layers, tuple(options.sizes), options.time_limit, options.gap)
    table = summary(rows)
    for line in table:
        mark = ">= " if line["lower_limit"] else ""
        print(
            f"{line['kind']:6} {line['method']:20} {line['closed']}/{line['instances']} closed  "
            f"{mark}{line['geometric_mean_seconds']:.3g} s  {mark}{line['times_ours']:.3g} x ours"
        )
    if options.out is not None:
        record = provenance()
        record["command"] = "python benchmarks/solvers.py"
        record["load_average"] = list(os.getloadavg())
        write_json(
            options.out,
            {
                "provenance": record,
                "time_limit": options.time_limit,
                "gap": options.gap,
                "summary": table,
                "runs": rows,
            },
        )


if __name__ == "__main__":
    main()
