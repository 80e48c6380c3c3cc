"""L0BnB as an outside peer, on the problem it solves: one scalar per channel, a price each.

    minimise 1/2 |y - X b|^2 + l0 |b|_0 + ridge/2 |b|^2

Inputs with AR(1) correlation, n = 500, divided by sqrt(n), so that the very same arrays
and the very same objective go to every method. L0BnB calls ridge/2 its ``l2`` and needs a
bound on |b|, ``m``: it gets 1.5 times the largest weight of our solution, which is valid
and tighter than it could know by itself. The time starts from X and y. A method runs in a
process of its own, one thread, after a small problem of the same kind that compiles and
loads everything. The limit is processor seconds: L0BnB's own clock is set to them, the
others get a wall limit WALL times as long and count as closed only if they stayed below it.
A run that does not close counts as what it used, at most the limit: a lower limit, ``>=``.

L0BnB is not a dependency; it wants numpy 1 and lives in an environment of its own:

    python -m venv peer && peer/bin/pip install l0bnb "numpy<2"
    python benchmarks/solvers_l0bnb.py --peer peer/bin/python \
        --out benchmarks/results/solvers_l0bnb.json

Every row is written at once; instances that the result file already holds are not run again.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
for _name in THREADS:
    os.environ[_name] = "1"

import numpy as np  # noqa: E402  # the thread counts above must be set first

Row = dict[str, Any]
Case = dict[str, Any]

OURS = "branch-and-bound"
PEER = "l0bnb"
METHODS = (OURS, PEER, "conic")
SAMPLES = 500
BIG_M_FACTOR = 1.5
WALL = 4.0
CONIC_CHANNELS = 16


def case(p: int, correlation: float, damping: float, seed: int) -> Case:
    """Data of one instance, without its price."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(SAMPLES, p))
    for j in range(1, p):
        x[:, j] = correlation * x[:, j - 1] + math.sqrt(1 - correlation**2) * x[:, j]
    y = x @ generator.normal(size=p) + generator.normal(size=SAMPLES)
    x, y = x / math.sqrt(SAMPLES), y / math.sqrt(SAMPLES)
    return {"x": x, "y": y, "ridge": damping * float((x**2).sum()) / p, "l0": 0.0, "m": math.inf}


def objective(data: Case, support: list[int]) -> tuple[float, float]:
    """Value of a support, from the data alone, and its largest absolute weight."""
    x, y, ridge = data["x"][:, support], data["y"], data["ridge"]
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(len(support)), x.T @ y)
    residual = y - x @ weights
    value = (residual @ residual + ridge * weights @ weights) / 2 + data["l0"] * len(support)
    return float(value), float(np.abs(weights).max(initial=0.0))


def as_problem(data: Case) -> Any:
    """The instance as this library's object."""
    problem = import_module("mipprune.problem")
    x, y = data["x"], data["y"]
    return problem.ChannelSelection(
        x.T @ x,
        (x.T @ y)[:, None],
        float(y @ y),
        [1] * x.shape[1],
        ridge=data["ridge"],
        prices=data["l0"],
    )


def priced(data: Case) -> Case:
    """Add a price at which about 3/8 of the channels stay, and a valid bound on the weights."""
    solvers = import_module("mipprune.solvers")
    p = data["x"].shape[1]
    low, high = 1e-6, float(data["y"] @ data["y"])
    for _ in range(30):
        data["l0"] = math.sqrt(low * high)
        kept = int(solvers.solve(as_problem(data), "local-search", time_limit=10.0).mask.sum())
        if abs(kept - 3 * p / 8) <= p / 16:
            break
        low, high = (data["l0"], high) if kept > 3 * p / 8 else (low, data["l0"])
    solution = solvers.solve(as_problem(data), OURS, time_limit=60.0)
    support = np.flatnonzero(solution.mask).tolist()
    data["m"] = BIG_M_FACTOR * objective(data, support)[1]
    return data


def prepare(folder: Path, sizes: list[int], seeds: int) -> list[str]:
    """Write every instance; their names in order, the first one for warming up."""
    wanted = [("warm", 8, 0.5, 0.1, 0)] + [
        (f"p={p} correlation={c} damping={d} seed={s}", p, c, d, s)
        for p, c, d, s in product(sizes, (0.5, 0.9), (0.01, 0.1), range(seeds))
    ]
    for name, *arguments in wanted:
        np.savez(folder / f"{name}.npz", **priced(case(*arguments)))
    return [name for name, *_ in wanted]


def processor_seconds() -> float:
    """Of this process, all its threads and the children it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_ours(method: str) -> Callable[[Case, float, float], Row]:
    """A method of this library."""
    solvers = import_module("mipprune.solvers")

    def run(data: Case, limit: float, gap: float) -> Row:
        found = solvers.solve(as_problem(data), method, time_limit=WALL * limit, gap=gap)
        return {
            "support": np.flatnonzero(found.mask).tolist(),
            "closed": bool(found.gap <= gap * 1.001),
            "gap": found.gap if math.isfinite(found.gap) else None,
            "nodes": found.nodes,
            "version": found.version,
        }

    return run


def run_peer() -> Callable[[Case, float, float], Row]:
    """L0BnB: closed where its gap closed or its tree was exhausted."""
    tree = import_module("l0bnb.tree")
    # Its limit is in wall seconds, unfair on a machine that others use too.
    tree.time = SimpleNamespace(time=time.process_time)

    def run(data: Case, limit: float, gap: float) -> Row:
        search = tree.BNBTree(data["x"], data["y"])
        found = search.solve(
            data["l0"], data["ridge"] / 2, data["m"], gap_tol=gap, time_limit=limit
        )
        return {
            "support": np.flatnonzero(np.abs(found.beta) > 1e-12).tolist(),
            "closed": bool(found.gap <= gap or found.sol_time < limit),
            "gap": float(found.gap),
            "nodes": search.number_of_nodes,
            "version": version("l0bnb"),
        }

    return run


def work(method: str, folder: Path, names: list[str], limit: float, gap: float) -> None:
    """Run one method on every instance, one JSON line each."""
    run = run_peer() if method == PEER else run_ours(method)
    for name in names:
        with np.load(folder / f"{name}.npz") as stored:
            data = {k: v if v.ndim else float(v) for k, v in stored.items()}
        channels = data["x"].shape[1]
        if method == "conic" and channels > CONIC_CHANNELS:
            continue
        began = processor_seconds()
        row = run(data, limit, gap)
        used = processor_seconds() - began
        if name == "warm":
            continue
        closed = row["closed"] and used <= limit
        row |= {
            "instance": name,
            "p": channels,
            "method": method,
            "seconds": min(used, limit),
            "closed": closed,
            "kept": len(row["support"]),
            "value": objective(data, row["support"])[0],
            "l0": data["l0"],
            "ridge": data["ridge"],
            "m": data["m"],
        }
        print(json.dumps(row), flush=True)


def measure(
    options: argparse.Namespace, names: list[str], folder: Path, done: set[tuple[str, str]]
) -> Iterator[Row]:
    """All methods on all instances but those done, a process each."""
    for method in METHODS:
        left = [name for name in names if (name, method) not in done]
        command = [options.peer if method == PEER else sys.executable, __file__]
        command += ["--worker", method, "--cases", str(folder), "--names", *left]
        command += ["--time-limit", str(options.time_limit), "--gap", str(options.gap)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout or ():
                row = json.loads(line) if line.startswith("{") else None
                if row is None:
                    sys.stderr.write(line)
                    continue
                mark = "" if row["closed"] else ">= "
                sys.stderr.write(f"{row['instance']}  {method}  {mark}{row['seconds']:.3g} s\n")
                yield row
        if child.returncode:
            raise SystemExit(f"{method} failed with exit status {child.returncode}")


def summary(rows: list[Row]) -> list[Row]:
    """Geometric means by size and method, and by how much the closed optima differ."""
    ours = {r["instance"]: r for r in rows if r["method"] == OURS}
    table = []
    for p, method in product(sorted({r["p"] for r in rows}), METHODS):
        mine = [r for r in rows if r["method"] == method and r["p"] == p]
        if not mine:
            continue
        logs = [math.log(r["seconds"]) for r in mine]
        ratios = [math.log(r["seconds"] / ours[r["instance"]]["seconds"]) for r in mine]
        both = [(r, ours[r["instance"]]) for r in mine]
        both = [(a, b) for a, b in both if a["closed"] and b["closed"]]
        table.append(
            {
                "p": p,
                "method": method,
                "instances": len(mine),
                "closed": sum(r["closed"] for r in mine),
                "geometric_mean_seconds": math.exp(sum(logs) / len(logs)),
                "times_ours": math.exp(sum(ratios) / len(ratios)),
                "least_times_ours": math.exp(min(ratios)),
                "lower_limit": not all(r["closed"] for r in mine),
                "same_mask": sum(a["support"] == b["support"] for a, b in both),
                "largest_excess": max((a["value"] / b["value"] - 1 for a, b in both), default=None),
                "least_excess": min((a["value"] / b["value"] - 1 for a, b in both), default=None),
            }
        )
    return table


def save(rows: list[Row], options: argparse.Namespace) -> None:
    """Write what is measured so far."""
    if options.out is None:
        return
    record = import_module("mipprune._support.provenance").provenance()
    record["command"] = "python benchmarks/solvers_l0bnb.py --peer peer/bin/python"
    record["load_average"] = list(os.getloadavg())
    content = {"provenance": record, "time_limit": options.time_limit, "gap": options.gap}
    content |= {"clock": "processor seconds", "summary": summary(rows), "runs": rows}
    import_module("mipprune._support.files").write_json(options.out, content)


def main() -> None:
    """Parse arguments, run, print the summary and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", help="python of an environment with l0bnb")
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=30.0, help="processor seconds")
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--cases", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--names", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.cases, options.names, options.time_limit, options.gap)
        return
    if not options.peer:
        parser.error(
            "--peer: give the python of an environment with l0bnb (see the head of this file)"
        )
    stored = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    rows: list[Row] = stored.get("runs", [])
    with tempfile.TemporaryDirectory() as folder:
        names = prepare(Path(folder), options.sizes, options.seeds)
        done = {(row["instance"], row["method"]) for row in rows}
        for row in measure(options, names, Path(folder), done):
            rows.append(row)
            save(rows, options)
    table = summary(rows)
    for line in table:
        mark = ">= " if line["lower_limit"] else ""
        print(
            f"p={line['p']} {line['method']:17} {line['closed']}/{line['instances']} closed  "
            f"{mark}{line['geometric_mean_seconds']:.3g} s  {mark}{line['times_ours']:.3g} x ours  "
            f"same mask {line['same_mask']}"
        )


if __name__ == "__main__":
    main()
