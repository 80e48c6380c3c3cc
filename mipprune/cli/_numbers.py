"""Types of options that are numbers: the range is in the message of a wrong one."""

import argparse
import math
import re
from argparse import Namespace
from collections.abc import Callable, Sequence

from mipprune.errors import InputError

__all__ = ["at_least", "refuse_bare_percentages", "seconds", "seconds_or_none_left"]

BARE = re.compile(r"\s*([0-9]+(\.[0-9]*)?)\s*")


def at_least(smallest: int) -> Callable[[str], int]:
    """Type of an option that is an integer from ``smallest`` upwards."""

    def check(given: str) -> int:
        try:
            number = int(given)
        except ValueError:
            number = smallest - 1
        if number < smallest:
            raise argparse.ArgumentTypeError(f"expected an integer >= {smallest}, got '{given}'")
        return number

    return check


def seconds(given: str) -> float:
    """Type of a time limit: seconds > 0; ``inf`` is none."""
    found = _number(given)
    if not found > 0:
        raise argparse.ArgumentTypeError(f"expected seconds > 0, got '{given}'")
    return found


def seconds_or_none_left(given: str) -> float:
    """Type of a time limit that may be 0: start nothing new."""
    found = _number(given)
    if not found >= 0:
        raise argparse.ArgumentTypeError(f"expected seconds >= 0, got '{given}'")
    return found


def _number(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        return math.nan


def refuse_bare_percentages(options: Namespace, names: Sequence[str] = ("macs", "params")) -> None:
    """``--macs 40`` asks for 40 multiply-accumulates; nearly always ``40%`` was meant."""
    for name in names:
        given = getattr(options, name)
        match = None if given is None else BARE.fullmatch(given)
        if match and 1 <= float(match[1]) <= 100:
            raise InputError(
                f"--{name} {given} is an absolute number, {given} of the network's {name}; "
                f"write {match[1]}% for what remains in percent, or {float(match[1]) / 1000:g}k "
                "where the number is meant"
            )
