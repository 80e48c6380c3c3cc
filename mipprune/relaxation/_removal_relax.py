"""Relaxations of the removing side: Gilmore-Lawler, RLT, Hadamard SDP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import require_integer, require_iterable
from mipprune.errors import NoSolutionError
from mipprune.problem import ChannelSelection, require_problem, solve_psd
from mipprune.relaxation._ascent import ascend
from mipprune.relaxation._hadamard import HadamardResult, minimise_hadamard
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._patterns import Patterns, cluster
from mipprune.relaxation._removal_root import Member, Root, row_sums
from mipprune.relaxation._request import Request
from mipprune.relaxation._result import Relaxation

__all__ = ["REMOVAL_KINDS", "bounds_of_keeps", "relax_removal"]

Floats = NDArray[np.float64]

REMOVAL_KINDS = ("gl", "rlt", "sdp", "blocks")

SCALES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
MAX_MEMBERS = 24
WARM_AMBITION = 0.05
"""First level of the ascent over patterns, which starts at the pairs' solution."""
WARM_BLEND = 0.1
"""Small moves of Z there: Psi and S are tuned to the old one, and a large move loses them."""
NEWTON_UP_TO = 40
"""Undecided channels up to which the pair relaxation is solved by Newton steps."""
NEWTON_SHARE = 0.6
"""Part of the time left that they may use; the ascent has the rest where they do not finish."""


@dataclass
class _Family:
    """Members found so far and the best bound per number of removals."""

    root: Root
    members: list[Member] = field(default_factory=list)
    table: list[Floats] = field(default_factory=list)
    removed: Floats = field(default_factory=lambda: np.zeros(0))
    value: float = np.inf
    iterations: int = 0

    def add(self, member: Member, pairs: tuple[Floats, Floats, Floats] | None = None) -> None:
        self.members.append(member)
        self.table.append(self.root.bounds(member, pairs))

    @property
    def best(self) -> Floats:
        """Best bound per entry of ``root.counts``."""
        return np.asarray(np.max(self.table, axis=0))

    def needed(self) -> list[int]:
        """Fewest members, greedily, that reach the final bound at every count."""
        table, chosen = np.array(self.table), list[int]()
        open_counts = np.ones(table.shape[1], dtype=bool)
        bound = float(self.best.min())
        while np.any(open_counts):
            reached = (table >= bound) & open_counts
            index = int(np.argmax(reached.sum(1)))
            chosen.append(index)
            open_counts &= ~reached[index]
        return chosen


def relax_removal(request: Request) -> Relaxation:
    """Bound per number of removals; the weakest number is improved until it is the best."""
    root = Root(request.canonical, request.limits)
    if not root.counts.size:
        raise NoSolutionError("no mask meets all limits; loosen a budget")
    family = _Family(root)
    prices = _prices(request, root)
    for multipliers in prices:
        _add_single(family, multipliers)
    if request.kind != "gl":
        _improve(family, request, prices)
    bound = float(family.best.min())
    return Relaxation(
        bound=bound,
        value=family.value,
        gates=_gates(family),
        weights=(),
        certificate=request.certificate("removing", bound, _arrays(family)),
        kind=request.kind,
        split="none",
        iterations=family.iterations,
        seconds=request.seconds,
        finished=time.monotonic() < request.deadline,
        statistics={"value_all": root.value_all, "removals": float(root.counts[0])},
    )


def bounds_of_keeps(problem: ChannelSelection, keeps: Sequence[int]) -> Floats:
    """Bound on the masks of at most ``keep`` channels for several keeps, from one factorisation.

    Those of single directions (kind ``gl`` of :func:`relax`, to which one keep costs
    about as much as all of them), for the variants refit and scale; inf where no
    mask meets the problem's limits with so few channels.

    Parameters
    ----------
    problem : ChannelSelection
    keeps : sequence of int

    Returns
    -------
    float64 (len(keeps),)
    """
    wanted = [require_integer("keeps", k, at_least=0) for k in require_iterable("keeps", keeps)]
    canonical = require_problem(problem).canonical()
    family = _Family(Root(canonical, Limits.of(problem)))
    root = family.root
    if not root.counts.size:
        return np.full(len(wanted), np.inf)
    if root.monotone:
        # Then only the fewest removals that a keep admits matter.
        least = root.kept.sum() + root.size - np.array(wanted)
        places = np.unique(np.searchsorted(root.counts, least))
        root.counts = root.counts[places[places < root.counts.size]]
    _add_single(family, np.zeros(len(root.limits.limits)))
    bounds, kept = family.best, root.kept.sum() + root.size - root.counts
    return np.array([np.min(bounds[kept <= keep], initial=np.inf) for keep in wanted])


def _prices(request: Request, root: Root) -> list[Floats]:
    """Multipliers of the limits to try: none, and those that balance cost and saving."""
    limits = request.limits
    none = np.zeros(len(limits.limits))
    if limits.is_count or not none.size:
        return [none]
    # At a fractional optimum the knapsack's own price of the single removal costs.
    _, costs = root.single_directions()
    scores = np.zeros(request.problem.n_channels)
    scores[root.undecided] = costs
    _, multipliers = limits.best(scores - request.canonical.prices)
    return [none, multipliers] if np.any(multipliers) else [none]


def _add_single(family: _Family, multipliers: Floats) -> None:
    """Members of scaled single directions, the exact ones for one and for all removals."""
    root, n = family.root, family.root.size
    singles, _ = root.single_directions()
    linear, quadratic = root.pairwise(singles)
    sums = row_sums(quadratic)
    none = np.zeros((n, 0)), np.zeros((n, n)), multipliers
    for scale in SCALES:
        member = Member(tuple(scale * z for z in singles), *none)
        family.add(member, (scale * linear, scale**2 * quadratic, scale**2 * sums))
    if n and root.counts[-1] == n:
        everything = tuple(
            solve_psd(t.inverse, t.coefficients) if t.inverse.size else t.coefficients
            for t in root.terms
        )
        family.add(Member(everything, *none))


def _improve(family: _Family, request: Request, prices: list[Floats]) -> None:
    """Solve the pair relaxation at the weakest count until it is not the weakest any more."""
    root, done = family.root, set[int]()
    while len(family.members) < MAX_MEMBERS + len(SCALES):
        best = family.best
        at = int(np.argmin(best))
        removals = int(root.counts[at])
        if removals in done or removals < 2 or removals >= root.size:
            return
        done.add(removals)
        for multipliers in prices:
            _improve_count(family, request, at, multipliers)
        if time.monotonic() > request.deadline:
            return


def _improve_count(family: _Family, request: Request, at: int, multipliers: Floats) -> None:
    """Add the members that one number of removals gets from the pair relaxation."""
    root = family.root
    removals = int(root.counts[at])
    pairs = [i for i, member in enumerate(family.members) if member.patterns is None]
    start = family.members[max(pairs, key=lambda i: float(family.table[i][at]))]
    results: list[HadamardResult] = []
    now = time.monotonic()
    share = 1.0 if request.kind == "rlt" else NEWTON_SHARE
    if request.kind == "rlt" or root.size <= NEWTON_UP_TO:
        results.append(
            minimise_hadamard(
                root,
                removals,
                multipliers=multipliers,
                fixed=start.directions if request.kind == "rlt" else None,
                tolerance=request.tolerance,
                deadline=now + share * (request.deadline - now),
                device=request.device,
            )
        )
    # Newton steps that finished are exact; the ascent ends below them.
    if request.kind != "rlt" and not (results and results[0].finished):
        results.append(
            ascend(
                root,
                removals,
                start=replace(start, multipliers=multipliers),
                tolerance=max(0.1 * request.tolerance, 1e-7),
                deadline=request.deadline,
                device=request.device,
                max_iterations=request.steps,
            )
        )
    if request.kind == "blocks":
        last = max(results, key=lambda result: result.bound)
        results.append(_improve_blocks(family, request, last, removals))
    for result in results:
        family.add(result.member)
        family.iterations += result.iterations
    last = results[-1]
    if not family.removed.size or last.value < family.value:
        family.value, family.removed = last.value, last.removed


def _improve_blocks(
    family: _Family, request: Request, pairs: HadamardResult, removals: int
) -> HadamardResult:
    """The best pairwise member, lifted to patterns in blocks of interacting channels."""
    root = family.root
    _, quadratic = root.pairwise(root.single_directions()[0])
    scale = np.sqrt(np.maximum(np.diag(quadratic), np.finfo(np.float64).tiny))
    spread = pairs.removed * (1 - pairs.removed)
    weight = np.sqrt(np.maximum(spread, 0.0)) + 1e-3
    strength = np.abs(quadratic) / np.outer(scale, scale) * np.outer(weight, weight)
    patterns = Patterns(cluster(strength, request.block_size))
    fixed = pairs.member.multipliers, patterns
    q = len(patterns.items)
    own = root.single_directions(patterns)[0]
    starts = [root.by_pattern(pairs.member, patterns)] + [
        Member(tuple(scale * z for z in own), np.zeros((q, 0)), np.zeros((q, q)), *fixed)
        for scale in (0.8, 0.9, 1.0)
    ]
    at = int(np.searchsorted(root.counts, removals))
    return ascend(
        root,
        removals,
        start=max(starts, key=lambda member: float(root.bounds(member)[at])),
        tolerance=max(0.1 * request.tolerance, 1e-7),
        deadline=request.deadline,
        device=request.device,
        ambition=WARM_AMBITION,
        blend=WARM_BLEND,
    )


def _gates(family: _Family) -> Floats:
    """Relaxed gates: kept shares of the undecided channels."""
    root = family.root
    gates = root.kept.astype(np.float64)
    removed = family.removed
    if not removed.size and root.size:
        removed = np.full(root.size, float(root.counts[0]) / root.size)
    gates[root.undecided] = 1.0 - removed
    return np.clip(gates, 0.0, 1.0)


def _arrays(family: _Family) -> dict[str, NDArray[np.generic]]:
    """Arrays of a ``removing`` certificate: a tree of one leaf and the members it needs."""
    root = family.root
    p = root.problem.n_channels
    arrays: dict[str, NDArray[np.generic]] = {"nodes": np.array([-1])}
    chosen = family.needed()
    arrays["members"] = np.asarray(len(chosen))
    for position, index in enumerate(chosen):
        member = family.members[index]
        for t, direction in enumerate(root.full_directions(member)):
            arrays[f"direction_{position}_{t}"] = direction
        skew = (member.skew - member.skew.T) / 2
        if member.patterns is None:
            factor, whole = np.zeros((p, member.factor.shape[1])), np.zeros((p, p))
            factor[root.undecided] = member.factor
            whole[np.ix_(root.undecided, root.undecided)] = skew
        else:
            factor, whole = member.factor, skew
            labels = np.full(p, -1, dtype=np.int64)
            labels[root.undecided] = member.patterns.labels
            arrays[f"blocks_{position}"] = labels
        arrays[f"factor_{position}"], arrays[f"skew_{position}"] = factor, whole
        arrays[f"multipliers_{position}"] = member.multipliers
    return arrays
