"""Selective weight decay (SWD): what would be pruned now decays more and more.

    L(w) + mu/2 ||w||^2 + a(s) mu/2 ||w*||^2,     a(s) = a_min (a_max / a_min)^(s / s_final)

w* are the parameters that the target would remove at this moment.

References
----------
Tessier, Gripon, Leonardon, Arzel, Hannagan, Bertrand, "Rethinking Weight Decay
for Efficient Neural Network Pruning", Journal of Imaging 8(3):64, 2022, arXiv
2011.10520; formulas and settings as in the authors' code.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import require_choice, require_flags, require_instance, require_real
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.graph.removal import mask_model
from mipprune.training._swd_selection import (
    ChannelSelector,
    Selector,
    WeightSelector,
    channels_for_parameters,
)
from mipprune.training.binding import Binding, prepared
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.method import Method, ParameterGroup

__all__ = ["SWD", "channels_for_parameters", "decay_factor"]

LARGEST_CONTRACTION = 0.2
"""Most that lr * a * mu may be: SGD with momentum .9 stays stable below it."""


def decay_factor(step: int, total_steps: int, a_min: float, a_max: float) -> float:
    """a(s) = a_min (a_max / a_min)^(s / s_final).

    Examples
    --------
    >>> [round(decay_factor(s, 100, 0.1, 1e5), 4) for s in (0, 50, 100)]
    [0.1, 100.0, 100000.0]
    """
    return a_min * math.pow(a_max / a_min, min(step / total_steps, 1.0))


class SWD(Method):
    """Growing decay of the parameters below the target; no fine-tuning.

    ``structure="channels"``: the importance of a channel is its norm scale
    (the largest of tied ones), and scale and shift of the selected channels
    decay. ``structure="weights"``: the smallest weights of the whole network,
    norms left out, decay singly; ``finish`` sets them to zero.

    The selection is made anew at the first step and after every epoch
    (:meth:`end_epoch`), and every ``select_every`` steps where that is given.

    Parameters
    ----------
    total_steps : int
        s_final, optimizer steps of the whole run.
    keep : float in (0, 1), optional
        Share of the network's parameters that remains (channels: found by
        bisection over the scores with the counter of the library). Default: the
        ``budget`` where there is one, else 0.1.
    budget : Budgets, optional
        Selects channels by the rounding to this budget instead.
    structure : {"channels", "weights"}
    filters : bool
        Channels only: decay also the filters that feed and read them
        (the authors' ``structuredF``).
    a_min, a_max : float
    mu : float
        Weight decay that a(s) multiplies; the loop's own is separate.
    decoupled : bool
        Shrink the weights after the step instead of adding to the gradient: for
        Adam-type optimizers, which would rescale a gradient.
    select_every : int, optional
    evaluate : callable, optional
        Network -> accuracy (0 to 1); then the last :meth:`end_epoch` logs it
        before and after the final cut.

    Notes
    -----
    lr * a * mu is kept at most 0.2, where SGD with momentum .9 is stable; the
    authors' schedule stays below that by itself.
    """

    needs_fine_tuning: ClassVar[bool] = False

    def __init__(
        self,
        *,
        total_steps: int | None = None,
        keep: float | None = None,
        budget: Budgets | None = None,
        structure: Literal["channels", "weights"] = "channels",
        filters: bool = False,
        a_min: float = 0.1,
        a_max: float = 1e5,
        mu: float = 5e-4,
        decoupled: bool = False,
        select_every: int | None = None,
        evaluate: Callable[[nn.Module], float] | None = None,
    ) -> None:
        for name, whole in {"total_steps": total_steps, "select_every": select_every}.items():
            if whole is not None and (not isinstance(whole, int) or whole < 1):
                raise InputError(f"{name} must be an integer >= 1, got {whole!r}")
        require_real(a_min=a_min, a_max=a_max, mu=mu, **({} if keep is None else {"keep": keep}))
        require_flags(filters=filters, decoupled=decoupled)
        if budget is not None:
            require_instance("budget", budget, Budgets, "make one with Budgets(macs='50%')")
        if keep is not None and not 0 < keep < 1:
            raise InputError(f"keep must be in (0, 1), the share that remains, got {keep!r}")
        require_choice("structure", structure, ("channels", "weights"))
        if not 0 < a_min <= a_max < math.inf:
            raise InputError(f"expected 0 < a_min <= a_max, got {a_min!r} and {a_max!r}")
        if not 0 < mu < math.inf:
            raise InputError(f"mu must be positive and finite, got {mu!r}: SWD multiplies it")
        self.total_steps, self.structure, self.filters = total_steps, structure, filters
        self.budget = budget if keep is None and structure == "channels" else None
        self.keep = 0.1 if keep is None else keep
        self.a_min, self.a_max, self.mu = a_min, a_max, mu
        self.decoupled, self.select_every = decoupled, select_every
        self.evaluate = evaluate
        self._bound: Binding | None = None
        self._selector: Selector | None = None
        self._step, self._lr = 0, 0.0

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._bound = Binding(model, groups)
        self._selector = (
            WeightSelector(model, groups, self.keep)
            if self.structure == "weights"
            else ChannelSelector(model, groups, self._kept, self.filters)
        )
        self._step, self._lr = 0, 0.0
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    def factor(self) -> float:
        """a(s) of the present step.

        Raises
        ------
        InputError
            The number of steps is not known.
        """
        if self.total_steps is None:
            raise InputError(
                "SWD needs total_steps, the number of optimizer steps, because its decay grows "
                "to the end of the run"
            )
        return decay_factor(self._step, self.total_steps, self.a_min, self.a_max)

    @torch.no_grad()
    def after_backward(self) -> None:
        selector, factor = prepared(self._selector), self.factor() * self.mu
        due = self.select_every is not None and self._step % self.select_every == 0
        if due or not selector.selected:
            selector.select()
        if self.decoupled:
            return
        if self._lr > 0:
            factor = min(factor, LARGEST_CONTRACTION / self._lr)
        for parameter, mask in selector.pairs():
            if parameter.grad is not None:
                parameter.grad.add_(parameter * mask, alpha=factor)

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        if self.decoupled:
            shrink = min(lr * self.factor() * self.mu, LARGEST_CONTRACTION)
            for parameter, mask in prepared(self._selector).pairs():
                parameter.sub_(parameter * mask, alpha=shrink)
        self._lr = lr
        self._step += 1

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Select anew; log how many entries entered and left, and at the end the final cut."""
        selector = prepared(self._selector)
        entered, left = selector.select()
        found = {
            "swd_factor": self.factor(),
            "swd_selected": float(selector.count()),
            "swd_entered": float(entered),
            "swd_left": float(left),
            "swd_largest_selected": selector.largest(),
        }
        if self.evaluate is not None and self._step >= (self.total_steps or 0):
            bound = prepared(self._bound)
            found["swd_accuracy_before_cut"] = self.evaluate(bound.model)
            found["swd_accuracy_after_cut"] = self.evaluate(self._cut(self.choose()))
        return found

    def scores(self) -> NDArray[np.float64]:
        """Norm scale of every class, or mean \\|w\\| of its weights that stay."""
        return prepared(self._selector).scores()

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget``; None cuts at the target that the decay was made for.

        Another budget than that of the training cuts channels that never
        decayed, or keeps some that did: train once for each budget.
        """
        groups = prepared(self._bound).groups
        if budget is not None:
            return choose_by_score(groups, self.scores(), budget)
        if self.structure == "channels":
            return groups.masks(self._kept(self.scores()))
        return masks_above(groups, self.scores(), float(np.finfo(np.float64).tiny))

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Weights below the target become zero; channels are left to the removal."""
        selector = prepared(self._selector)
        if isinstance(selector, WeightSelector):
            selector.cut(model)
        return model

    def state_dict(self) -> dict[str, Any]:
        selected = prepared(self._selector).state()
        return {"step": self._step, "lr": self._lr, "selected": selected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._lr = int(state["step"]), float(state["lr"])
        prepared(self._selector).restore(state["selected"])

    def _kept(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        groups = prepared(self._bound).groups
        if self.budget is not None:
            return groups.kept(choose_by_score(groups, scores, self.budget))
        return channels_for_parameters(groups, scores, self.keep)

    def _cut(self, masks: Masks) -> nn.Module:
        """A copy of the network as it is after the final cut, of full size."""
        bound, selector = prepared(self._bound), prepared(self._selector)
        cut = mask_model(bound.model, bound.groups, masks)
        if isinstance(selector, WeightSelector):
            selector.cut(cut)
        return cut
