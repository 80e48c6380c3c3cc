"""Masks for every number of channels from one greedy sweep."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.solvers._engines import engine_for

__all__ = ["elimination_path"]

Bools = NDArray[np.bool_]


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
    engine = engine_for(problem)
    engine.reset(~problem.forced_out)
    masks: dict[int, Bools] = {}
    for count in sorted(set(counts), reverse=True):
        surplus = int(engine.mask.sum()) - count
        while surplus > 0:
            free = engine.mask & ~problem.forced_in
            if not free.any():
                return masks
            costs = np.where(free, engine.flip_costs(), np.inf)
            batch = max(1, min(surplus // 64, int(free.sum())))
            engine.flip(np.argsort(costs, kind="stable")[:batch])
            surplus -= batch
        if surplus == 0:
            masks[count] = engine.mask.copy()
    return masks
