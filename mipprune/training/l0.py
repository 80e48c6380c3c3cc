"""L0 regularisation of channels by Hard-Concrete gates.

    min  E_z L(w * z)  +  strength * sum_c (n_c / N) P(z_c > 0)

References
----------
Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0
Regularization", ICLR 2018, equations 5 and 12; here with one gate per class of
tied channels, one draw per mini-batch, and the gate behind the norm.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import require_integer, require_real
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.gates import HardConcreteGates, attach_gates, bake_gates, gated_classes
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.packing import pack_channels

__all__ = ["L0"]


class L0(Method):
    """Hard-Concrete gates with a penalty on the expected number of parameters.

    Parameters
    ----------
    strength : float, >= 0
        Weight of the expected share of parameters that stay.
    initial : float
        Initial ``log_alpha`` of the gates; 1 means active with probability .93.
    gate_lr_scale : float
        Learning rate of the gates relative to that of the weights. A gate feels
        its class's share of the penalty only, so with SGD it has to be large: on
        the digits (460 steps) gates do not move at 5 and settle at 50.
    seed : int
        Of the gates' noise.
    """

    def __init__(
        self,
        *,
        strength: float = 1.0,
        initial: float = 1.0,
        gate_lr_scale: float = 50.0,
        seed: int = 0,
    ) -> None:
        require_real(strength=strength, initial=initial, gate_lr_scale=gate_lr_scale)
        seed = require_integer("seed", seed, at_least=0)
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {strength!r}")
        if not 0 < gate_lr_scale < math.inf:
            raise InputError(f"gate_lr_scale must be positive and finite, got {gate_lr_scale!r}")
        self.strength, self.initial = strength, initial
        self.gate_lr_scale, self.seed = gate_lr_scale, seed
        self._parts: tuple[nn.Module, ChannelGroups, HardConcreteGates, Tensor] | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        packing = pack_channels(model, groups)
        share = np.bincount(packing.class_of, packing.sizes, groups.n_classes)
        share = np.where(gated_classes(groups), share / packing.sizes.sum(), 0.0)
        gates = HardConcreteGates(groups.n_classes, initial=self.initial, seed=self.seed)
        attach_gates(model, groups, gates)
        self._parts = model, groups, gates, torch.from_numpy(share)
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        model, _, gates, _ = self._bound()
        weights = [p for p in model.parameters() if p.requires_grad and p is not gates.log_alpha]
        return [
            {"params": weights},
            {
                "params": [gates.log_alpha],
                "lr_scale": self.gate_lr_scale,
                "weight_decay": 0.0,
            },
        ]

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        _, _, gates, share = self._bound()
        active = gates.probability_active()
        return base + self.strength * (active * share.to(active)).sum()

    @torch.no_grad()
    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        _, _, gates, share = self._bound()
        active = gates.probability_active()
        return {
            "l0_expected_share": float((active * share.to(active)).sum()),
            "l0_open": float((self.gates() > 0).sum()),
        }

    @torch.no_grad()
    def gates(self) -> NDArray[np.float64]:
        """Deterministic gates of all classes, float64 (n_classes,), in [0, 1]."""
        gates = self._bound()[2]
        training = gates.training
        values: NDArray[np.float64] = gates.eval()().double().cpu().numpy()
        gates.train(training)
        return values

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """``log_alpha`` of every class; infinity where no parameter reads the class."""
        _, groups, gates, _ = self._bound()
        values: NDArray[np.float64] = gates.log_alpha.double().cpu().numpy()
        scores: NDArray[np.float64] = np.where(gated_classes(groups), values, np.inf)
        return scores

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget`` by :meth:`scores`; None keeps the gates that are open."""
        groups = self._bound()[1]
        if budget is not None:
            return choose_by_score(groups, self.scores(), budget)
        values = np.where(gated_classes(groups), self.gates(), 1.0)
        return masks_above(groups, values, float(np.finfo(np.float32).tiny), ties=self.scores())

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return bake_gates(model, self._bound()[1], masks)

    def _bound(self) -> tuple[nn.Module, ChannelGroups, HardConcreteGates, Tensor]:
        if self._parts is None:
            raise InputError("call prepare(model, groups) before using the method")
        return self._parts
