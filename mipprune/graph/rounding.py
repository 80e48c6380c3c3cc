"""From an importance of every channel to masks that meet the budgets."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import require_floats, require_instance, require_number
from mipprune.errors import BudgetError, InputError
from mipprune.graph._entry import require_groups
from mipprune.graph.budgets import Budgets, Resource, admissible_counts, cheapest, unit_rows
from mipprune.graph.costs import CostState, CostTable
from mipprune.graph.groups import ChannelGroups, CostTerm

__all__ = ["random_masks", "round_by_score"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(eq=False)
class _Ladder:
    """Steps of one set of classes, least important first; the first ``down`` are removed.

    ``steps[i]`` are the classes removed together in step i and ``scores[i]``
    their mean importance (made non-decreasing by construction).
    """

    steps: list[list[int]]
    scores: list[float]
    down: int = 0


@dataclass(eq=False)
class _Search:
    state: CostState
    limits: Floats
    cost: Floats
    kept: Bools
    ladders: list[_Ladder] = field(default_factory=list)

    def over(self) -> bool:
        return bool((self.cost > self.limits).any())

    def apply(self, classes: list[int], sign: int, difference: Floats, counts: Floats) -> None:
        self.cost = self.cost + difference
        self.state.counts = counts
        self.kept[classes] = sign > 0


def round_by_score(
    groups: ChannelGroups,
    scores: NDArray[np.float64] | Mapping[str, NDArray[np.float64]],
    budgets: Budgets,
    *,
    latency_terms: Sequence[CostTerm] = (),
) -> dict[str, Bools]:
    """Masks that keep the most important channels under the budgets.

    Classes are removed from the smallest score upwards until every budget
    holds; then the best of the removed ones are added back, best first, as
    long as one fits. The result exceeds no budget, and no further step fits:
    what is left of the tightest budget is less than the cost of one step of
    any family that lost channels. Minima, equal parts and ``multiple_of`` hold.

    Parameters
    ----------
    groups : ChannelGroups
    scores : float64 (n_classes,), or family name -> float64 (n_classes of it,)
        Importance of each class; larger is more important.
    budgets : Budgets
    latency_terms : sequence of CostTerm
        Latency model, for a latency budget.

    Returns
    -------
    dict of family name -> bool array

    Raises
    ------
    BudgetError
        If the budgets cannot be met.
    InputError
        Scores of wrong shape or not finite.
    """
    require_groups(groups)
    values = _checked(groups, scores)
    resources = Budgets.parse(budgets).resolve(groups, latency_terms)
    table = CostTable.build([r.terms for r in resources], groups.n_classes)
    kept = np.ones(groups.n_classes, dtype=bool)
    state = table.start(kept)
    limits = np.array([r.limit * (1 + 1e-12) for r in resources])
    search = _Search(state, limits, state.total(), kept)
    search.ladders = _ladders(groups, values, budgets.multiple_of)
    _remove_least(search)
    if search.over():
        _fall_back(search, groups, resources, budgets.multiple_of)
    else:
        _add_back(search)
    return groups.masks(search.kept)


def random_masks(
    groups: ChannelGroups, generator: np.random.Generator, keep: float = 0.6
) -> dict[str, Bools]:
    """Random admissible masks that keep about the fraction ``keep`` of each family."""
    kept = np.zeros(require_groups(groups).n_classes, dtype=bool)
    require_instance("generator", generator, np.random.Generator, "numpy.random.default_rng(0)")
    require_number("keep", keep, at_least=0, at_most=1)
    for family in groups:
        for rows in unit_rows(family):
            exempt = bool(family.parts) and len(rows) == 1
            least = 0 if exempt else -(-family.minimum // len(rows))
            size = min(len(row) for row in rows)
            count = min(size, max(least, round(keep * size)))
            for row in rows:
                kept[family.start + generator.permutation(row)[:count]] = True
    return groups.masks(kept)


def _checked(
    groups: ChannelGroups, scores: NDArray[np.float64] | Mapping[str, NDArray[np.float64]]
) -> Floats:
    if isinstance(scores, Mapping):
        missing = [f.name for f in groups if f.name not in scores]
        if missing:
            raise InputError(f"no scores for {', '.join(missing)}")
        for family in groups:
            if np.shape(scores[family.name]) != (len(family),):
                raise InputError(
                    f"scores of '{family.name}' have shape {np.shape(scores[family.name])}, "
                    f"expected ({len(family)},)"
                )
        parts = [require_floats(f"scores of '{f.name}'", scores[f.name]) for f in groups]
        scores = np.concatenate(parts)
    values = require_floats("scores", scores)
    if values.shape != (groups.n_classes,):
        raise InputError(f"scores have shape {values.shape}, expected ({groups.n_classes},)")
    if not np.isfinite(values).all():
        raise InputError("scores contain NaN or infinite values")
    return values


def _ladders(groups: ChannelGroups, scores: Floats, multiple_of: int) -> list[_Ladder]:
    ladders = []
    for family in groups:
        own = scores[family.start : family.stop]
        for rows in unit_rows(family):
            exempt = bool(family.parts) and len(rows) == 1
            size = min(len(row) for row in rows)
            ranked = [row[np.argsort(own[row], kind="stable")] + family.start for row in rows]
            if exempt:
                stops = list(range(size + 1))
            else:
                minimum = -(-family.minimum // len(rows))
                counts = admissible_counts(groups, family, size, minimum, multiple_of)
                stops = sorted({size - int(c) for c in counts})
            steps = [
                [int(row[i]) for row in ranked for i in range(a, b)] for a, b in pairwise(stops)
            ]
            ladders.append(_Ladder(steps, [float(scores[s].mean()) for s in steps]))
    return ladders


def _remove_least(search: _Search) -> None:
    """Take the least important next step of all families until the budgets hold."""
    heap = [(ladder.scores[0], i) for i, ladder in enumerate(search.ladders) if ladder.steps]
    heapq.heapify(heap)
    while heap and search.over():
        _, index = heapq.heappop(heap)
        ladder = search.ladders[index]
        step = ladder.steps[ladder.down]
        search.apply(step, -1, *search.state.change(step, -1))
        ladder.down += 1
        if ladder.down < len(ladder.steps):
            heapq.heappush(heap, (ladder.scores[ladder.down], index))


def _add_back(search: _Search) -> None:
    """Undo the most important removed steps that fit.

    Costs only grow with what is kept, so a step that does not fit now never
    will, and its family is done.
    """
    heap = [
        (-ladder.scores[ladder.down - 1], i)
        for i, ladder in enumerate(search.ladders)
        if ladder.down
    ]
    heapq.heapify(heap)
    while heap:
        _, index = heapq.heappop(heap)
        ladder = search.ladders[index]
        step = ladder.steps[ladder.down - 1]
        difference, counts = search.state.change(step, +1)
        if ((search.cost + difference) > search.limits).any():
            continue
        search.apply(step, +1, difference, counts)
        ladder.down -= 1
        if ladder.down:
            heapq.heappush(heap, (-ladder.scores[ladder.down - 1], index))


def _fall_back(
    search: _Search, groups: ChannelGroups, resources: Sequence[Resource], multiple_of: int
) -> None:
    """Every family is at its minimum by score; try the cheapest classes instead."""
    for resource in resources:
        kept = cheapest(groups, resource.terms, multiple_of)
        if (search.state.table.start(kept).total() <= search.limits).all():
            search.kept = kept
            return
    raise BudgetError(
        "the budgets "
        + ", ".join(f"{r.name}={r.asked}" for r in resources)
        + " cannot be met together: classes of one family differ in cost, and no mask was found"
    )
