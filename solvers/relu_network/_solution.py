"""What the solvers of whole ReLU networks return."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import LogPoint, SolutionStatus, Termination

__all__ = ["Masks", "NetworkSolution"]

Masks = tuple[NDArray[np.bool_], ...]
"""Bool (n_l,) per hidden layer, True = kept."""


@dataclass(frozen=True, eq=False)
class NetworkSolution:
    """Result of :func:`solve_network`.

    Attributes
    ----------
    masks : tuple of bool (n_l,) per hidden layer, or None
    value : float
        Objective recomputed by the real forward pass, inf without masks.
    bound : float
        Lower bound on the value of all masks that meet the limits to within
        ``tolerance`` (up to the rounding of the outputs).
    violation : float
        Most by which the masks miss a limit on the outputs, by the real forward pass.
    tolerance : float
        Feasibility tolerance of the task; ``violation <= tolerance`` (up to rounding).
    forward_error : float
        Largest difference between the program's outputs and the forward pass.
    status, termination
    nodes : int
        Branch-and-bound nodes, all solves together.
    n_binaries, n_rows : int
        Size of the program before presolve.
    seconds, tighten_seconds : float
    solver, formulation : str
    trace : tuple of LogPoint
        Value and bound over time, the last entry as returned.
    """

    masks: Masks | None
    value: float
    bound: float
    violation: float
    tolerance: float
    forward_error: float
    status: SolutionStatus
    termination: Termination
    nodes: int
    n_binaries: int
    n_rows: int
    seconds: float
    tighten_seconds: float
    solver: str
    formulation: str
    trace: tuple[LogPoint, ...]

    @property
    def gap(self) -> float:
        """``(value - bound) / value``; 0 where both agree to 1e-9."""
        difference = self.value - self.bound
        if not math.isfinite(difference):
            return math.inf
        return 0.0 if difference <= 1e-9 else difference / max(abs(self.value), 1e-9)
