"""First-order Taylor importance: how much the loss changes when a class is set to zero.

    I_j = mean over batches of ( sum_{w in class j} g_w w )^2

References
----------
Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural
Network Pruning", CVPR 2019, equation 8 (for a set of parameters, before
squaring as in equation 6).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import require_choice
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training._first_order import first_order_changes, mean_squared_changes
from mipprune.training.binding import Binding, per_family_mean, prepared
from mipprune.training.choosing import choose_by_score
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.packing import Packing, named_tensors, pack_channels

__all__ = ["Taylor"]

Losses = Callable[[nn.Module], Iterable[Tensor]]


class Taylor(Method):
    """Squared first-order change of the loss, accumulated over batches.

    Gradients come from one of three places: each :meth:`after_backward` of a
    loop adds a batch; else ``losses`` is run once when scores are asked for;
    else the gradients that lie in ``.grad`` then count as the only batch.

    Parameters
    ----------
    losses : callable, optional
        Network -> iterable of scalar losses, one per batch, with gradients.
    normalise : {"none", "layer"}
        Compare classes as they are (as the paper does), or over the mean of their family.
    batches : int
        Most batches read from ``losses``.
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"
    trains: ClassVar[bool] = False

    def __init__(
        self,
        *,
        losses: Losses | None = None,
        normalise: Literal["none", "layer"] = "none",
        batches: int = 50,
    ) -> None:
        require_choice("normalise", normalise, ("none", "layer"))
        if not isinstance(batches, int) or batches < 1:
            raise InputError(f"batches must be an integer >= 1, got {batches!r}")
        self.normalise, self.batches = normalise, batches
        self._losses = losses
        self._bound: Binding | None = None
        self._packing: Packing | None = None
        self._parameters: list[Tensor] = []
        self._sums = np.zeros(0)
        self._count = 0

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        packing = pack_channels(model, groups)
        tensors = named_tensors(model)
        self._parameters = [tensors[name] for name in packing.names]
        self._bound, self._packing = Binding(model, groups), packing
        self._sums, self._count = np.zeros(packing.n_groups), 0
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    @torch.no_grad()
    def after_backward(self) -> None:
        """Add the gradients of one batch."""
        packing = prepared(self._packing)
        if all(p.grad is None for p in self._parameters):
            raise InputError("there are no gradients; call backward() before after_backward()")
        self._sums += np.square(first_order_changes(packing, self._parameters))
        self._count += 1

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        return {"taylor_batches": float(self._count)}

    def scores(self) -> NDArray[np.float64]:
        bound, packing = prepared(self._bound), prepared(self._packing)
        if not self._count:
            self._accumulate()
        found = packing.per_class(self._sums / self._count, bound.groups.n_classes)
        return per_family_mean(bound.groups, found) if self.normalise == "layer" else found

    def choose(self, budget: Budgets | None = None) -> Masks:
        if budget is None:
            raise InputError("Taylor importance has no rule without a budget; give one")
        return choose_by_score(prepared(self._bound).groups, self.scores(), budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model

    def state_dict(self) -> dict[str, Any]:
        return {"sums": torch.from_numpy(self._sums.copy()), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums = state["sums"].double().cpu().numpy().copy()
        self._count = int(state["count"])

    def _accumulate(self) -> None:
        """Gradients from ``losses`` in eval mode, or those that are there."""
        if self._losses is None:
            self.after_backward()
            return
        model, packing = prepared(self._bound).model, prepared(self._packing)
        mean = mean_squared_changes(
            model, packing, self._parameters, self._losses, batches=self.batches
        )
        if mean is None:
            raise InputError("losses gave no batch; there is nothing to measure importance on")
        self._sums, self._count = mean, 1
