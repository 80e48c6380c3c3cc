"""Certified error-against-keep curves."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import (
    require_callable,
    require_integer,
    require_iterable,
    require_time_limit,
)
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, require_problem
from mipprune.relaxation._relax import relax
from mipprune.relaxation._result import Relaxation

__all__ = ["PathPoint", "path"]


@dataclass(frozen=True, eq=False)
class PathPoint:
    """One keep of the curve.

    Attributes
    ----------
    keep : int
    bound : float
        No mask of at most ``keep`` channels has a lower value.
    value : float
        Value of ``mask``; inf where no incumbent was asked for.
    mask : bool (p,) or None
    relaxation : Relaxation
        With the certificate of ``bound``, unless a larger keep proved more.
    """

    keep: int
    bound: float
    value: float
    mask: NDArray[np.bool_] | None
    relaxation: Relaxation

    @property
    def gap(self) -> float:
        """Error gap ``(value - bound) / value``, inf without a value."""
        if not math.isfinite(self.value):
            return math.inf
        difference = self.value - self.bound
        return 0.0 if difference <= 0 else difference / max(abs(self.value), 1e-300)


def path(
    problem: ChannelSelection,
    keeps: Sequence[int] | None = None,
    *,
    incumbent: Callable[[ChannelSelection], NDArray[np.bool_] | None] | None = None,
    kind: str = "perspective",
    split: str = "schur",
    tol: float = 1e-4,
    time_limit: float | None = None,
) -> tuple[PathPoint, ...]:
    """Value and bound for each number of kept channels, in one warm-started sweep.

    Keeps are visited from the largest to the smallest and each relaxation starts
    at its neighbour's gates. Without prices the optimum cannot fall when fewer
    channels may stay, so a bound also holds for every smaller keep, and a mask
    for every larger one.

    Parameters
    ----------
    problem : ChannelSelection
        Its own limit on the count, if any, is replaced.
    keeps : sequence of int, default 1..p
    incumbent : callable, optional
        Problem to feasible mask (or None), such as a local search.
    kind, split, tol
        As in :func:`mipprune.relaxation.relax`.
    time_limit : float, optional
        Seconds for the whole sweep, shared evenly among what remains.

    Returns
    -------
    tuple of PathPoint, by increasing keep
    """
    p = require_problem(problem).n_channels
    given = range(1, p + 1) if keeps is None else require_iterable("keeps", keeps)
    counts = {require_integer("keeps", keep, at_least=0, at_most=p) for keep in given}
    if not counts:
        raise InputError(f"keeps: expected integers in 0..{p}, got none")
    if incumbent is not None:
        require_callable("incumbent", incumbent, "a function from problem to mask, or None")
    require_time_limit(time_limit, zero=True)
    wanted = sorted(counts, reverse=True)
    began = time.monotonic()
    points: list[PathPoint] = []
    start: Relaxation | None = None
    for position, keep in enumerate(wanted):
        limited = problem.with_keep(keep)
        left = None
        if time_limit is not None:
            left = max(began + time_limit - time.monotonic(), 0.0) / (len(wanted) - position)
        start = relax(limited, kind, split=split, tol=tol, time_limit=left, start=start)
        mask = None if incumbent is None else incumbent(limited)
        value = math.inf if mask is None else problem.value(mask)
        bound = start.bound
        if points:
            bound = max(bound, points[-1].bound)
        points.append(PathPoint(keep, bound, value, mask, start))
    return _improved(points[::-1])


def _improved(points: list[PathPoint]) -> tuple[PathPoint, ...]:
    """A mask of fewer channels also serves a larger keep."""
    result: list[PathPoint] = []
    for point in points:
        if result and result[-1].value < point.value:
            point = PathPoint(
                point.keep, point.bound, result[-1].value, result[-1].mask, point.relaxation
            )
        result.append(point)
    return tuple(result)
