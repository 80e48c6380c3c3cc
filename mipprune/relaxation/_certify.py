"""Prove how far any mask is from optimal, whoever made it."""

import time

from numpy.typing import ArrayLike

from mipprune._support.checks import require_time_limit
from mipprune.certificate import Certificate, confirmed
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, require_problem
from mipprune.relaxation._relax import relax

__all__ = ["certify"]


def certify(
    problem: ChannelSelection,
    mask: ArrayLike,
    *,
    kind: str = "auto",
    tol: float = 1e-4,
    time_limit: float | None = None,
) -> Certificate:
    """Certificate that a mask is within ``(value - bound) / value`` of the optimum.

    Parameters
    ----------
    problem : ChannelSelection
    mask : bool (p,)
        Feasible mask, from this library or any other tool.
    kind, tol, time_limit
        As in :func:`mipprune.relaxation.relax`.

    Returns
    -------
    Certificate
        With ``bound``, ``mask`` and ``value``; ``save(path)`` writes it. The checker has
        seen it: it claims no more than what is recomputed there.

    Raises
    ------
    InputError
        Wrong shape, or a mask that breaks a limit (named in the message).
    CertificateError
        The relaxation proves nothing that the checker accepts.
    """
    began = time.monotonic()
    chosen = require_problem(problem).checked_mask(mask)
    require_time_limit(time_limit, zero=True)
    if not problem.is_feasible(chosen):
        broken = [r.name for r in problem.resources if not r.admits(chosen)]
        what = f"limits of {', '.join(broken)}" if broken else "a forced channel or equal counts"
        raise InputError(f"the mask breaks {what}; certify proves feasible masks only")
    left = None if time_limit is None else max(time_limit - (time.monotonic() - began), 0.0)
    relaxed = relax(problem, kind, tol=tol, time_limit=left)
    return confirmed(problem, relaxed.certificate.with_mask(problem, chosen))
