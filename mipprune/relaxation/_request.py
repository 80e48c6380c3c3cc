"""The checked arguments of one call of ``relax``."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.certificate import Certificate
from mipprune.problem import ChannelSelection
from mipprune.relaxation._limits import Limits

__all__ = ["Request"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Request:
    """Arguments of one call, checked."""

    problem: ChannelSelection
    canonical: ChannelSelection
    limits: Limits
    kind: str
    split: str
    tolerance: float
    began: float
    deadline: float
    start: Floats
    device: torch.device
    block_size: int
    steps: int = 4000
    """Most first-order steps on the pairs, per number of removals."""

    def certificate(
        self, kind: str, bound: float, arrays: dict[str, NDArray[np.generic]]
    ) -> Certificate:
        """A certificate for the problem as it was given."""
        return Certificate(kind, self.problem.content_hash, bound, arrays)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the call."""
        return time.monotonic() - self.began
