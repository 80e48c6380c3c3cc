"""Tapering resource constraint: gates on a constraint surface that shrinks.

    C(theta) = R(t),     R falls at the relative rate rho(t), which the loss controls

    step = -eta D (s + mu grad C),   mu such that grad C . step = R(t+1) - R(t)

Re-implementation in the spirit of Kruglov, "Channel-wise pruning of neural
networks with tapering resource constraint", arXiv 1812.07060, of which only the
abstract was at hand: formulas, metric and rate control are ours.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import (
    require_choice,
    require_flags,
    require_instance,
    require_iterable,
    require_real,
)
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, CostTerm, Masks
from mipprune.training._gate_motion import GradientTap, strongest
from mipprune.training._soft_costs import SoftCost
from mipprune.training._tapered_motion import constrained_step
from mipprune.training._tapered_rate import RateControl
from mipprune.training._tapered_state import GateStatistics, Level, TaperedNetwork, over_processes
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.evaluation import batch_length
from mipprune.training.gates import ClampedGates, attach_gates, bake_gates, gated_classes
from mipprune.training.method import Method, ParameterGroup

__all__ = ["Level", "Tapering"]

_LEVELS = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
_HELD = 0.05


class Tapering(Method):
    """Gates apart from the weights, moved on the surface of a falling resource.

    One run passes through all ``levels`` and keeps the network at each
    (:attr:`levels`); :meth:`choose` takes the one that suits the budget and
    :meth:`finish` its weights.

    The gates do not see the learning rate or the optimizer of the loop. s is the
    moving average of the loss's gradient, less ``theta / 2`` times the gradient's
    second moment per example (``curvature``): the slope of the loss on the whole
    way to 0 instead of its beginning, where a trained network is flat. D is the
    inverse of ``grad C * (theta + 0.1)``: gates move by slope per cost, and
    those that left 1 arrive sooner.

    Parameters
    ----------
    budget : Budgets, optional
        Where to stop (MACs or parameters). With it the rate never falls below
        what is needed to arrive after ``arrive * total_steps`` steps; without,
        the loss alone decides how far the run gets.
    resource : {"macs", "params"}
        What is tapered, where ``budget`` names neither.
    levels : sequence of float
        Shares of the whole cost at which the network is kept, in (0, 1).
    on_level : callable, optional
        Called with each new :class:`Level`.
    total_steps : int
        Optimizer steps of the run.
    allowance : float
        Amount in nats by which the moving average of the loss may exceed that
        before tapering.
    arrive, observe : float
        Shares of the run: when to be there, and how long to watch the loss and
        the gradients first.
    speed : float
        Way that a gate of typical slope would go in 100 steps without the
        constraint; large values move few gates at a time.
    polarise : float
        Height of a hill between 1 and 0 in units of the typical slope: with it few
        gates are on their way at a time and the soft cost stays near the real one.
    reaction : float
        kappa: largest relative increase of the rate per step; it falls five times
        as fast where the loss exceeds the allowance.
    curvature : bool
    threshold : float
        A gate below it is removed for good.

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
        resource: Literal["macs", "params"] = "macs",
        levels: tuple[float, ...] | list[float] = _LEVELS,
        on_level: Callable[[Level], None] | None = None,
        total_steps: int = 1000,
        allowance: float = 0.1,
        arrive: float = 0.7,
        observe: float = 0.05,
        speed: float = 2.0,
        polarise: float = 3.0,
        reaction: float = 0.02,
        curvature: bool = True,
        threshold: float = 1e-2,
    ) -> None:
        require_real(allowance=allowance, arrive=arrive, observe=observe, speed=speed)
        require_real(polarise=polarise, reaction=reaction, threshold=threshold)
        require_flags(curvature=curvature)
        levels = tuple(require_iterable("levels", levels, "a list of shares in (0, 1)"))
        for level in levels:
            require_real(levels=level)
        if budget is not None:
            require_instance("budget", budget, Budgets, "make one with Budgets(macs='50%')")
        if not isinstance(total_steps, int) or total_steps < 1:
            raise InputError(f"total_steps must be an integer >= 1, got {total_steps!r}")
        require_choice("resource", resource, ("macs", "params"))
        if not levels or any(not 0 < level < 1 for level in levels):
            raise InputError(f"levels must be shares in (0, 1), got {levels!r}")
        if not 0 < observe < arrive <= 1:
            raise InputError(
                f"expected 0 < observe < arrive <= 1, got observe={observe!r}, arrive={arrive!r}"
            )
        if not 0 < threshold < _HELD:
            raise InputError(f"threshold must be in (0, {_HELD}), got {threshold!r}")
        if not 0 <= polarise < math.inf:
            raise InputError(f"polarise must be finite and not negative, got {polarise!r}")
        positive = {"allowance": allowance, "speed": speed, "reaction": reaction}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite, got {value!r}")
        self.budget, self.total_steps, self.on_level = budget, total_steps, on_level
        self.resource = _tapered(budget, resource)
        self.shares = tuple(sorted({float(level) for level in levels}, reverse=True))
        self.allowance, self.arrive, self.observe = allowance, arrive, observe
        self.speed, self.reaction = speed, reaction
        self.polarise = polarise
        self.curvature, self.threshold = curvature, threshold
        self._parts: TaperedNetwork | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        resource, goal = _resource(groups, self.budget, self.resource)
        gates = ClampedGates(groups.n_classes)
        attach_gates(model, groups, gates)
        lowest = min(self.shares) if goal is None else goal
        control = RateControl(
            total_steps=self.total_steps,
            observe=max(1, round(self.observe * self.total_steps)),
            arrive=self.arrive,
            lowest=lowest,
            binding=goal is not None,
            allowance=self.allowance,
            reaction=self.reaction,
        )
        self._parts = TaperedNetwork(
            model=model,
            groups=groups,
            gates=gates,
            gated=gated_classes(groups),
            resource=resource,
            cost=SoftCost(resource, groups.n_classes),
            whole=sum(t.value(np.ones(groups.n_classes, dtype=bool)) for t in resource),
            goal=lowest,
            tap=GradientTap(gates.theta),
            control=control,
            now=GateStatistics.start(groups.n_classes),
        )
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        bound = self._bound
        gate = bound.gates.theta
        weights = [p for p in bound.model.parameters() if p.requires_grad and p is not gate]
        return [{"params": weights}, {"params": [gate], "weight_decay": 0.0}]

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        size = batch_length(batch)
        self._bound.pending.append((float(base.detach()) * size, size))
        return base

    def after_backward(self) -> None:
        bound = self._bound
        bound.tap.take()
        total, size = over_processes(bound.pending, bound.gates.theta.device)
        bound.pending.clear()
        if size > 0:
            bound.control.see(total / size)
            if bound.tap.gradient is not None:
                bound.now.see(bound.tap.gradient, size)

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        """Move the gates, remove those that reached 0, keep new levels; ``lr`` plays no part."""
        bound = self._bound
        bound.control.step += 1
        if bound.control.tapering(bound.now.allowed) and bound.hard_share() > bound.goal:
            self._move()
            self._keep_levels()

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        bound = self._bound
        return {
            "taper_cost": bound.hard_share(),
            "taper_soft_cost": bound.soft_share(),
            "taper_rate": bound.control.rate,
            "taper_multiplier": bound.now.multiplier,
            "taper_loss": bound.control.average,
            "taper_loss_limit": bound.control.limit,
            "taper_open": float((self.gates() > 0).sum()),
            "taper_between": float(((self.gates() > 0) & (self.gates() < 1)).sum()),
        }

    def gates(self) -> NDArray[np.float64]:
        """Gates of all classes, float64 (n_classes,), in [0, 1]; 0 is removed."""
        found: NDArray[np.float64] = self._bound.gates.theta.detach().double().cpu().numpy()
        return found.clip(0, 1)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Networks kept so far, in the order of the run."""
        return tuple(self._bound.levels)

    def scores(self) -> NDArray[np.float64]:
        """Gate of every class, above 1 by rank of slope per cost among those fully open.

        Removed ones are below 0, later ones nearer; infinity where no parameter reads the class.
        """
        bound, now = self._bound, self._bound.now
        theta = self.gates()
        worth = (-bound.slope(self.curvature) / bound.prices()).cpu().numpy()
        rank = np.argsort(np.argsort(worth, kind="stable"), kind="stable") / theta.size
        closed_at = now.closed_at.double().numpy()
        scores = np.where(theta >= 1, 1 + rank, theta)
        scores = np.where(closed_at > 0, -1 / (1 + closed_at), scores)
        return np.where(bound.gated, scores, np.inf)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget`` by the scores of the level nearest to it; None: what is open."""
        bound = self._bound
        if budget is None:
            return self._open_masks(self.scores())
        limits = {r.terms: r.limit for r in budget.resolve(bound.groups)}
        level = self._nearest(limits)
        scores = self.scores() if level is None else level.scores
        masks = choose_by_score(bound.groups, scores, budget)
        bound.origin[_key(bound.groups, masks)] = level
        return masks

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Plain network with the weights of the level that ``masks`` were chosen at."""
        bound = self._bound
        key = _key(bound.groups, masks)
        if key in bound.origin:
            level = bound.origin[key]
        else:
            kept = bound.groups.kept(masks)
            level = self._nearest({bound.resource: sum(t.value(kept) for t in bound.resource)})
        if level is not None:
            model.load_state_dict(dict(level.weights))
        return bake_gates(model, bound.groups, masks)

    def state_dict(self) -> dict[str, Any]:
        bound = self._bound
        return {
            "now": bound.now.state_dict(),
            "control": bound.control.state_dict(),
            "levels": [
                {**vars(level), "scores": torch.from_numpy(level.scores)} for level in bound.levels
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        bound = self._bound
        bound.now.load_state_dict(state["now"])
        bound.control.load_state_dict(state["control"])
        bound.levels[:] = [
            Level(**{**level, "scores": level["scores"].cpu().numpy()}) for level in state["levels"]
        ]

    def _move(self) -> None:
        """One step of the gates; R follows."""
        bound, now = self._bound, self._bound.now
        theta = bound.gates.theta.detach().double()
        slope, price = bound.slope(self.curvature), bound.prices()
        metric = 1 / (price * (theta + 0.1))
        closed = now.closed_at.to(theta.device) > 0
        held = torch.from_numpy(strongest(bound.groups, theta.cpu().numpy())).to(theta.device)
        lower = torch.where(held, _HELD, 0.0).to(theta)
        still = closed | ~torch.from_numpy(bound.gated).to(theta.device)
        lower = torch.minimum(lower, theta)
        if bool(still.all()):
            return
        typical = float((slope / price).abs()[~still].median())
        # A hill between 1 and 0: few gates are on their way at a time, and they arrive.
        slope = slope - self.polarise * typical * price * (2 * theta - 1)
        eta = self.speed / (100 * max(typical, 1e-30))
        allowed = now.allowed * math.exp(-bound.control.rate)
        motion = constrained_step(
            theta, slope, metric, bound.relative_cost, allowed, eta, lower, ~still
        )
        now.multiplier = motion.multiplier
        gone = (motion.theta < self.threshold) & ~still & ~held
        now.closed_at[gone.cpu()] = bound.control.step
        bound.gates.theta.copy_(torch.where(gone, 0.0, motion.theta))
        # Removal and a data term that lowers the cost by itself leave C below R: R follows.
        now.allowed = min(allowed, bound.soft_share())

    def _keep_levels(self) -> None:
        bound = self._bound
        cost = bound.hard_share()
        for share in self.shares[len(bound.levels) :]:
            if cost > share:
                break
            weights = {
                name: value.detach().clone() if isinstance(value, Tensor) else value
                for name, value in bound.model.state_dict().items()
            }
            control = bound.control
            level = Level(share, cost, control.step, control.average, self.scores(), weights)
            bound.levels.append(level)
            if self.on_level is not None:
                self.on_level(level)

    def _open_masks(self, scores: NDArray[np.float64]) -> Masks:
        return masks_above(self._bound.groups, scores, float(np.finfo(np.float32).tiny))

    def _nearest(self, limits: Mapping[tuple[CostTerm, ...], float]) -> Level | None:
        """The level whose cost is nearest to the limits, None for the network as it is.

        One below the limits lacks channels that are allowed, so its distance counts
        three times; equal ones are as trained as the later of them.
        """
        groups = self._bound.groups

        def distance(scores: NDArray[np.float64]) -> float:
            kept = groups.kept(self._open_masks(scores))
            over = max(
                math.log(sum(t.value(kept) for t in terms) / limit)
                for terms, limit in limits.items()
            )
            return over if over >= 0 else -3 * over

        candidates: list[Level | None] = [None, *reversed(self._bound.levels)]
        return min(candidates, key=lambda c: distance(self.scores() if c is None else c.scores))

    @property
    def _bound(self) -> TaperedNetwork:
        if self._parts is None:
            raise InputError("call prepare(model, groups) before using the method")
        return self._parts


def _tapered(
    budget: Budgets | None, resource: Literal["macs", "params"]
) -> Literal["macs", "params"]:
    """The resource that ``budget`` names, else the one given."""
    given = {} if budget is None else budget.given()
    if "macs" in given:
        return "macs"
    return "params" if "params" in given else resource


def _resource(
    groups: ChannelGroups, budget: Budgets | None, name: Literal["macs", "params"]
) -> tuple[tuple[CostTerm, ...], float | None]:
    """Terms of the resource, and the share to stop at."""
    terms = groups.mac_terms if name == "macs" else groups.parameter_terms
    if budget is None or name not in budget.given():
        return terms, None
    found = next(r for r in budget.resolve(groups) if r.name == name)
    return terms, min(found.limit / found.total, 1.0)


def _key(groups: ChannelGroups, masks: Masks) -> bytes:
    return np.packbits(groups.kept(masks)).tobytes()
