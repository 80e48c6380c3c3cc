"""Residual blocks whose branch and stream lose features independently of each other.

    x' = s * x,     y = relu( m * F(x') + shortcut(x') )

Feature by feature a block then adds (both kept), passes the stream on (branch
pruned), lets the branch's output become a new feature (stream pruned), or has
nothing. :class:`MixedConnectivityBlock` computes only what is left: it adds
where both exist and concatenates new features to the stream.

References
----------
Lemaire, Achkar, Jodoin, "Structured Pruning of Neural Networks with
Budget-Aware Regularization", CVPR 2019, section on residual networks.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError

__all__ = [
    "MixedConnectivityBlock",
    "MixedMasks",
    "branch_layers",
    "mask_mixed",
    "realise_mixed",
    "residual_blocks",
]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MixedMasks:
    """Masks of a residual network, block by block, True = kept.

    Attributes
    ----------
    entering : tuple of bool arrays
        s of every block, and last that of what enters the classifier.
    branch : tuple of bool arrays
        m of every block: outputs of the branch's last convolution.
    inner : tuple of tuples of bool arrays
        Of every block: outputs of the branch's other convolutions.
    """

    entering: tuple[Bools, ...]
    branch: tuple[Bools, ...]
    inner: tuple[tuple[Bools, ...], ...]


def residual_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and residual blocks of a network of this package, in the order of execution.

    Raises
    ------
    InputError
        A network that is not a stem ``conv1, bn1``, stages ``layer1, ...`` of blocks
        with ``conv1, bn1, ..., shortcut``, and a classifier ``fc``; or a shortcut that
        is neither the identity nor a 1x1 projection with norm.
    """
    stages = [(n, m) for n, m in model.named_children() if n.startswith("layer")]
    blocks = [(f"{n}.{i}", b) for n, stage in stages for i, b in stage.named_children()]
    if not blocks or not all(hasattr(model, name) for name in ("conv1", "bn1", "fc")):
        raise InputError(
            f"{type(model).__name__} is no residual network of the expected form (conv1, bn1, "
            "layer1.0, ..., fc)"
        )
    for name, block in blocks:
        shortcut = getattr(block, "shortcut", None)
        plain = isinstance(shortcut, nn.Identity)
        projection = (
            isinstance(shortcut, nn.Sequential)
            and len(shortcut) == 2
            and isinstance(shortcut[0], nn.Conv2d)
            and isinstance(shortcut[1], nn.BatchNorm2d)
        )
        if not (plain or projection):
            raise InputError(
                f"block '{name}' has the shortcut {shortcut!r}; mixed connectivity needs the "
                "identity or a projection (shortcut='B')"
            )
    return blocks


def mask_mixed(model: nn.Module, masks: MixedMasks) -> nn.Module:
    """A copy of ``model`` at full size that computes with ``masks``."""
    _check(model, masks)
    masked = copy.deepcopy(model)
    blocks = residual_blocks(masked)
    for index, (_, block) in enumerate(blocks):
        block.register_forward_pre_hook(_scale_input(masks.entering[index]))
        layers = branch_layers(block)
        kept = (*masks.inner[index], masks.branch[index])
        for (_, norm), mask in zip(layers, kept, strict=True):
            norm.register_forward_hook(_scale_output(mask))
    blocks[-1][1].register_forward_hook(_scale_output(masks.entering[-1]))
    return masked


def realise_mixed(model: nn.Module, masks: MixedMasks) -> nn.Module:
    """A smaller copy of ``model`` that computes what :func:`mask_mixed` computes.

    Features that nothing reads any more go too. A block without branch features is
    only its shortcut.

    Raises
    ------
    InputError
        Masks of wrong shapes, or a block that would be left without any feature.
    """
    _check(model, masks)
    small = copy.deepcopy(model)
    blocks = residual_blocks(small)
    stream: Ints = np.flatnonzero(masks.entering[0])
    stem, norm = small.get_submodule("conv1"), small.get_submodule("bn1")
    small.add_module("conv1", _conv(stem, None, stream))
    small.add_module("bn1", _norm(norm, stream))
    for index, (name, block) in enumerate(blocks):
        wanted = masks.entering[index + 1]
        made = MixedConnectivityBlock(
            block, stream, masks.inner[index], masks.branch[index] & wanted, wanted
        )
        owner, _, place = name.rpartition(".")
        small.get_submodule(owner).add_module(place, made)
        stream = made.stream
        if stream.size == 0:
            raise InputError(f"masks leave block '{name}' without any feature")
    head = small.get_submodule("fc")
    small.add_module("fc", _linear(head, stream))
    return small


class MixedConnectivityBlock(nn.Module):
    """A residual block that gathers, convolves, and adds, passes on or concatenates per feature.

    Parameters
    ----------
    block : nn.Module
        Of :func:`residual_blocks`; its weights are copied.
    entering : int64 array
        Features that the stream brings, by their original numbers, in its order.
    inner : tuple of bool arrays
    branch : bool array
        Features that the branch produces.
    wanted : bool array
        Features that something reads afterwards.

    Attributes
    ----------
    stream : int64 array
        Original numbers of the features that leave: those passed on or added to,
        then the new ones.
    scale : Tensor, (len(entering),)
        What the entering features are multiplied by: 1, or a mask's value.
    """

    scale: Tensor
    passed: Tensor
    added_at: Tensor
    added_from: Tensor
    new_from: Tensor

    def __init__(
        self,
        block: nn.Module,
        entering: Ints,
        inner: tuple[Bools, ...],
        branch: Bools,
        wanted: Bools,
    ) -> None:
        super().__init__()
        produced = np.flatnonzero(branch)
        plain = isinstance(block.shortcut, nn.Identity)
        carried = entering[wanted[entering]] if plain else np.flatnonzero(wanted)
        place = {int(feature): i for i, feature in enumerate(carried)}
        common = np.array([int(f) in place for f in produced], dtype=bool)
        self.stream: Ints = np.concatenate([carried, produced[~common]])
        self.branch = _small_branch(block, entering, inner, produced)
        self.projection: nn.Module | None = None
        if not plain and carried.size:
            self.projection = nn.Sequential(
                _conv(block.get_submodule("shortcut.0"), entering, carried),
                _norm(block.get_submodule("shortcut.1"), carried),
            )
        like = block.get_submodule("conv1").get_parameter("weight")
        self.register_buffer("scale", like.new_ones(len(entering)))
        kept = np.flatnonzero(wanted[entering]) if plain else np.empty(0, dtype=np.int64)
        at = np.array([place[int(f)] for f in produced[common]], dtype=np.int64)
        for name, values in {
            "passed": kept,
            "added_at": at,
            "added_from": np.flatnonzero(common),
            "new_from": np.flatnonzero(~common),
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, entering, h, w) -> (n, len(stream), h', w')."""
        parts = []
        x = x * self.scale.view(1, -1, 1, 1)
        branch = None if self.branch is None else self.branch(x)
        carried = x[:, self.passed] if self.projection is None else self.projection(x)
        if carried.shape[1]:
            if branch is not None and len(self.added_at):
                carried = carried.index_add(1, self.added_at, branch[:, self.added_from])
            parts.append(carried)
        if branch is not None and len(self.new_from):
            parts.append(branch[:, self.new_from])
        return F.relu(torch.cat(parts, dim=1))


def _small_branch(
    block: nn.Module, entering: Ints, inner: tuple[Bools, ...], produced: Ints
) -> nn.Sequential | None:
    """What is left of the branch; None where it produces nothing."""
    kept = [np.flatnonzero(mask) for mask in inner]
    if not produced.size:
        return None
    if any(k.size == 0 for k in kept):
        raise InputError(
            "a branch that produces features has no channel left inside; keep one, or prune all "
            "of its features"
        )
    layers: list[nn.Module] = []
    reads = entering
    for (conv, norm), rows in zip(branch_layers(block), [*kept, produced], strict=True):
        layers += [_conv(conv, reads, rows), _norm(norm, rows), nn.ReLU()]
        reads = rows
    return nn.Sequential(*layers[:-1])


def branch_layers(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """(convolution, norm) pairs of a block's branch, in order."""
    count = sum(1 for name, _ in block.named_children() if name.startswith("conv"))
    return [
        (block.get_submodule(f"conv{i}"), block.get_submodule(f"bn{i}"))
        for i in range(1, count + 1)
    ]


def _conv(conv: nn.Module, columns: Ints | None, rows: Ints) -> nn.Conv2d:
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        raise InputError(f"expected a convolution without groups, got {conv!r}")
    small = copy.deepcopy(conv)
    weight = conv.weight.detach()[torch.from_numpy(rows)]
    if columns is not None:
        weight = weight[:, torch.from_numpy(columns)]
    small.weight = nn.Parameter(weight.clone())
    if conv.bias is not None:
        small.bias = nn.Parameter(conv.bias.detach()[torch.from_numpy(rows)].clone())
    small.out_channels, small.in_channels = weight.shape[:2]
    return small


def _norm(norm: nn.Module, rows: Ints) -> nn.BatchNorm2d:
    if not isinstance(norm, nn.BatchNorm2d):
        raise InputError(f"expected a BatchNorm2d, got {norm!r}")
    small = copy.deepcopy(norm)
    index = torch.from_numpy(rows)
    for name, parameter in norm.named_parameters():
        setattr(small, name, nn.Parameter(parameter.detach()[index].clone()))
    for name, buffer in norm.named_buffers():
        if buffer.ndim == 1:
            setattr(small, name, buffer[index].clone())
    small.num_features = len(rows)
    return small


def _linear(head: nn.Module, columns: Ints) -> nn.Linear:
    if not isinstance(head, nn.Linear):
        raise InputError(f"expected a linear classifier 'fc', got {head!r}")
    small = copy.deepcopy(head)
    small.weight = nn.Parameter(head.weight.detach()[:, torch.from_numpy(columns)].clone())
    small.in_features = len(columns)
    return small


def _scale_input(mask: Bools) -> "_Scale":
    return _Scale(mask, entering=True)


def _scale_output(mask: Bools) -> "_Scale":
    return _Scale(mask, entering=False)


class _Scale:
    """Hook that multiplies what enters or leaves a module by a mask over channels."""

    def __init__(self, mask: Bools, *, entering: bool) -> None:
        self.mask, self.entering = torch.from_numpy(mask), entering

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], *output: Tensor) -> Tensor:
        value = args[0] if self.entering else output[0]
        return value * self.mask.to(value).view(1, -1, 1, 1)


def _check(model: nn.Module, masks: MixedMasks) -> None:
    blocks = residual_blocks(model)
    n = len(blocks)
    counts = (len(masks.entering), len(masks.branch), len(masks.inner))
    if counts != (n + 1, n, n):
        raise InputError(
            f"expected masks for {n} blocks (entering {n + 1}, branch {n}, inner {n}), got {counts}"
        )
    for index, (name, block) in enumerate(blocks):
        found: Sequence[Bools] = (
            masks.entering[index], *masks.inner[index], masks.branch[index],
            masks.entering[index + 1],
        )  # fmt: skip
        sizes = [conv.get_parameter("weight").shape for conv, _ in branch_layers(block)]
        expected = [sizes[0][1], *(size[0] for size in sizes), sizes[-1][0]]
        shapes = [mask.shape for mask in found]
        if shapes != [(w,) for w in expected] or any(m.dtype != np.bool_ for m in found):
            raise InputError(
                f"block '{name}': expected bool masks of lengths {expected}, got "
                f"{[shape[0] if shape else 0 for shape in shapes]}"
            )
