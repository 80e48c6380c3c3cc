"""Linear resources of a mask and whether their limits can be met."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_floats, require_integer, require_number, shown
from mipprune.errors import BudgetError, InputError

__all__ = ["Resource", "check_reachable", "resources_from"]

RELATIVE_SLACK = 1e-9
"""Rounding allowed when a cost is compared with its limit."""


@dataclass(frozen=True, eq=False)
class Resource:
    """``lower <= sum_j costs[j] * y[j] <= upper``.

    Attributes
    ----------
    name : str
        For example channels, params, macs, latency.
    costs : float64 (p,)
        Use of one kept channel, in the resource's unit, >= 0.
    upper, lower : float
        Limits, infinite where there is none.
    """

    name: str
    costs: NDArray[np.float64]
    upper: float = np.inf
    lower: float = -np.inf

    @classmethod
    def count(cls, n_channels: int, keep: int) -> "Resource":
        """At most ``keep`` channels."""
        require_integer("n_channels", n_channels, at_least=0)
        whole = isinstance(keep, int | np.integer) and not isinstance(keep, bool)
        if not whole or not 0 <= keep <= n_channels:
            raise BudgetError(f"keep: expected an integer in 0..{n_channels}, got {shown(keep)}")
        return cls("channels", np.ones(n_channels), float(keep))

    @property
    def is_count(self) -> bool:
        """True where the resource is the number of kept channels."""
        return bool(np.all(self.costs == 1.0))

    def used(self, mask: NDArray[np.bool_]) -> float:
        """Use of a mask."""
        return float(self.costs[mask].sum())

    def admits(self, mask: NDArray[np.bool_]) -> bool:
        """Whether the mask respects both limits (up to rounding of the sum)."""
        used, slack = self.used(mask), RELATIVE_SLACK * float(self.costs.sum())
        return self.lower - slack <= used <= self.upper + slack

    def checked(self, n_channels: int) -> "Resource":
        """This resource with read-only float64 costs, or an error."""
        costs = require_floats(f"resource '{self.name}'", self.costs).copy()
        if costs.shape != (n_channels,):
            raise InputError(
                f"resource '{self.name}': expected costs of shape ({n_channels},), "
                f"got {costs.shape}"
            )
        if not np.all(np.isfinite(costs)) or np.any(costs < 0):
            raise InputError(f"resource '{self.name}': costs must be finite and >= 0")
        for name in ("upper", "lower"):
            require_number(f"resource '{self.name}': {name}", getattr(self, name), finite=False)
        if np.isnan(self.upper) or np.isnan(self.lower) or self.lower > self.upper:
            raise BudgetError(
                f"resource '{self.name}': lower limit {self.lower} and upper limit "
                f"{self.upper} contradict each other"
            )
        costs.setflags(write=False)
        return replace(self, costs=costs)


def resources_from(
    n_channels: int,
    costs: ArrayLike | None,
    budgets: ArrayLike | None,
    lower: ArrayLike | None,
) -> tuple[Resource, ...]:
    """Resources from the arrays of the short constructor."""
    if costs is None:
        if budgets is not None or lower is not None:
            raise InputError("budgets without costs; give costs=, (p,) or (r, p), or use keep=")
        return ()
    rows = np.atleast_2d(require_floats("costs", costs))
    if rows.ndim != 2 or rows.shape[1] != n_channels:
        raise InputError(f"costs: expected (p,) or (r, p) with p = {n_channels}, got {rows.shape}")
    upper_ = _limits("budgets", budgets, np.inf, rows.shape[0])
    lower_ = _limits("lower", lower, -np.inf, rows.shape[0])
    return tuple(
        Resource(f"cost{i}", rows[i], float(upper_[i]), float(lower_[i]))
        for i in range(rows.shape[0])
    )


def check_reachable(
    resources: tuple[Resource, ...],
    forced_in: NDArray[np.bool_],
    forced_out: NDArray[np.bool_],
) -> None:
    """Refuse a limit that no mask can meet, resource by resource.

    Limits that only contradict each other together are found by the solvers.
    """
    for resource in resources:
        least = resource.used(forced_in)
        most = resource.used(~forced_out)
        slack = RELATIVE_SLACK * float(resource.costs.sum())
        if resource.upper < least - slack or resource.lower > most + slack:
            raise BudgetError(
                f"resource '{resource.name}': limits {resource.lower:g}..{resource.upper:g} "
                f"cannot be met; masks reach {least:g}..{most:g}"
            )


def _limits(name: str, values: ArrayLike | None, default: float, n: int) -> NDArray[np.float64]:
    if values is None:
        return np.full(n, default)
    array = np.atleast_1d(require_floats(name, values))
    if array.shape != (n,):
        raise InputError(f"{name}: expected one value per resource ({n}), got {array.shape}")
    return array
