"""The mask of one family: solved where that is affordable, searched and bounded elsewhere."""

import math
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mipprune.pipeline._compressed import CompressOptions
from mipprune.pipeline._curves import INVERTED_ROWS
from mipprune.problem import ChannelSelection, Solution

__all__ = ["solve_family"]

EXACT_CHANNELS = 128
"""Families up to this many classes are given to branch and bound, wider ones to local search."""

RELAXATION_TIMES = 4
"""Least time that a full relaxation takes, in units of the bound from single directions."""


def solve_family(
    problem: ChannelSelection,
    start: NDArray[np.bool_],
    limit: float | None,
    settings: CompressOptions,
) -> Solution:
    """Branch and bound where it is affordable, else local search with a relaxation's bound.

    The bound is finite wherever there is a mask: where time left none, it is 0, below
    which no error is, or the error of the mask if that keeps everything.
    """
    found = _solved(problem, start, limit, settings)
    if math.isfinite(found.bound) or found.mask is None:
        return found
    return replace(found, bound=found.value if found.mask.all() else min(0.0, found.value))


def _solved(
    problem: ChannelSelection,
    start: NDArray[np.bool_],
    limit: float | None,
    settings: CompressOptions,
) -> Solution:
    from mipprune.relaxation import bounds_of_keeps, relax
    from mipprune.solvers import solve

    began = time.monotonic()
    if problem.n_channels <= EXACT_CHANNELS:
        return solve(problem, time_limit=limit, gap=settings.gap, start=start, seed=settings.seed)
    half = None if limit is None else limit / 2
    found = solve(problem, "local-search", time_limit=half, start=start, seed=settings.seed)
    if problem.keep is None or problem.keep == problem.n_channels:
        return found
    bound = -np.inf
    before = time.monotonic()
    if max(term.n_rows for term in problem.terms) <= INVERTED_ROWS:
        bound = float(bounds_of_keeps(problem, [problem.keep])[0])
    # A relaxation takes several times as long, whatever its limit.
    if half is None or half > RELAXATION_TIMES * (time.monotonic() - before):
        bound = max(bound, relax(problem, time_limit=half).bound)
    return replace(found, bound=min(bound, found.value), seconds=time.monotonic() - began)
