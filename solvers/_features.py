"""What a solver can take, and the error that names what it cannot."""

from dataclasses import dataclass

import numpy as np

from mipprune.errors import SolverError
from mipprune.problem import VARIANTS, ChannelSelection

__all__ = ["Features"]


@dataclass(frozen=True)
class Features:
    """Properties of problems that a solver supports.

    Attributes
    ----------
    variants : frozenset of str
    box : bool
        Bounds on the weights (they do not matter to variant mask).
    several_terms : bool
        More than one consumer of the channels.
    several_budgets : bool
        More than one resource.
    prices : bool
        Objective coefficients of the channels.
    lower_limits : bool
        Resources with a positive lower limit.
    parts : bool
        Equal counts.
    singular : bool
        Ridge 0 with a singular Gram matrix.
    proves : bool
        Gives a valid bound and, with enough time, proves optimality.
    max_channels : int or None
        Most channels that are not decided beforehand.
    """

    variants: frozenset[str] = frozenset(VARIANTS)
    box: bool = True
    several_terms: bool = True
    several_budgets: bool = True
    prices: bool = True
    lower_limits: bool = True
    parts: bool = True
    singular: bool = True
    proves: bool = True
    max_channels: int | None = None

    def missing(self, problem: ChannelSelection) -> list[str]:
        """What the problem has and the solver lacks, in words."""
        lacks: list[str] = []
        if problem.variant not in self.variants:
            lacks.append(f"variant '{problem.variant}'")
        if problem.has_box and problem.variant != "mask" and not self.box:
            lacks.append("bounds on the weights (big_m)")
        if len(problem.terms) > 1 and not self.several_terms:
            lacks.append(f"several terms ({len(problem.terms)})")
        if len(problem.resources) > 1 and not self.several_budgets:
            lacks.append(f"several resources ({len(problem.resources)})")
        if problem.prices.any() and not self.prices:
            lacks.append("prices")
        if any(r.lower > 0 for r in problem.resources) and not self.lower_limits:
            lacks.append("lower limits")
        if problem.parts and not self.parts:
            lacks.append("equal counts (parts)")
        undecided = int(np.sum(~(problem.forced_in | problem.forced_out)))
        if self.max_channels is not None and undecided > self.max_channels:
            lacks.append(f"more than {self.max_channels} undecided channels ({undecided})")
        if not self.singular and problem.variant != "mask" and not _is_damped(problem):
            lacks.append("ridge 0 with a singular Gram matrix")
        return lacks

    def require(self, method: str, problem: ChannelSelection) -> None:
        """Refuse a problem that has a property the solver lacks."""
        lacks = self.missing(problem)
        if lacks:
            raise SolverError(
                f"method '{method}' does not take: {', '.join(lacks)}; "
                "see docs/solvers.md for the methods that do, or use method='auto'"
            )


def _is_damped(problem: ChannelSelection) -> bool:
    """Whether every damped Gram matrix is positive definite with a margin."""
    for term in problem.canonical().terms:
        if not term.n_rows or bool(np.all(term.ridge[term.group_sizes > 0] > 0)):
            continue
        spectrum = np.linalg.eigvalsh(term.damped_gram)
        if spectrum[0] <= 1e-10 * spectrum[-1]:
            return False
    return True
