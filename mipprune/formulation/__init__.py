"""Pyomo formulations, one reformulation a file."""

from mipprune.formulation.big_m import big_m_model
from mipprune.formulation.binary_quadratic import binary_quadratic_model
from mipprune.formulation.disjunctive import disjunctive_model, hull_model
from mipprune.formulation.limits import fix_mask, limits_model, mask_of, relax_mask
from mipprune.formulation.perspective_cone import perspective_cone_model
from mipprune.formulation.perspective_cuts import PerspectiveCuts
from mipprune.formulation.split_loss import split_loss_model
from mipprune.formulation.value_cuts import ValueCut, ValueCuts, value_cut
from mipprune.formulation.weight_bounds import weight_bounds

__all__ = [
    "PerspectiveCuts",
    "ValueCut",
    "ValueCuts",
    "big_m_model",
    "binary_quadratic_model",
    "disjunctive_model",
    "fix_mask",
    "hull_model",
    "limits_model",
    "mask_of",
    "perspective_cone_model",
    "relax_mask",
    "split_loss_model",
    "value_cut",
    "weight_bounds",
]
