"""What is asked of a pruned ReLU network: objective, budgets and the sample of inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import BudgetError, InputError
from mipprune.formulation.relu_network._network import ReLUNetwork

__all__ = ["OBJECTIVES", "NetworkPruning"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OBJECTIVES = ("deviation", "hinge", "misclassification", "neurons")


@dataclass(frozen=True, eq=False)
class NetworkPruning:
    r"""Choose the hidden neurons of a ReLU network on a sample; weights stay as they are.

    ======================  =======================================================
    objective               minimised
    ======================  =======================================================
    ``deviation``           mean over the sample of :math:`\|f_y(x_i) - f(x_i)\|_1`
    ``hinge``               mean of :math:`\max_{c \ne t_i} (1 + f_c - f_{t_i})_+`
    ``misclassification``   share of inputs whose target does not win by ``margin``
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

    Raises
    ------
    InputError
        Unknown objective, wrong shapes, targets out of range.
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
        object.__setattr__(self, "targets", self._checked_targets())
        self._check_limits()

    def _checked_targets(self) -> NDArray[np.int64]:
        outputs = self.network.forward(self.inputs)
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
            losing = np.flatnonzero(self.leads(self.network.full_masks()) < self.margin)
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
            change = self.network.forward(self.inputs, masks) - self.network.forward(self.inputs)
            return float(np.abs(change).sum(axis=1).mean())
        leads = self.leads(masks)
        if self.objective == "hinge":
            return float(np.maximum(1.0 - leads, 0.0).mean())
        return float((leads < self.margin).mean())

    def is_feasible(self, masks: Sequence[Bools], tolerance: float = 1e-6) -> bool:
        """Whether masks meet every limit, by the real forward pass."""
        kept = sum(int(mask.sum()) for mask in masks)
        if self.max_neurons is not None and kept > self.max_neurons:
            return False
        if self.max_deviation is not None:
            change = self.network.forward(self.inputs, masks) - self.network.forward(self.inputs)
            if np.abs(change).max() > self.max_deviation + tolerance:
                return False
        return not (self.keep_predictions and self.leads(masks).min() < self.margin - tolerance)
