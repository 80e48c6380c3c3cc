"""SPR under a budget: the prices of the perspective terms are multipliers of the constraint.

    min_{w,y}  L(w) + sum_j [ a_j ||w_j||^2 / y_j + b_j y_j ]    s.t.  C(y) <= R(t)

For fixed w the channels that R(t) has room for are chosen greedily by value per
marginal cost; the others get y_j <= 0, whose multiplier m_j is raised in
proportion to how far it is violated:

    m_j <- min(largest, m_j + rate * y*_j)      (0 for the chosen ones),
    a_j = (strength n_j / N + m_j) alpha,   b_j = (strength n_j / N + m_j) (1 - alpha)

The value of a channel is ``E[<dL/dw_j, w_j>^2]``, a running mean over the batches
of what its removal would change to first order.

References
----------
The penalty: Cacciola, Frangioni, Li, Lodi, SIAM J. Math. Data Science 2023,
arXiv 2206.14056. Its authors tune one strength for all; budget, multipliers and
schedule are of this library. The value: Molchanov et al., "Importance
Estimation for Neural Network Pruning", CVPR 2019, equation 8.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import (
    require_instance,
    require_integer,
    require_number,
    require_real,
)
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training._first_order import first_order_changes
from mipprune.training._moving_budget import MovingBudget
from mipprune.training.binding import prepared
from mipprune.training.choosing import choose_by_score
from mipprune.training.spr import SPR

__all__ = ["BudgetedSPR"]

_MEMORY = 0.95


class BudgetedSPR(SPR):
    """SPR whose zeros arrive at a budget by the end of training.

    Call :meth:`after_backward` in the loop: values come from the gradients of
    the data loss, and the penalty's own gradient is added there.

    Parameters
    ----------
    budget : Budgets, optional
        What may remain; several hold together. Default: half of the MACs.
    total_steps : int
        Optimizer steps of the whole training.
    start, end : float
        Parts of the training between which the budget moves; before it SPR
        runs as it is, after it the multipliers finish their work.
    rate : float, optional
        Of the multipliers, per selection and unit of y*. Default: ``45 / total_steps``.
    largest : float, optional
        Most that a multiplier may be. Default: ``300 / total_steps``.
    select_every : int, optional
        Optimizer steps between selections. Default: a fortieth of all.
    alpha, strength, big_m, reference, m_scale, m_floor, coupled, threshold
        As for :class:`~mipprune.training.SPR`.

    Raises
    ------
    InputError
        A value outside its range, or neither ``big_m`` nor ``reference``.
    """

    def __init__(
        self,
        *,
        budget: Budgets | None = None,
        total_steps: int = 1000,
        start: float = 0.15,
        end: float = 0.6,
        rate: float | None = None,
        largest: float | None = None,
        select_every: int | None = None,
        alpha: float = 0.1,
        strength: float = 1.0,
        big_m: Mapping[str, float] | float | None = None,
        reference: nn.Module | None = None,
        m_scale: float = 1.0,
        m_floor: float = 0.05,
        coupled: bool = True,
        threshold: float = 5e-2,
    ) -> None:
        super().__init__(
            alpha=alpha,
            strength=strength,
            big_m=big_m,
            reference=reference,
            m_scale=m_scale,
            m_floor=m_floor,
            coupled=coupled,
            fused=True,
            threshold=threshold,
        )
        if budget is not None:
            require_instance("budget", budget, Budgets, "make one with Budgets(macs='50%')")
        total_steps = require_integer("total_steps", total_steps, at_least=1)
        if select_every is not None:
            select_every = require_integer("select_every", select_every, at_least=1)
        require_real(start=start, end=end)
        # The penalty moves weights by about lr * price per step: fewer steps need larger prices.
        rate = 45 / total_steps if rate is None else require_number("rate", rate, above=0)
        if largest is None:
            largest = 300 / total_steps
        largest = require_number("largest", largest, above=0)
        if not 0 <= start < end <= 1:
            raise InputError(f"expected 0 <= start < end <= 1, got {start!r} and {end!r}")
        self.budget = Budgets(macs="50%") if budget is None or not budget.given() else budget
        self.total_steps, self.start, self.end = total_steps, start, end
        self.rate, self.largest = rate, largest
        self.select_every = select_every or max(1, round(total_steps / 40))
        self._step = 0
        self._values = np.zeros(0)
        self._multipliers = np.zeros(0)
        self._moving: MovingBudget | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        super().prepare(model, groups)
        self._moving = MovingBudget.of(groups, self.budget)
        self._step = 0
        self._values = np.zeros(self._state.packing.n_groups)
        self._multipliers = np.zeros(groups.n_classes)
        return model

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Classes that the budget of the moment has room for, bool (n_classes,)."""
        return prepared(self._moving).kept

    @property
    def multipliers(self) -> NDArray[np.float64]:
        """m_j of every class, float64 (n_classes,); 0 for the selected ones."""
        return self._multipliers

    def progress(self) -> float:
        """How far the budget has moved, 0 to 1."""
        done = (self._step / self.total_steps - self.start) / (self.end - self.start)
        return min(max(done, 0.0), 1.0)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Update the values of the channels, then add the penalty's gradient."""
        changes = first_order_changes(self._state.packing, self._parameters(None))
        self._values *= _MEMORY
        self._values += (1 - _MEMORY) * np.square(changes)
        super().after_backward()

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        """Every ``select_every`` steps from ``start`` on: selection and multipliers."""
        self._step += 1
        if self._step < self.start * self.total_steps or self._step % self.select_every:
            return
        moving = prepared(self._moving)
        moving.select(self._class_values(), self.progress())
        gates = self._state.packing.per_class(self.gates(), moving.groups.n_classes)
        raised = self._multipliers + self.rate * np.where(np.isfinite(gates), gates, 0.0)
        self._multipliers = np.where(moving.kept, 0.0, np.minimum(self.largest, raised))
        self._state.weigh(self.strength, self._multipliers[self._state.packing.class_of])

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        moving = prepared(self._moving)
        figures = dict(super().end_epoch(metrics))
        gates = self._state.packing.per_class(self.gates(), moving.groups.n_classes)
        for name, share in moving.shares():
            figures[f"spr_{name}_budget"] = share
        for name, share in moving.shares(gates >= self.threshold):
            figures[f"spr_{name}"] = share
        figures["spr_multiplier"] = float(self._multipliers.max(initial=0.0))
        return figures

    def scores(self) -> NDArray[np.float64]:
        """Value per marginal cost, the selected classes above all others."""
        moving = prepared(self._moving)
        ranking = moving.ranking(self._class_values())
        finite = np.isfinite(ranking)
        top = float(ranking[finite].max(initial=0.0)) or 1.0
        # In [0, 1] among themselves, and 2 higher where selected.
        own = np.where(finite, ranking / top, 1.0) + 2.0 * moving.kept
        return np.where(finite, own, np.inf)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget`` by :meth:`scores`; None keeps the selection of the moment."""
        moving = prepared(self._moving)
        if budget is None:
            return moving.groups.masks(moving.kept)
        return choose_by_score(moving.groups, self.scores(), budget)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "step": self._step,
            "values": torch.from_numpy(self._values.copy()),
            "multipliers": torch.from_numpy(self._multipliers.copy()),
            "selected": torch.from_numpy(self.selected.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._step = int(state["step"])
        self._values = state["values"].double().cpu().numpy().copy()
        self._multipliers = state["multipliers"].double().cpu().numpy().copy()
        prepared(self._moving).kept = state["selected"].bool().cpu().numpy().copy()
        self._state.weigh(self.strength, self._multipliers[self._state.packing.class_of])

    def _class_values(self) -> NDArray[np.float64]:
        return self._state.packing.total_per_class(self._values, self._state.groups.n_classes)
