"""The channel-selection program and what its solvers return (numpy only)."""

from mipprune.problem._entry import require_problem
from mipprune.problem._resources import Resource
from mipprune.problem._selection import VARIANTS, ChannelSelection
from mipprune.problem._solution import LogPoint, Solution, SolutionStatus, Termination
from mipprune.problem._term import Term
from mipprune.problem._value import solve_psd

__all__ = [
    "VARIANTS",
    "ChannelSelection",
    "LogPoint",
    "Resource",
    "Solution",
    "SolutionStatus",
    "Term",
    "Termination",
    "require_problem",
    "solve_psd",
]
