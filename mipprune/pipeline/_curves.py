"""Error-against-width curves of all families, with bounds."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.progress import Progress
from mipprune.calibration import CalibratedFamily
from mipprune.errors import MissingExtraError
from mipprune.formulation.widths import WidthCurve
from mipprune.graph import ChannelGroups, Family
from mipprune.graph.budgets import admissible_counts, unit_rows
from mipprune.problem import ChannelSelection

__all__ = ["FamilyCurve", "family_counts", "measure_curves"]

Bools = NDArray[np.bool_]


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
    multiple_of: int,
    most: int,
    time_limit: float | None,
    jobs: int,
    log: bool,
) -> list[FamilyCurve]:
    """Curves of several families, ``jobs`` of them at a time in processes of their own.

    Values come from one greedy elimination per family; bounds from relaxations
    within the time limit, made monotone (more channels never hurt).
    """
    share = None if time_limit is None else time_limit * jobs / max(len(families), 1)
    tasks = [
        (
            family.problem(damping=damping),
            family_counts(groups, family.family, multiple_of, most),
            family.family.name,
            share,
        )
        for family in families
    ]
    if jobs == 1:
        found = []
        with Progress("curves", len(tasks), unit="families", enabled=log) as progress:
            for task in tasks:
                found.append(_measure(*task))
                progress.update()
        return found
    try:
        joblib: Any = import_module("joblib")
    except ImportError:
        raise MissingExtraError("joblib", "dask", "for jobs > 1") from None
    parallel = joblib.Parallel(n_jobs=jobs, verbose=5 if log else 0)
    return list(parallel(joblib.delayed(_measure)(*task) for task in tasks))


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
    """Valid bounds; never below the error with every channel kept."""
    from mipprune.relaxation import relax

    began = time.monotonic()
    floor = problem.value(np.ones(problem.n_channels, dtype=bool))
    floor -= 1e-9 * max(abs(floor), problem.energy)
    bounds = np.full(counts.size, floor)
    # From the middle outwards: that is where widths are usually chosen.
    for index in np.argsort(np.abs(np.arange(counts.size) - counts.size / 2), kind="stable"):
        spent = time.monotonic() - began
        left = math.inf if time_limit is None else time_limit - spent
        if left <= 0 or counts[index] == problem.n_channels:
            continue
        allowed = None if time_limit is None else max(left / 4, 0.05)
        found = relax(problem.with_keep(int(counts[index])), time_limit=allowed).bound
        bounds[index] = max(bounds[index], found)
    # Fewer channels cost at least as much: a bound holds for all smaller counts.
    result: NDArray[np.float64] = np.maximum.accumulate(bounds[::-1])[::-1]
    return np.minimum(result, values)
