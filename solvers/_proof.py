"""Attach a certificate to a solution: a tree where optimality was proven, else a root proof."""

import time
from dataclasses import replace

from mipprune.certificate import Certificate
from mipprune.errors import InputError, NoSolutionError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus
from mipprune.relaxation import certify
from mipprune.solvers.branch_and_bound import branch_and_bound_tree

__all__ = ["with_certificate"]

TREE_SLACK = 1e-8
"""What a tree certificate gives away, relative to the energy, for the checker's rounding."""


def with_certificate(
    problem: ChannelSelection, solution: Solution, *, time_limit: float | None = None
) -> Solution:
    """The solution with ``certificate`` and ``certified_bound``.

    Where the solution is optimal and the problem of the kind that
    :func:`branch_and_bound_tree` takes, half of the time goes into a tree;
    otherwise, or where the tree outgrows its limits, the strongest affordable
    relaxation certifies its own, weaker, bound.

    Parameters
    ----------
    problem : ChannelSelection
    solution : Solution
        Of that problem.
    time_limit : float, optional
        Seconds.

    Raises
    ------
    NoSolutionError
        The solution has no mask.
    """
    if solution.mask is None:
        raise NoSolutionError("no mask was found, so there is nothing to certify")
    began = time.monotonic()
    certificate = _tree(problem, solution, None if time_limit is None else time_limit / 2)
    if certificate is None:
        left = None if time_limit is None else time_limit - (time.monotonic() - began)
        certificate = certify(problem, solution.mask, time_limit=left)
    else:
        certificate = certificate.with_mask(problem, solution.mask)
    # A root proof may bound more than a search that was stopped early.
    bound = min(max(solution.bound, certificate.bound), solution.value)
    return replace(
        solution, certificate=certificate, certified_bound=certificate.bound, bound=bound
    )


def _tree(
    problem: ChannelSelection, solution: Solution, time_limit: float | None
) -> Certificate | None:
    """A tree that proves the solution's bound, None where none is to be had."""
    if solution.status is not SolutionStatus.OPTIMAL or problem.variant == "mask":
        return None
    goal = solution.bound - TREE_SLACK * problem.energy
    try:
        return branch_and_bound_tree(problem, goal, time_limit=time_limit)
    except InputError:
        return None  # a kind of problem that trees do not cover
