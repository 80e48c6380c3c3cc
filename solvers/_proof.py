"""Attach a certificate to a solution: a tree where optimality was proven, else a root proof."""

import time
from dataclasses import replace

import numpy as np

from mipprune.certificate import Certificate, confirmed
from mipprune.errors import InputError, MippruneError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus
from mipprune.relaxation import certify
from mipprune.solvers.branch_and_bound import branch_and_bound_tree

__all__ = ["with_certificate"]

TREE_SLACK = 1e-8
"""What a tree certificate gives away, relative to the energy, for the checker's rounding."""

TREE_CONDITION = 1e7
"""Largest condition number of G + ridge at which the checker replays trees with confidence."""

REPLAYED = 4000
"""Most nodes of a tree that is replayed before it is attached; larger ones are trusted."""

CLOSE = 1e-6
"""Relative distance from the solution's bound within which no better proof is looked for."""

FAILURES = (
    MippruneError,
    ArithmeticError,
    np.linalg.LinAlgError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
    KeyboardInterrupt,
)
"""What must not cost a finished solution (PyTorch's errors are RuntimeErrors)."""


def with_certificate(
    problem: ChannelSelection, solution: Solution, *, time_limit: float | None = None
) -> Solution:
    """The solution with ``certificate`` and ``certified_bound``.

    Where the solution is optimal and the problem of the kind that
    :func:`branch_and_bound_tree` takes, half of the time goes into a tree;
    otherwise, or where the tree outgrows its limits or proves clearly less than the
    search did, the strongest affordable relaxation certifies its own bound. The better proof is
    attached, claiming no more than the checker recomputes.

    Parameters
    ----------
    problem : ChannelSelection
    solution : Solution
        Of that problem.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    Solution
        Without a certificate where none could be made or Ctrl-C was pressed:
        mask, value and bound are those given, ``no_certificate`` says why.
    """
    if solution.mask is None:
        return replace(solution, no_certificate="no mask was found")
    began = time.monotonic()
    proofs: list[Certificate] = []
    reasons: list[str] = []
    try:
        tree = _tree(problem, solution, None if time_limit is None else time_limit / 2)
        if tree is not None:
            proofs.append(tree)
    except FAILURES as error:
        reasons.append(_said("tree", error))
    interrupted = bool(reasons) and reasons[-1].endswith(STOPPED)
    if not interrupted and not (proofs and _is_close(proofs[0], solution)):
        left = None if time_limit is None else max(time_limit - (time.monotonic() - began), 0.0)
        try:
            proofs.append(certify(problem, solution.mask, time_limit=left))
        except FAILURES as error:
            reasons.append(_said("relaxation", error))
    if not proofs:
        return replace(solution, no_certificate="; ".join(reasons))
    best = max(proofs, key=lambda proof: proof.bound)
    # A root proof may bound more than a search that was stopped early.
    bound = min(max(solution.bound, best.bound), solution.value)
    return replace(solution, certificate=best, certified_bound=best.bound, bound=bound)


STOPPED = "interrupted by the user"


def _said(stage: str, error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"{stage}: {STOPPED}"
    return f"{stage}: {error or type(error).__name__}"


def _is_close(proof: Certificate, solution: Solution) -> bool:
    return proof.bound >= solution.bound - CLOSE * abs(solution.value)


def _tree(
    problem: ChannelSelection, solution: Solution, time_limit: float | None
) -> Certificate | None:
    """A tree that proves the solution's bound, None where none is to be had."""
    if solution.mask is None or solution.status is not SolutionStatus.OPTIMAL:
        return None
    if problem.variant == "mask" or not _well_conditioned(problem):
        return None
    goal = solution.bound - TREE_SLACK * problem.energy
    try:
        tree = branch_and_bound_tree(problem, goal, time_limit=time_limit)
    except InputError:
        return None  # a kind of problem that trees do not cover
    if tree is None:
        return None
    tree = tree.with_mask(problem, solution.mask)
    return confirmed(problem, tree) if tree.arrays["nodes"].size <= REPLAYED else tree


def _well_conditioned(problem: ChannelSelection) -> bool:
    """Whether the checker can invert G + ridge of every term, rows forced out aside."""
    for term in problem.canonical().terms:
        rows = term.rows(~problem.forced_out)
        spectrum = np.linalg.eigvalsh(term.damped_gram[np.ix_(rows, rows)])
        if spectrum.size and spectrum[0] * TREE_CONDITION <= spectrum[-1]:
            return False
    return True
