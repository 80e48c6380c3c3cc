"""Mixed-integer optimisation for structured pruning of neural networks.

The names below are loaded on first use, so ``import mipprune`` loads neither
torch nor pyomo nor cvxpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mipprune import errors

if TYPE_CHECKING:
    from mipprune.pipeline import PruneConfig, prune
    from mipprune.problem import ChannelSelection, Solution, Term

# Public name -> module that defines it.
_EXPORTS = {
    "ChannelSelection": "mipprune.problem",
    "PruneConfig": "mipprune.pipeline",
    "Solution": "mipprune.problem",
    "Term": "mipprune.problem",
    "prune": "mipprune.pipeline",
}

__all__ = ["ChannelSelection", "PruneConfig", "Solution", "Term", "errors", "prune"]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mipprune' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
