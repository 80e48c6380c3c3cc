"""Removal of channels as a transaction: build, compare, return; or raise and change nothing."""

import copy
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mipprune._support.attention import plain_attention
from mipprune._support.checks import require_flag, require_instance
from mipprune.errors import RemovalError
from mipprune.graph._entry import require_groups, require_network
from mipprune.graph.example import Example, as_dtype, example_of, random_like
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.graph.surgery import check_fits, kept_names, kept_positions, slice_model, zero_axes

__all__ = ["RemovalCheck", "mask_model", "rehearse", "remove", "verify_removal"]

_log = logging.getLogger("mipprune.graph")
_FAILURES = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError,
    ArithmeticError,
)  # fmt: skip


class _MaskedFailsToRun(RemovalError):
    """The network of full size does not run, so its dtype is at fault and not the removal."""


@dataclass(frozen=True)
class RemovalCheck:
    """Comparison of the smaller network with the masked one.

    Attributes
    ----------
    relative_difference : float
        Largest ``max|a - b| / max|a|`` over outputs and inputs tried.
    tolerance : float
        1e-10 in float64; scaled to the coarsest dtype the network computes in.
    dtype : torch.dtype
        That dtype.
    inputs : int
        Number of inputs compared.
    """

    relative_difference: float
    tolerance: float
    dtype: torch.dtype
    inputs: int

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance (NaN is not)."""
        return self.relative_difference <= self.tolerance


def mask_model(model: nn.Module, groups: ChannelGroups, masks: Masks) -> nn.Module:
    """A copy of full size in which removed channels are zero where they are read.

    The weights that read a removed channel are zero, so whatever a norm's bias
    or an activation makes of the channel has no effect. This is what `remove`
    must reproduce.

    Raises
    ------
    InputError, RemovalError
        Masks that do not fit the groups; groups that do not fit the model.
    """
    require_network(model)
    kept = require_groups(groups).kept(masks)
    check_fits(model, groups)
    masked = copy.deepcopy(model)
    zero_axes(masked, groups, kept, frozenset({"consume"}))
    return masked


def remove(
    model: nn.Module,
    groups: ChannelGroups,
    masks: Masks,
    *,
    example_inputs: Any = None,
    verify: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A smaller copy of ``model`` without the channels that ``masks`` drops.

    The smaller network is built beside the model and compared with
    `mask_model` on float64 copies in eval mode, on the example inputs and on
    random ones, with the model's own weights and with random weights. Nothing
    is returned if they differ. The model is never changed. train/eval mode,
    requires_grad, tied weights, dtype, device, memory format and hooks are kept.

    Parameters
    ----------
    model : torch.nn.Module
    groups : ChannelGroups
        From `channel_groups` for this model.
    masks : mapping of family name to bool array
        True = kept; families that are not named stay whole.
    example_inputs : optional
        Inputs for the comparison; default: those of `channel_groups`.
    verify : bool
        False skips the comparison (for masks that were verified before).
    generator : torch.Generator, optional
        Draws the random inputs and weights; default: seed 0.

    Raises
    ------
    RemovalError
        If the smaller network fails to run or computes something else.
    InputError
        If the masks do not fit the groups.
    """
    require_network(model)
    require_flag("verify", verify)
    kept = require_groups(groups).kept(masks)
    check_fits(model, groups)
    smaller = copy.deepcopy(model)
    slice_model(smaller, groups, kept)
    if verify:
        check = verify_removal(
            model, smaller, groups, masks, example_inputs=example_inputs, generator=generator
        )
        if not check.passed:
            raise RemovalError(
                f"the smaller {type(model).__name__} differs from the masked one by "
                f"{check.relative_difference:.2e} (relative, tolerance {check.tolerance:.0e}, "
                f"{check.dtype}); removed were: {kept_names(groups, masks)}. Nothing was changed. "
                "Name the families concerned in `ignore` of channel_groups"
            )
    return smaller


def verify_removal(
    model: nn.Module,
    smaller: nn.Module,
    groups: ChannelGroups,
    masks: Masks,
    *,
    example_inputs: Any = None,
    generator: torch.Generator | None = None,
) -> RemovalCheck:
    """Compare a smaller network with the masked one in float64 (see `remove`).

    Raises
    ------
    RemovalError
        If there are no example inputs or one of the networks fails to run.
    """
    require_network(model)
    require_network(smaller, "smaller")
    require_groups(groups)
    if generator is not None:
        require_instance(
            "generator", generator, torch.Generator, "torch.Generator().manual_seed(0)"
        )
    example = groups.example if example_inputs is None else example_of(example_inputs, None)
    if example is None:
        raise RemovalError("no example inputs to compare the networks on; give example_inputs")
    generator = generator or torch.Generator().manual_seed(0)
    kept = groups.kept(masks)
    check_fits(model, groups)
    try:
        check, second = _verify_in(torch.float64, model, smaller, groups, kept, example, generator)
    except _MaskedFailsToRun:
        check, second = _verify_in(None, model, smaller, groups, kept, example, generator)
    ranked = sorted((check, second), key=lambda c: c.relative_difference / c.tolerance)
    worst = next((c for c in (check, second) if not c.passed), ranked[-1])
    worst = replace(worst, inputs=check.inputs + second.inputs)
    if worst.dtype != torch.float64:
        _log.warning(
            "%s computes in %s even in a float64 copy: removal was compared to %.0e only",
            type(model).__name__, worst.dtype, worst.tolerance,
        )  # fmt: skip
    return worst


def _verify_in(
    dtype: torch.dtype | None,
    model: nn.Module,
    smaller: nn.Module,
    groups: ChannelGroups,
    kept: NDArray[np.bool_],
    example: Example,
    generator: torch.Generator,
) -> tuple[RemovalCheck, RemovalCheck]:
    """Compare in ``dtype`` (None: as the model is): with its own weights, with random ones."""
    inputs = [as_dtype(example, dtype), random_like(example, generator, dtype)]
    reference = _copy_in(model, dtype)
    zero_axes(reference, groups, kept, frozenset({"consume"}))
    check = _compare(reference, _copy_in(smaller, dtype), inputs, groups, kept)
    # Weights that are zero at the start (zero-initialised branches) would hide an error.
    return check, _with_random_weights(reference, groups, kept, inputs[1], generator)


def rehearse(model: nn.Module, groups: ChannelGroups, masks: Masks) -> str | None:
    """Why removal would fail for these masks, tried in float32 on random weights; None if not."""
    assert groups.example is not None
    generator = torch.Generator().manual_seed(0)
    kept = groups.kept(masks)

    def attempt(dtype: torch.dtype | None) -> RemovalCheck:
        assert groups.example is not None
        example = random_like(groups.example, generator, dtype)
        return _with_random_weights(_copy_in(model, dtype), groups, kept, example, generator)

    try:
        try:
            check = attempt(torch.float32)
        except _MaskedFailsToRun:
            check = attempt(None)
    except RemovalError as error:
        return str(error).split(". ")[0]
    if check.relative_difference <= max(1e-2, check.tolerance):
        return None
    return f"the smaller network differed by {check.relative_difference:.0e} when tried"


def _with_random_weights(
    model: nn.Module,
    groups: ChannelGroups,
    kept: NDArray[np.bool_],
    example: Example,
    generator: torch.Generator,
) -> RemovalCheck:
    """Compare with random weights in ``model``, which is overwritten."""
    _randomise(model, generator)
    smaller = copy.deepcopy(model)
    slice_model(smaller, groups, kept)
    zero_axes(model, groups, kept, frozenset({"consume"}))
    return _compare(model, smaller, [example], groups, kept)


def _copy_in(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    copied = copy.deepcopy(model).eval()
    return copied if dtype is None else copied.to(dtype)


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights of unit gain, norm statistics and scales of order one."""
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator).div_(fan_in**0.5)
            parameter.copy_(noise.add_(1.0) if parameter.dim() == 1 else noise)
        for module in model.modules():
            if (
                isinstance(module, nn.modules.batchnorm._NormBase)
                and module.running_var is not None
            ):
                shape = module.running_var.shape
                uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
                module.running_var.copy_(0.5 + uniform)
                assert module.running_mean is not None
                module.running_mean.copy_(torch.randn(shape, generator=generator))


class _KeptStatistics(TorchFunctionMode):
    """Layer and RMS norms of the masked network: statistics over kept channels only."""

    def __init__(self, groups: ChannelGroups, kept: NDArray[np.bool_]) -> None:
        super().__init__()
        self._index = {call: kept_positions(owner, kept) for call, owner in groups.norms.items()}
        self._call = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in ("layer_norm", "rms_norm"):
            return func(*args, **(kwargs or {}))
        index = self._index.get(self._call)
        self._call += 1
        if index is None:
            return func(*args, **(kwargs or {}))
        return _norm_of_kept(func, index, *args, **(kwargs or {}))


def _norm_of_kept(
    func: Any,
    index: Tensor,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    *rest: Any,
    **options: Any,
) -> Tensor:
    """The norm over the positions ``index`` of the last dimension; zero elsewhere."""
    index = index.to(x.device)
    short = [t.index_select(0, index) if isinstance(t, Tensor) else t for t in (weight, *rest)]
    named = {
        k: v.index_select(0, index) if isinstance(v, Tensor) else v for k, v in options.items()
    }
    part = func(x.index_select(-1, index), (index.numel(),), *short, **named)
    return torch.zeros_like(x).index_copy(-1, index, part)


class _Coarsest(TorchDispatchMode):
    """Notes the coarsest floating dtype that any operator returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.dtype = torch.float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.dim() == 0:
                continue
            if torch.finfo(leaf.dtype).eps > torch.finfo(self.dtype).eps:
                self.dtype = leaf.dtype
        return result


def _compare(
    reference: nn.Module,
    smaller: nn.Module,
    inputs: list[Example],
    groups: ChannelGroups,
    kept: NDArray[np.bool_],
) -> RemovalCheck:
    worst = 0.0
    watch = _Coarsest()
    for example in inputs:
        with torch.no_grad(), plain_attention():
            with watch, _KeptStatistics(groups, kept) if groups.norms else nullcontext():
                expected = _outputs(reference, example, "masked")
            found = _outputs(smaller, example, "smaller")
        if len(expected) != len(found):
            raise RemovalError(
                f"the smaller network returns {len(found)} tensors, not {len(expected)}"
            )
        for a, b in zip(expected, found, strict=True):
            worst = _larger(worst, _relative(a, b))
    eps = torch.finfo(watch.dtype).eps
    tolerance = 1e-10 if watch.dtype == torch.float64 else min(0.1, 500 * eps)
    return RemovalCheck(worst, tolerance, watch.dtype, len(inputs))


def _larger(a: float, b: float) -> float:
    return a if a != a or a > b else b


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise RemovalError(
            f"the smaller network returns {b.dtype} {tuple(b.shape)}, "
            f"the masked one {a.dtype} {tuple(a.shape)}"
        )
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or torch.isnan(a).any():
        return float("nan")
    a, b = a[finite].double(), b[finite].double()
    if a.numel() == 0:
        return float("nan")
    scale = float(a.abs().max())
    return float((a - b).abs().max()) / scale if scale > 0 else float(b.abs().max())


def _outputs(network: nn.Module, example: Example, which: str) -> list[Tensor]:
    try:
        result = network(*example.args, **example.kwargs)
    except _FAILURES as error:
        first = (str(error).strip().splitlines() or [""])[0]
        failure = _MaskedFailsToRun if which == "masked" else RemovalError
        raise failure(
            f"the {which} network fails to run: {type(error).__name__}: {first}. A size "
            "written into the forward pass does not follow the removal; keep it as an attribute, "
            "take it from the tensor's shape, or name the layers in `ignore` of channel_groups"
        ) from error
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
