"""The check with which every function that takes a problem begins."""

from mipprune._support.checks import require_instance
from mipprune.problem._selection import ChannelSelection

__all__ = ["require_problem"]

HINT = "make one with ChannelSelection(gram, cross, energy, group_sizes) or read a problem file "
HINT += "with ChannelSelection.load(path)"


def require_problem(value: object) -> ChannelSelection:
    """``value`` if it is a problem, else an InputError that says how to get one."""
    return require_instance("problem", value, ChannelSelection, HINT)
