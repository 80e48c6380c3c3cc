r"""Bounds on the weights of an optimal solution, from the data.

With H = G + ridge positive definite the loss of a term is
:math:`L_0 + \tfrac12 \operatorname{tr}((W - W_0)^\top H (W - W_0))` around its
minimiser :math:`W_0 = H^{-1} C`. An optimal solution is not worse than a
feasible mask of value U, so its weights lie in an ellipsoid and every entry in

.. math:: |w_{ic}| \le |(W_0)_{ic}| + \sqrt{2\,\Delta\,(H^{-1})_{ii}}, \qquad
          \Delta = U + \sum_j \max(0, -\mu_j) - \sum_t L_{0,t}.

Stated bounds of the problem are used where they are smaller. There is no
default: without a ridge, a stated bound or a feasible mask there is no bound.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.errors import InputError
from mipprune.formulation._weights import canonical_refit, cross_of
from mipprune.problem import ChannelSelection

__all__ = ["weight_bounds"]

Floats = NDArray[np.float64]

ROUNDING = 1e-6
"""Relative enlargement that covers the arithmetic."""


def weight_bounds(
    problem: ChannelSelection, incumbent: ArrayLike | None = None
) -> tuple[Floats, ...]:
    """Valid bounds M_tj on the absolute weights of some optimal solution.

    Parameters
    ----------
    problem : ChannelSelection
        Variants refit and scale (there the bound is on the factor).
    incumbent : bool array (p,), optional
        Feasible mask; the better, the smaller the bounds. Default the empty
        mask, where that is feasible.

    Returns
    -------
    tuple of float64 (p,)
        One array per term.

    Raises
    ------
    InputError
        No bound can be derived; the message says what would allow it.
    """
    canonical = canonical_refit(problem, "weight_bounds")
    stated = tuple(term.big_m for term in canonical.terms)
    if incumbent is None and all(np.all(np.isfinite(limit)) for limit in stated):
        return stated
    mask = _incumbent(canonical, incumbent)
    factors = []
    for term in canonical.terms:
        spectrum = np.linalg.eigvalsh(term.damped_gram) if term.n_rows else np.ones(1)
        if spectrum[0] <= 1e-9 * spectrum[-1]:
            if np.all(np.isfinite(term.big_m)):
                return stated
            raise InputError(
                f"no bound on the weights of term '{term.name}': its damped Gram matrix is "
                "singular; state big_m, or give a ridge (with_damping)"
            )
        factors.append(np.linalg.inv(term.damped_gram))
    minimisers, least = [], canonical.energy / 2
    for term, inverse in zip(canonical.terms, factors, strict=True):
        minimisers.append(inverse @ cross_of(term))
        least -= 0.5 * float(np.vdot(cross_of(term), minimisers[-1]))
    slack = canonical.value(mask) - float(np.minimum(canonical.prices, 0.0).sum()) - least
    slack = max(slack, 0.0) + ROUNDING * canonical.energy
    result = []
    for term, inverse, best in zip(canonical.terms, factors, minimisers, strict=True):
        reach = np.abs(best).max(1, initial=0.0) + np.sqrt(2 * slack * np.diag(inverse))
        bound = np.zeros(canonical.n_channels)
        np.maximum.at(bound, term.channel_of_row, reach * (1 + ROUNDING))
        result.append(np.minimum(bound, term.big_m))
    return tuple(result)


def _incumbent(problem: ChannelSelection, mask: ArrayLike | None) -> NDArray[np.bool_]:
    if mask is None:
        empty = problem.forced_in.copy()
        if not problem.is_feasible(empty):
            raise InputError(
                "no bound on the weights without a feasible mask; give incumbent=, for example "
                "the mask of method 'local-search', or state big_m"
            )
        return empty
    checked = problem.checked_mask(mask)
    if not problem.is_feasible(checked):
        raise InputError("incumbent: the mask breaks a limit of the problem")
    return checked
