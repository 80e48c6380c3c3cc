"""Which parameters selective weight decay would remove now."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mipprune.errors import BudgetError
from mipprune.graph.groups import ChannelGroups
from mipprune.training.choosing import masks_above
from mipprune.training.norm_scales import find_norm_scales
from mipprune.training.packing import pack_channels

__all__ = ["ChannelSelector", "Selector", "WeightSelector", "channels_for_parameters"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def channels_for_parameters(
    groups: ChannelGroups, scores: NDArray[np.float64], keep: float
) -> NDArray[np.bool_]:
    """Most classes, best scores first, with at most ``keep`` of the parameters; bool (n_classes,).

    One global threshold, found by bisection over the sorted scores; a threshold
    removes input and output channels of every layer, and parameters are counted
    as the library counts them. Minima of families and equal parts hold.

    Raises
    ------
    BudgetError
        The families at their minima already have more parameters.
    """
    levels = np.append(np.unique(scores[np.isfinite(scores)]), np.inf)
    limit = keep * groups.parameters()

    def kept(level: int) -> NDArray[np.bool_]:
        return groups.kept(masks_above(groups, scores, float(levels[level])))

    low, high = 0, len(levels) - 1
    least = groups.parameters(kept(high))
    if least > limit:
        raise BudgetError(
            f"{keep:.3%} of the parameters ({limit:,.0f}) cannot be reached by a threshold on the "
            f"scores: with every family at its minimum {least:,} remain"
        )
    while low < high:
        middle = (low + high) // 2
        if groups.parameters(kept(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return kept(high)


class Selector(ABC):
    """Interface: what is selected, and on which parameters that acts."""

    selected: bool
    """Whether a selection was made yet."""

    @abstractmethod
    def select(self) -> tuple[int, int]:
        """Select anew; how many entries entered and left since the last time."""

    @abstractmethod
    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with a mask that broadcasts to them, 1 = selected."""

    @abstractmethod
    def count(self) -> int:
        """Selected entries."""

    @abstractmethod
    def largest(self) -> float:
        """Largest magnitude among the selected entries, 0 where there are none."""

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """Importance of every class, float64 (n_classes,)."""

    @abstractmethod
    def state(self) -> Tensor:
        """The selection, for a checkpoint; empty where none was made."""

    @abstractmethod
    def restore(self, state: Tensor) -> None:
        """Set the selection of :meth:`state`."""


class ChannelSelector(Selector):
    """Whole classes, by the scales of their norms.

    Parameters
    ----------
    model, groups
    kept : callable
        Scores -> bool (n_classes,), what the target keeps.
    filters : bool
        Act also on the weights that feed and read the channels.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        kept: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
        filters: bool,
    ) -> None:
        self._model, self._kept = model, kept
        self._scales = find_norm_scales(model, groups)
        self._gone = np.zeros(groups.n_classes, dtype=bool)
        self.selected = False
        norms = set(self._scales.modules)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._axes = [
            (parameters[axis.tensor], axis)
            for axis in groups.axes
            if axis.tensor in parameters
            and (
                (axis.role == "carry" and axis.tensor.rpartition(".")[0] in norms)
                or (filters and axis.role in ("produce", "consume"))
            )
        ]
        self._masks: list[Tensor] = []

    def select(self) -> tuple[int, int]:
        gone = ~self._kept(self.scores())
        entered, left = int((gone & ~self._gone).sum()), int((self._gone & ~gone).sum())
        self._set(gone)
        return entered, left

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (parameter, _) in enumerate(self._axes):
            mask = self._masks[number]
            if mask.device != parameter.device:
                mask = self._masks[number] = mask.to(parameter.device)
            yield parameter, mask

    def count(self) -> int:
        return int(self._gone.sum())

    @torch.no_grad()
    def largest(self) -> float:
        return max((float((p * mask).abs().max()) for p, mask in self.pairs()), default=0.0)

    def scores(self) -> NDArray[np.float64]:
        return self._scales.scores(self._model)

    def state(self) -> Tensor:
        return torch.from_numpy(self._gone.copy()) if self.selected else torch.empty(0)

    def restore(self, state: Tensor) -> None:
        if state.numel():
            self._set(state.cpu().numpy().astype(bool))

    def _set(self, gone: NDArray[np.bool_]) -> None:
        self._gone, self.selected = gone, True
        padded = np.append(gone, False)  # the last entry serves FROZEN positions (-1)
        self._masks = []
        for parameter, axis in self._axes:
            shape = [1] * parameter.ndim
            shape[axis.dim] = -1
            mask = torch.from_numpy(padded[axis.owner]).to(parameter)
            self._masks.append(mask.view(shape))


class WeightSelector(Selector):
    """Single weights of the whole network, norms left out, by magnitude.

    Parameters
    ----------
    model, groups
    keep : float
        Share of these weights that stays.
    """

    def __init__(self, model: nn.Module, groups: ChannelGroups, keep: float) -> None:
        self._model, self._groups, self._keep = model, groups, keep
        norms = {name for name, module in model.named_modules() if isinstance(module, _NORMS)}
        self._names = [
            name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in norms
        ]
        self._gone: list[Tensor] = []
        self.selected = False

    def select(self) -> tuple[int, int]:
        before = self._gone
        parameters = self._parameters(self._model)
        magnitudes = torch.cat([p.detach().abs().float().reshape(-1) for p in parameters])
        n_gone = round((1 - self._keep) * magnitudes.numel())
        # Exactly so many: equal magnitudes (zeros) are told apart by their place.
        order = torch.argsort(magnitudes, stable=True)
        chosen = torch.zeros_like(magnitudes, dtype=torch.bool)
        chosen[order[:n_gone]] = True
        parts = torch.split(chosen, [p.numel() for p in parameters])
        self._gone = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
        if not self.selected:
            self.selected = True
            return n_gone, 0
        old = torch.cat([mask.reshape(-1) for mask in before]).to(chosen.device)
        return int((chosen & ~old).sum()), int((old & ~chosen).sum())

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, parameter in enumerate(self._parameters(self._model)):
            mask = self._gone[number]
            if mask.device != parameter.device:
                mask = self._gone[number] = mask.to(parameter.device)
            yield parameter, mask

    def count(self) -> int:
        return sum(int(mask.sum()) for mask in self._gone)

    @torch.no_grad()
    def largest(self) -> float:
        return max((float((p * mask).abs().max()) for p, mask in self.pairs()), default=0.0)

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """Mean over each class's own weights of |w| where it stays, norms left out."""
        packing = pack_channels(self._model, self._groups)
        tensors = dict(self._model.named_parameters())
        gone = dict(zip(self._names, self._gone, strict=False))
        entries = []
        for name in packing.names:
            stays = torch.zeros_like(tensors[name])
            if name in gone:
                stays = torch.where(gone[name].to(stays.device), stays, tensors[name].abs())
            elif name in self._names:
                stays = tensors[name].abs()
            entries.append(stays)
        flat = packing.flat(entries)
        sums = packing.layout.to(flat.device).total(flat)[:-1].double().cpu().numpy()
        return packing.per_class(sums / packing.sizes, self._groups.n_classes)

    @torch.no_grad()
    def cut(self, model: nn.Module) -> None:
        """Set the selected weights of ``model`` to zero, in place."""
        if not self.selected:
            self.select()
        for parameter, mask in zip(self._parameters(model), self._gone, strict=True):
            parameter.masked_fill_(mask.to(parameter.device), 0.0)

    def state(self) -> Tensor:
        parts = [mask.reshape(-1).cpu() for mask in self._gone]
        return torch.cat(parts) if self.selected else torch.empty(0, dtype=torch.bool)

    def restore(self, state: Tensor) -> None:
        if not state.numel():
            return
        parameters = self._parameters(self._model)
        parts = torch.split(state, [p.numel() for p in parameters])
        self._gone = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
        self.selected = True

    def _parameters(self, model: nn.Module) -> list[Tensor]:
        tensors = dict(model.named_parameters())
        return [tensors[name] for name in self._names]
