"""The masks of mixed connectivity as families of classes, with their costs.

Per residual block: the features that enter it (s), the channels inside its
branch, and the branch's outputs (m); last the features that the classifier
reads. A layer costs ``area * k^2 * (channels read) * (channels produced)``. Features
that enter a block count as read even where nothing brings them any more, so
that the cost is an upper bound of that of the realised network, and equal to it
once such masks are closed (:meth:`MixedLayout.settle`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph.groups import ChannelGroups, CostTerm, Family
from mipprune.training.mixed_connectivity import MixedMasks, branch_layers, residual_blocks

__all__ = ["MixedLayout", "mixed_groups"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MixedLayout:
    """Which classes are the masks of which block.

    Attributes
    ----------
    entering, branch : tuple of int64 arrays
        Classes of s (of every block, and of the classifier) and of m.
    inner : tuple of tuples of int64 arrays
        Of the branch's other convolutions.
    plain : tuple of bool
        Whether the shortcut of the block is the identity.
    """

    entering: tuple[Ints, ...]
    branch: tuple[Ints, ...]
    inner: tuple[tuple[Ints, ...], ...]
    plain: tuple[bool, ...]

    def masks(self, kept: Bools) -> MixedMasks:
        """A flat bool array (n_classes,) as masks of the blocks."""
        return MixedMasks(
            tuple(kept[places] for places in self.entering),
            tuple(kept[places] for places in self.branch),
            tuple(tuple(kept[places] for places in rows) for rows in self.inner),
        )

    def settle(self, kept: Bools, scores: NDArray[np.float64]) -> Bools:
        """Close masks of what does not exist or is not read; no block loses its last feature.

        Parameters
        ----------
        kept : bool array (n_classes,)
        scores : float64 array (n_classes,)
            Of the features that a block could have, the best stays where all are closed.
        """
        kept = kept.copy()
        exists = np.ones(len(self.entering[0]), dtype=bool)
        for index, places in enumerate(self.entering):
            kept[places] &= exists
            if not kept[places].any():
                candidates = places[exists]
                kept[candidates[np.argmax(scores[candidates])]] = True
            if index == len(self.branch):
                break
            carried = kept[places] if self.plain[index] else True
            exists = kept[self.branch[index]] | carried
        for index, places in enumerate(self.branch):
            kept[places] &= kept[self.entering[index + 1]]
            if not kept[places].any():
                for rows in self.inner[index]:
                    kept[rows] = False
                    kept[rows[np.argmax(scores[rows])]] = True
        return kept


class _Builder:
    """Families and terms in the order in which they come up."""

    def __init__(self, areas: Mapping[str, int]) -> None:
        self.areas = areas
        self.families: list[Family] = []
        self.volume: list[CostTerm] = []
        self.macs: list[CostTerm] = []
        self.parameters: list[CostTerm] = []
        self.size = 0

    def family(self, name: str, size: int, minimum: int = 1) -> Ints:
        """``size`` new classes."""
        start, self.size = self.size, self.size + size
        self.families.append(Family(name, start, self.size, (), (), minimum=minimum))
        return np.arange(start, self.size)

    def layer(self, name: str, module: nn.Module, reads: Ints | None, makes: Ints | None) -> None:
        """Terms of a convolution or linear layer and of its bias."""
        weight = module.get_parameter("weight")
        axes = tuple(owner for owner in (makes, reads) if owner is not None)
        each = weight.numel() / int(np.prod([len(owner) for owner in axes]))
        area = self.areas[name]
        self.macs.append(CostTerm(name, area * each, axes))
        self.parameters.append(CostTerm(f"{name}.weight", each, axes))
        if makes is not None:
            self.volume.append(CostTerm(f"{name}.weight", area, (makes,)))
        if module._parameters.get("bias") is not None:
            self._per_channel(f"{name}.bias", module.get_parameter("bias"), makes)

    def norm(self, name: str, module: nn.Module, makes: Ints) -> None:
        """Terms of a norm's scale and shift."""
        for part, parameter in module.named_parameters():
            self._per_channel(f"{name}.{part}", parameter, makes)

    def _per_channel(self, name: str, parameter: Tensor, makes: Ints | None) -> None:
        term = CostTerm(name, parameter.numel()) if makes is None else CostTerm(name, 1, (makes,))
        self.parameters.append(term)


def mixed_groups(
    model: nn.Module, inputs: tuple[Any, ...]
) -> tuple[ChannelGroups, MixedLayout, tuple[CostTerm, ...]]:
    """Families, costs and layout of a residual network; and its activation volume.

    Parameters
    ----------
    model : nn.Module
        As :func:`~mipprune.training.mixed_connectivity.residual_blocks` expects.
    inputs : tuple
        Positional arguments of a forward pass, which gives the areas of the maps.

    Raises
    ------
    InputError
        Another kind of network.
    """
    blocks = residual_blocks(model)
    new = _Builder(_areas(model, inputs))
    stem, head = model.get_submodule("conv1"), model.get_submodule("fc")
    widths = [branch_layers(block)[0][0].get_parameter("weight").shape[1] for _, block in blocks]
    widths.append(head.get_parameter("weight").shape[1])
    entering = [new.family(f"{name}.entering", widths[i]) for i, (name, _) in enumerate(blocks)]
    entering.append(new.family("fc.entering", widths[-1]))
    new.layer("conv1", stem, None, entering[0])
    new.norm("bn1", model.get_submodule("bn1"), entering[0])
    branch: list[Ints] = []
    inner: list[tuple[Ints, ...]] = []
    plain: list[bool] = []
    for index, (name, block) in enumerate(blocks):
        layers, rows, reads = branch_layers(block), [], entering[index]
        for number, (conv, norm) in enumerate(layers, start=1):
            last = number == len(layers)
            size = conv.get_parameter("weight").shape[0]
            own = new.family(f"{name}.conv{number}", size, 0 if last else 1)
            new.layer(f"{name}.conv{number}", conv, reads, own)
            new.norm(f"{name}.bn{number}", norm, own)
            rows.append(own)
            reads = own
        branch.append(rows[-1])
        inner.append(tuple(rows[:-1]))
        plain.append(isinstance(block.shortcut, nn.Identity))
        if not plain[-1]:
            place = f"{name}.shortcut"
            projection, norm = block.get_submodule("shortcut.0"), block.get_submodule("shortcut.1")
            new.layer(f"{place}.0", projection, entering[index], entering[index + 1])
            new.norm(f"{place}.1", norm, entering[index + 1])
    new.layer("fc", head, entering[-1], None)
    groups = ChannelGroups(tuple(new.families), (), tuple(new.parameters), tuple(new.macs))
    layout = MixedLayout(tuple(entering), tuple(branch), tuple(inner), tuple(plain))
    return groups, layout, tuple(new.volume)


@torch.no_grad()
def _areas(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, int]:
    """Positions at which each layer is applied to one example."""
    found: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            found[name] = output.shape[2:].numel() if output.ndim > 2 else 1

        return hook

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(note(name)) for name, module in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()(*inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    missing = sorted({name for name, _ in layers} - set(found))
    if missing:
        raise InputError(f"a forward pass does not use '{missing[0]}'; its cost is not known")
    return found
