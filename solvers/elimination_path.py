"""Masks for every number of channels from one greedy sweep."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.solvers._engines import engine_for
from mipprune.solvers._removal_sweep import RemovalSweep

__all__ = ["elimination_path"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def elimination_path(problem: ChannelSelection, counts: Iterable[int]) -> dict[int, Bools]:
    """Greedy elimination from all channels, stopping by at each count.

    Removes the channel whose exact removal cost is smallest, one at a time
    (several at once where more than 64 remain to go before the next count).

    Parameters
    ----------
    problem : ChannelSelection
        Its limits are not looked at, except channels forced in or out.
    counts : iterable of int
        Numbers of channels wanted.

    Returns
    -------
    dict of count -> bool array (p,)
        Counts that forced channels rule out are missing.
    """
    if problem.variant == "mask":
        engine = engine_for(problem)
        engine.reset(~problem.forced_out)
        return _swept(problem, set(counts), lambda: engine.mask, engine.flip_costs, engine.flip)
    sweep = RemovalSweep(problem, ~problem.forced_out)
    return _swept(problem, set(counts), lambda: sweep.mask, sweep.costs, sweep.remove)


def _swept(
    problem: ChannelSelection,
    counts: set[int],
    current: Callable[[], Bools],
    costs: Callable[[], Floats],
    remove: Callable[[Indices], None],
) -> dict[int, Bools]:
    masks: dict[int, Bools] = {}
    for count in sorted(counts, reverse=True):
        surplus = int(current().sum()) - count
        while surplus > 0:
            free = current() & ~problem.forced_in
            if not free.any():
                return masks
            ranked = np.where(free, costs(), np.inf)
            batch = max(1, min(surplus // 64, int(free.sum())))
            remove(np.argsort(ranked, kind="stable")[:batch])
            surplus -= batch
        if surplus == 0:
            masks[count] = current().copy()
    return masks
