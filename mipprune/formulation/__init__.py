"""Pyomo formulations, one reformulation a file.

The names below are loaded on first use: Pyomo takes seconds to import, and the
pipeline needs only :mod:`mipprune.formulation.widths` until it solves.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipprune.formulation.big_m import big_m_model
    from mipprune.formulation.binary_quadratic import binary_quadratic_model
    from mipprune.formulation.computed_bounds import weight_bounds
    from mipprune.formulation.disjunctive import disjunctive_model, hull_model
    from mipprune.formulation.limits import fix_mask, limits_model, mask_of, relax_mask
    from mipprune.formulation.perspective_cone import perspective_cone_model
    from mipprune.formulation.perspective_cuts import PerspectiveCuts
    from mipprune.formulation.split_loss import split_loss_model
    from mipprune.formulation.value_cuts import ValueCut, ValueCuts, value_cut

# Public name -> module of this room that defines it.
_EXPORTS = {
    "PerspectiveCuts": "perspective_cuts",
    "ValueCut": "value_cuts",
    "ValueCuts": "value_cuts",
    "big_m_model": "big_m",
    "binary_quadratic_model": "binary_quadratic",
    "disjunctive_model": "disjunctive",
    "fix_mask": "limits",
    "hull_model": "disjunctive",
    "limits_model": "limits",
    "mask_of": "limits",
    "perspective_cone_model": "perspective_cone",
    "relax_mask": "limits",
    "split_loss_model": "split_loss",
    "value_cut": "value_cuts",
    "weight_bounds": "computed_bounds",
}

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


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mipprune.formulation' has no attribute '{name}'")
    return getattr(import_module(f"mipprune.formulation.{_EXPORTS[name]}"), name)
