"""Budget-aware regularisation (BAR): masks that land on a budget by the end of training.

    L = (1 - d) L_data + d T^2 KL(teacher || student) + strength * L_S * f(V, a, b)

L_S is the expected cost of the network under the masks' probabilities of being
open, V its cost under the deterministic masks, and f a barrier whose budget b
moves from the whole network to the one allowed (:mod:`._barrier`).

References
----------
Lemaire, Achkar, Jodoin, "Structured Pruning of Neural Networks with
Budget-Aware Regularization", CVPR 2019, equations 1, 2, 5 and 6. Constants that
the text leaves open follow the public re-implementation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import (
    require_choice,
    require_flags,
    require_instance,
    require_integer,
    require_real,
)
from mipprune.errors import BudgetError, InputError
from mipprune.graph.budgets import Budgets, Resource, cheapest, parse_amount
from mipprune.graph.groups import ChannelGroups, CostTerm, Masks
from mipprune.models import Forward, main_output
from mipprune.training._barrier import Barrier
from mipprune.training._budgeted_masks import BudgetedMasks, MaskBudget
from mipprune.training._gate_motion import AdamStep, GradientTap
from mipprune.training._soft_costs import SoftCost, volume_terms
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.distillation import Teacher, distillation_loss
from mipprune.training.gates import (
    ChannelGates,
    HardConcreteGates,
    attach_gates,
    bake_gates,
    gated_classes,
)
from mipprune.training.method import Method, ParameterGroup

__all__ = ["BAR", "BARState"]

_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class BARState:
    """One budget of a run as it stands.

    Attributes
    ----------
    name : str
        "volume", "macs", "params" or "channels".
    cost, limit, total : float
        V (deterministic masks), B and V_F.
    moving : float
        b(p).
    expected : float
        Cost under the probabilities of being open.
    barrier : float
        f(V, a, b).
    """

    name: str
    cost: float
    limit: float
    total: float
    moving: float
    expected: float
    barrier: float


class BAR(Method):
    """Hard-Concrete masks under a moving budget, with distillation.

    Tied channels share their mask, so residual networks keep their structure.
    The masks have an Adam of their own: they do not see the learning rate,
    momentum or clipping of the loop, and a barrier however high moves them by
    at most about ``gate_lr`` per step. Clipping the weights' gradient is left
    to the loop (``TrainConfig(clip_norm=5)`` is what the re-implementation uses).

    Parameters
    ----------
    budget : Budgets, optional
        MACs, parameters or channels that may remain; several hold together.
    volume : str or number, optional
        Activation volume that may remain ("12.5%", "300k"), the paper's budget.
        Default: half of it where there is no ``budget``.
    total_steps : int
        Optimizer steps over which the budget moves.
    reference : nn.Module, optional
        Teacher. Default: the network given to :meth:`prepare`.
    forward : callable, optional
        ``forward(teacher, batch) -> outputs`` for unusual batches.
    strength : float
        lambda, per element of the activation volume; the other resources are
        scaled so that the whole network costs as much.
    distil : float in [0, 1)
        Weight d of the distillation; 0 switches it off. ``temperature`` is T.
    initial : float
        Mean of the initial ``log_alpha``.
    gate_lr : float, optional
        Step length of the masks. Default: ``20 / total_steps``.
    shape : {"sigmoid", "exponential"}
        How the budget moves.
    margin, slack, cap : float
        Of the barrier: shares of V_F by which it ends below the budget and by
        which it begins above the whole network, and its largest value.
    seed : int
        Of the masks' noise.

    Raises
    ------
    InputError
        A value outside its range.
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"

    def __init__(
        self,
        *,
        budget: Budgets | None = None,
        volume: str | int | float | None = None,
        total_steps: int = 1000,
        reference: nn.Module | None = None,
        forward: Forward | None = None,
        strength: float = 1e-5,
        distil: float = 0.9,
        temperature: float = 4.0,
        initial: float = 2.0,
        gate_lr: float | None = None,
        shape: Literal["sigmoid", "exponential"] = "sigmoid",
        margin: float = 1e-4,
        slack: float = 0.01,
        cap: float = 50.0,
        project: bool = True,
        seed: int = 0,
    ) -> None:
        require_real(strength=strength, distil=distil, temperature=temperature, initial=initial)
        require_real(margin=margin, slack=slack, cap=cap)
        require_flags(project=project)
        seed = require_integer("seed", seed, at_least=0)
        if gate_lr is not None:
            require_real(gate_lr=gate_lr)
        if budget is not None:
            require_instance("budget", budget, Budgets, "make one with Budgets(macs='50%')")
        if not isinstance(total_steps, int) or total_steps < 1:
            raise InputError(f"total_steps must be an integer >= 1, got {total_steps!r}")
        if not 0 <= distil < 1:
            raise InputError(f"distil must be in [0, 1), got {distil!r}")
        require_choice("shape", shape, ("sigmoid", "exponential"))
        gate_lr = 20 / total_steps if gate_lr is None else gate_lr
        positive = {"strength": strength, "temperature": temperature, "gate_lr": gate_lr,
                    "margin": margin, "slack": slack, "cap": cap}  # fmt: skip
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite, got {value!r}")
        if volume is not None:
            parse_amount("volume", volume)
        if volume is None and (budget is None or not budget.given()):
            volume = "50%"
        self.budget, self.volume, self.total_steps = budget, volume, total_steps
        self.strength, self.distil, self.temperature = strength, distil, temperature
        self.initial, self.gate_lr, self.seed = initial, gate_lr, seed
        self.project = project
        self._barrier_options = {"margin": margin, "slack": slack, "cap": cap}
        self._shape: Literal["sigmoid", "exponential"] = shape
        self._reference, self._forward = reference, forward
        self._step = 0
        self._parts: BudgetedMasks | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        teacher = None
        if self.distil:
            teacher = Teacher(self._reference or model, forward=self._forward)
        groups, volume, gated = self._masked(model, groups)
        resources = [volume_resource(volume, groups, self.volume)] if self.volume else []
        if self.budget is not None and self.budget.given():
            resources += self.budget.resolve(groups)
        gates = HardConcreteGates(groups.n_classes, initial=self.initial, seed=self.seed)
        self._attach(model, groups, gates)
        scale = sum(term.value(np.ones(groups.n_classes, dtype=bool)) for term in volume)
        budgets = tuple(
            MaskBudget(
                resource,
                SoftCost(resource.terms, groups.n_classes),
                Barrier(resource.total, resource.limit, shape=self._shape, **self._barrier_options),
                scale / resource.total,
            )
            for resource in resources
        )
        self._parts = BudgetedMasks(
            model=model,
            groups=groups,
            gates=gates,
            gated=gated,
            budgets=budgets,
            teacher=teacher,
            tap=GradientTap(gates.log_alpha),
            adam=AdamStep(groups.n_classes, _BETAS),
        )
        return model

    def _masked(
        self, model: nn.Module, groups: ChannelGroups
    ) -> tuple[ChannelGroups, tuple[CostTerm, ...], NDArray[np.bool_]]:
        """What has masks: classes with costs, activation volume, and which can be masked."""
        return groups, _volume(model, groups), gated_classes(groups)

    def _attach(self, model: nn.Module, groups: ChannelGroups, gates: ChannelGates) -> None:
        """Put the masks into the network."""
        attach_gates(model, groups, gates)

    def parameter_groups(self) -> list[ParameterGroup]:
        bound = self._bound
        gate = bound.gates.log_alpha
        weights = [p for p in bound.model.parameters() if p.requires_grad and p is not gate]
        return [{"params": weights}, {"params": [gate], "weight_decay": 0.0}]

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        bound = self._bound
        total = base
        if bound.teacher is not None:
            student = main_output(outputs)
            teacher = bound.teacher.logits(batch, student)
            soft = distillation_loss(student, teacher, self.temperature)
            total = (1 - self.distil) * base + self.distil * soft
        return total + self.penalty()

    def penalty(self) -> Tensor:
        """``strength * L_S * f(V, a, b)``, summed over the budgets; a float32 scalar."""
        bound = self._bound
        active, opened = bound.active(), bound.opened()
        total = active.new_zeros((), dtype=torch.float64)
        for budget in bound.budgets:
            cost = budget.cost.to(active.device)
            factor = budget.barrier.factor(cost(opened), self._step / self.total_steps)
            total = total + budget.scale * cost(active) * factor
        return (self.strength * total).float()

    def after_backward(self) -> None:
        self._bound.tap.take()

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        """Move the masks; ``lr`` plays no part."""
        bound, gates = self._bound, self._bound.gates
        self._step += 1
        if bound.tap.gradient is not None:
            before = bound.opened() > 0
            bound.adam.move(gates.log_alpha, bound.tap.gradient, self.gate_lr)
            bound.keep_alive()
            if self.project:
                bound.project(before, self._step / self.total_steps)

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        figures = {"bar_open": float((self.gates() > 0).sum())}
        for now in self.state():
            figures[f"bar_{now.name}"] = now.cost / now.total
            figures[f"bar_{now.name}_budget"] = now.moving / now.total
            figures[f"bar_{now.name}_barrier"] = now.barrier
        return figures

    @torch.no_grad()
    def state(self) -> tuple[BARState, ...]:
        """Where every budget stands."""
        bound, progress = self._bound, self._step / self.total_steps
        active, opened = bound.active(), bound.opened()
        found = []
        for budget in bound.budgets:
            cost = budget.cost.to(active.device)
            volume = cost(opened)
            found.append(
                BARState(
                    name=budget.resource.name,
                    cost=float(volume),
                    limit=budget.resource.limit,
                    total=budget.resource.total,
                    moving=budget.barrier.upper(progress),
                    expected=float(cost(active)),
                    barrier=float(budget.barrier.factor(volume, progress)),
                )
            )
        return tuple(found)

    @torch.no_grad()
    def gates(self) -> NDArray[np.float64]:
        """Deterministic masks of all classes, float64 (n_classes,), in [0, 1]."""
        values: NDArray[np.float64] = self._bound.deterministic().double().cpu().numpy()
        return values

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """``log_alpha`` of every class; infinity where no parameter reads the class."""
        bound = self._bound
        values: NDArray[np.float64] = bound.gates.log_alpha.double().cpu().numpy()
        return np.where(bound.gated, values, np.inf)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget`` by :meth:`scores`; None keeps what is open, the paper's rule."""
        groups, scores = self._bound.groups, self.scores()
        if budget is not None:
            return choose_by_score(groups, scores, budget)
        values = np.where(self._bound.gated, self.gates(), 1.0)
        return masks_above(groups, values, float(np.finfo(np.float32).tiny), ties=scores)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return bake_gates(model, self._bound.groups, masks)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "adam": self._bound.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]
        self._bound.adam.load_state_dict(state["adam"])

    @property
    def _bound(self) -> BudgetedMasks:
        if self._parts is None:
            raise InputError("call prepare(model, groups) before using the method")
        return self._parts


def _volume(model: nn.Module, groups: ChannelGroups) -> tuple[CostTerm, ...]:
    terms = volume_terms(model, groups)
    if not terms:
        raise InputError("no layer produces prunable channels; there is nothing to mask")
    return terms


def volume_resource(
    terms: tuple[CostTerm, ...], groups: ChannelGroups, amount: str | int | float
) -> Resource:
    """A budget of activation volume made absolute.

    Raises
    ------
    BudgetError
        Less than every family at its minimum takes.
    """
    value, is_fraction = parse_amount("volume", amount)
    total = sum(term.value(np.ones(groups.n_classes, dtype=bool)) for term in terms)
    least = sum(term.value(cheapest(groups, terms)) for term in terms)
    limit = value * total if is_fraction else value
    if limit < least:
        raise BudgetError(
            f"budget volume={amount} is {limit:,.10g} elements, which cannot be reached: this "
            f"network goes from {least:,.10g} ({least / total:.2%}, every family at its minimum) "
            f"to {total:,.10g} (100%)"
        )
    return Resource("volume", str(amount), limit, total, least, terms)
