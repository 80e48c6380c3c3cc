"""Receding neuron importances (RNI): bounded norm scales and a penalty on the unimportant ones.

    y = sigmoid(gamma_c) (x - mean) / sqrt(var + eps)
    min  L(w) + strength * sum_c s_c (1 - ln s_c),     s_c = sigmoid(gamma_c + shift)

References
----------
Suteu, Guo, "Receding Neuron Importances for Structured Pruning", arXiv
2204.06404; formulas and settings as in the authors' code for CIFAR.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from mipprune._support.checks import require_flags, require_integer, require_number, require_real
from mipprune.errors import BudgetError, InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.binding import Binding, prepared, with_minimum
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.norm_scales import NormScales, find_norm_scales

__all__ = ["RNI", "receding_penalty", "to_plain_norms", "to_sigmoid_norms"]


def receding_penalty(gamma: Tensor, shift: float = 0.0) -> Tensor:
    """sum_c s_c (1 - ln s_c) with s_c = sigmoid(gamma_c + shift), a scalar.

    Each term rises from 0 to 1; its slope -s (1-s) ln s is largest, .260, at
    gamma + shift = -1.18 and vanishes on both sides, so important channels are
    left alone. ln s is computed as a log-sigmoid: exact where s underflows.

    Examples
    --------
    >>> receding_penalty(torch.tensor([-200.0, 0.0, 200.0])).item()  # 0, (1 + ln 2)/2 and 1
    1.846573...
    """
    shifted = gamma + shift
    return (torch.sigmoid(shifted) * (1 - F.logsigmoid(shifted))).sum()


class _Sigmoid(nn.Module):
    """Parametrization of a norm's scale."""

    def forward(self, gamma: Tensor) -> Tensor:
        return torch.sigmoid(gamma)


def to_sigmoid_norms(model: nn.Module, generator: torch.Generator | None = None) -> tuple[str, ...]:
    """Give every batch norm of ``model`` the scale sigmoid(gamma) and no shift, in place.

    Parameters
    ----------
    model : nn.Module
    generator : torch.Generator, optional
        Draws gamma ~ N(0, 1) as in the authors' code (on the CPU). Default: gamma
        follows from the scales that are there, clamped into (0, 1).

    Returns
    -------
    tuple of str
        Names of the norms changed: those with scale and shift.
    """
    names = []
    for name, module in list(model.named_modules()):
        if not isinstance(module, _BatchNorm) or not module.affine:
            continue
        if parametrize.is_parametrized(module):
            raise InputError(f"the scale of '{name}' is parametrized already")
        weight = module.weight
        if generator is None:
            scale = weight.detach().abs()
        else:
            scale = torch.sigmoid(torch.randn(weight.shape, generator=generator)).to(weight)
        parametrize.register_parametrization(module, "weight", _Sigmoid())
        with torch.no_grad():
            gammas = module.get_parameter("parametrizations.weight.original")
            gammas.copy_(torch.logit(scale, eps=torch.finfo(scale.dtype).eps))
        shift = module.bias.detach()
        del module.bias
        # No parameter, but of the same name: the norm goes on adding it, and it stays 0.
        module.register_buffer("bias", torch.zeros_like(shift))
        names.append(name)
    return tuple(names)


def to_plain_norms(model: nn.Module) -> None:
    """Undo :func:`to_sigmoid_norms` exactly, in place: scale sigmoid(gamma), shift 0."""
    for module, _ in list(_sigmoid_norms(model)):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        shift = module.bias
        del module.bias
        module.register_parameter("bias", nn.Parameter(shift.detach().clone()))


class RNI(Method):
    """Train with bounded scales, prune once by them, fine-tune.

    The penalty runs over all batch norms, those of residual streams too, as in
    the authors' code (which prunes only inside the blocks; here a tied channel is
    as important as its most important norm). ``finish`` turns the norms into
    plain ones with scale sigmoid(gamma) and shift 0, so fine-tuning frees both;
    the authors fine-tune with the bounded scale.

    Parameters
    ----------
    strength : float, >= 0
        lambda, weight of a plain sum: it depends on the width of the network.
        The authors take 1e-3 (VGG) and 1e-4 (ResNet) for 160 epochs of CIFAR;
        shorter runs need more.
    shift : float
        b: larger values press only less important channels (3 for VGG, 0 for ResNet).
    lr_scale : float
        Learning rate of gamma relative to the weights; gamma has no weight decay.
    ratio : float in (0, 1)
        Share of the classes that goes in ``choose(None)``.
    min_channels : int
        Fewest classes a family keeps. A budget that cannot be met so takes the
        network's own minima.
    seed : int
        Of gamma ~ N(0, 1).
    keep_scales : bool
        Start from the scales of the network instead, for trained networks.
    """

    def __init__(
        self,
        *,
        strength: float = 1e-4,
        shift: float = 0.0,
        lr_scale: float = 10.0,
        ratio: float = 0.5,
        min_channels: int = 3,
        seed: int = 0,
        keep_scales: bool = False,
    ) -> None:
        require_real(strength=strength, shift=shift, lr_scale=lr_scale, ratio=ratio)
        require_flags(keep_scales=keep_scales)
        seed = require_integer("seed", seed, at_least=0)
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {strength!r}")
        shift = require_number("shift", shift)
        if not 0 < lr_scale < math.inf:
            raise InputError(f"lr_scale must be positive and finite, got {lr_scale!r}")
        if not 0 < ratio < 1:
            raise InputError(f"ratio must be in (0, 1), got {ratio!r}")
        if not isinstance(min_channels, int) or min_channels < 1:
            raise InputError(f"min_channels must be an integer >= 1, got {min_channels!r}")
        self.strength, self.shift, self.lr_scale = strength, shift, lr_scale
        self.ratio, self.min_channels = ratio, min_channels
        self.seed, self.keep_scales = seed, keep_scales
        self._bound: Binding | None = None
        self._scales: NormScales | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        scales = find_norm_scales(model, groups, batch_norms_only=True)
        generator = None if self.keep_scales else torch.Generator().manual_seed(self.seed)
        to_sigmoid_norms(model, generator)
        self._bound, self._scales = Binding(model, groups), scales
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        model = prepared(self._bound).model
        gammas = [gamma for _, gamma in _sigmoid_norms(model)]
        special = {id(gamma) for gamma in gammas}
        weights = [p for p in model.parameters() if p.requires_grad and id(p) not in special]
        return [
            {"params": weights},
            {"params": gammas, "lr_scale": self.lr_scale, "weight_decay": 0.0},
        ]

    def penalty(self) -> Tensor:
        """strength * sum_c s_c (1 - ln s_c), a float32 scalar."""
        gammas = [gamma.float() for _, gamma in _sigmoid_norms(prepared(self._bound).model)]
        with torch.autocast(gammas[0].device.type, enabled=False):
            return self.strength * receding_penalty(torch.cat(gammas), self.shift)

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        return base + self.penalty() if self.strength else base

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        gates = self.gates()
        return {
            "rni_mean_importance": float(gates.mean()),
            "rni_receded": float((gates < 0.01).sum()),
        }

    def gates(self) -> NDArray[np.float64]:
        """sigmoid(gamma) of the classes that have a batch norm, float64, in (0, 1)."""
        scores = self.scores()
        found: NDArray[np.float64] = scores[np.isfinite(scores)]
        return found

    def scores(self) -> NDArray[np.float64]:
        return prepared(self._scales).scores(prepared(self._bound).model)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget``; None keeps what is above the global quantile ``ratio``."""
        groups, scores = prepared(self._bound).groups, self.scores()
        raised = with_minimum(groups, self.min_channels)
        if budget is None:
            cut = float(np.quantile(scores[np.isfinite(scores)], self.ratio))
            return masks_above(raised, scores, math.nextafter(cut, math.inf))
        try:
            return choose_by_score(raised, scores, budget)
        except BudgetError:
            # The budget is hard, the authors' minimum is not.
            return choose_by_score(groups, scores, budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Plain batch norms again; the outputs are the same, bit for bit."""
        to_plain_norms(model)
        return model


def _sigmoid_norms(model: nn.Module) -> Iterator[tuple[_BatchNorm, nn.Parameter]]:
    """Norms of :func:`to_sigmoid_norms` with their gamma."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and parametrize.is_parametrized(module, "weight"):
            parametrizations: Any = module.parametrizations
            if isinstance(parametrizations.weight[0], _Sigmoid):
                yield module, parametrizations.weight.original
