"""Network slimming: an L1 penalty on the scales of the norms.

    min  L(w) + strength * sum_c |gamma_c|

References
----------
Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks
through Network Slimming", ICCV 2017, equation 1 and section 3.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import require_real
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.binding import Binding, prepared
from mipprune.training.choosing import choose_by_score, masks_above
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.norm_scales import NormScales, find_norm_scales

__all__ = ["Slimming"]


class Slimming(Method):
    """L1 on all norm scales that carry prunable channels; the smallest go, compared globally.

    Parameters
    ----------
    strength : float, >= 0
        Weight of the plain sum over channels (1e-4 in the paper, for 160 epochs).
    ratio : float in (0, 1)
        Share of the classes that goes in ``choose(None)``.

    Notes
    -----
    Ordinary weight decay also acts on the scales, as in the paper's code.
    """

    def __init__(self, *, strength: float = 1e-4, ratio: float = 0.5) -> None:
        require_real(strength=strength, ratio=ratio)
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {strength!r}")
        if not 0 < ratio < 1:
            raise InputError(f"ratio must be in (0, 1), got {ratio!r}")
        self.strength, self.ratio = strength, ratio
        self._bound: Binding | None = None
        self._scales: NormScales | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._scales = find_norm_scales(model, groups)
        self._bound = Binding(model, groups)
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    def penalty(self) -> Tensor:
        """strength * sum |gamma|, a float32 scalar."""
        weights = prepared(self._scales).weights(prepared(self._bound).model)
        return self.strength * torch.cat([weight.float() for weight in weights]).abs().sum()

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        return base + self.penalty() if self.strength else base

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        scores = self.scores()
        finite = scores[np.isfinite(scores)]
        return {
            "slimming_mean_scale": float(finite.mean()),
            "slimming_below_one_percent": float((finite < 0.01).sum()),
        }

    def scores(self) -> NDArray[np.float64]:
        return prepared(self._scales).scores(prepared(self._bound).model)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget``; None removes the share ``ratio`` with the smallest scales."""
        groups, scores = prepared(self._bound).groups, self.scores()
        if budget is not None:
            return choose_by_score(groups, scores, budget)
        cut = float(np.quantile(scores[np.isfinite(scores)], self.ratio))
        return masks_above(groups, scores, math.nextafter(cut, math.inf))

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model
