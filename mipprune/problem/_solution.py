"""What a solver returns: the point, the bound, and why it stopped."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import SolverError

if TYPE_CHECKING:
    from mipprune.problem._selection import ChannelSelection

__all__ = ["LogPoint", "Solution", "SolutionStatus", "Termination"]

ROUNDING = 1e-9
"""Bound above value by more than this, relative to the energy, is an error."""


class SolutionStatus(Enum):
    """What the returned point is."""

    OPTIMAL = "optimal: the bound meets the value within the gap asked for, up to rounding"
    FEASIBLE = "feasible: the mask meets every limit, optimality is not proven"
    INFEASIBLE = "infeasible: it is proven that no mask meets the limits"
    NONE = "no mask found"


class Termination(Enum):
    """Why the solver stopped."""

    COMPLETE = "the search is complete"
    GAP = "the gap asked for is reached"
    TIME_LIMIT = "time limit"
    NODE_LIMIT = "node limit"
    INTERRUPTED = "interrupted by the user"
    CALLBACK = "stopped by the callback"
    HEURISTIC = "a heuristic finished; it proves nothing"
    SOLVER = "the external solver stopped for a reason of its own"


@dataclass(frozen=True)
class LogPoint:
    """State of a search at one moment."""

    seconds: float
    nodes: int
    value: float
    bound: float


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of every solver.

    Attributes
    ----------
    mask : bool (p,) or None
        Kept channels.
    weights : tuple of float64 (d, m)
        Best weights of each term; empty without a mask.
    value : float
        Objective recomputed from the mask by the library, inf without one.
    bound : float
        Valid lower bound on the optimum, -inf where none is known.
    energy : float
        Sum of the terms' energies, base of ``energy_gap``.
    status, termination
        What the point is, and why the solver stopped.
    solver, version : str
    nodes : int
    seconds : float
        Wall-clock time of the call.
    certified_bound : float
        What ``certificate`` alone proves, -inf without one.
    certificate : object or None
        Saved with ``certificate.save(path)``.
    no_certificate : str
        Why ``certificate`` is missing where one was asked for; empty otherwise.
    log : tuple of LogPoint
    statistics : mapping
        Figures of the solver, by name.

    Raises
    ------
    SolverError
        Bound above the value: the search that produced it is wrong.
    """

    mask: NDArray[np.bool_] | None
    weights: tuple[NDArray[np.float64], ...]
    value: float
    bound: float
    energy: float
    status: SolutionStatus
    termination: Termination
    solver: str
    version: str
    nodes: int = 0
    seconds: float = 0.0
    certified_bound: float = -math.inf
    certificate: object | None = None
    log: tuple[LogPoint, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    no_certificate: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.bound) or math.isnan(self.value):
            raise SolverError(f"{self.solver}: value {self.value} or bound {self.bound} is NaN")
        if self.bound > self.value + ROUNDING * max(self.energy, abs(self.value), 1e-300):
            raise SolverError(
                f"{self.solver}: bound {self.bound!r} is above the value {self.value!r} of a "
                "feasible mask; please report this with the problem file"
            )

    @classmethod
    def of_mask(
        cls,
        problem: "ChannelSelection",
        mask: NDArray[np.bool_] | None,
        *,
        bound: float = -math.inf,
        status: SolutionStatus,
        termination: Termination,
        solver: str,
        version: str,
        nodes: int = 0,
        seconds: float = 0.0,
        certified_bound: float = -math.inf,
        certificate: object | None = None,
        log: tuple[LogPoint, ...] = (),
        statistics: Mapping[str, float] | None = None,
    ) -> "Solution":
        """Build a result; value and weights are recomputed from the mask."""
        if mask is not None and not problem.is_feasible(mask):
            raise SolverError(f"{solver} returned a mask that breaks the limits of the problem")
        value, weights = (math.inf, ()) if mask is None else problem.solved(mask)
        return cls(
            mask=None if mask is None else np.asarray(mask, dtype=bool).copy(),
            weights=weights,
            value=value,
            bound=bound,
            energy=problem.energy,
            status=status,
            termination=termination,
            solver=solver,
            version=version,
            nodes=nodes,
            seconds=seconds,
            certified_bound=certified_bound,
            certificate=certificate,
            log=log,
            statistics=dict(statistics or {}),
        )

    @property
    def gap(self) -> float:
        """Error gap ``(value - bound) / value``, 0 where the value is (numerically) 0."""
        return _relative(self.value - self.bound, self.value, self.energy)

    @property
    def certified_gap(self) -> float:
        """The gap that the certificate alone proves."""
        return _relative(self.value - self.certified_bound, self.value, self.energy)

    @property
    def energy_gap(self) -> float:
        """``(value - bound) / (energy / 2)``: flatters, given only beside ``gap``."""
        return _relative(self.value - self.bound, self.energy / 2, self.energy)


def _relative(difference: float, base: float, energy: float) -> float:
    if not math.isfinite(difference):
        return math.inf
    floor = 1e-12 * energy
    if difference <= floor:
        return 0.0
    return difference / max(abs(base), floor)
