"""Labels through operators that act element by element, and through constants."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from mipprune.graph.labeller import Arguments, Labeller, labels_in, result_like
from mipprune.graph.labels import Labels, varying

__all__ = ["RULES", "join"]


def join(state: Labeller, operands: Sequence[Labels], shape: tuple[int, ...]) -> Labels:
    """Labels of an elementwise result: channels at the same place are tied.

    An operand of size 1 along a dimension is repeated and constrains nothing
    there. An operand that has its full size but no channels there makes the
    extent of that dimension fixed.
    """
    real = [labels for labels in operands if not labels.wild]
    if not real:
        return Labels(shape, wild=bool(operands))
    result: list[Tensor] = []
    for labels in real:
        for f in labels.fields:
            result = _merge(state, result, f.expand(shape))
    for labels in real:
        offset = len(shape) - len(labels.shape)
        own = {d + offset for f in labels.fields for d in varying(f)}
        full = {d + offset for d, n in enumerate(labels.shape) if n > 1} - own
        pinned = [state.pin(f, full) for f in result]
        result = [f for f in pinned if f is not None]
    return state.settle(result, shape)


def _merge(state: Labeller, result: list[Tensor], f: Tensor) -> list[Tensor]:
    """Add ``f`` to fields that do not share dimensions with one another."""
    merged = f
    rest = []
    for g in result:
        ours, theirs = varying(merged), varying(g)
        if not set(ours) & set(theirs):
            rest.append(g)
        elif ours == theirs:
            state.tie(merged, g)
        else:
            smaller, larger = (merged, g) if len(ours) < len(theirs) else (g, merged)
            kept = _nested(state, smaller, larger)
            if kept is None:
                return rest + [h for h in result if h is not g and all(h is not r for r in rest)]
            merged = kept
    return [*rest, merged]


def _nested(state: Labeller, smaller: Tensor, larger: Tensor) -> Tensor | None:
    """Combine a field with one over more dimensions.

    Per-element channels of the inner dimension (a norm over each head) have to
    stay where the outer ones (the heads) may go: the smaller field is frozen.
    """
    inner, outer = varying(smaller), varying(larger)
    if set(inner) < set(outer) and outer[0] not in inner:
        state.freeze(smaller, f"shared by all parts at {state.where}")
        return state.pin(larger, inner)
    state.tie(smaller, larger)
    return state.collapse(larger, [d for d in outer if d not in inner])


def pointwise(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Every tensor argument at its place."""
    operands = labels_in(list(given.values()))
    return result_like(node.meta["val"], lambda shape: join(state, operands, shape))


def same(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """The result carries the labels of the first tensor argument."""
    labels = labels_in(list(given.values()))[0]
    return result_like(
        node.meta["val"], lambda shape: labels if shape == labels.shape else Labels(shape)
    )


def constant(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """A fill with one value; its size may follow any other tensor."""
    return result_like(node.meta["val"], lambda shape: Labels(shape, wild=True))


def fixed(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Values that belong to no channel."""
    return result_like(node.meta["val"], lambda shape: Labels(shape))


def batch_norm(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Per-channel statistics and affine terms of dimension 1."""
    return _per_channel(
        state, given["input"], [given[k] for k in ("weight", "bias", "running_mean", "running_var")]
    )


def prelu(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """One slope for all, or one per channel of dimension 1."""
    weight = given["weight"]
    return _per_channel(state, given["self"], [weight] if weight.shape[0] > 1 else [])


def _per_channel(state: Labeller, x: Labels, tensors: Sequence[Labels | None]) -> Labels:
    dim = 1 if len(x.shape) > 1 else 0
    along, rest = state.axis(x, dim)
    for tensor in tensors:
        if tensor is not None:
            own, _ = state.axis(tensor, 0)
            state.tie(along, own)
    if not bool(along.any()):
        return state.settle(rest, x.shape)
    return state.settle([*rest, state.along(along, dim, x.shape)], x.shape)


def ignored(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """A check that produces nothing."""
    return None


RULES = {
    "pointwise": pointwise,
    **dict.fromkeys(
        [
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "feature_alpha_dropout",
            "hardswish",
            "relu6",
            "clone",
            "contiguous",
            "to",
            "_to_copy",
            "detach",
            "alias",
            "type_as",
            "lift_fresh_copy",
            "zeros_like",
            "ones_like",
            "full_like",
            "rand_like",
            "randn_like",
            "empty_like",
            "bernoulli",
            "native_dropout",
            "positive",
            "_log_softmax_backward_data",
        ],
        same,
    ),
    **dict.fromkeys(
        ["rsub", "copy", "fill", "masked_fill", "__and__", "__or__", "__xor__", "lerp"], pointwise
    ),
    **dict.fromkeys(
        ["zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty", "new_empty"],
        constant,
    ),
    **dict.fromkeys(
        ["arange", "eye", "linspace", "scalar_tensor", "tril_indices", "triu_indices"], fixed
    ),
    **dict.fromkeys(
        [
            "batch_norm",
            "_native_batch_norm_legit_no_training",
            "native_batch_norm",
            "instance_norm",
        ],
        batch_norm,
    ),
    "_native_batch_norm_legit_no_training": lambda s, n, g: (batch_norm(s, n, g), None, None),
    "prelu": prelu,
    "_assert_tensor_metadata": ignored,
    "_assert_async": ignored,
    "_assert_scalar": ignored,
}
