"""The side-by-side benchmark runs, tiny, and its summary counts time-outs as lower limits."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mipprune.problem import ChannelSelection
from mipprune.solvers import solve

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("solvers.py")


@pytest.fixture(scope="module")
def battery() -> ModuleType:
    return script("solvers_battery.py")


def test_every_method_measures_the_same_optimum(benchmark: ModuleType) -> None:
    problem = benchmark.autoregressive(6, 0.5, 0.1)
    rows = [benchmark.measure(problem, m, 20.0, 1e-4) for m in benchmark.applicable(problem)]
    assert {row["method"] for row in rows} >= set(benchmark.METHODS) - {"gurobi"}
    assert all(row["closed"] for row in rows)
    values = [row["value"] for row in rows]
    assert max(values) <= min(values) * (1 + 1e-4)


def test_instances_are_fixed(benchmark: ModuleType) -> None:
    first, again = (dict(benchmark.instances(None, (6,))) for _ in range(2))
    assert len(first) == 4
    assert {k: p.content_hash for k, p in first.items()} == {
        k: p.content_hash for k, p in again.items()
    }


def test_a_time_out_makes_the_mean_a_lower_limit(benchmark: ModuleType) -> None:
    rows = [
        {"instance": "ar1 a", "method": "branch-and-bound", "seconds": 0.1, "closed": True},
        {"instance": "ar1 a", "method": "conic", "seconds": 10.0, "closed": False},
    ]
    table = benchmark.summary(rows)
    assert [line["lower_limit"] for line in table] == [False, True]
    assert table[1]["times_ours"] == pytest.approx(100.0)


def test_a_refused_run_is_in_no_mean(benchmark: ModuleType) -> None:
    rows = [
        {"instance": "ar1 a", "method": "branch-and-bound", "seconds": 0.1, "closed": True},
        {"instance": "ar1 a", "method": "gurobi", "closed": False, "refused": "too large"},
    ]
    assert [line["method"] for line in benchmark.summary(rows)] == ["branch-and-bound"]
    assert list(benchmark.profile(rows)) == ["branch-and-bound"]


def test_a_model_that_takes_too_long_to_write_is_listed_as_refused(benchmark: ModuleType) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 200))
    y = x @ generator.normal(size=(200, 60))
    gram, cross = x.T @ x / 400, x.T @ y / 400
    wide = ChannelSelection(gram, cross, (y**2).sum() / 400, [10] * 20, ridge=0.1, keep=10)
    row = benchmark.measure(wide, "conic", 20.0, 1e-4)
    assert row["refused"] == benchmark.NOT_BEGUN


def test_profile_counts_time_outs_and_leaves_out_what_did_not_run(benchmark: ModuleType) -> None:
    rows = [
        {"instance": "a", "method": "branch-and-bound", "seconds": 0.1, "closed": True},
        {"instance": "a", "method": "conic", "seconds": 0.4, "closed": True},
        {"instance": "b", "method": "branch-and-bound", "seconds": 10.0, "closed": False},
        {"instance": "b", "method": "conic", "seconds": 2.0, "closed": True},
        {"instance": "b", "method": "enumerate", "seconds": 3.0, "closed": True},
    ]
    ratios = benchmark.profile(rows)
    assert ratios["branch-and-bound"] == [1.0, float("inf")]
    assert ratios["conic"] == pytest.approx([1.0, 4.0])
    assert ratios["enumerate"] == [1.5]


def test_the_battery_is_that_of_the_tests_and_finds_no_fault(
    battery: ModuleType, random_problem: Callable[..., ChannelSelection]
) -> None:
    methods = ("enumerate", "local-search")
    rows = list(battery.rows_of(range(2001, 2004), methods, limit=1.0))
    assert [(row["seed"], row["method"]) for row in rows] == [
        (seed, method) for seed in range(2001, 2004) for method in methods
    ]
    assert not any(row["faults"] for row in rows)
    again = battery.battery()(2001)
    assert again.content_hash == random_problem(2001, 12).content_hash
    table = {line["method"]: line for line in battery.summary(rows)}
    assert table["enumerate"]["closed"] == 3
    assert table["local-search"]["closed"] == 0


def test_the_battery_names_what_is_wrong(benchmark: ModuleType, battery: ModuleType) -> None:
    problem = benchmark.autoregressive(6, 0.5, 0.1)
    best = solve(problem, "enumerate")
    assert best.mask is not None
    worse: dict[str, Any] = {"mask": ~best.mask, "value": problem.value(~best.mask)}
    forged: dict[str, dict[str, Any]] = {
        "bound above the optimum": worse | {"bound": best.value + 1e-6 * problem.energy},
        "value below the optimum": {"value": 0.9 * best.value, "bound": -np.inf},
        "infeasible mask": {"mask": np.ones(6, dtype=bool)},
        "called optimal and is not": worse,
    }
    for fault, changes in forged.items():
        found = dataclasses.replace(best, **changes)
        assert fault in battery.faults(problem, best, found, "branch-and-bound")
    external = dataclasses.replace(best, statistics={"external_bound": best.value * 1.01})
    assert battery.faults(problem, best, external, "conic") == [
        "bound of the external solver above the optimum by more than the margin"
    ]
    assert battery.faults(problem, best, best, "branch-and-bound") == []
