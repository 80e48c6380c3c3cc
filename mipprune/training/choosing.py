"""From scores of channels to masks that a network can take."""

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Family, Masks
from mipprune.graph.rounding import round_by_score

__all__ = ["choose_by_score", "masks_above"]


def choose_by_score(groups: ChannelGroups, scores: NDArray[np.float64], budget: Budgets) -> Masks:
    """Masks under ``budget`` that keep the channels with the largest scores.

    Parameters
    ----------
    groups : ChannelGroups
    scores : float64 array (n_classes,)
        Infinity is kept before anything else; NaN is refused.
    budget : Budgets
    """
    if scores.shape != (groups.n_classes,) or np.isnan(scores).any():
        raise InputError(
            f"expected {groups.n_classes} scores that are numbers, got shape {scores.shape} with "
            f"{int(np.isnan(scores).sum())} NaN"
        )
    finite = scores[np.isfinite(scores)]
    top = float(finite.max()) * 2 + 1 if finite.size else 1.0
    return round_by_score(groups, np.where(np.isfinite(scores), scores, top), budget)


def masks_above(
    groups: ChannelGroups,
    values: NDArray[np.float64],
    threshold: float,
    *,
    ties: NDArray[np.float64] | None = None,
) -> Masks:
    """Masks that keep ``values >= threshold``, and what the network cannot do without.

    Every family keeps its minimum, and parts that must be equal in number are
    raised to the largest of them; the classes added are those with the largest
    values (then ``ties``).

    Parameters
    ----------
    groups : ChannelGroups
    values : float64 array (n_classes,)
    threshold : float
    ties : float64 array (n_classes,), optional
        Decides between equal values.
    """
    kept = values >= threshold
    order = np.lexsort((values if ties is None else ties, values))[::-1]
    rank = np.empty(groups.n_classes, dtype=np.int64)
    rank[order] = np.arange(groups.n_classes)
    for family in groups:
        span = slice(family.start, family.stop)
        _complete(family, kept[span], rank[span])
    return groups.masks(kept)


def _complete(family: Family, kept: NDArray[np.bool_], rank: NDArray[np.int64]) -> None:
    """Add classes in place until the family's constraints hold."""
    _raise_to(kept, rank, np.arange(len(family)), family.minimum)
    for _ in range(len(family)):
        before = int(kept.sum())
        for part in family.parts:
            members = [np.flatnonzero(part == label) for label in np.unique(part[part >= 0])]
            most = max(int(kept[places].sum()) for places in members)
            for places in members:
                _raise_to(kept, rank, places, most)
        if int(kept.sum()) == before:
            return


def _raise_to(
    kept: NDArray[np.bool_], rank: NDArray[np.int64], places: NDArray[np.int64], count: int
) -> None:
    absent = places[~kept[places]]
    missing = count - (len(places) - len(absent))
    if missing > 0:
        kept[absent[np.argsort(rank[absent])][:missing]] = True
