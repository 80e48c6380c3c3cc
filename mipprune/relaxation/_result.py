"""What a relaxation returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mipprune.certificate import Certificate

__all__ = ["Relaxation"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A proven lower bound on a problem, and the relaxed point beside it.

    Attributes
    ----------
    bound : float
        Valid lower bound: evaluated at the dual point, less the rounding error.
    value : float
        Objective of the relaxed point, the relaxation's own optimum up to the
        tolerance; inf where the kind has no primal point.
    gates : float64 (p,)
        Relaxed indicators z in [0, 1].
    weights : tuple of float64 (d, m)
        Relaxed weights per term (canonical problem), also the dual points of
        the keeping side; empty for kinds without weights.
    certificate : Certificate
        Saved with ``certificate.save(path)``.
    kind, split : str
    iterations : int
    seconds : float
    finished : bool
        False where time or iterations ran out before the tolerance.
    statistics : mapping
        Figures of the kind, by name.
    """

    bound: float
    value: float
    gates: NDArray[np.float64]
    weights: tuple[NDArray[np.float64], ...]
    certificate: Certificate
    kind: str
    split: str
    iterations: int
    seconds: float
    finished: bool
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """Relative duality gap ``(value - bound) / value`` of the relaxation itself."""
        if not np.isfinite(self.value):
            return float("inf")
        difference = self.value - self.bound
        return 0.0 if difference <= 0 else difference / max(abs(self.value), 1e-300)
