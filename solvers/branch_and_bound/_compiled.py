"""The decorator of the compiled functions."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reassociated for speed; infinities and NaN keep their meaning.
FAST_MATH = {"reassoc", "contract", "nsz"}


def compiled(function: Function) -> Function:
    """Compile to machine code, cached on disk, without the interpreter lock."""
    dispatcher = njit(cache=True, nogil=True, fastmath=FAST_MATH)(function)
    return cast(Function, dispatcher)
