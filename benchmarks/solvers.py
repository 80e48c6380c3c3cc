"""Side by side: our branch and bound, enumeration, HiGHS cuts, SCIP and Gurobi cones.

Every method gets the same instances, gap and limit on one thread, in its own process, so
that no method warms another's caches. The limit is processor seconds: a run gets ``--wall``
times as many on the clock of the wall and counts as closed only if it used no more than the
limit. Runs under a second are repeated, the least of three counts. A run that does not
close the gap counts as what it used, at most the limit: a lower limit, marked ``>=``.
What Gurobi's licence does not allow, and models that take longer to write than the limit,
are listed as refused and are in no mean.

    python benchmarks/solvers.py --layers FOLDER --time-limit 8 --out result.json
    python benchmarks/solvers.py --draw profile.svg --results result.json ...

The second command draws performance profiles (Dolan, More 2002), one panel per result
file, since their clocks and limits differ: the share of the instances that a method
closed within a factor of the fastest method's time on the same instance, of those that
it ran (their number is in the legend). Rows that the result file holds are not run again,
so that a long comparison can be made in pieces (``--methods``, ``--match``).
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # the thread counts above must be set first

from mipprune._support.files import atomic_path, write_json  # noqa: E402  # as above
from mipprune._support.provenance import provenance  # noqa: E402  # as above
from mipprune.errors import SolverError  # noqa: E402  # as above
from mipprune.problem import ChannelSelection, Termination  # noqa: E402  # as above
from mipprune.solvers import methods_for, solve  # noqa: E402  # as above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, object]

OURS = "branch-and-bound"
METHODS = (OURS, "enumerate", "outer-approximation", "conic", "gurobi")
KEEPS = {16: (12, 8), 32: (24,)}
MAX_ENUMERATED = 16
FLOOR = 1e-4  # seconds; below it a clock says nothing
REPEATS = 3
NOT_BEGUN = "not begun: writing the model alone would outlast the limit"
COLOURS = {
    "branch-and-bound": "#4477aa",
    "enumerate": "#ccbb44",
    "outer-approximation": "#ee6677",
    "conic": "#228833",
    "gurobi": "#66ccee",
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
    taken = methods_for(problem)
    if "conic" in taken and importlib.util.find_spec("gurobipy") is not None:
        taken.append("gurobi")
    return [
        method
        for method in METHODS
        if method in taken and (method != "enumerate" or problem.n_channels <= MAX_ENUMERATED)
    ]


def measure(
    problem: ChannelSelection, method: str, limit: float, gap: float, wall: float = 1.0
) -> Row:
    """Run one method: least processor seconds of up to three short runs."""
    options: dict[str, Any] = {"solver": "gurobi"} if method == "gurobi" else {}
    name = "conic" if method == "gurobi" else method
    times, clocks = [], []
    for _ in range(REPEATS):
        began = time.process_time()
        try:
            solution = solve(problem, name, time_limit=wall * limit, gap=gap, **options)
        except SolverError as error:
            return {"method": method, "closed": False, "refused": str(error)}
        times.append(time.process_time() - began)
        clocks.append(solution.seconds)
        if clocks[-1] > 1.0:
            break
    used = min(times)
    if solution.termination is Termination.TIME_LIMIT and max(clocks) < 0.5 * wall * limit:
        return {"method": method, "closed": False, "refused": NOT_BEGUN}
    return {
        "method": method,
        "seconds": min(used, limit),
        "wall_seconds": min(clocks),
        "closed": bool(solution.mask is not None and solution.gap <= gap * 1.001 and used <= limit),
        "value": solution.value,
        "bound": solution.bound if math.isfinite(solution.bound) else None,
        "gap": solution.gap if math.isfinite(solution.gap) else None,
        "nodes": solution.nodes,
        "termination": solution.termination.name,
        "version": solution.version,
    }


def chosen(
    options: argparse.Namespace, method: str, done: set[tuple[str, str]]
) -> Iterator[tuple[str, ChannelSelection]]:
    """Instances that a method has still to run."""
    for name, problem in instances(options.layers, tuple(options.sizes)):
        wanted = options.match in name and (name, method) not in done
        if wanted and method in applicable(problem):
            yield name, problem


def _child(
    method: str,
    options: argparse.Namespace,
    done: set[tuple[str, str]],
    queue: "multiprocessing.Queue[object]",
) -> None:
    try:
        todo = list(chosen(options, method, done))
        if todo:  # compile and load before the clock starts
            measure(autoregressive(6, 0.5, 0.1), method, options.time_limit, options.gap)
        for name, problem in todo:
            row = measure(problem, method, options.time_limit, options.gap, options.wall)
            row["time_limit"] = options.time_limit
            queue.put({"instance": name, "p": problem.n_channels, **row})
    finally:
        queue.put(None)


def run(options: argparse.Namespace, done: set[tuple[str, str]]) -> Iterator[Row]:
    """The methods on the instances not yet done, one process per method."""
    context = multiprocessing.get_context("spawn")
    for method in options.methods:
        queue: multiprocessing.Queue[object] = context.Queue()
        child = context.Process(target=_child, args=(method, options, done, queue))
        child.start()
        while isinstance(row := queue.get(), dict):
            mark = "refused" if "refused" in row else "" if row["closed"] else ">= "
            sys.stderr.write(f"{row['instance']}  {method}  {mark}{row.get('seconds', '')}\n")
            yield row
        child.join()


def seconds_of(row: Row) -> float:
    """Seconds of a run, not below what a clock can tell."""
    return max(float(str(row["seconds"])), FLOOR)


def summary(rows: list[Row]) -> list[Row]:
    """Geometric means by kind, size and method over the instances that it and ours ran."""
    ours = {r["instance"]: r for r in rows if r["method"] == OURS}
    groups: dict[tuple[str, object, object], list[Row]] = {}
    for row in rows:
        if "refused" not in row and row["instance"] in ours:
            key = (str(row["instance"]).split(maxsplit=1)[0], row.get("p"), row["method"])
            groups.setdefault(key, []).append(row)
    result: list[Row] = []
    for (kind, p, method), mine in groups.items():
        mean = sum(math.log(seconds_of(r)) for r in mine) / len(mine)
        ratios = [seconds_of(r) / seconds_of(ours[r["instance"]]) for r in mine]
        result.append(
            {
                "kind": kind,
                "p": p,
                "method": method,
                "instances": len(mine),
                "closed": sum(bool(r["closed"]) for r in mine),
                "geometric_mean_seconds": math.exp(mean),
                "times_ours": math.exp(sum(map(math.log, ratios)) / len(ratios)),
                "least_times_ours": min(ratios),
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
        if "refused" in row:
            continue
        seconds = seconds_of(row) if row["closed"] else math.inf
        times.setdefault(str(row["instance"]), {})[str(row["method"])] = seconds
    methods = list(dict.fromkeys(str(row["method"]) for row in rows if "refused" not in row))
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


def save(options: argparse.Namespace, rows: list[Row]) -> None:
    """Write what is measured so far."""
    if options.out is None:
        return
    record = provenance()
    record["command"] = "python benchmarks/solvers.py --layers FOLDER"
    record["load_average"] = list(os.getloadavg())
    content = {"provenance": record, "time_limit": options.time_limit, "gap": options.gap}
    content |= {"clock": "processor seconds", "summary": summary(rows), "runs": rows}
    write_json(options.out, content)


def arguments() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=Path, help="folder of problem files (.npz)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--match", default="", help="only instances whose name contains this")
    parser.add_argument("--time-limit", type=float, default=8.0, help="processor seconds")
    parser.add_argument("--wall", type=float, default=4.0, help="wall clock per processor second")
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path, help="SVG file: draw --results, run nothing")
    parser.add_argument("--results", type=Path, nargs="+", default=[])
    return parser


def main() -> None:
    """Parse arguments, run, print the summary and write the result."""
    parser = arguments()
    options = parser.parse_args()
    if options.draw is not None:
        if not options.results:
            parser.error("--draw: name the result files with --results")
        save_figure(options.results, options.draw)
        return
    stored = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    rows: list[Row] = stored.get("runs", [])
    for row in run(options, {(str(r["instance"]), str(r["method"])) for r in rows}):
        rows.append(row)
        save(options, rows)
    for line in summary(rows):
        mark = ">= " if line["lower_limit"] else ""
        print(
            f"{line['kind']:6} p={line['p']} {line['method']:20} "
            f"{line['closed']}/{line['instances']} closed  "
            f"{mark}{line['geometric_mean_seconds']:.3g} s  {mark}{line['times_ours']:.3g} x ours"
        )


if __name__ == "__main__":
    main()
