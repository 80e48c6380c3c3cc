"""What the solvers through Pyomo share: scaled problems, first masks, results."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination
from mipprune.solvers._monitor import Monitor, SearchStopped

__all__ = ["External", "normalised"]

Bools = NDArray[np.bool_]

MARGIN = 1e-8
"""Taken off the bounds of an external solver, relative to the energy: its tolerances."""

SECONDS_PER_ENTRY = 4e-5
"""Time to write one coefficient of a Pyomo model and hand it over, on a busy machine."""


def normalised(problem: ChannelSelection) -> tuple[ChannelSelection, float]:
    """The canonical problem with energy 2 (value of the empty mask 1), and the factor.

    The tolerances of external solvers are absolute.
    """
    canonical = problem.canonical()
    factor = 2.0 / problem.energy if problem.energy > 0 else 1.0
    scaled = ChannelSelection.from_terms(
        [term.weighted(factor) for term in canonical.terms],
        prices=canonical.prices * factor,
        resources=canonical.resources,
        variant=canonical.variant,
        forced_in=canonical.forced_in,
        forced_out=canonical.forced_out,
        parts=canonical.parts,
    )
    return scaled, factor


class External:
    """Incumbent, bound and result of a run with an external solver."""

    def __init__(
        self,
        problem: ChannelSelection,
        monitor: Monitor,
        name: str,
        gap: float,
        margin: float = MARGIN,
    ) -> None:
        self.margin = margin * problem.energy
        self.problem = problem
        self.monitor = monitor
        self.name = name
        self.gap = gap
        self.version = ""
        self.mask: Bools | None = None
        self.value = math.inf
        self.nodes = 0
        self.infeasible = False
        self.statistics: dict[str, float] = {}

    def run(
        self, start: ArrayLike | None, seed: int, search: Callable[[], Termination]
    ) -> Solution:
        """First mask, then ``search``, and the result however that ends."""
        termination = Termination.COMPLETE
        try:
            self.begin(None if start is None else self.problem.checked_mask(start), seed)
            if not self.infeasible:
                self.check()
                termination = search()
        except SearchStopped as stopped:
            termination = stopped.termination
        except KeyboardInterrupt:
            termination = Termination.INTERRUPTED
        return self.solution(termination)

    def begin(self, start: Bools | None, seed: int) -> None:
        """First feasible mask by a short local search, or the proof that there is none."""
        from mipprune.solvers.local_search import search_locally

        remaining = self.monitor.remaining
        limit = None if math.isinf(remaining) else max(remaining, 1e-3)
        found = search_locally(self.problem, time_limit=limit, start=start, seed=seed, rounds=0)
        self.offer(found.mask)
        self.infeasible = found.status is SolutionStatus.INFEASIBLE
        if found.termination is Termination.INTERRUPTED:
            raise SearchStopped(Termination.INTERRUPTED)

    def offer(self, mask: Bools | None) -> None:
        """Take a mask where it is feasible and better; its value is recomputed."""
        if mask is None or not self.problem.is_feasible(mask):
            return
        value = self.problem.value(mask)
        if value < self.value:
            self.mask, self.value = mask.copy(), value

    def raise_bound(self, bound: float) -> None:
        """Take a bound as the external solver says it."""
        known = self.statistics.get("external_bound", -math.inf)
        self.statistics["external_bound"] = max(known, bound)

    @property
    def bound(self) -> float:
        """The solver's bound less its tolerances.

        Above the value of the mask that is there it is wrong, and then nothing that the
        solver says is believed.
        """
        safe = self.statistics.get("external_bound", -math.inf) - self.margin
        return safe if safe <= self.value else -math.inf

    def afford(self, scaled: ChannelSelection) -> None:
        """Stop now where writing the model with all weights would outlast the limit.

        The factor of each term appears once per response.
        """
        entries = sum(t.n_rows**2 * min(t.n_responses, t.n_rows) for t in scaled.terms)
        if entries * SECONDS_PER_ENTRY > self.monitor.remaining:
            raise SearchStopped(Termination.TIME_LIMIT)

    def closed(self) -> bool:
        """Whether the gap asked for is reached, up to the margin taken off the bound."""
        if self.mask is None or math.isinf(self.bound):
            return False
        return self.value - self.bound <= max(self.gap * abs(self.value), 1.5 * self.margin)

    def check(self) -> None:
        """Clock and callback."""
        self.monitor.check(self.nodes, self.value, self.bound)

    def solution(self, termination: Termination) -> Solution:
        """The result; optimal only where our own gap is closed."""
        status = SolutionStatus.NONE if self.mask is None else SolutionStatus.FEASIBLE
        if self.infeasible and self.mask is None:
            status, termination = SolutionStatus.INFEASIBLE, Termination.COMPLETE
        elif self.closed():
            status, termination = SolutionStatus.OPTIMAL, Termination.GAP
        statistics: Mapping[str, float] = self.statistics
        return Solution.of_mask(
            self.problem,
            self.mask,
            bound=self.bound,
            status=status,
            termination=termination,
            solver=self.name,
            version=self.version,
            nodes=self.nodes,
            seconds=self.monitor.seconds,
            log=tuple(self.monitor.points),
            statistics=statistics,
        )
