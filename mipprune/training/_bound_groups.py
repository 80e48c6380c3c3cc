"""The groups of a network as SPR sees them: packed, with bounds and coefficients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph.groups import ChannelGroups
from mipprune.perspective import SegmentLayout, SegmentTerms, segment_terms
from mipprune.training.packing import Packing, named_tensors

__all__ = ["BoundGroups"]


@dataclass(eq=False)
class BoundGroups:
    """What SPR knows once it has a network."""

    model: nn.Module
    groups: ChannelGroups
    packing: Packing
    big_m: dict[str, float]
    parameters: list[Tensor]
    alpha: float
    arrays: tuple[SegmentLayout, Tensor, Tensor, Tensor]

    @classmethod
    def build(
        cls,
        model: nn.Module,
        groups: ChannelGroups,
        packing: Packing,
        big_m: Mapping[str, float] | float | None,
        alpha: float,
        strength: float,
    ) -> "BoundGroups":
        by_name = dict(big_m) if isinstance(big_m, Mapping) else dict.fromkeys(packing.names, big_m)
        missing = [name for name in packing.names if by_name.get(name) is None]
        if missing:
            raise InputError(f"no M for parameter '{missing[0]}' (and {len(missing) - 1} more)")
        bounds = {name: float(by_name[name] or 0) for name in packing.names}
        found = named_tensors(model)
        ridge, price = _coefficients(packing, alpha, strength, 0.0)
        arrays = (packing.layout, ridge, price, packing.per_entry(list(bounds.values())))
        parameters = [found[name] for name in packing.names]
        return cls(model, groups, packing, bounds, parameters, alpha, arrays)

    def weigh(self, strength: float, extra: NDArray[np.float64]) -> None:
        """Set the coefficients to those of ``strength * n_j / N + extra_j``, (n_groups,)."""
        layout, ridge, _, big_m = self.arrays
        new = _coefficients(self.packing, self.alpha, strength, extra)
        self.arrays = (layout, new[0].to(ridge.device), new[1].to(ridge.device), big_m)

    def on(self, device: torch.device) -> tuple[SegmentLayout, Tensor, Tensor, Tensor]:
        """Layout, ridge, price and M on ``device``."""
        layout, ridge, price, big_m = self.arrays
        if layout.segment.device != device or ridge.device != device:
            self.arrays = (
                layout.to(device),
                ridge.to(device),
                price.to(device),
                big_m.to(device),
            )
        return self.arrays

    def terms(self, flat: Tensor) -> SegmentTerms:
        """Value, indicator and case of all groups for packed weights (N,)."""
        layout, ridge, price, big_m = self.on(flat.device)
        return segment_terms(flat, layout, None, ridge, price, big_m, check=False)

    @torch.no_grad()
    def surviving_share(self, parameters: Sequence[Tensor], cut: float) -> NDArray[np.float64]:
        """Share of each group's entries with magnitude above ``cut``, float64 (n_groups,)."""
        flat = self.packing.flat(parameters)
        layout = self.on(flat.device)[0]
        alive = layout.total((flat.abs() > cut).to(flat.dtype))[:-1]
        shares: NDArray[np.float64] = alive.double().cpu().numpy() / self.packing.sizes
        return shares


def _coefficients(
    packing: Packing, alpha: float, strength: float, extra: NDArray[np.float64] | float
) -> tuple[Tensor, Tensor]:
    """Ridge and price of every segment, float64 (n_groups + 1,)."""
    share = packing.sizes / packing.sizes.sum()
    weight = torch.from_numpy(np.append(share * strength + extra, 0.0))
    # The ridge of the last segment is never used, but it must be positive.
    return (weight * alpha).clamp_min(torch.finfo(torch.float32).tiny), weight * (1 - alpha)
