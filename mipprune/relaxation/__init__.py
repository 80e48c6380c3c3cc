"""Lower bounds on the channel-selection program."""

from mipprune.relaxation._certify import certify
from mipprune.relaxation._path import PathPoint, path
from mipprune.relaxation._relax import RELAXATION_KINDS, relax
from mipprune.relaxation._removal_relax import bounds_of_keeps
from mipprune.relaxation._result import Relaxation
from mipprune.relaxation._spr import SprParameters, spr_parameters
from mipprune.relaxation.removal import RemovalForm, TermRemoval, removal_form

__all__ = [
    "RELAXATION_KINDS",
    "PathPoint",
    "Relaxation",
    "RemovalForm",
    "SprParameters",
    "TermRemoval",
    "bounds_of_keeps",
    "certify",
    "path",
    "relax",
    "removal_form",
    "spr_parameters",
]
