"""Lower bounds on the channel-selection program."""

from mipprune.relaxation._relax import RELAXATION_KINDS, relax
from mipprune.relaxation._result import Relaxation

__all__ = ["RELAXATION_KINDS", "Relaxation", "relax"]
