"""A certificate for anybody's mask, and what to say about it."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import BudgetError

if TYPE_CHECKING:
    from mipprune.certificate import Certificate
    from mipprune.problem import ChannelSelection

__all__ = ["certificate_for", "describe"]


def certificate_for(
    problem: "ChannelSelection", mask: NDArray[np.bool_], time_limit: float | None
) -> "Certificate":
    """The strongest relaxation's proof together with the mask and its value.

    Raises
    ------
    InputError
        A mask of another length.
    BudgetError
        A mask that breaks a limit of the problem.
    """
    from mipprune.relaxation import relax

    if not problem.is_feasible(mask):
        raise BudgetError(
            f"the mask keeps {int(mask.sum())} of {mask.size} channels and breaks a limit of the "
            "problem; give a mask that meets all limits, or --keep"
        )
    return relax(problem, time_limit=time_limit).certificate.with_mask(problem, mask)


def describe(certificate: "Certificate") -> str:
    """Bound, value and gap in one line."""
    if certificate.value is None:
        return f"bound {certificate.bound:.10g} ({certificate.kind})"
    gap = max(certificate.value - certificate.bound, 0.0) / max(abs(certificate.value), 1e-300)
    return (
        f"error {certificate.value:.10g}, bound {certificate.bound:.10g} ({certificate.kind}), "
        f"gap {100 * gap:.4g} % of the error"
    )
