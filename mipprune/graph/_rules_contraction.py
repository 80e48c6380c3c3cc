"""Labels through convolutions, linear layers, matrix products and attention."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from mipprune.graph._rules_elementwise import join
from mipprune.graph.labeller import Arguments, Labeller
from mipprune.graph.labels import Labels, compress, varying

__all__ = ["RULES", "contract"]


def convolution(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Convolution of any dimension, grouped or not; also the transposed one."""
    x: Labels = given["input"]
    weight: Labels = given["weight"]
    shape = tuple(node.meta["val"].shape)
    assert isinstance(node.target, torch._ops.OpOverload)
    transposed = "transpose" in node.target._schema.name or bool(given.get("transposed"))
    channel = len(shape) - len(weight.shape) + 1
    along, rest = state.axis(x, channel)
    for f in rest:
        state.freeze(f, f"positions, not channels, at {state.where}")
    first, _ = state.axis(weight, 0)
    second, _ = state.axis(weight, 1)
    for f in weight.fields:
        if not set(varying(f)) & {0, 1}:
            state.freeze(f, "positions of a kernel")
    groups = int(given["groups"])
    read, written = (first, second) if transposed else (second, first)
    out = _grouped(state, along, read, written, groups, transposed)
    bias: Labels | None = given["bias"]
    if bias is not None:
        own, _ = state.axis(bias, 0)
        state.tie(own, out)
        state.produce(own)
    if not state.static(node, weight):
        state.freeze(along, f"read with computed weights by {state.where}")
        state.freeze(written, f"written with computed weights by {state.where}")
    state.consume(read)
    state.produce(written)
    kernel = prod(weight.shape)
    positions = x.shape if transposed else shape
    state.count(float(kernel) * positions[0] * prod(positions[channel + 1 :]), [first, second])
    return state.settle([state.along(out, channel, shape)], shape)


def _grouped(
    state: Labeller, along: Tensor, read: Tensor, written: Tensor, groups: int, transposed: bool
) -> Tensor:
    """Tie the channels read with the weight; labels (out channels,) of the result."""
    if groups == 1:
        state.tie(along, read, f"read together with channels that stay by {state.where}")
        return written
    per_group = along.numel() // groups
    if transposed:
        return _grouped_transposed(state, along, read, written, groups)
    outputs = written.view(groups, -1)
    if per_group == 1:
        state.tie(outputs, along.view(groups, 1))
        state.site(along, "groups")
        return written
    inputs = along.view(groups, per_group)
    state.tie(inputs, read.view(1, per_group))
    if outputs.size(1) > 1:
        state.box(outputs, equal_along=0)
    else:
        state.freeze(written, f"one output channel for each group of {state.where}")
    return written


def _grouped_transposed(
    state: Labeller, along: Tensor, read: Tensor, written: Tensor, groups: int
) -> Tensor:
    """Weight (in, out / groups, ...): the i-th outputs of all groups share one weight slice."""
    state.tie(along, read)
    rows = along.view(groups, -1)
    if rows.size(1) == 1 and written.numel() == 1:
        state.site(along, "groups")
        return along
    if rows.size(1) == 1:
        state.freeze(along, f"one input channel for each group of {state.where}")
    else:
        state.box(rows, equal_along=0)
    if written.numel() == 1:
        state.freeze(along, f"one output channel for each group of {state.where}")
    return written.repeat(groups)


def linear(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """y = x W' + b over the last dimension."""
    x, weight = given["input"], given["weight"]
    letters = list(range(len(x.shape)))
    if len(weight.shape) == 1:
        return contract(state, node, x, weight, letters, [letters[-1]], letters[:-1])
    new = len(letters)
    result = contract(state, node, x, weight, letters, [new, letters[-1]], [*letters[:-1], new])
    return _plus_bias(state, result, given["bias"])


def _plus_bias(state: Labeller, result: Labels, bias: Labels | None) -> Labels:
    if bias is None:
        return result
    for f in bias.fields:
        state.produce(f)
    return join(state, [result, bias], result.shape)


def addmm(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """addmm, baddbmm: a matrix product plus a tensor."""
    a = given.get("mat1", given.get("batch1"))
    b = given.get("mat2", given.get("batch2"))
    result = matmul(state, node, {"self": a, "other": b})
    return _plus_bias(state, result, given["self"])


def matmul(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """mm, bmm, matmul, mv, dot with broadcasting batch dimensions."""
    a: Labels = given["self"]
    b: Labels = next(v for k, v in given.items() if k != "self" and isinstance(v, Labels))
    rank = max(len(a.shape), len(b.shape))
    batch = list(range(rank))
    left = [*batch[rank - len(a.shape) :][:-2], 100, 101] if len(a.shape) > 1 else [101]
    right = [*batch[rank - len(b.shape) :][:-2], 101, 102] if len(b.shape) > 1 else [101]
    out = [*batch[: rank - 2], *(letter for letter in (100, 102) if letter in left + right)]
    return contract(state, node, a, b, left, right, out)


def einsum(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Einsum of two operands without repeated or summed-alone letters."""
    equation = given["equation"].replace(" ", "")
    operands: list[Labels] = list(given["tensors"])
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    plain = output and "." not in equation and len(operands) == 2
    plain = plain and all(len(set(t)) == len(t) for t in terms)
    plain = plain and set(terms[0]) ^ set(terms[1]) <= set(output)
    if not plain:
        return state.unknown(node)
    code = [[ord(c) for c in t] for t in (*terms, output)]
    return contract(state, node, operands[0], operands[1], code[0], code[1], code[2])


def contract(
    state: Labeller,
    node: fx.Node,
    a: Labels,
    b: Labels,
    left: Sequence[int],
    right: Sequence[int],
    out: Sequence[int],
) -> Labels:
    """Sum of products over the letters that both have and the result has not.

    Channels along summed letters are read (one side must be a parameter, so
    that zeroing it is removal); along letters that both and the result have,
    they are tied; along the others they are handed on. A field over several
    kinds of letters is reduced to the outer kind: whole heads.
    """
    summed = set(left) & set(right) - set(out)
    shared = set(left) & set(right) & set(out)
    ours = _sort(state, a, left, shared, summed)
    theirs = _sort(state, b, right, shared, summed)
    shape = tuple(node.meta["val"].shape)
    size = {**dict(zip(right, b.shape, strict=True)), **dict(zip(left, a.shape, strict=True))}
    _read(
        state,
        [_arranged(f, left, sorted(summed)) for f in ours if set(_letters(f, left)) <= summed],
        [_arranged(f, right, sorted(summed)) for f in theirs if set(_letters(f, right)) <= summed],
        (state.static(node, a), state.static(node, b)),
    )
    for value, letters, fields in ((a, left, ours), (b, right, theirs)):
        if state.static(node, value):
            for f in fields:
                if not set(_letters(f, letters)) & summed:
                    state.produce(f)
    results = _hand_on(state, ours, left, shared, summed, out, shape)
    more = _hand_on(state, theirs, right, shared, summed, out, shape)
    batched = [Labels(_broadcast_shape(v, ls, out, shared)) for v, ls in ((a, left), (b, right))]
    result = join(
        state,
        [Labels(batched[0].shape, tuple(results)), Labels(batched[1].shape, tuple(more))],
        shape,
    )
    total = float(prod(shape)) * prod(size[letter] for letter in summed)
    reading = [f for f in ours if set(_letters(f, left)) <= summed]
    state.count(total, [*result.fields, *reading])
    if shape == ():
        return Labels(())
    return result


def _letters(f: Tensor, letters: Sequence[int]) -> list[int]:
    return [letters[d] for d in varying(f)]


def _sort(
    state: Labeller, value: Labels, letters: Sequence[int], shared: set[int], summed: set[int]
) -> list[Tensor]:
    """Fields that each vary over letters of one kind only."""
    fields = []
    for f in value.fields:
        have = set(_letters(f, letters))
        if have & shared and not have <= shared:
            f = state.collapse(f, [d for d in varying(f) if letters[d] not in shared])
        elif have & summed and not have <= summed:
            f = state.collapse(f, [d for d in varying(f) if letters[d] in summed])
        fields.append(f)
    return fields


def _read(state: Labeller, a: list[Tensor], b: list[Tensor], static: tuple[bool, bool]) -> None:
    """Tie the channels along the summed letters of both sides."""
    for one, other in ((a, b), (b, a)):
        covered = {d for g in other for d in varying(g)}
        for g in one:
            missing = [d for d in varying(g) if d not in covered]
            state.pin(g, missing, f"summed over with something that stays by {state.where}")
    for g in a:
        for h in b:
            if set(varying(g)) & set(varying(h)):
                state.tie(g, h)
    for fields, is_static in ((a, static[0]), (b, static[1])):
        for g in fields:
            if not any(static):
                state.freeze(g, f"summed over in a product of two activations by {state.where}")
            elif is_static:
                state.consume(g)


def _arranged(f: Tensor, letters: Sequence[int], order: Sequence[int]) -> Tensor:
    """The field with dimensions ``order`` only."""
    for d in range(f.dim()):
        if letters[d] not in order:
            f = f.narrow(d, 0, 1)
    kept = [letters[d] for d in range(f.dim()) if letters[d] in order]
    f = f.reshape([n for d, n in enumerate(f.shape) if letters[d] in order])
    return f.permute([kept.index(letter) for letter in order])


def _hand_on(
    state: Labeller,
    fields: list[Tensor],
    letters: Sequence[int],
    shared: set[int],
    summed: set[int],
    out: Sequence[int],
    shape: tuple[int, ...],
) -> list[Tensor]:
    """Fields that survive into the result, in the result's dimensions."""
    results = []
    for f in fields:
        if set(_letters(f, letters)) <= summed:
            continue
        for d in range(f.dim()):
            if letters[d] in summed or f.stride(d) == 0:
                f = f.narrow(d, 0, 1)
        kept = [d for d in range(f.dim()) if letters[d] not in summed]
        f = f.permute([*kept, *(d for d in range(f.dim()) if d not in kept)])
        f = f.reshape([f.size(i) for i in range(len(kept))])
        names = [letters[d] for d in kept]
        position = {letter: i for i, letter in enumerate(names)}
        f = f.permute([position[letter] for letter in out if letter in position])
        size = iter(f.shape)
        f = f.reshape([next(size) if letter in position else 1 for letter in out])
        results.append(f.expand(shape))
    return results


def _broadcast_shape(
    value: Labels, letters: Sequence[int], out: Sequence[int], shared: set[int]
) -> tuple[int, ...]:
    """Shape of one operand in the result's dimensions; 1 where it has no say."""
    size = dict(zip(letters, value.shape, strict=True))
    return tuple(size.get(letter, 1) for letter in out)


def attention(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """scaled_dot_product_attention: channels along the head dimensions only."""
    q, k, v = given["query"], given["key"], given["value"]
    shape = tuple(node.meta["val"].shape)
    rank = len(shape)
    inner = (rank - 2, rank - 1)
    heads = []
    for value in (q, k, v):
        fields = []
        for f in value.fields:
            g = state.pin(f, inner, f"one dimension of a head in {state.where}")
            if g is not None:
                g = g.narrow(rank - 1, 0, 1).narrow(rank - 2, 0, 1)
                ratio = shape[rank - 3] // g.size(rank - 3) if rank > 2 else 1
                if ratio > 1:
                    g = compress(g.repeat_interleave(ratio, rank - 3))
                fields.append(g)
        batch = (*shape[:-2], 1, 1)
        heads.append(Labels(batch, tuple(f.expand(batch) for f in fields)))
    mask: Labels | None = given["attn_mask"]
    joined = join(state, heads, (*shape[:-2], 1, 1))
    if mask is not None:
        full = (*shape[:-2], *mask.shape[-2:])
        joined = join(state, [Labels((*shape[:-2], 1, 1), joined.fields), mask], full)
        joined = Labels(full, tuple(f for f in joined.fields if not set(varying(f)) & set(inner)))
    fields = [f.narrow(rank - 1, 0, 1).narrow(rank - 2, 0, 1).expand(shape) for f in joined.fields]
    result = state.settle(fields, shape)
    total = float(prod(shape[:-1])) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    state.count(total, result.fields)
    return result


def embedding(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Rows of a table: the columns are channels, the rows stay."""
    shape = tuple(node.meta["val"].shape)
    rows, _ = state.axis(given["weight"], 0)
    columns, _ = state.axis(given["weight"], 1)
    state.freeze(rows, "rows of an embedding table")
    state.produce(columns)
    return state.settle([state.along(columns, len(shape) - 1, shape)], shape)


RULES = {
    **dict.fromkeys(
        [
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "convolution",
        ],
        convolution,
    ),
    "linear": linear,
    **dict.fromkeys(["addmm", "baddbmm"], addmm),
    **dict.fromkeys(["mm", "bmm", "matmul", "mv", "dot"], matmul),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
}
