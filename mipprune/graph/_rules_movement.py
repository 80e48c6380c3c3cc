"""Labels through operators that view, permute and cut: they are run on the labels themselves."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from mipprune.graph.labeller import Arguments, Labeller, Site, result_like
from mipprune.graph.labels import Labels, compress, grid, line, varying

__all__ = ["RULES"]


def _apply(node: fx.Node, f: Tensor) -> Any:
    """Run the operator with its first argument replaced by the field."""
    assert isinstance(node.target, torch._ops.OpOverload)
    kwargs = {k: v for k, v in node.kwargs.items() if k not in ("memory_format", "pin_memory")}
    return node.target(f, *node.args[1:], **kwargs)


def _each(
    state: Labeller, node: fx.Node, fields: Sequence[Tensor], run: Callable[[Tensor], Any]
) -> Any:
    """Labels of the (tuple of) results of ``run`` on every field."""
    moved = [run(f) for f in fields]
    value = node.meta["val"]
    if isinstance(value, Tensor):
        return state.settle(moved, value.shape)
    return tuple(state.settle([m[i] for m in moved], v.shape) for i, v in enumerate(value))


def moved(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Operators that keep the order of the channels (expand, squeeze, repeat, flip, ...)."""
    x: Labels = next(iter(given.values()))
    if x.wild:
        return result_like(node.meta["val"], lambda shape: Labels(shape, wild=True))
    return _each(state, node, x.fields, lambda f: _apply(node, f))


def expanded_as(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """expand_as: repeated along dimensions of size 1."""
    shape = tuple(node.meta["val"].shape)
    x: Labels = given["self"]
    if x.wild:
        return Labels(shape, wild=True)
    return state.settle([f.expand(shape) for f in x.fields], shape)


def reshaped(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """view, reshape, flatten, unflatten: what is kept must form a box in the new shape."""
    x: Labels = given["self"]
    if "dtype" in given:
        return state.unknown(node)
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    result = state.settle([f.reshape(shape) for f in x.fields], shape)
    for f in result.fields:
        state.box(f)
    _sizes(state, result)
    return result


def _sizes(state: Labeller, result: Labels) -> None:
    """Sizes in the new shape that the program may take from an attribute."""
    for f in result.fields:
        labels = grid(f)
        for dim in range(labels.dim()):
            # Several dimensions may vary: which one shrinks is known when all ties are.
            columns = labels.movedim(dim, 0).reshape(labels.size(dim), -1)
            state.sites.append(Site(state.module, columns))


def permuted(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """permute and its relatives: dimensions that change order must form a product."""
    x: Labels = given["self"]
    if x.wild:
        return Labels(tuple(node.meta["val"].shape), wild=True)
    # Strides encode where each dimension went.
    probe = torch.empty_strided(x.shape, tuple(range(1, len(x.shape) + 1)), device="meta")
    order = [s - 1 for s in _apply(node, probe).stride()]
    fields = []
    for f in x.fields:
        changing = list(varying(f))
        after = [d for d in order if d in changing]
        while after != changing:
            first = changing[0]
            f = state.collapse(f, [first])
            changing.remove(first)
            after.remove(first)
        fields.append(f)
    return _each(state, node, fields, lambda f: _apply(node, f))


def selected(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """select, unbind: one position of a dimension whose extent is fixed."""
    x: Labels = given["self"]
    dim = given["dim"] % max(1, len(x.shape))
    if x.wild:
        return result_like(node.meta["val"], lambda shape: Labels(shape, wild=True))
    fields = [g for f in x.fields if (g := _equal_slices(state, f, dim)) is not None]
    return _each(state, node, fields, lambda f: _apply(node, f))


def _equal_slices(state: Labeller, f: Tensor, dim: int) -> Tensor | None:
    """Fix the extent of ``dim``: every slice keeps the same number."""
    changing = varying(f)
    if dim not in changing:
        return f
    if len(changing) == 1:
        state.freeze(f, f"picked one by one by {state.where}")
        return None
    if changing[0] != dim:
        return state.collapse(f, [dim])
    state.box(f, equal_along=dim)
    return f


def sliced(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """slice, narrow: a range of a dimension."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    dim = given["dim"] % len(x.shape)
    size, length = x.shape[dim], shape[dim]
    start = given["start"] or 0
    start = max(0, start + size if start < 0 else min(start, size))
    step = given.get("step", 1)
    fields = []
    for f in x.fields:
        whole = length == size
        regular = step == 1 and length > 0 and size % length == 0 and start % length == 0
        g = f if whole else _cut(state, f, dim, [length] * (size // length) if regular else [])
        if g is not None:
            fields.append(g)
    return _each(state, node, fields, lambda f: _apply(node, f))


def split(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """split, chunk: consecutive ranges of a dimension."""
    x: Labels = given["self"]
    if x.wild:
        return result_like(node.meta["val"], lambda shape: Labels(shape, wild=True))
    dim = given["dim"] % len(x.shape)
    lengths = [v.shape[dim] for v in node.meta["val"]]
    fields = [g for f in x.fields if (g := _cut(state, f, dim, lengths)) is not None]
    return _each(state, node, fields, lambda f: _apply(node, f))


def _cut(state: Labeller, f: Tensor, dim: int, lengths: Sequence[int]) -> Tensor | None:
    """Prepare a field to be cut along ``dim`` into pieces of ``lengths``."""
    changing = varying(f)
    if dim not in changing:
        return f
    if len(changing) > 1:
        return _equal_slices(state, f, dim)
    if len(lengths) == 1:
        return f
    if len(set(lengths)) == 1 and lengths[0] > 1:
        state.box(line(f, dim).view(len(lengths), lengths[0]), equal_along=0)
        return f
    if lengths and _attributes_for(state, f, dim, lengths):
        return f
    state.freeze(f, f"cut into unequal parts by {state.where}")
    return None


def _attributes_for(state: Labeller, f: Tensor, dim: int, lengths: Sequence[int]) -> bool:
    """Register the attributes of the module that hold the lengths, if each has one."""
    names: list[str] = []
    for length in lengths:
        found = state.attributes(state.module, length)
        fresh = [n for n in found if n not in names] or found
        if not fresh:
            return False
        names.append(fresh[0])
    for name, piece in zip(names, torch.split_with_sizes(line(f, dim), list(lengths)), strict=True):
        state.site(piece, name)
    return True


def repeated(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """repeat, tile, repeat_interleave: copies of channels keep the label."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    if x.wild:
        return Labels(shape, wild=True)
    fields = []
    for f in x.fields:
        if f.numel() > 1 and isinstance(given.get("repeats"), Labels):
            state.freeze(f, f"repeated unequally by {state.where}")
        else:
            fields.append(compress(_apply(node, f)))
    return state.settle(fields, shape)


RULES = {
    **dict.fromkeys(["expand", "squeeze", "unsqueeze", "broadcast_to"], moved),
    "expand_as": expanded_as,
    **dict.fromkeys(
        ["view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "_unsafe_view"],
        reshaped,
    ),
    **dict.fromkeys(["permute", "transpose", "t", "movedim", "swapaxes", "swapdims"], permuted),
    **dict.fromkeys(["numpy_T", "mT", "adjoint"], permuted),
    **dict.fromkeys(["select", "unbind"], selected),
    **dict.fromkeys(["slice", "narrow"], sliced),
    **dict.fromkeys(
        ["split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split"],
        split,
    ),
    **dict.fromkeys(["repeat", "tile", "repeat_interleave"], repeated),
}
