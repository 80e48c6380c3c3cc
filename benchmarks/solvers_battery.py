"""All solvers on the random battery of the tests, against enumeration; local search on layers.

Instance ``seed`` is ``random_instance(seed, channels, box=seed % 10 == 0)`` of
``tests/solvers/conftest.py``: 2 to 12 channels, groups of 0 to 9 rows, 1 to 8 responses, one
or two terms, every variant, budgets, prices, damping 0 to 0.1, singular matrices,
duplicate channels, forced channels, equal counts, infeasible limits.

    python benchmarks/solvers_battery.py run --out battery.json --minutes 10
    python benchmarks/solvers_battery.py run --out battery.json --methods conic --limit 5
    python benchmarks/solvers_battery.py layers FOLDER --out battery.json \
        --proven benchmarks/results/branch_and_bound.json
    python benchmarks/solvers_battery.py table --out battery.json

Runs that the file holds are not repeated, so that it can be filled in pieces. Every row is
checked; ``faults`` lists what is wrong with it, and the exit status is 1 where a row has any.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # thread counts come first

from mipprune._support.files import write_json  # noqa: E402  # as above
from mipprune._support.provenance import provenance  # noqa: E402  # as above
from mipprune.errors import SolverError  # noqa: E402  # as above
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination  # noqa: E402  # as above
from mipprune.solvers import methods_for, solve  # noqa: E402  # as above
from mipprune.solvers._external import MARGIN  # noqa: E402  # as above

Row = dict[str, Any]

EXACT = "enumerate"
OURS = "branch-and-bound"
HEURISTIC = "local-search"
GUROBI = "conic-gurobi"
METHODS = (EXACT, OURS, HEURISTIC, "outer-approximation", "conic", GUROBI)
FIRST, LAST = 2000, 2559
CHANNELS = 12
OUR_GAP, GENERIC_GAP = 1e-8, 1e-5
ROUNDS = 24
VALUE_ROUNDING, BOUND_ROUNDING = 1e-9, 1e-10
"""Relative to the energy: what two ways to compute a value may differ by."""

PROVEN_GAP = 1e-6
SAVE_SECONDS = 60.0


def battery(channels: int = CHANNELS) -> Callable[[int], ChannelSelection]:
    """Function seed -> instance, the tests' own."""
    path = Path(__file__).resolve().parents[1] / "tests" / "solvers" / "conftest.py"
    spec = importlib.util.spec_from_file_location("battery_instances", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported; run this from a checkout of the repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def instance(seed: int) -> ChannelSelection:
        problem: ChannelSelection = module.random_instance(seed, channels, box=seed % 10 == 0)
        return problem

    return instance


def takes(problem: ChannelSelection, method: str) -> bool:
    """Whether a method of this script accepts the problem."""
    return method.removesuffix("-gurobi") in methods_for(problem)


def run_one(problem: ChannelSelection, method: str, seed: int, limit: float) -> Solution:
    """One method on one instance; the limit is for generic solvers."""
    if method == OURS:
        return solve(problem, OURS, gap=OUR_GAP)
    if method == HEURISTIC:
        return solve(problem, HEURISTIC, seed=seed, rounds=ROUNDS)
    if method == GUROBI:
        return solve(problem, "conic", gap=GENERIC_GAP, time_limit=limit, solver="gurobi")
    return solve(problem, method, gap=GENERIC_GAP, time_limit=limit)


def faults(problem: ChannelSelection, best: Solution, found: Solution, method: str) -> list[str]:
    """What contradicts the enumerated optimum; empty where nothing does."""
    if best.mask is None:
        wrong = found.mask is not None or (
            method != HEURISTIC and found.status is not SolutionStatus.INFEASIBLE
        )
        return ["infeasibility not found"] if wrong else []
    if found.mask is None:
        return ["no mask"]
    energy, excess = problem.energy, found.value - best.value
    rounding = VALUE_ROUNDING * energy
    result = []
    if not problem.is_feasible(found.mask):
        result.append("infeasible mask")
    if found.value != problem.value(found.mask):
        result.append("value of another mask")
    if excess < -rounding:
        result.append("value below the optimum")
    if found.bound > best.value + BOUND_ROUNDING * energy:
        result.append("bound above the optimum")
    # A mask that is optimal already hides a bound that is too high.
    if found.statistics.get("external_bound", -math.inf) > best.value + MARGIN * energy:
        result.append("bound of the external solver above the optimum by more than the margin")
    if method == HEURISTIC:
        if found.bound != -math.inf:
            result.append("bound of a heuristic")
        return result
    gap = OUR_GAP if method in (EXACT, OURS) else GENERIC_GAP
    if found.status is SolutionStatus.OPTIMAL:
        if excess > gap * abs(best.value) + rounding:
            result.append("called optimal and is not")
    elif method in (EXACT, OURS):
        result.append("not closed")
    elif found.termination is Termination.SOLVER:
        # Stopped by its own tolerances: the mask must still be right.
        # A value next to zero has no relative gap.
        opened = (found.value - found.bound) / max(abs(found.value), 1e-3 * energy)
        if excess > 1e-4 * abs(best.value) + rounding or opened >= 1e-3:
            result.append("stopped far from the optimum")
    elif found.termination is not Termination.TIME_LIMIT:
        result.append(f"ended by {found.termination.name}")
    return result


def judged(problem: ChannelSelection, best: Solution, method: str, seed: int, limit: float) -> Row:
    """Run one method and compare; a model that Gurobi's licence refuses is a row of its own."""
    began = time.process_time()
    try:
        found = best if method == EXACT else run_one(problem, method, seed, limit)
    except SolverError as error:
        wrong = [] if method == GUROBI and "licence" in str(error) else [str(error)]
        used = round(time.process_time() - began, 4)
        common: Row = {"seed": seed, "method": method, "p": problem.n_channels}
        return common | {"status": "REFUSED", "seconds": used, "faults": wrong}
    row: Row = {
        "seed": seed,
        "method": method,
        "p": problem.n_channels,
        "status": found.status.name,
        "seconds": round(time.process_time() - began, 4),
        "faults": faults(problem, best, found, method),
    }
    if best.mask is not None and found.mask is not None:
        row["ratio"] = found.value / best.value if best.value else 1.0
        row["excess_of_energy"] = (found.value - best.value) / problem.energy
        if math.isfinite(found.bound):
            row["bound_excess_of_energy"] = (found.bound - best.value) / problem.energy
        external = found.statistics.get("external_bound")
        if external is not None and math.isfinite(external):
            row["external_bound_excess_of_energy"] = (external - best.value) / problem.energy
    return row


def rows_of(
    seeds: Iterable[int],
    methods: Iterable[str],
    *,
    limit: float,
    channels: int = CHANNELS,
    done: frozenset[tuple[int, str]] = frozenset(),
) -> Iterator[Row]:
    """Checked rows of every instance and method that takes it."""
    instance, wanted = battery(), tuple(methods)
    for seed in seeds:
        left = [m for m in wanted if (seed, m) not in done]
        if not left:
            continue
        problem = instance(seed)
        if problem.n_channels > channels:
            continue
        began = time.process_time()
        best = solve(problem, EXACT)
        used = round(time.process_time() - began, 4)
        for method in left:
            if takes(problem, method):
                row = judged(problem, best, method, seed, limit)
                yield row | {"seconds": used} if method == EXACT else row


def missed(row: Row) -> bool:
    """Whether a mask is worse than the optimum by more than rounding."""
    ratio, excess = row.get("ratio", 1.0), row.get("excess_of_energy", 0.0)
    return bool(abs(ratio - 1) > OUR_GAP and excess > VALUE_ROUNDING)


def summary(rows: list[Row]) -> list[Row]:
    """Counts and worst figures per method."""
    table = []
    for method in METHODS:
        mine = [r for r in rows if r["method"] == method]
        if not mine:
            continue
        feasible = [r for r in mine if "ratio" in r]
        table.append(
            {
                "method": method,
                "instances": len(mine),
                "refused": sum(r["status"] == "REFUSED" for r in mine),
                "infeasible": sum(r["status"] == "INFEASIBLE" for r in mine),
                "closed": sum(r["status"] == "OPTIMAL" for r in mine),
                "optimum_found": sum(not missed(r) for r in feasible),
                "with_mask": len(feasible),
                "worst_ratio": max((r["ratio"] for r in feasible if missed(r)), default=1.0),
                "largest_bound_excess_of_energy": max(
                    (r["bound_excess_of_energy"] for r in mine if "bound_excess_of_energy" in r),
                    default=None,
                ),
                "largest_external_bound_excess_of_energy": max(
                    (
                        r["external_bound_excess_of_energy"]
                        for r in mine
                        if "external_bound_excess_of_energy" in r
                    ),
                    default=None,
                ),
                "processor_seconds": sum(r["seconds"] for r in mine),
                "faulty": [r["seed"] for r in mine if r["faults"]],
            }
        )
    return table


def layer_rows(folder: Path, proven: list[Path], seeds: int) -> Iterator[Row]:
    """Local search on the layers whose optimum the given results of branch and bound prove."""
    stored = [row for path in proven for row in json.loads(path.read_text())["rows"]]
    optima = {(r["layer"], r["keep"]): r for r in stored if r["status"] == "OPTIMAL"}
    for (layer, keep), optimum in sorted(optima.items()):
        path = folder / f"{layer}.npz"
        if path.exists():
            problem = ChannelSelection.load(path).with_keep(keep)
            everything = problem.value(np.ones(problem.n_channels, dtype=bool))
            if not math.isclose(everything, optimum["value_all_kept"], rel_tol=1e-6):
                raise SystemExit(f"{path} is not the layer that --proven speaks of")
            for seed in range(seeds):
                began = time.process_time()
                found = solve(problem, HEURISTIC, seed=seed, rounds=ROUNDS)
                ratio = found.value / optimum["value"]
                wrong = found.value < optimum["bound"] - BOUND_ROUNDING * problem.energy
                yield {
                    "layer": layer,
                    "keep": keep,
                    "seed": seed,
                    "ratio": ratio,
                    "found": ratio <= 1 + PROVEN_GAP,
                    "seconds": round(time.process_time() - began, 4),
                    "faults": ["value below a proven bound"] if wrong else [],
                }


def save(path: Path, rows: list[Row], layers: list[Row]) -> None:
    """Write what is there so far, a row as one line."""
    record = provenance()
    record["command"] = "python benchmarks/solvers_battery.py run (in pieces)"
    content = {
        "provenance": record,
        "clock": "processor seconds",
        "summary": summary(rows),
        "layers_summary": layers_summary(layers),
        "runs": [slim(row) for row in rows],
        "layers": [slim(row) for row in layers],
    }
    write_json(path, content)


def slim(row: Row) -> str:
    """A row as one line without what goes without saying."""
    kept = {k: v for k, v in row.items() if k != "faults" or v}
    return json.dumps(
        {k: float(f"{v:.3g}") if k.endswith("_of_energy") else v for k, v in kept.items()}
    )


def layers_summary(layers: list[Row]) -> Row:
    """Share of the proven layer instances whose optimum local search found."""
    names = {(row["layer"], row["keep"]) for row in layers}
    return {
        "instances": len(names),
        "runs": len(layers),
        "optimum_found": sum(row["found"] for row in layers),
        "worst_ratio": max((row["ratio"] for row in layers), default=None),
    }


def load(path: Path) -> tuple[list[Row], list[Row]]:
    """Rows of an earlier run."""
    if not path.exists():
        return [], []
    content = json.loads(path.read_text())
    runs, layers = (
        [{"faults": []} | json.loads(line) for line in content[key]] for key in ("runs", "layers")
    )
    return runs, layers


def fill(options: argparse.Namespace, rows: list[Row], layers: list[Row]) -> None:
    """Run the battery until it is through or the minutes are over."""
    done = frozenset((row["seed"], row["method"]) for row in rows)
    seeds = range(options.first, options.last + 1)
    began = saved = time.monotonic()
    for row in rows_of(
        seeds, options.methods, limit=options.limit, channels=options.channels, done=done
    ):
        rows.append(row)
        if row["faults"]:
            sys.stderr.write(f"{row}\n")
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            save(options.out, rows, layers)
            saved = now
        if now - began > 60 * options.minutes:
            sys.stderr.write(f"stopped after seed {row['seed']}; run again to go on\n")
            break
    save(options.out, rows, layers)


def main() -> None:
    """Run, save and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("run", "layers", "table"))
    parser.add_argument("folder", nargs="?", type=Path, help="layers: problem files (.npz)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS[:3]))
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--last", type=int, default=LAST)
    parser.add_argument("--channels", type=int, default=CHANNELS, help="skip larger instances")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds, generic solvers")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--proven", type=Path, nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=1, help="layers: runs of local search each")
    options = parser.parse_args()
    rows, layers = load(options.out)
    if options.what == "run":
        fill(options, rows, layers)
    elif options.what == "layers":
        if options.folder is None or not options.proven:
            parser.error("layers: give the folder and --proven")
        layers = list(layer_rows(options.folder, options.proven, options.seeds))
        save(options.out, rows, layers)
    for line in [*summary(rows), layers_summary(layers)]:
        print(line)
    if any(row["faults"] for row in [*rows, *layers]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
