"""Argument checks and dtype handling shared by the functions of the perspective term."""

from typing import NamedTuple

import torch
from torch import Tensor

from mipprune.errors import InputError

Coefficient = float | Tensor


class Term(NamedTuple):
    """Arguments of one call, checked, on one device and in the computing dtype.

    Attributes
    ----------
    w : Tensor, (..., G, n)
        Groups; entries outside ``valid`` are zero.
    a, b : Tensor, broadcastable to (..., G)
        Ridge and count coefficients.
    big_m : Tensor, broadcastable to (..., G, n)
        Bounds, positive, possibly infinite; one where ``valid`` is False.
    """

    w: Tensor
    a: Tensor
    b: Tensor
    big_m: Tensor


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for the half precisions, whose range is too short for squares."""
    return torch.float32 if torch.finfo(dtype).bits < 32 else dtype


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return float64 where the device has it: small weights square to below float32's range."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def require_float(name: str, tensor: object) -> Tensor:
    """Return ``tensor`` if it is a floating-point tensor, else raise InputError."""
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"{name} is a {type(tensor).__name__}; expected a torch tensor of floating-point "
            f"dtype: convert it with torch.as_tensor"
        )
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has dtype {tensor.dtype}; expected a floating-point dtype: "
            f"convert it with {name}.float()"
        )
    return tensor


def as_coefficient(name: str, value: object, like: Tensor) -> Tensor:
    """Bring a number or a tensor to the dtype and device of ``like``."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise InputError(f"{name} has dtype {value.dtype}; expected real numbers")
        return value.to(dtype=like.dtype, device=like.device)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} is a {type(value).__name__}; expected a number or a tensor")
    try:
        return torch.full((), float(value), dtype=like.dtype, device=like.device)
    except OverflowError as error:
        raise InputError(f"{name} is an integer beyond float64; expected a number") from error


def require_broadcast(name: str, tensor: Tensor, shape: torch.Size, hint: str) -> None:
    """Raise InputError unless ``tensor`` broadcasts to exactly ``shape``."""
    given = tuple(tensor.shape)
    padded = (1,) * (len(shape) - len(given)) + given
    fits = len(padded) == len(shape) and all(
        have in (1, want) for have, want in zip(padded, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"{name} has shape {given}; expected one that broadcasts to {tuple(shape)}: {hint}"
        )


def reject(*findings: tuple[Tensor, str]) -> None:
    """Raise InputError with the message of the first condition that holds anywhere.

    The contents of a tensor can be read neither while a graph is traced nor inside
    ``torch.func.vmap``; there the check is left out and bad numbers propagate.
    """
    if torch.compiler.is_compiling():
        return
    anywhere = torch.stack([condition.any() for condition, _ in findings]).any()
    try:
        found = bool(anywhere)
    except RuntimeError:
        return
    if found:
        raise InputError(next(message for condition, message in findings if condition.any()))


def coefficients_of_alpha(alpha: Coefficient, check: bool) -> tuple[Coefficient, Coefficient]:
    """Return (alpha, 1 - alpha) after checking 0 < alpha < 1."""
    expected = "expected 0 < alpha < 1: alpha weighs the ridge, 1 - alpha the count"
    if isinstance(alpha, Tensor):
        if check:
            reject((~((alpha > 0) & (alpha < 1)), f"alpha has entries outside (0, 1); {expected}"))
    elif isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise InputError(f"alpha is a {type(alpha).__name__}; expected a number or a tensor")
    elif not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; {expected}")
    return alpha, 1 - alpha


def bound_findings(big_m: Tensor) -> tuple[Tensor, str]:
    """Return the condition and the message for bounds that are not positive."""
    return (
        ~(big_m > 0),
        "big_m has entries that are zero, negative or NaN; expected positive bounds on |w| "
        "(infinity for none): put a floor under bounds measured on a reference network",
    )


def coefficient_findings(a: Tensor, b: Tensor) -> list[tuple[Tensor, str]]:
    """Return conditions and messages for coefficients out of range."""
    return [
        (
            ~((a > 0) & torch.isfinite(a)),
            "a has entries that are not positive and finite; the ridge coefficient must be > 0",
        ),
        (
            ~((b >= 0) & torch.isfinite(b)),
            "b has entries that are negative or not finite; the count coefficient must be >= 0",
        ),
    ]


def prepare(
    name: str,
    w: Tensor,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    valid: Tensor | None,
    check: bool,
    dtype: torch.dtype | None = None,
) -> Term:
    """Check the arguments of one call and bring them to one dtype and device."""
    require_float(name, w)
    if w.dim() < 1 or w.shape[-1] == 0:
        raise InputError(
            f"{name} has shape {tuple(w.shape)}; expected (..., groups, n) with n >= 1 entries"
        )
    work = w.to(dtype or computing_dtype(w.dtype))
    a, b = as_coefficient("a", a, work), as_coefficient("b", b, work)
    bound = as_coefficient("big_m", big_m, work)
    groups = w.shape[:-1]
    require_broadcast("a", a, groups, "one coefficient per group")
    require_broadcast("b", b, groups, "one coefficient per group")
    require_broadcast("big_m", bound, w.shape, "one bound per group has shape (groups, 1)")
    if valid is not None:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            raise InputError("valid must be a bool tensor, True at the entries that count")
        require_broadcast("valid", valid, w.shape, "one flag per entry")
        work = torch.where(valid, work, torch.zeros_like(work))
        bound = torch.where(valid, bound, torch.ones_like(bound))
    if check:
        reject(
            (~torch.isfinite(work), f"{name} has entries that are NaN or infinite"),
            bound_findings(bound),
            *coefficient_findings(a, b),
        )
    return Term(work, a, b, bound)
