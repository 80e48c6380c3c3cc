"""Error-against-width curves of all families, with bounds."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.progress import Progress
from mipprune.calibration import CalibratedFamily
from mipprune.errors import MissingExtraError, WorkerError
from mipprune.formulation.widths import WidthCurve
from mipprune.graph import ChannelGroups, Family
from mipprune.graph.budgets import admissible_counts, unit_rows
from mipprune.problem import ChannelSelection

__all__ = ["INVERTED_ROWS", "FamilyCurve", "family_counts", "measure_curves"]

Bools = NDArray[np.bool_]
INVERTED_ROWS = 5000
"""Rows of a layer up to which all counts are bounded in one pass, which inverts its Gram matrix."""

_Task = tuple[ChannelSelection, NDArray[np.int64], str, float | None]


@dataclass(frozen=True, eq=False)
class FamilyCurve:
    """A curve and the mask behind each of its points, bool (q, p)."""

    curve: WidthCurve
    masks: Bools


def family_counts(
    groups: ChannelGroups, family: Family, multiple_of: int, most: int
) -> NDArray[np.int64]:
    """Admissible numbers of classes, thinned to about ``most``, the whole family last."""
    rows = unit_rows(family)[0]
    exempt = len(family) - sum(len(row) for row in rows)
    size = min(len(row) for row in rows)
    minimum = max(1, -(-max(family.minimum - exempt, 1) // len(rows)))
    counts = admissible_counts(groups, family, size, minimum, multiple_of)
    if counts.size > most:
        picked = np.unique(np.linspace(0, counts.size - 1, most).round().astype(np.int64))
        counts = counts[picked]
    result: NDArray[np.int64] = counts * len(rows) + exempt
    return result


def measure_curves(
    groups: ChannelGroups,
    families: Sequence[CalibratedFamily],
    *,
    damping: float,
    shrink_to: str,
    multiple_of: int,
    most: int,
    time_limit: float | None,
    jobs: int,
    log: bool,
    kept: Callable[[str], FamilyCurve | None] = lambda _: None,
    found: Callable[[FamilyCurve], None] = lambda _: None,
) -> list[FamilyCurve]:
    """Curves of several families, ``jobs`` of them at a time in processes of their own.

    Values come from one greedy elimination per family; bounds from relaxations
    within the time limit, made monotone (more channels never hurt). Families
    that ``kept`` gives a curve for are not measured; ``found`` gets every other
    curve as soon as it is there. With ``jobs`` > 1 the backend of joblib that is
    active is used: processes of this machine, or Dask inside
    ``joblib.parallel_config("dask")``.

    Raises
    ------
    WorkerError
        A process that measures died.
    """
    curves = {family.family.name: kept(family.family.name) for family in families}
    missing = [family for family in families if curves[family.family.name] is None]
    share = None if time_limit is None else time_limit * jobs / max(len(missing), 1)
    tasks = [
        (
            family.problem(damping=damping, shrink_to=shrink_to),
            family_counts(groups, family.family, multiple_of, most),
            family.family.name,
            share,
        )
        for family in missing
    ]
    measured = (_measure(*task) for task in tasks) if jobs == 1 else _in_parallel(tasks, jobs)
    with Progress("curves", len(tasks), unit="families", enabled=log) as progress:
        for curve in measured:
            curves[curve.curve.family] = curve
            found(curve)
            progress.update()
    return [curve for curve in curves.values() if curve is not None]


def _in_parallel(tasks: Sequence[_Task], jobs: int) -> Iterator[FamilyCurve]:
    """Curves as they are finished."""
    try:
        joblib: Any = import_module("joblib")
    except ImportError:
        raise MissingExtraError("joblib", "dask", "for jobs > 1") from None
    parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    try:
        yield from parallel(joblib.delayed(_measure)(*task) for task in tasks)
    except _worker_deaths() as error:
        raise WorkerError(
            f"a process that measured curves died ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}); out "
            "of memory is the usual reason: take fewer jobs. Curves that were finished are kept "
            "in out= (if that was given): run again with resume"
        ) from error


def _worker_deaths() -> tuple[type[BaseException], ...]:
    """What joblib's backends raise when a worker is gone."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return (BrokenExecutor,)
    return (BrokenExecutor, distributed.KilledWorker)


def _measure(
    problem: ChannelSelection,
    counts: NDArray[np.int64],
    name: str,
    time_limit: float | None,
) -> FamilyCurve:
    began = time.monotonic()
    masks = _masks(problem, counts)
    values = np.array([problem.value(mask) for mask in masks])
    # The best mask with fewer channels is one with more of them allowed.
    values = np.minimum.accumulate(values)
    left = None if time_limit is None else time_limit - (time.monotonic() - began)
    bounds = _bounds(problem, counts, values, left)
    return FamilyCurve(WidthCurve(name, counts, values, bounds), masks)


def _masks(problem: ChannelSelection, counts: NDArray[np.int64]) -> Bools:
    """Best masks known at each count, bool (q, p)."""
    from mipprune.solvers import solve
    from mipprune.solvers.elimination_path import elimination_path

    if problem.parts:
        found = [solve(problem.with_keep(int(k)), "local-search", rounds=0).mask for k in counts]
        full = np.ones(problem.n_channels, dtype=bool)
        return np.array([full if mask is None else mask for mask in found])
    path = elimination_path(problem, counts.tolist())
    return np.array([path[int(k)] for k in counts])


def _bounds(
    problem: ChannelSelection,
    counts: NDArray[np.int64],
    values: NDArray[np.float64],
    time_limit: float | None,
) -> NDArray[np.float64]:
    """Valid bounds; never below the error with every channel kept.

    One pass bounds all counts; then relaxations one count at a time, as long as there is
    time for one more.
    """
    from mipprune.relaxation import bounds_of_keeps, relax

    began = time.monotonic()
    floor = problem.value(np.ones(problem.n_channels, dtype=bool))
    floor -= 1e-9 * max(abs(floor), problem.energy)
    bounds = np.full(counts.size, floor)
    spent = slowest = 0.0
    limit = math.inf if time_limit is None else time_limit
    if max(term.n_rows for term in problem.terms) <= INVERTED_ROWS and limit > 0:
        bounds = np.maximum(bounds, bounds_of_keeps(problem, counts.tolist()))
        spent = time.monotonic() - began
    # From the middle outwards: that is where widths are usually chosen.
    for index in np.argsort(np.abs(np.arange(counts.size) - counts.size / 2), kind="stable"):
        if counts[index] == problem.n_channels:
            continue
        left = limit - spent
        if left <= slowest:  # a relaxation of a wide layer takes its time whatever its limit
            break
        allowed = None if time_limit is None else max(left / 4, 0.05)
        found = relax(problem.with_keep(int(counts[index])), time_limit=allowed).bound
        bounds[index] = max(bounds[index], found)
        slowest = max(slowest, time.monotonic() - began - spent)
        spent = time.monotonic() - began
    # Fewer channels cost at least as much: a bound holds for all smaller counts.
    result: NDArray[np.float64] = np.maximum.accumulate(bounds[::-1])[::-1]
    return np.minimum(result, values)
