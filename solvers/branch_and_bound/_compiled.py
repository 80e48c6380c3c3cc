"""The decorator of the compiled functions."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

__all__ = ["NOTHING", "ZERO", "compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])

# A literal argument would compile the called function once more for that very value.
ZERO = cast(int, np.int64(0))
NOTHING = cast(int, np.int64(-1))

# Sums may be reassociated for speed; infinities and NaN keep their meaning.
FAST_MATH = {"reassoc", "contract", "nsz"}


def compiled(function: Function) -> Function:
    """Compile to machine code, cached on disk, without the interpreter lock."""
    dispatcher = njit(cache=True, nogil=True, fastmath=FAST_MATH)(function)
    return cast(Function, dispatcher)
