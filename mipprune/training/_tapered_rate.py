"""How fast the resource falls: as fast as the loss allows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RateControl"]

_MEMORY = 0.95
_FASTEST = 2.0
_SLOWEST = 0.01
_BRAKE = 5.0


@dataclass(eq=False)
class RateControl:
    """Relative rate rho under control of the loss's moving average.

        rho <- rho * exp( reaction * clip( 2 (L0 + allowance / 2 - L) / allowance, -1, 1 ) )

    It grows up to half of the allowance and shrinks above, five times as fast;
    tapering pauses where all of it is used. It starts at
    ``log(1 / lowest) / (steps until arrival)`` and stays between a hundredth of
    that and twice that.

    Attributes
    ----------
    total_steps, observe : int
        Steps of the run, and those before tapering begins, in whose second half
        L0 is measured.
    arrive : float
        Share of the run after which ``lowest`` should be reached.
    lowest : float
        Share of the whole cost.
    binding : bool
        The rate never falls below what is needed to arrive.
    allowance : float
        In units of the loss.
    reaction : float
    step : int
        Optimizer steps done.
    average, reference : float
        L and L0.
    """

    total_steps: int
    observe: int
    arrive: float
    lowest: float
    binding: bool
    allowance: float
    reaction: float
    step: int = 0
    rate: float = 0.0
    average: float = 0.0
    reference: float = 0.0
    seen: int = 0

    def __post_init__(self) -> None:
        self.rate = self.first

    @property
    def first(self) -> float:
        """The initial rate."""
        steps = max(1.0, self.arrive * self.total_steps - self.observe)
        return math.log(1 / self.lowest) / steps

    @property
    def limit(self) -> float:
        """Loss that is allowed."""
        return self.reference + self.allowance

    def see(self, loss: float) -> None:
        """Take the training loss of a step into the averages."""
        if self.step < self.observe:
            if self.step < self.observe // 2:
                return
            self.seen += 1
            self.reference += (loss - self.reference) / self.seen
            self.average = self.reference
        else:
            if self.seen == 0:
                self.reference = self.average = loss
            self.seen += 1
            self.average += (1 - _MEMORY) * (loss - self.average)

    def tapering(self, allowed: float) -> bool:
        """Whether the resource falls in this step; updates the rate if so.

        ``allowed``: share of the whole cost that R stands at.
        """
        if self.step <= self.observe:
            return False
        half = self.allowance / 2
        slack = max(-1.0, min(1.0, (self.reference + half - self.average) / half))
        reaction = self.reaction * (1.0 if slack >= 0 else _BRAKE)
        rate = self.rate * math.exp(reaction * slack)
        self.rate = min(max(rate, _SLOWEST * self.first), _FASTEST * self.first)
        if self.binding and allowed > self.lowest:
            left = max(1.0, self.arrive * self.total_steps - self.step)
            self.rate = max(self.rate, math.log(allowed / self.lowest) / left)
            return True
        return self.average <= self.limit

    def state_dict(self) -> dict[str, Any]:
        names = ("step", "rate", "average", "reference", "seen")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
