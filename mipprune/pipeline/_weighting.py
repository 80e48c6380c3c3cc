"""Curves of different families in one unit: the change of the network's outputs."""

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune.calibration import CalibratedFamily, apply_weights
from mipprune.formulation.widths import WidthCurve
from mipprune.pipeline._curves import FamilyCurve
from mipprune.problem import ChannelSelection

__all__ = ["in_units_of_outputs", "relative_to_energy"]

Floats = NDArray[np.float64]

ANCHORS = (0.1, 0.25, 0.5, 0.75)
"""Shares of a family at which the change of the outputs is measured."""


def relative_to_energy(family: CalibratedFamily, found: FamilyCurve) -> FamilyCurve:
    """Errors divided by half the energy of the layers that read the family."""
    energy = sum(term.energy for term in family.terms)
    factor = 2.0 / energy if energy > 0 else 0.0
    return _scaled(found, np.full(found.curve.counts.shape, factor))


def in_units_of_outputs(
    model: nn.Module,
    family: CalibratedFamily,
    problem: ChannelSelection,
    found: FamilyCurve,
    output_error: Callable[[nn.Module], float],
) -> FamilyCurve:
    """Errors times what a unit of them changes at the network's outputs at that width.

    The factor is measured with the family alone pruned to a few widths, and its
    logarithm interpolated between them: near the full width the rest of the
    network damps an error, at narrow ones it amplifies it. Factors depend on
    the width alone, so that a bound on the error of a width, times its factor,
    bounds the product; both are then made monotone again.
    """
    curve = found.curve
    counts: list[int] = []
    logarithms: list[float] = []
    for index in _anchors(curve.counts):
        trial = copy.deepcopy(model)
        apply_weights(trial, family, problem.weights(found.masks[index]))
        change, error = output_error(trial), float(curve.values[index])
        if change > 0 and error > 0 and np.isfinite(change):
            counts.append(int(curve.counts[index]))
            logarithms.append(float(np.log(change / error)))
    if not counts:
        return relative_to_energy(family, found)
    return _scaled(found, np.exp(np.interp(curve.counts, counts, logarithms)))


def _anchors(counts: NDArray[np.int64]) -> list[int]:
    """Indices of the counts nearest to the shares, without the whole family where others exist."""
    inner = counts[:-1] if counts.size > 1 else counts
    return sorted({int(np.argmin(np.abs(inner - share * counts[-1]))) for share in ANCHORS})


def _scaled(found: FamilyCurve, factors: Floats) -> FamilyCurve:
    """Curve times factors; the best width of at most k classes may be a smaller one."""
    curve = found.curve
    values = np.minimum.accumulate(factors * curve.values)
    bounds = np.minimum.accumulate(factors * curve.bounds)
    return FamilyCurve(WidthCurve(curve.family, curve.counts, values, bounds), found.masks)
