"""Candidate widths, tried on examples that no statistic has seen.

The width program adds up errors of families pruned one at a time. Pruned
together, later families compensate for earlier ones, so its optimum need not be
the best network. Other admissible widths are therefore carried out too, quickly,
and compared by the outputs.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from torch import nn

from mipprune._support.progress import Progress
from mipprune.calibration import CalibratedFamily, apply_weights
from mipprune.formulation.widths import WidthCurve, resource_costs
from mipprune.graph import ChannelGroups
from mipprune.graph.budgets import Resource
from mipprune.pipeline._curves import FamilyCurve
from mipprune.problem import ChannelSelection
from mipprune.solvers.widths import WidthSolution

__all__ = [
    "Batches",
    "carry_out",
    "held_out",
    "late_weighted",
    "try_out",
    "uniform_widths",
    "with_counts",
]

EVERY = 4
"""One batch in so many is held out."""

FIRST_WEIGHT = 0.3
"""What the first family counts against the last in ``late_weighted``."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Some of the batches of an iterable that can be read several times."""

    whole: Iterable[Any]
    wanted: Callable[[int], bool]

    def __iter__(self) -> Iterator[Any]:
        return (batch for index, batch in enumerate(self.whole) if self.wanted(index))


def held_out(batches: Iterable[Any]) -> tuple[Iterable[Any], Iterable[Any]]:
    """Batches for statistics and for comparison; all for both where there are few."""
    if len(list(islice(batches, EVERY))) < EVERY:
        return batches, batches
    return (
        Batches(batches, lambda index: index % EVERY != EVERY - 1),
        Batches(batches, lambda index: index % EVERY == EVERY - 1),
    )


def uniform_widths(
    groups: ChannelGroups, curves: Sequence[WidthCurve], resources: Sequence[Resource]
) -> dict[str, int] | None:
    """The same share of every family, as large as the budgets allow, of the offered widths.

    What is left of the budgets goes to the families with the smallest share.
    None where even the narrowest widths are too much.
    """
    costs = [resource_costs(groups, curves, resource.terms) for resource in resources]

    def fits(choice: Sequence[int]) -> bool:
        return all(
            cost.value(list(choice)) <= resource.limit * (1 + 1e-12)
            for cost, resource in zip(costs, resources, strict=True)
        )

    shares = [curve.counts / curve.counts[-1] for curve in curves]
    choice: list[int] | None = None
    for share in sorted({float(s) for part in shares for s in part}, reverse=True):
        trial: list[int] = [
            max(int(np.searchsorted(s, share, side="right")) - 1, 0) for s in shares
        ]
        if fits(trial):
            choice = trial
            break
    if choice is None:
        return None
    kept = [float(part[index]) for part, index in zip(shares, choice, strict=True)]
    for index in np.argsort(kept, kind="stable"):
        wider = list(choice)
        wider[index] += 1
        if wider[index] < len(shares[index]) and fits(wider):
            choice = wider
    return {c.family: int(c.counts[i]) for c, i in zip(curves, choice, strict=True)}


def late_weighted(curves: Sequence[WidthCurve]) -> list[WidthCurve]:
    """Curves times factors that rise through the network.

    What an early family loses, the refitted layers after it make up for in part.
    """
    factors = np.linspace(FIRST_WEIGHT, 1.0, len(curves))
    return [
        replace(curve, values=float(f) * curve.values, bounds=float(f) * curve.bounds)
        for f, curve in zip(factors, curves, strict=True)
    ]


def with_counts(
    found: WidthSolution,
    counts: Mapping[str, int],
    groups: ChannelGroups,
    curves: Sequence[WidthCurve],
    resources: Sequence[Resource],
) -> WidthSolution:
    """``found`` with other widths: their value, and the same bounds on any widths."""
    choice = [int(np.flatnonzero(c.counts == counts[c.family])[0]) for c in curves]
    value = sum(float(c.values[i]) for c, i in zip(curves, choice, strict=True))
    costs = {r.name: resource_costs(groups, curves, r.terms).value(choice) for r in resources}
    return replace(
        found,
        counts=dict(counts),
        value=value,
        bound=min(found.bound, value),
        error_bound=min(found.error_bound, value),
        costs=costs,
        proven=found.proven and value <= found.value * (1 + 1e-9),
    )


def try_out(
    candidates: Mapping[str, Mapping[str, int]],
    error: Callable[[Mapping[str, int]], float],
    time_limit: float | None,
    log: bool,
) -> dict[str, float]:
    """Error of each candidate, the first always, others as long as there is time for one more."""
    began, slowest = time.monotonic(), 0.0
    errors: dict[str, float] = {}
    done: list[Mapping[str, int]] = []
    with Progress("widths", len(candidates), unit="trials", enabled=log) as progress:
        for name, counts in candidates.items():
            spent = time.monotonic() - began
            late = time_limit is not None and spent + slowest > time_limit
            if dict(counts) not in [dict(other) for other in done] and not (errors and late):
                done.append(counts)
                value = error(counts)
                errors[name] = value if math.isfinite(value) else math.inf
                slowest = max(slowest, time.monotonic() - began - spent)
            progress.update()
    return errors


def carry_out(
    model: nn.Module,
    counts: Mapping[str, int],
    curves: Sequence[FamilyCurve],
    statistics: Callable[[nn.Module, str], CalibratedFamily],
    problem: Callable[[CalibratedFamily], ChannelSelection],
) -> nn.Module:
    """The masked network of full size with the curves' own masks, refitted one by one."""
    current = copy.deepcopy(model)
    for found in curves:
        name = found.curve.family
        index = int(np.flatnonzero(found.curve.counts == counts[name])[0])
        family = statistics(current, name)
        apply_weights(current, family, problem(family).weights(found.masks[index]))
    return current
