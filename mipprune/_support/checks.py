"""Checks of arguments at public entries: what was given, what is expected, in one line.

Each function returns the value in the type the library goes on with, or raises
:class:`mipprune.errors.InputError`. A bool is not taken for a number, a text not for a
list, and nothing else than a bool for a switch: ``resume="no"`` would mean yes.
"""

import difflib
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError

__all__ = [
    "require_callable",
    "require_choice",
    "require_flag",
    "require_flags",
    "require_floats",
    "require_instance",
    "require_integer",
    "require_iterable",
    "require_mapping",
    "require_number",
    "require_path",
    "require_real",
    "require_text",
    "require_time_limit",
    "shown",
    "suggestion",
]

T = TypeVar("T")

LONGEST_SHOWN = 60
_ORDER = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def shown(value: object) -> str:
    """``value`` for a message: short, with its type where the text does not tell it."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape):
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"{type(value).__name__} {dtype} of shape {tuple(shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}, not an object of it"
    if isinstance(value, int) and abs(value) >= 10**18:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, Real | complex):
        return repr(value)
    # Anything else, a whole network or data set, may have pages of text: its type says enough.
    if not isinstance(value, str | bytes | list | tuple | dict | set | os.PathLike):
        return f"an object of type {type(value).__name__}"
    text = repr(value)
    text = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."
    return f"the text {text}" if isinstance(value, str) else f"the {type(value).__name__} {text}"


def suggestion(given: object, known: Iterable[str]) -> str:
    """``"; did you mean a or b?"``, empty where nothing is close."""
    close = difflib.get_close_matches(str(given), list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def require_instance(
    name: str, value: object, kind: type[T] | tuple[type[T], ...], hint: str = ""
) -> T:
    """``value`` if it is a ``kind``; ``hint`` says how to get one."""
    if isinstance(value, kind):
        return value
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(one.__name__ for one in kinds)
    raise InputError(
        f"{name}: expected {_article(expected)} {expected}, got {shown(value)}"
        + (f"; {hint}" if hint else "")
    )


def require_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
    unit: str = "",
    alternative: str = "",
) -> float:
    """``value`` as a float within the limits.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
    above, below : float
        Limits that are not reached.
    at_least, at_most : float
        Limits that may be reached.
    finite : bool
        Whether infinity is refused; NaN always is.
    unit : str
        Such as seconds; "number" where there is none.
    alternative : str
        What else the argument may be, such as "or None".
    """
    number = _as_float(value)
    limits = {">": above, ">=": at_least, "<": below, "<=": at_most}
    given = {sign: limit for sign, limit in limits.items() if limit is not None}
    allowed = not math.isnan(number) if not finite else math.isfinite(number)
    if not (allowed and all(_ORDER[sign](number, limit) for sign, limit in given.items())):
        what = unit or ("a finite number" if finite else "a number")
        ranges = " and ".join(f"{sign} {limit:g}" for sign, limit in given.items())
        words = [what, ranges, alternative]
        expected = " ".join(word for word in words if word)
        raise InputError(f"{name}: expected {expected}, got {shown(value)}")
    return number


def require_real(**values: object) -> None:
    """Refuse values that are no real numbers; ranges are checked where they are known."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | Real):
            raise InputError(f"{name} must be a number, got {shown(value)}")


def require_flags(**values: object) -> None:
    """Refuse values that are neither True nor False."""
    for name, value in values.items():
        require_flag(name, value)


def require_time_limit(value: object, *, zero: bool = False) -> float | None:
    """``value`` as seconds, infinity allowed, or None; ``zero`` says whether 0 is."""
    if value is None:
        return None
    least, above = (0.0, None) if zero else (None, 0.0)
    return require_number(
        "time_limit",
        value,
        at_least=least,
        above=above,
        finite=False,
        unit="seconds",
        alternative="or None",
    )


def _as_float(value: object) -> float:
    """NaN for what is no real number, or an integer beyond float64."""
    if isinstance(value, bool) or not isinstance(value, int | float | Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def require_integer(
    name: str,
    value: object,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    alternative: str = "",
) -> int:
    """``value`` as an int within the limits; 2.0 is not one."""
    number = int(value) if _is_integer(value) else None
    low = at_least is None or (number is not None and number >= at_least)
    high = at_most is None or (number is not None and number <= at_most)
    if number is None or not (low and high):
        limits = [] if at_least is None else [f">= {at_least}"]
        limits += [] if at_most is None else [f"<= {at_most}"]
        expected = " ".join(part for part in (" and ".join(limits), alternative) if part)
        raise InputError(f"{name}: expected an integer {expected}, got {shown(value)}")
    return number


def _is_integer(value: object) -> TypeGuard[int | Integral]:
    return isinstance(value, int | Integral) and not isinstance(value, bool)


def require_flag(name: str, value: object) -> bool:
    """``value`` if it is True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InputError(f"{name}: expected True or False, got {shown(value)}")


def require_choice(name: str, value: object, known: Iterable[str]) -> str:
    """``value`` if it is one of the texts ``known``, else an error that suggests one."""
    choices = list(known)
    if isinstance(value, str) and value in choices:
        return str(value)
    close = suggestion(value, choices) if isinstance(value, str) else ""
    raise InputError(f"{name}: expected one of {', '.join(choices)}, got {shown(value)}{close}")


def require_text(name: str, value: object, expected: str = "a text") -> str:
    """``value`` if it is a text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def require_floats(name: str, values: object) -> NDArray[np.float64]:
    """``values`` as a float64 array, without a copy where it is one; texts are not parsed."""
    try:
        given = np.asarray(values)
        # An object array turns None into NaN and parses texts.
        objects = given.dtype == object and not all(isinstance(x, Real) for x in given.flat)
        if objects or given.dtype.kind in "cSUmM":
            raise TypeError(f"got {shown(values)}")
        array: NDArray[np.float64] = given.astype(np.float64, copy=False)
    # A tensor that requires a gradient refuses to become an array with a RuntimeError.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name}: expected real numbers ({error})") from error
    return array


def require_path(name: str, value: object, what: str = "file") -> Path:
    """``value`` as a path; an integer would be taken for an open file by ``open``."""
    if isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    if isinstance(value, os.PathLike):
        place = os.fspath(value)
        if isinstance(place, str):
            return Path(place)
    raise InputError(f"{name}: expected the path of a {what} (a text or Path), got {shown(value)}")


def require_mapping(
    name: str, value: object, expected: str = "a mapping of names to values"
) -> Mapping[str, Any]:
    """``value`` if it is a mapping whose keys are texts."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def require_iterable(name: str, value: object, expected: str = "a list") -> Iterable[Any]:
    """``value`` if it can be read item by item; a text is not taken for its letters."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        try:
            iter(value)
        except TypeError:
            pass
        else:
            return value
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def require_callable(name: str, value: object, expected: str = "a function") -> Callable[..., Any]:
    """``value`` if it can be called."""
    if callable(value):
        return value
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeio" else "a"
