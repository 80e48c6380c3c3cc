"""Widths of all families under budgets, solved with HiGHS through Pyomo."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import NoSolutionError
from mipprune.formulation.widths import (
    ResourceCost,
    WidthCurve,
    build_width_program,
    resource_costs,
)
from mipprune.graph import ChannelGroups
from mipprune.graph.budgets import Resource

__all__ = ["WidthSolution", "choose_widths"]

TOLERANCE = 1e-8
"""What the solver's tolerances may hide, relative to the largest error of a curve."""


@dataclass(frozen=True, eq=False)
class WidthSolution:
    """Result of :func:`choose_widths`.

    Attributes
    ----------
    counts : family name -> number of classes that stay
    value : float
        Sum of the curves' values, recomputed from the counts.
    bound : float
        Lower bound on that sum over all admissible widths.
    error_bound : float
        Lower bound on the total error over all widths *and masks*: the program
        over the curves' lower bounds.
    costs : resource name -> cost
    seconds : float
    proven : bool
        Whether value and bound meet within the gap asked for.
    """

    counts: dict[str, int]
    value: float
    bound: float
    error_bound: float
    costs: dict[str, float]
    seconds: float
    proven: bool

    @property
    def gap(self) -> float:
        """``(value - bound) / value`` of the choice of widths, curves taken as given."""
        return max(self.value - self.bound, 0.0) / max(self.value, 1e-300)

    @property
    def error_gap(self) -> float:
        """``(value - error_bound) / value``: widths and masks together."""
        return max(self.value - self.error_bound, 0.0) / max(self.value, 1e-300)


def choose_widths(
    groups: ChannelGroups,
    curves: Sequence[WidthCurve],
    resources: Sequence[Resource],
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    log: bool = False,
) -> WidthSolution:
    """Choose how many classes of each family stay, with the exact bilinear costs.

    Parameters
    ----------
    groups : ChannelGroups
    curves : sequence of WidthCurve
        Families without a curve stay whole.
    resources : sequence of Resource
        From ``Budgets.resolve``.
    time_limit : float, optional
        Seconds for both programs together.
    gap : float
        Relative gap at which to stop.
    log : bool
        Show the solver's log.

    Raises
    ------
    BudgetError
        A limit is below the cost of the narrowest widths.
    NoSolutionError
        No widths found that meet all limits together.
    """
    began = time.monotonic()
    scale = max((float(np.abs(curve.values).max()) for curve in curves), default=0.0)
    # Tolerances of the solver are absolute: the program sees errors of at most one.
    scale = scale if scale > 0 else 1.0
    given, curves = curves, [_scaled(curve, 1.0 / scale) for curve in curves]
    costs = [resource_costs(groups, curves, resource.terms) for resource in resources]
    best = _incumbent(curves, costs, resources)
    model = build_width_program(curves, costs, resources)
    _start(model, best)
    share = None if time_limit is None else 0.6 * time_limit
    choice, bound = _run(model, share, gap, best is not None, log)
    choice = _better(curves, costs, resources, choice, best)
    if choice is None:
        raise NoSolutionError("no widths meet all budgets together; raise one of them")
    value = sum(float(curve.values[i]) for curve, i in zip(given, choice, strict=True))
    # A program that ended before its first bound: each family at its best width.
    bound = max(scale * bound - TOLERANCE * scale, sum(float(c.values.min()) for c in given))
    lower = build_width_program(curves, costs, resources, use_bounds=True)
    _start(lower, choice)
    left = None if time_limit is None else max(time_limit - (time.monotonic() - began), 0.5)
    _, error_bound = _run(lower, left, gap, True, False)
    error_bound = scale * error_bound - TOLERANCE * scale
    error_bound = max(error_bound, sum(float(c.bounds.min()) for c in given))
    return WidthSolution(
        counts={c.family: int(c.counts[i]) for c, i in zip(curves, choice, strict=True)},
        value=value,
        bound=min(bound, value),
        error_bound=min(error_bound, bound, value),
        costs={r.name: cost.value(choice) for r, cost in zip(resources, costs, strict=True)},
        seconds=time.monotonic() - began,
        proven=value - bound <= gap * abs(value) + 2 * TOLERANCE * scale,
    )


def _run(
    model: Any, time_limit: float | None, gap: float, warm: bool, log: bool
) -> tuple[list[int] | None, float]:
    """Chosen options and bound."""
    from pyomo.contrib.appsi.solvers import Highs

    engine = Highs()
    engine.config.load_solution = False
    engine.config.time_limit = time_limit
    engine.config.warmstart = warm
    engine.config.stream_solver = log
    # Budgets are scaled to 1: a tolerance of 1e-9 is below one MAC in a billion.
    engine.highs_options = {
        "mip_rel_gap": gap,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": 1e-9,
    }
    results = engine.solve(model)
    bound = results.best_objective_bound
    bound = -math.inf if bound is None or not math.isfinite(bound) else float(bound)
    if results.best_feasible_objective is None:
        return None, bound
    results.solution_loader.load_vars()
    chosen: dict[int, int] = {}
    for (f, i), variable in model.choose.items():
        if variable.value > 0.5:
            chosen[f] = i
    return [chosen[f] for f in sorted(chosen)], bound


def _scaled(curve: WidthCurve, factor: float) -> WidthCurve:
    return replace(curve, values=factor * curve.values, bounds=factor * curve.bounds)


def _incumbent(
    curves: Sequence[WidthCurve], costs: Sequence[ResourceCost], resources: Sequence[Resource]
) -> list[int] | None:
    """Greedy start: narrow the family whose error rises least per cost saved."""
    choice = [curve.counts.size - 1 for curve in curves]
    while not _fits(costs, resources, choice):
        best, best_rate = None, math.inf
        before = _excess(costs, resources, choice)
        for f, curve in enumerate(curves):
            if choice[f] == 0:
                continue
            step = [*choice[:f], choice[f] - 1, *choice[f + 1 :]]
            saved = before - _excess(costs, resources, step)
            rise = max(float(curve.values[choice[f] - 1] - curve.values[choice[f]]), 0.0)
            if saved > 0 and rise / saved < best_rate:
                best, best_rate = step, rise / saved
        if best is None:
            return None
        choice = best
    return choice


def _excess(
    costs: Sequence[ResourceCost], resources: Sequence[Resource], choice: list[int]
) -> float:
    """Sum of the relative amounts by which limits are exceeded."""
    pairs = zip(costs, resources, strict=True)
    return sum(max(cost.value(choice) / r.limit - 1.0, 0.0) for cost, r in pairs)


def _fits(costs: Sequence[ResourceCost], resources: Sequence[Resource], choice: list[int]) -> bool:
    pairs = zip(costs, resources, strict=True)
    return all(cost.value(choice) <= r.limit * (1 + 1e-12) for cost, r in pairs)


def _better(
    curves: Sequence[WidthCurve],
    costs: Sequence[ResourceCost],
    resources: Sequence[Resource],
    found: list[int] | None,
    start: list[int] | None,
) -> list[int] | None:
    """The better of two choices that truly meet the limits."""

    def value(choice: list[int]) -> float:
        return sum(float(c.values[i]) for c, i in zip(curves, choice, strict=True))

    fitting = [c for c in (found, start) if c is not None and _fits(costs, resources, c)]
    return min(fitting, key=value, default=None)


def _start(model: Any, choice: list[int] | None) -> None:
    if choice is None:
        return
    values: NDArray[np.int64] = np.array(choice)
    for (f, i), variable in model.choose.items():
        variable.set_value(int(values[f] == i))
