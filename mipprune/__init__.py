"""Mixed-integer optimisation for structured pruning of neural networks.

The names below are loaded on first use, so ``import mipprune`` loads neither
torch nor pyomo nor cvxpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mipprune import errors

if TYPE_CHECKING:
    from mipprune.calibration import apply_weights, calibrate
    from mipprune.certificate import verify
    from mipprune.graph import (
        Budgets,
        ChannelGroups,
        carry_optimizer,
        channel_groups,
        count_macs,
        count_parameters,
        remove,
        restore,
        spec,
    )
    from mipprune.pipeline import (
        CompareConfig,
        CompressOptions,
        PruneConfig,
        compare,
        compress,
        prune,
    )
    from mipprune.problem import ChannelSelection, Solution, Term
    from mipprune.relaxation import certify, path, relax
    from mipprune.solvers import solve

# Module -> the public names that are found there.
_ROOMS = {
    "mipprune.calibration": ("apply_weights", "calibrate"),
    "mipprune.certificate": ("verify",),
    "mipprune.graph": (
        "Budgets",
        "ChannelGroups",
        "carry_optimizer",
        "channel_groups",
        "count_macs",
        "count_parameters",
        "remove",
        "restore",
        "spec",
    ),
    "mipprune.pipeline": (
        "CompareConfig",
        "CompressOptions",
        "PruneConfig",
        "compare",
        "compress",
        "prune",
    ),
    "mipprune.problem": ("ChannelSelection", "Solution", "Term"),
    "mipprune.relaxation": ("certify", "path", "relax"),
    "mipprune.solvers": ("solve",),
}
_EXPORTS = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Budgets",
    "ChannelGroups",
    "ChannelSelection",
    "CompareConfig",
    "CompressOptions",
    "PruneConfig",
    "Solution",
    "Term",
    "apply_weights",
    "calibrate",
    "carry_optimizer",
    "certify",
    "channel_groups",
    "compare",
    "compress",
    "count_macs",
    "count_parameters",
    "errors",
    "path",
    "prune",
    "relax",
    "remove",
    "restore",
    "solve",
    "spec",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mipprune' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
