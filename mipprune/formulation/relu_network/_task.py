"""What is asked of a pruned ReLU network: objective, budgets and the sample of inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import BudgetError, InputError
from mipprune.formulation.relu_network._network import ReLUNetwork

__all__ = ["OBJECTIVES", "NetworkPruning"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RELATIVE_ROUNDING = 1e-12
"""Relative rounding of sums of thousands of float64 terms, with room to spare."""

OBJECTIVES = ("deviation", "hinge", "misclassification", "neurons")


@dataclass(frozen=True, eq=False)
class NetworkPruning:
    r"""Choose the hidden neurons of a ReLU network on a sample; weights stay as they are.

    ======================  =======================================================
    objective               minimised
    ======================  =======================================================
    ``deviation``           mean over the sample of :math:`\|f_y(x_i) - f(x_i)\|_1`
    ``hinge``               mean of :math:`\max_{c \ne t_i} (1 + f_c - f_{t_i})_+`
    ``misclassification``   share of inputs whose target leads by less than
                            ``margin - tolerance``
    ``neurons``             number of neurons kept
    ======================  =======================================================

    Attributes
    ----------
    network : ReLUNetwork
    inputs : float64 (N, n_0)
    targets : int64 (N,) or None
        Classes; by default what the whole network predicts.
    objective : str
    max_neurons : int or None
        Most hidden neurons kept, in all layers together.
    max_deviation : float or None
        Limit on every absolute output deviation.
    keep_predictions : bool
        Every target must win by ``margin``.
    margin : float
        Smallest lead of the winning output, > 0 (a tie is not a prediction).
    tolerance : float
        Feasibility tolerance, in the units of the outputs: a limit on the outputs
        counts as met when it is missed by at most this much, and a target wins
        from ``margin - tolerance`` on. Below ``margin``, above :attr:`rounding`.
    reference : float64 (N, n_L) or None
        Outputs that deviations are measured from and targets are read from; by
        default the network's own. Give the original's where ``network`` is its
        lossless reduction.

    Raises
    ------
    InputError
        Unknown objective, wrong shapes, targets out of range, a tolerance that is
        not between rounding and margin.
    BudgetError
        ``max_neurons`` out of range, or the dense network itself misses a limit.
    """

    network: ReLUNetwork
    inputs: Floats
    targets: NDArray[np.int64] | None = None
    objective: str = "deviation"
    max_neurons: int | None = None
    max_deviation: float | None = None
    keep_predictions: bool = False
    margin: float = 1e-4
    tolerance: float = 1e-6
    reference: Floats | None = None

    def __post_init__(self) -> None:
        inputs = np.asarray(self.inputs, dtype=np.float64)
        width = self.network.weights[0].shape[1]
        if inputs.ndim != 2 or inputs.shape[1] != width or not len(inputs):
            raise InputError(f"inputs: expected shape (N, {width}), got {inputs.shape}")
        if not np.all(np.isfinite(inputs)):
            raise InputError("inputs: contain NaN or infinity")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective: expected one of {OBJECTIVES}, got '{self.objective}'")
        if not self.margin > 0:
            raise InputError(f"margin: expected a number > 0, got {self.margin}")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "reference", self._checked_reference())
        object.__setattr__(self, "targets", self._checked_targets())
        self._check_tolerance()
        self._check_limits()

    def _checked_reference(self) -> Floats:
        own = self.network.forward(self.inputs)
        if self.reference is None:
            return own
        reference = np.array(self.reference, dtype=np.float64)
        if reference.shape != own.shape or not np.all(np.isfinite(reference)):
            raise InputError(
                f"reference: expected finite outputs of shape {own.shape}, got {reference.shape}"
            )
        return reference

    def _check_tolerance(self) -> None:
        if not self.rounding < self.tolerance < self.margin:
            raise InputError(
                f"tolerance: expected a number above the rounding of the outputs "
                f"({self.rounding:.1e}) and below the margin ({self.margin:g}), "
                f"got {self.tolerance}"
            )

    def _checked_targets(self) -> NDArray[np.int64]:
        outputs = self.dense
        if self.targets is None:
            predicted: NDArray[np.int64] = np.argmax(outputs, axis=1).astype(np.int64)
            return predicted
        targets = np.asarray(self.targets)
        fits = targets.shape == (len(outputs),) and np.issubdtype(targets.dtype, np.integer)
        if not fits or targets.min() < 0 or targets.max() >= outputs.shape[1]:
            raise InputError(
                f"targets: expected {len(outputs)} integers in 0..{outputs.shape[1] - 1}"
            )
        return targets.astype(np.int64)

    def _check_limits(self) -> None:
        n = self.network.n_neurons
        if self.max_neurons is not None and not 0 <= self.max_neurons <= n:
            raise BudgetError(f"max_neurons: expected 0..{n}, got {self.max_neurons}")
        if self.max_deviation is not None and not self.max_deviation >= 0:
            raise BudgetError(f"max_deviation: expected a number >= 0, got {self.max_deviation}")
        if self.keep_predictions:
            leads = self.leads(self.network.full_masks())
            losing = np.flatnonzero(leads < self.least_lead)
            if losing.size:
                raise BudgetError(
                    f"keep_predictions: the whole network itself misses the margin {self.margin} "
                    f"on inputs {losing[:10].tolist()}; leave them out or lower the margin"
                )

    @property
    def classes(self) -> NDArray[np.int64]:
        """Targets, int64 (N,)."""
        if self.targets is None:
            raise InputError("targets are missing")
        return self.targets

    @property
    def dense(self) -> Floats:
        """Outputs that deviations are measured from, float64 (N, n_L)."""
        if self.reference is None:
            raise InputError("reference outputs are missing")
        return self.reference

    @property
    def least_lead(self) -> float:
        """Lead from which a target counts as winning: ``margin - tolerance``."""
        return self.margin - self.tolerance

    @cached_property
    def rounding(self) -> float:
        """Bound on float64 rounding of any output under any masks.

        ``RELATIVE_ROUNDING`` times the outputs with absolute values in place of
        all weights, biases and inputs, which bound every partial sum.
        """
        size = np.abs(self.inputs)
        for w, b in zip(self.network.weights, self.network.biases, strict=True):
            size = size @ np.abs(w).T + np.abs(b)
        return RELATIVE_ROUNDING * float(size.max())

    def leads(self, masks: Sequence[Bools]) -> Floats:
        """Target output minus the largest other, float64 (N,)."""
        outputs = self.network.forward(self.inputs, masks)
        rows = np.arange(len(outputs))
        own = outputs[rows, self.classes]
        outputs[rows, self.classes] = -np.inf
        lead: Floats = own - outputs.max(axis=1)
        return lead

    def value(self, masks: Sequence[Bools]) -> float:
        """Objective of masks by the real forward pass."""
        if self.objective == "neurons":
            return float(sum(int(mask.sum()) for mask in masks))
        if self.objective == "deviation":
            change = self.network.forward(self.inputs, masks) - self.dense
            return float(np.abs(change).sum(axis=1).mean())
        leads = self.leads(masks)
        if self.objective == "hinge":
            return float(np.maximum(1.0 - leads, 0.0).mean())
        return float((leads < self.least_lead).mean())

    def violation(self, masks: Sequence[Bools]) -> float:
        """Most by which a limit on the outputs is missed, by the real forward pass; 0 if none."""
        worst = 0.0
        if self.max_deviation is not None:
            change = self.network.forward(self.inputs, masks) - self.dense
            worst = max(worst, float(np.abs(change).max()) - self.max_deviation)
        if self.keep_predictions:
            worst = max(worst, self.margin - float(self.leads(masks).min()))
        return worst

    def is_feasible(self, masks: Sequence[Bools]) -> bool:
        """Whether masks meet the count, and the limits on outputs to within the tolerance.

        By the real forward pass. Masks whose :meth:`violation` is within
        :attr:`rounding` of the tolerance count as feasible here; whether a solver
        sees them so depends on the order of its sums.
        """
        kept = sum(int(mask.sum()) for mask in masks)
        if self.max_neurons is not None and kept > self.max_neurons:
            return False
        return self.violation(masks) <= self.tolerance + self.rounding
