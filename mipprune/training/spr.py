"""Structured Perspective Regularization (SPR).

    min_w  L(w) + strength * sum_j (n_j / N) * z(w_j; alpha, M)

z is the perspective term of :mod:`mipprune.perspective` with its indicator
projected out, n_j the number of parameters of group j, N their sum.

References
----------
Cacciola, Frangioni, Li, Lodi, "Deep Neural Networks pruning via the Structured
Perspective Regularization", SIAM J. Math. Data Science 2023, arXiv 2206.14056.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import require_choice, require_flags, require_real
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.perspective import (
    CASE_BOUND,
    CASE_NORM,
    CASE_RIDGE,
    SegmentTerms,
    segment_prox,
)
from mipprune.training._bound_groups import BoundGroups
from mipprune.training._first_order import mean_squared_changes
from mipprune.training._moving_budget import MovingBudget
from mipprune.training.bounds import measure_big_m
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.packing import named_tensors, pack_channels
from mipprune.training.tolerance import tolerant_threshold

__all__ = ["SPR", "SPRState"]

_UNCLIPPED = 2.0**-24
_BATCHES = 50


@dataclass(frozen=True, eq=False)
class SPRState:
    """Where the groups stand.

    Attributes
    ----------
    gates : float64 array (n_groups,)
        Optimal indicators y* in [0, 1].
    case_ridge, case_norm, case_bound : float
        Shares of the groups in the three cases of z (1, 2 and 3).
    n_below : int
        Groups with y* below the threshold.
    penalty : float
        strength * sum_j (n_j / N) z_j.
    """

    gates: NDArray[np.float64]
    case_ridge: float
    case_norm: float
    case_bound: float
    n_below: int
    penalty: float


class SPR(Method):
    """Structured Perspective Regularization, as a penalty or as a proximal step.

    Parameters
    ----------
    alpha : float in (0, 1)
        Mix of ridge (alpha) and count (1 - alpha).
    strength : float, >= 0
        lambda.
    big_m : mapping or float, optional
        M by parameter name (:func:`measure_big_m`), or one for all (may be inf).
    reference : nn.Module, optional
        Trained dense network to measure M on, where ``big_m`` is not given.
    m_scale, m_floor : float
        Of that measurement.
    coupled : bool
        Tied channels as one group (default), or one group per layer and channel.
    fused : bool
        :meth:`loss` adds the penalty's value only, and :meth:`after_backward` its
        gradient to all parameters at once: one evaluation per optimizer step, and
        on a GPU some tens of kernels instead of one per parameter. Only for loops
        that call :meth:`after_backward`, with unscaled gradients.
    proximal : bool
        Apply the proximal operator after each optimizer step instead of adding
        the penalty to the loss: groups become exactly zero during training, and
        weights stay inside their box.
    proximal_every : int
        Optimizer steps between applications of the operator; its length is the
        sum of their learning rates.
    momentum : float in [0, 1)
        That of the optimizer (0 for AdamW). With momentum a gradient acts
        1/(1 - momentum) times in all; the proximal step is as much longer, so
        that a strength means the same in both forms.
    threshold : float
        y* below which a channel counts as gone.
    evaluate : callable, optional
        Network -> accuracy (0 to 1) on un-augmented training images; enables
        the authors' rounding rule in ``choose(None)``.
    ranking : {"change", "indicator"}
        What decides under a budget: :meth:`removal_values` over marginal costs, or
        y* alone, which compares badly between layers (docs/methods/spr.md).
    losses : callable, optional
        Network -> iterable of training losses, one per batch, with gradients, from
        which those values are measured.
    tolerance, survivors : float
        Of the rule of the authors: accuracy that may be lost (0.0005 = .05 points), and share
        of a group's weights above the threshold up to which it is removed.

    Raises
    ------
    InputError
        A value outside its range, or neither ``big_m`` nor ``reference``.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        strength: float = 1.0,
        big_m: Mapping[str, float] | float | None = None,
        reference: nn.Module | None = None,
        m_scale: float = 1.0,
        m_floor: float = 0.05,
        coupled: bool = True,
        fused: bool = False,
        proximal: bool = False,
        proximal_every: int = 5,
        momentum: float = 0.9,
        threshold: float = 1e-2,
        evaluate: Callable[[nn.Module], float] | None = None,
        ranking: Literal["change", "indicator"] = "change",
        losses: Callable[[nn.Module], Iterable[Tensor]] | None = None,
        tolerance: float = 5e-4,
        survivors: float = 5e-3,
    ) -> None:
        numbers = {"m_scale": m_scale, "m_floor": m_floor, "threshold": threshold}
        numbers |= {"tolerance": tolerance, "survivors": survivors, "momentum": momentum}
        require_real(alpha=alpha, strength=strength, **numbers)
        require_flags(coupled=coupled, fused=fused, proximal=proximal)
        if not 0 < alpha < 1:
            raise InputError(f"alpha must be in (0, 1), got {alpha!r}")
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {strength!r}")
        if not isinstance(proximal_every, int) or proximal_every < 1:
            raise InputError(f"proximal_every must be an integer >= 1, got {proximal_every!r}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {momentum!r}")
        if big_m is None and reference is None:
            raise InputError(
                "SPR needs a bound M: give reference=, a trained dense network to measure it on, "
                "or big_m= (math.inf leaves the weights unbounded)"
            )
        for m in big_m.values() if isinstance(big_m, Mapping) else [big_m]:
            if m is None:
                continue
            require_real(big_m=m)
            if not m > 0:
                raise InputError(f"M must be positive, got {m!r}")
        self.alpha, self.strength = alpha, strength
        self.coupled, self.proximal, self.threshold = coupled, proximal, threshold
        self.evaluate, self.tolerance, self.survivors = evaluate, tolerance, survivors
        require_choice("ranking", ranking, ("change", "indicator"))
        self.ranking, self._losses = ranking, losses
        self._big_m, self._reference = big_m, reference
        self._m_scale, self._m_floor = m_scale, m_floor
        self._proximal_every, self._momentum = proximal_every, momentum
        self._pending = {"steps": 0, "length": 0.0}
        self.fused = fused
        self._gradient: tuple[Tensor, Tensor] | None = None
        self._bound: BoundGroups | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        big_m = self._big_m
        if big_m is None and self._reference is not None:
            big_m = measure_big_m(self._reference, groups, scale=self._m_scale, floor=self._m_floor)
        packing = pack_channels(model, groups, coupled=self.coupled)
        self._bound = BoundGroups.build(model, groups, packing, big_m, self.alpha, self.strength)
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return [{"params": [p for p in self._state.model.parameters() if p.requires_grad]}]

    def penalty(self, model: nn.Module | None = None) -> Tensor:
        """strength * sum_j (n_j / N) z(w_j), a float32 scalar with its gradient.

        Parameters
        ----------
        model : nn.Module, optional
            Default: the prepared network. Another one of the same shape, also
            wrapped in ``DistributedDataParallel``, may be given.
        """
        parameters = self._parameters(model)
        with torch.autocast(parameters[0].device.type, enabled=False):
            return self._terms(parameters).value[:-1].sum()

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        if self.proximal or self.strength == 0:
            return base
        if not self.fused:
            return base + self.penalty()
        if self._gradient is None:
            self._gradient = self._value_and_gradient()
        return base + self._gradient[0]

    @torch.no_grad()
    def after_backward(self) -> None:
        """Add the penalty's gradient (with ``fused``)."""
        if self._gradient is None:
            return
        gradient, self._gradient = self._gradient[1], None
        parameters = self._parameters(None)
        parts = self._state.packing.views(gradient, parameters)
        gradients, added = [], []
        for parameter, part in zip(parameters, parts, strict=True):
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
                added.append(part)
        torch._foreach_add_(gradients, added)

    def _value_and_gradient(self) -> tuple[Tensor, Tensor]:
        """Penalty and its gradient as one vector, from one pass over the weights."""
        flat = self._state.packing.flat(self._parameters(None)).detach()
        with torch.enable_grad(), torch.autocast(flat.device.type, enabled=False):
            value = self._state.terms(flat.requires_grad_()).value[:-1].sum()
            (gradient,) = torch.autograd.grad(value, flat)
        return value.detach(), gradient

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        """Proximal step on all groups, every ``proximal_every`` calls (with ``proximal``)."""
        if not self.proximal or self.strength == 0:
            return
        self._pending["steps"] += 1
        self._pending["length"] += lr / (1 - self._momentum)
        length = self._pending["length"]
        if self._pending["steps"] < self._proximal_every or length <= 0:
            return
        self._pending = {"steps": 0, "length": 0.0}
        state, parameters = self._state, self._parameters(None)
        flat = state.packing.flat(parameters)
        layout, ridge, price, big_m = state.on(flat.device)
        moved = segment_prox(flat, layout, None, length, ridge, price, big_m, check=False)
        # The last segment collects what belongs to no class; it stays as it is.
        moved = torch.where(layout.segment < state.packing.n_groups, moved, flat)
        torch._foreach_copy_(parameters, state.packing.views(moved, parameters))

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        now = self.state()
        return {
            "spr_penalty": now.penalty,
            "spr_case_ridge": now.case_ridge,
            "spr_case_norm": now.case_norm,
            "spr_case_bound": now.case_bound,
            "spr_below": float(now.n_below),
            "spr_mean_gate": float(now.gates.mean()),
        }

    @torch.no_grad()
    def state(self, model: nn.Module | None = None) -> SPRState:
        """Gates, cases and penalty of the weights as they are."""
        terms = self._terms(self._parameters(model))
        gates = terms.indicator[:-1].double().cpu().numpy()
        cases = terms.case[:-1].cpu().numpy()
        return SPRState(
            gates=gates,
            case_ridge=float((cases == CASE_RIDGE).mean()),
            case_norm=float((cases == CASE_NORM).mean()),
            case_bound=float((cases == CASE_BOUND).mean()),
            n_below=int((gates < self.threshold).sum()),
            penalty=float(terms.value[:-1].sum()),
        )

    def gates(self, model: nn.Module | None = None) -> NDArray[np.float64]:
        """y* of every group, float64 (n_groups,), in [0, 1]."""
        return self.state(model).gates

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """y* of every class before it is cut off at 1 (the largest over its layers)."""
        # y* is positively homogeneous below 1: scaled weights tell saturated channels apart.
        terms = self._terms([p * _UNCLIPPED for p in self._parameters(None)])
        unclipped = terms.indicator[:-1].double().cpu().numpy() / _UNCLIPPED
        return self._state.packing.per_class(unclipped, self._state.groups.n_classes)

    def removal_values(self) -> NDArray[np.float64]:
        """Squared change of the loss, to first order, if a class went; float64 (n_classes,).

        Measured where ``losses`` was given. Else it is taken from the training:
        at a stationary point a group pays a penalty of -<dL/dw_j, w_j> where z is
        homogeneous (case 2), so that its value is (n_j z_j)^2 up to a factor.
        """
        state, parameters = self._state, self._parameters(None)
        packing, found = state.packing, None
        if self._losses is not None:
            found = mean_squared_changes(
                state.model, packing, parameters, self._losses, batches=_BATCHES
            )
        if found is None:
            with torch.no_grad():
                paid = self._terms(parameters).value[:-1].double().cpu().numpy()
            found = np.square(paid)
        return packing.total_per_class(found, state.groups.n_classes)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget`` as ``ranking`` says; None uses a rule without budget.

        Without a budget it is the authors' rule (accuracy-tolerant threshold by
        bisection, then whole groups) where ``evaluate`` was given, otherwise
        channels with y* below ``threshold`` go.
        """
        state = self._state
        scores = self.scores()
        if budget is not None:
            if self.ranking == "change":
                costs = MovingBudget.of(state.groups, budget)
                scores = costs.ranking(self.removal_values())
            return choose_by_score(state.groups, scores, budget)
        if self.evaluate is None:
            return masks_above(state.groups, scores, self.threshold)
        parameters = self._parameters(None)
        cut = tolerant_threshold(state.model, parameters, self.evaluate, self.tolerance)
        alive = state.surviving_share(parameters, cut)
        share = state.packing.per_class(alive, state.groups.n_classes)
        return masks_above(state.groups, share, math.nextafter(self.survivors, 1), ties=scores)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model

    def state_dict(self) -> dict[str, Any]:
        return {"big_m": dict(self._state.big_m), "pending": dict(self._pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        bound = self._state
        self._pending = dict(state["pending"])
        self._bound = BoundGroups.build(
            bound.model, bound.groups, bound.packing, state["big_m"], self.alpha, self.strength
        )

    @property
    def big_m(self) -> Mapping[str, float]:
        """M by parameter name, of the prepared network."""
        return self._state.big_m

    @property
    def _state(self) -> "BoundGroups":
        if self._bound is None:
            raise InputError("call prepare(model, groups) before using the method")
        return self._bound

    def _parameters(self, model: nn.Module | None) -> list[Tensor]:
        state = self._state
        if model is None or model is state.model:
            return state.parameters
        found = named_tensors(getattr(model, "module", model))
        missing = [name for name in state.packing.names if name not in found]
        if missing:
            raise InputError(
                f"the network given has no parameter '{missing[0]}'; it is not of the shape of the "
                "prepared one"
            )
        return [found[name] for name in state.packing.names]

    def _terms(self, parameters: Sequence[Tensor]) -> SegmentTerms:
        return self._state.terms(self._state.packing.flat(parameters))
