"""Side by side: our branch and bound, enumeration, HiGHS cuts and SCIP cones.

Every method gets the same instances, gap and time limit on one thread, in its
own process, so that no method warms another's caches. A run that does not close
the gap counts as its time limit, a lower limit, marked ``>=``.

    python benchmarks/solvers.py --layers FOLDER --time-limit 10 --out result.json
"""

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # the thread counts above must be set first

from mipprune._support.files import write_json  # noqa: E402
from mipprune._support.provenance import provenance  # noqa: E402
from mipprune.problem import ChannelSelection  # noqa: E402
from mipprune.solvers import methods_for, solve  # noqa: E402

Row = dict[str, object]

METHODS = ("branch-and-bound", "enumerate", "outer-approximation", "conic")
KEEPS = {16: (8,), 32: (24,)}
MAX_ENUMERATED = 16


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


def main() -> None:
    """Parse arguments, run, print the summary and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=Path, help="folder of problem files (.npz)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64])
    parser.add_argument("--time-limit", type=float, default=10.0)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
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
