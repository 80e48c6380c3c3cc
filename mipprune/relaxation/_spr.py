r"""From a relaxation back to the regulariser that training uses.

The penalised program with :math:`\rho_j = 2 \lambda c_j \alpha` and
:math:`\mu_j = \lambda c_j (1 - \alpha)` is the perspective relaxation whose penalty,
gates projected out, is the structured perspective regularisation of strength
:math:`\lambda` (Cacciola, Frangioni, Li and Lodi 2022). A program with a ridge
:math:`\rho_j` and one budget :math:`a^\top y \le b` has the same relaxed solution as the
penalised one at the budget's multiplier: :math:`\mu_j = \mu^0_j + \theta a_j`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import require_instance
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, require_problem
from mipprune.relaxation._result import Relaxation

__all__ = ["SprParameters", "spr_parameters"]

TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class SprParameters:
    """``strength`` (lambda), ``alpha`` and weights c_j (mean one) of the regulariser.

    ``big_m`` is the smallest box that holds the relaxed weights, None without weights.
    """

    strength: float
    alpha: float
    channel_weights: NDArray[np.float64]
    big_m: float | None


def spr_parameters(problem: ChannelSelection, relaxation: Relaxation) -> SprParameters | None:
    """SPR parameters whose penalised relaxation has this relaxation as its solution.

    With ``rho`` the ridge and ``mu`` the prices plus the budgets' multipliers,
    they exist where rho_j / mu_j is the same for every channel: then
    ``lambda c_j = rho_j / 2 + mu_j`` and ``alpha = rho_j / (rho_j + 2 mu_j)``.

    Parameters
    ----------
    problem : ChannelSelection
        One term, variant ``refit`` or ``scale``, positive ridge.
    relaxation : Relaxation
        Of kind ``perspective`` or ``perspective-box`` with split ``ridge``; another
        split penalises other directions than SPR does.

    Returns
    -------
    SprParameters, or None where no pair (alpha, lambda) fits all channels, or
    where the budget is not binding and there are no prices (alpha would be one).

    Raises
    ------
    InputError
        Another kind, split or number of terms.
    """
    require_problem(problem)
    require_instance("relaxation", relaxation, Relaxation, "it is what relax(problem) returns")
    if relaxation.kind not in ("perspective", "perspective-box") or relaxation.split != "ridge":
        raise InputError(
            "spr_parameters needs a relaxation of kind 'perspective' or 'perspective-box' with "
            f"split 'ridge'; got '{relaxation.kind}' with '{relaxation.split}'"
        )
    canonical = problem.canonical()
    if canonical.variant != "refit" or len(canonical.terms) != 1:
        raise InputError("spr_parameters needs one term of variant 'refit' or 'scale'")
    rho = canonical.terms[0].ridge
    multipliers = relaxation.certificate.arrays["multipliers"].astype(np.float64)
    rows, _ = canonical.upper_constraints
    mu = canonical.prices + multipliers @ rows
    if np.any(rho <= 0) or np.any(mu <= 0):
        return None
    weights = rho / 2 + mu
    alphas = rho / 2 / weights
    if np.ptp(alphas) > TOLERANCE * float(alphas.mean()):
        return None
    strength = float(weights.mean())
    largest = max((float(np.abs(w).max(initial=0.0)) for w in relaxation.weights), default=0.0)
    return SprParameters(strength, float(alphas.mean()), weights / strength, largest or None)
