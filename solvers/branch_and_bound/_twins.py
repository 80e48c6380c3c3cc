r"""Channels that may change places, and channels that contribute nothing.

Twins i, j are both free, with equal prices, use of every resource and labels in every part,
and for each term equal group sizes, ridge, box, rows of C and of the dense weights, and a
Gram matrix that the swap :math:`\pi` of their rows leaves as it is. Then a mask and its
swapped one are feasible together and have the same value. Twins of twins are twins.

**Rule.** At a node with state s let a class of undecided twins be listed in any order. The
masks of s fall into orbits under swaps within classes (swaps of undecided channels leave s as
it is), an orbit is given by how many of each class go, and each has a member where
those that go come last in the list. So the least value over s is attained by a
mask of that form, and no other need be searched below s. As it is a statement about one node and
all masks of its state, every node may use a list of its own. With the children "the
last to go in the order is order[c], what is behind stays", a list in that order, this means:

- child c has no such mask where a twin of order[c] stands behind it;
- else what stands before it and has a twin behind it stays.

With two children, on channel i: where i stays, its twins stay.

A dead channel, without price or gain, has only zeros in every C and G: without lower limits
and equal counts a mask that keeps it is as good without it.

Entries are compared bit by bit; nearly equal channels are left alone. Tree certificates are
searched without this rule, so the checker knows nothing of it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Term
from mipprune.solvers.branch_and_bound._compiled import compiled
from mipprune.solvers.branch_and_bound._state import DONE, Stack

__all__ = ["NO_TWIN", "children", "dead_channels", "skip_twins", "twin_labels"]

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

NO_TWIN = -1


def twin_labels(problem: ChannelSelection) -> Integers:
    """Number of each channel's class of twins, int64 (p,); ``NO_TWIN`` where it has none."""
    labels = np.full(problem.n_channels, NO_TWIN)
    alike: dict[tuple[object, ...], list[int]] = {}
    for j in np.flatnonzero(~(problem.forced_in | problem.forced_out)).tolist():
        alike.setdefault(_traits(problem, j), []).append(j)
    for members in alike.values():
        for at, j in enumerate(members):
            for i in members[:at]:
                if all(_exchangeable(term, i, j) for term in problem.terms):
                    labels[i] = labels[j] = i if labels[i] == NO_TWIN else labels[i]
                    break
    return labels


def dead_channels(problem: ChannelSelection) -> Bools:
    """Free channels that no best mask needs, bool (p,)."""
    dead = ~(problem.forced_in | problem.forced_out) & (problem.prices >= 0)
    if problem.parts or any(resource.lower > 0 for resource in problem.resources):
        return np.zeros_like(dead)
    for term in problem.terms:
        alive = np.any(term.gram != 0, axis=1) | np.any(term.cross != 0, axis=1)
        dead[term.channel_of_row[alive]] = False
    return dead


def children(order: Integers, labels: Integers) -> Iterator[tuple[int, Integers]]:
    """Positions c of the children to search, and what each leaves undecided."""
    for c, channel in enumerate(order):
        behind = labels[order[c + 1 :]]
        behind = behind[behind != NO_TWIN]
        if labels[channel] not in behind:
            yield c, order[:c][~np.isin(labels[order[:c]], behind)]


@compiled
def skip_twins(labels: Integers, stack: Stack, level: int, first: int, kept: int) -> None:
    """Settle the children that twins make superfluous, and keep what they keep."""
    order, ids = stack.orders[level], stack.ids[level]
    for b in range(first + 1, kept):
        label = labels[ids[order[b]]]
        if label < 0:
            continue
        for a in range(b):
            if labels[ids[order[a]]] != label:
                continue
            if a >= first:
                stack.bounds[level, a] = DONE
            for c in range(max(first, a + 1), b):
                stack.drops[level, c, a] = 1


def _traits(problem: ChannelSelection, j: int) -> tuple[object, ...]:
    """What twins have in common, Gram matrices apart."""
    traits: list[object] = [float(problem.prices[j])]
    traits += [float(resource.costs[j]) for resource in problem.resources]
    traits += [int(part[j]) for part in problem.parts]
    for term in problem.terms:
        rows = slice(int(term.offsets[j]), int(term.offsets[j + 1]))
        traits += [int(term.group_sizes[j]), float(term.ridge[j]), float(term.big_m[j])]
        traits += [term.cross[rows].tobytes(), term.gram[rows, rows].tobytes()]
        traits.append(None if term.dense is None else term.dense[rows].tobytes())
    return tuple(traits)


def _exchangeable(term: Term, i: int, j: int) -> bool:
    """Whether swapping the rows of two channels leaves the Gram matrix as it is."""
    first, second = (slice(int(term.offsets[k]), int(term.offsets[k + 1])) for k in (i, j))
    others = np.ones(term.n_rows, dtype=np.bool_)
    others[first] = others[second] = False
    between = term.gram[first, second]
    same = np.array_equal(term.gram[first][:, others], term.gram[second][:, others])
    return same and np.array_equal(between, between.T)
