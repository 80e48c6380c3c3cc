"""Labels through operators that join, pad, pick and rearrange channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from mipprune.graph._rules_elementwise import join
from mipprune.graph.labeller import Arguments, Labeller
from mipprune.graph.labels import STAYS, Labels, line, varying

__all__ = ["RULES"]


def concatenated(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """cat: along the joined dimension channels stay apart, along the others they are tied."""
    parts: list[Labels] = [p for p in given["tensors"] if p.shape != (0,)]
    shape = tuple(node.meta["val"].shape)
    if all(p.wild for p in parts):
        return Labels(shape, wild=True)
    dim = given["dim"] % len(shape)
    others = [
        Labels(
            tuple(1 if d == dim else n for d, n in enumerate(p.shape)),
            tuple(f.narrow(dim, 0, 1) for f in p.fields if dim not in varying(f)),
            p.wild,
        )
        for p in parts
    ]
    reduced = tuple(1 if d == dim else n for d, n in enumerate(shape))
    joined = list(join(state, others, reduced).fields)
    pieces = [_along(state, p, dim) for p in parts]
    if any(varying(piece) for piece in pieces):
        small = [d for d in range(len(shape)) if d != dim and all(_flat(p, d) for p in pieces)]
        for d in small:
            pieces = [p.narrow(d, 0, 1) for p in pieces]
        joined.append(torch.cat(pieces, dim))
    return state.settle([f.expand(shape) for f in joined], shape)


def _flat(piece: Tensor, dim: int) -> bool:
    return piece.size(dim) == 1 or piece.stride(dim) == 0


def _along(state: Labeller, part: Labels, dim: int) -> Tensor:
    """The field that varies along ``dim``; all ones of `STAYS` where there is none."""
    fields = [f for f in part.fields if dim in varying(f)]
    return fields[0] if fields else torch.full((1,) * len(part.shape), STAYS).expand(part.shape)


def stacked(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """stack: tensors with the same channels side by side along a new dimension."""
    parts: list[Labels] = list(given["tensors"])
    shape = tuple(node.meta["val"].shape)
    dim = given["dim"] % len(shape)
    joined = join(state, parts, parts[0].shape)
    return state.settle([f.unsqueeze(dim).expand(shape) for f in joined.fields], shape)


def padded(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """pad: along channels only with constants, whose number must be an attribute."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    amounts = list(given["pad"])
    pairs = {
        len(shape) - 1 - i: tuple(amounts[2 * i : 2 * i + 2]) for i in range(len(amounts) // 2)
    }
    constant = given.get("mode", "constant") == "constant"
    fields = []
    for f in x.fields:
        changing = varying(f)
        touched = [d for d in changing if pairs.get(d, (0, 0)) != (0, 0)]
        if touched and (len(changing) > 1 or not constant or min(pairs[touched[0]]) < 0):
            state.freeze(f, f"padded by {state.where}")
        elif touched:
            fields.append(_pad_channels(state, f, touched[0], pairs[touched[0]], shape))
        else:
            fields.append(_pad_elsewhere(f, shape))
    return state.settle(fields, shape)


def _pad_elsewhere(f: Tensor, shape: Sequence[int]) -> Tensor:
    keep = set(varying(f))
    for d in range(f.dim()):
        if d not in keep:
            f = f.narrow(d, 0, 1)
    return f.expand(tuple(shape))


def _pad_channels(
    state: Labeller, f: Tensor, dim: int, amounts: tuple[int, int], shape: Sequence[int]
) -> Tensor:
    labels = line(f, dim)
    ends: list[Tensor] = []
    used: list[str] = []
    for amount in amounts:
        names = [n for n in state.attributes(state.module, amount) if n not in used]
        if amount and names:
            used.append(names[0])
            new = state.space.fresh(amount, f"{state.module}.{names[0]}", 0)
            state.site(new, names[0])
            ends.append(new)
        else:
            ends.append(torch.full((amount,), STAYS))
    return state.along(torch.cat([ends[0], labels, ends[1]]), dim, shape)


def indexed(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """index, index_select, gather, roll ...: channels must not be picked by position."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    touched = _indexed_dims(given, len(x.shape))
    fields = []
    for f in x.fields:
        g = state.pin(f, touched)
        if g is not None:
            fields.append(_index_field(given, g, shape))
    return state.settle(fields, shape)


def _indexed_dims(given: Arguments, rank: int) -> list[int]:
    if "indices" in given:
        return [d for d, i in enumerate(given["indices"]) if i is not None]
    return [given["dim"] % max(1, rank)]


def _index_field(given: Arguments, f: Tensor, shape: tuple[int, ...]) -> Tensor:
    if "indices" not in given:
        dim = given["dim"] % f.dim()
        return f.narrow(dim, 0, 1).expand(shape)
    index = [
        slice(None) if i is None else torch.zeros(i.shape, dtype=torch.int64)
        for i in given["indices"]
    ]
    return f[tuple(index)].expand(shape)


def scattered(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """slice_scatter, select_scatter: part of a tensor is replaced."""
    x: Labels = given["self"]
    source: Labels = given["src"]
    shape = tuple(node.meta["val"].shape)
    dim = given["dim"] % len(shape)
    if node.target is torch.ops.aten.select_scatter.default:
        fields = [f.unsqueeze(dim) for f in source.fields]
        source = Labels((*shape[:dim], 1, *shape[dim:][1:]), tuple(fields), source.wild)
    if source.shape == shape:
        return source
    across = [f for f in (*x.fields, *source.fields) if dim in varying(f)]
    if across:
        for f in across:
            state.freeze(f, f"written into part of the channels by {state.where}")
    reduced = tuple(1 if d == dim else n for d, n in enumerate(shape))
    operands = [
        Labels(
            reduced, tuple(f.narrow(dim, 0, 1) for f in v.fields if dim not in varying(f)), v.wild
        )
        for v in (x, source)
    ]
    return state.settle([f.expand(shape) for f in join(state, operands, reduced).fields], shape)


def pixel_shuffled(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """pixel_shuffle: the r*r channels of one output channel become its pixels."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    block = x.shape[-3] // shape[-3]
    along, rest = state.axis(x, len(x.shape) - 3)
    groups = along.view(shape[-3], block)
    state.tie(groups, groups[:, :1])
    if rest:
        for f in rest:
            state.freeze(f, f"moved by {state.where}")
    return state.settle([state.along(groups[:, 0], len(shape) - 3, shape)], shape)


def pixel_unshuffled(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """pixel_unshuffle: each channel becomes r*r consecutive ones."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    along, rest = state.axis(x, len(x.shape) - 3)
    for f in rest:
        state.freeze(f, f"moved by {state.where}")
    wide = along.repeat_interleave(shape[-3] // x.shape[-3])
    return state.settle([state.along(wide, len(shape) - 3, shape)], shape)


def channel_shuffled(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """channel_shuffle: the i-th channels of all groups go together."""
    x: Labels = given["self"]
    along, rest = state.axis(x, 1)
    groups = along.view(given["groups"], -1)
    state.tie(groups, groups[:1])
    shuffled = groups.t().reshape(-1)
    return state.settle([*rest, state.along(shuffled, 1, x.shape)], x.shape)


def rolled(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """roll, flip: run on labels; along channels the order of removal changes nothing."""
    x: Labels = given["self"]
    dims = given["dims"] or range(len(x.shape))
    fields = [
        g for f in x.fields if (g := state.pin(f, [d % len(x.shape) for d in dims])) is not None
    ]
    return state.settle(fields, x.shape)


def folded(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """im2col: every channel becomes a block of kernel positions."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    along, rest = state.axis(x, len(x.shape) - 3)
    for f in rest:
        state.freeze(f, f"moved by {state.where}")
    wide = along.repeat_interleave(shape[-2] // x.shape[-3])
    return state.settle([state.along(wide, len(shape) - 2, shape)], shape)


RULES = {
    **dict.fromkeys(["cat", "concat", "concatenate"], concatenated),
    "stack": stacked,
    **dict.fromkeys(["pad", "constant_pad_nd"], padded),
    **dict.fromkeys(["index", "index_select", "gather"], indexed),
    **dict.fromkeys(["slice_scatter", "select_scatter"], scattered),
    "pixel_shuffle": pixel_shuffled,
    "pixel_unshuffle": pixel_unshuffled,
    "channel_shuffle": channel_shuffled,
    **dict.fromkeys(["roll", "flip"], rolled),
    "im2col": folded,
}
