"""Group lasso on the parameters of each class of tied channels.

    min  L(w) + strength * sum_j sqrt(n_j) ||w_j||_2 / sqrt(N)

References
----------
Yuan, Lin, "Model selection and estimation in regression with grouped
variables", J. Roy. Stat. Soc. B 68 (2006), equation 2.1; for filters: Wen, Wu,
Wang, Chen, Li, "Learning Structured Sparsity in Deep Neural Networks", NeurIPS
2016, equation 2.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
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
from mipprune.training.packing import Packing, named_tensors, pack_channels

__all__ = ["GroupLasso"]


class GroupLasso(Method):
    """Unsquared norm of each class's parameters; classes with the smallest mean square go.

    Parameters
    ----------
    strength : float, >= 0
        The sum is divided by sqrt(N), N the number of parameters in groups, so
        that a strength means about the same in networks of different size.
    threshold : float
        Root mean square below which a class counts as gone in ``choose(None)``.
    """

    def __init__(self, *, strength: float = 1e-2, threshold: float = 1e-3) -> None:
        require_real(strength=strength, threshold=threshold)
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {strength!r}")
        if not 0 < threshold < math.inf:
            raise InputError(f"threshold must be positive and finite, got {threshold!r}")
        self.strength, self.threshold = strength, threshold
        self._bound: Binding | None = None
        self._packing: Packing | None = None
        self._parameters: list[Tensor] = []
        self._share = torch.zeros(0)

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        packing = pack_channels(model, groups)
        tensors = named_tensors(model)
        self._parameters = [tensors[name] for name in packing.names]
        self._bound, self._packing = Binding(model, groups), packing
        self._share = torch.from_numpy(np.sqrt(packing.sizes / packing.sizes.sum()))
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    def penalty(self) -> Tensor:
        """strength * sum_j sqrt(n_j / N) ||w_j||, a float32 scalar; subgradient 0 at w_j = 0."""
        squares = self._squares()
        self._share = self._share.to(squares)
        # sqrt has an infinite slope at 0: those groups contribute neither value nor gradient.
        zero = squares == 0
        norms = torch.where(zero, torch.ones_like(squares), squares).sqrt()
        return self.strength * (self._share * norms.masked_fill(zero, 0.0)).sum()

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        return base + self.penalty() if self.strength else base

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        scores = self.scores()
        return {"lasso_below": float((scores < self.threshold).sum())}

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """Root mean square of each class's parameters, float64 (n_classes,)."""
        packing, bound = prepared(self._packing), prepared(self._bound)
        mean = self._squares().double().cpu().numpy() / packing.sizes
        return packing.per_class(np.sqrt(mean), bound.groups.n_classes)

    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks under ``budget``; None removes what is below the threshold."""
        groups = prepared(self._bound).groups
        if budget is not None:
            return choose_by_score(groups, self.scores(), budget)
        return masks_above(groups, self.scores(), self.threshold)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model

    def _squares(self) -> Tensor:
        """||w_j||^2 of every group, float32 (n_groups,)."""
        packing = prepared(self._packing)
        with torch.autocast(self._parameters[0].device.type, enabled=False):
            flat = packing.flat(self._parameters)
            if packing.layout.segment.device != flat.device:
                # The network moved after prepare().
                packing = self._packing = replace(packing, layout=packing.layout.to(flat.device))
            return packing.layout.total(flat.square())[:-1]
