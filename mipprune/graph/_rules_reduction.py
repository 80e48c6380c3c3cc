"""Labels through reductions, normalisations, pooling and resizing."""

from collections.abc import Iterable
from math import prod
from typing import Any

from torch import Tensor, fx

from mipprune.graph._rules_elementwise import join
from mipprune.graph.labeller import Arguments, Labeller, labels_in, result_like
from mipprune.graph.labels import Labels, line, varying

__all__ = ["RULES"]


def reduced(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """sum, mean, amax ... over dimensions: channels there stay."""
    if "other" in given:
        return join(state, labels_in(list(given.values())), tuple(node.meta["val"].shape))
    x: Labels = given["self"]
    dims = given.get("dim")
    if dims is None:
        dims = range(len(x.shape))
    elif isinstance(dims, int):
        dims = [dims]
    where = {d % max(1, len(x.shape)) for d in dims} or set(range(len(x.shape)))
    fields = _pinned(state, x, where, "reduced over")
    keep = bool(given.get("keepdim", False))

    def result(shape: tuple[int, ...]) -> Labels:
        return state.settle([_dropped(f, where, keep).expand(shape) for f in fields], shape)

    return result_like(node.meta["val"], result)


def _pinned(state: Labeller, x: Labels, dims: Iterable[int], verb: str) -> list[Tensor]:
    pinned = [state.pin(f, dims, f"{verb} by {state.where}") for f in x.fields]
    return [f for f in pinned if f is not None]


def _dropped(f: Tensor, dims: set[int], keep: bool) -> Tensor:
    for d in dims:
        f = f.narrow(d, 0, 1)
    if keep:
        return f
    return f.reshape([n for d, n in enumerate(f.shape) if d not in dims])


def normalised(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """softmax, cumsum, sort ...: elements along one dimension depend on one another."""
    x: Labels = given["self"]
    fields = _pinned(state, x, [given["dim"] % max(1, len(x.shape))], "normalised over")
    return result_like(node.meta["val"], lambda shape: state.settle(fields, shape))


def layer_norm(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """layer_norm, rms_norm: statistics over the last dimensions."""
    x: Labels = given["input"]
    rank = len(x.shape)
    over = range(rank - len(given["normalized_shape"]), rank)
    whole = [f for f in x.fields if state.prune_normalised and varying(f) == tuple(over)]
    others = Labels(x.shape, tuple(f for f in x.fields if all(f is not w for w in whole)))
    fields = whole + _pinned(state, others, over, "statistics over the channels are taken")
    for f in whole:
        state.norms[node.meta["norm_call"]] = line(f, rank - 1)
        state.site(line(f, rank - 1), "normalized_shape")
    operands = [Labels(x.shape, tuple(fields))]
    operands += [t for t in (given["weight"], given.get("bias")) if t is not None]
    result = join(state, operands, x.shape)
    return result_like(node.meta["val"], lambda shape: result)


def group_norm(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """group_norm: whole groups of channels can go, the statistics of others do not change."""
    x: Labels = given["input"]
    along, rest = state.axis(x, 1)
    groups = along.view(int(given["num_groups"]), -1)
    state.tie(groups, groups[:, :1])
    for tensor in (given["weight"], given["bias"]):
        if tensor is not None:
            own, _ = state.axis(tensor, 0)
            state.tie(along, own)
    if groups.size(0) == 1:
        state.freeze(along, f"statistics over all channels are taken by {state.where}")
    state.site(groups[:, :1], "num_groups")
    fields = [*rest, state.along(groups[:, :1].expand(groups.shape).reshape(-1), 1, x.shape)]
    return state.settle(fields, x.shape)


def spatial(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Pooling and resizing: trailing dimensions mix, the others are handed on."""
    x: Labels = next(iter(given.values()))
    value = node.meta["val"]
    rank = len(x.shape)
    assert hasattr(node.target, "_schema")
    name = node.target._schema.name
    digits = [int(c) for c in name if c in "123"]
    mixed = range(rank - digits[-1], rank)
    fields = _pinned(state, x, mixed, "mixed with neighbours")

    def result(shape: tuple[int, ...]) -> Labels:
        moved = []
        for f in fields:
            for d in mixed:
                f = f.narrow(d, 0, 1)
            moved.append(f.expand(shape))
        return state.settle(moved, shape)

    return result_like(value, result)


def glu(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """First half times sigmoid of the second: the i-th channels of both go together."""
    x: Labels = given["self"]
    shape = tuple(node.meta["val"].shape)
    dim = given["dim"] % len(shape)
    along, rest = state.axis(x, dim)
    half = shape[dim]
    if bool(along.any()):
        state.tie(along[:half], along[half:])
        rest = [*rest, state.along(along, dim, x.shape)]
    return state.settle([f.narrow(dim, 0, half) for f in rest], shape)


def vector_norm(state: Labeller, node: fx.Node, given: Arguments) -> Any:
    """Weight normalisation: one norm for each slice along ``dim``."""
    v: Labels = given["v"]
    dim = given["dim"]
    over = [d for d in range(len(v.shape)) if d != dim]
    fields = _pinned(state, v, over, "normalised over")
    result = join(state, [Labels(v.shape, tuple(fields)), given["g"]], v.shape)
    if prod(v.shape) == 0:
        return Labels(v.shape)
    return result_like(
        node.meta["val"], lambda shape: result if shape == v.shape else Labels(shape)
    )


RULES = {
    **dict.fromkeys(
        [
            "sum",
            "mean",
            "amax",
            "amin",
            "max",
            "min",
            "prod",
            "var",
            "std",
            "norm",
            "linalg_vector_norm",
            "logsumexp",
            "argmax",
            "argmin",
            "any",
            "all",
            "median",
            "count_nonzero",
            "nansum",
            "nanmean",
            "std_mean",
            "var_mean",
        ],
        reduced,
    ),
    **dict.fromkeys(
        [
            "softmax",
            "log_softmax",
            "_softmax",
            "_log_softmax",
            "cumsum",
            "cumprod",
            "sort",
            "argsort",
            "logcumsumexp",
            "cummax",
            "cummin",
        ],
        normalised,
    ),
    **dict.fromkeys(["layer_norm", "rms_norm"], layer_norm),
    "group_norm": group_norm,
    **dict.fromkeys(
        [
            "max_pool1d",
            "max_pool2d",
            "max_pool3d",
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
            "adaptive_avg_pool1d",
            "adaptive_avg_pool2d",
            "adaptive_avg_pool3d",
            "adaptive_max_pool1d",
            "adaptive_max_pool2d",
            "adaptive_max_pool3d",
            "max_pool2d_with_indices",
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "upsample_bilinear2d",
            "upsample_trilinear3d",
            "upsample_bicubic2d",
            "upsample_linear1d",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
            "_upsample_bilinear2d_aa",
            "_upsample_bicubic2d_aa",
            "_upsample_nearest_exact2d",
            "_upsample_nearest_exact1d",
        ],
        spatial,
    ),
    "glu": glu,
    "_weight_norm": vector_norm,
    "_weight_norm_interface": vector_norm,
}
