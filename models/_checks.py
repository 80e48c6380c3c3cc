"""Checks of the arguments that all networks share."""

from collections.abc import Sequence

from mipprune._support.checks import require_iterable
from mipprune.errors import InputError

__all__ = ["image_pair", "positive", "scaled"]


def positive(name: str, value: int) -> int:
    """``value`` if it is an integer of at least 1, else an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def image_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from one number or a pair."""
    one = isinstance(image_size, int)
    sizes = [image_size] * 2 if one else require_iterable("image_size", image_size, "a size or two")
    pair = tuple(sizes)
    if len(pair) != 2:
        raise InputError(f"image_size must be one number or (height, width), got {image_size!r}")
    return positive("image height", pair[0]), positive("image width", pair[1])


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded, at least 1."""
    if not width > 0:
        raise InputError(f"width must be a positive factor, got {width!r}")
    return max(1, round(channels * width))
