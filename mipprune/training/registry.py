"""Methods by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from mipprune.errors import InputError
from mipprune.training.bar import BAR
from mipprune.training.baselines import Dense, L1Norm
from mipprune.training.geometric_median import GeometricMedian
from mipprune.training.group_lasso import GroupLasso
from mipprune.training.l0 import L0
from mipprune.training.l1_uniform import L1Uniform
from mipprune.training.method import Method
from mipprune.training.random_choice import RandomChoice
from mipprune.training.rni import RNI
from mipprune.training.slimming import Slimming
from mipprune.training.spr import SPR
from mipprune.training.spr_budget import BudgetedSPR
from mipprune.training.swd import SWD
from mipprune.training.tapering import Tapering
from mipprune.training.taylor import Taylor

__all__ = ["OFFERED", "build_method", "method_class", "method_names"]

OFFERED = (
    "reference", "budget", "total_steps", "steps_per_epoch", "seed", "evaluate", "losses", "out"
)  # fmt: skip
"""Constructor arguments that a pipeline fills where a method has them:

- ``reference``: nn.Module, the trained dense network
- ``budget``: ``Budgets`` asked for
- ``total_steps``, ``steps_per_epoch``: int, optimizer steps of the method's phase
- ``seed``: int
- ``evaluate``: callable, network -> accuracy (0 to 1) on un-augmented training images
- ``losses``: callable, network -> iterable of training losses, one per batch, with gradients
- ``out``: Path, folder of the method's phase
"""

_METHODS: dict[str, type[Method]] = {
    "none": Dense,
    "l1-norm": L1Norm,
    "l0": L0,
    "spr": SPR,
    "spr-budget": BudgetedSPR,
    "bar": BAR,
    "tapering": Tapering,
    "rni": RNI,
    "swd": SWD,
    "slimming": Slimming,
    "group-lasso": GroupLasso,
    "taylor": Taylor,
    "geometric-median": GeometricMedian,
    "l1-uniform": L1Uniform,
    "random": RandomChoice,
}


def method_names() -> tuple[str, ...]:
    """Names that :func:`build_method` knows."""
    return tuple(_METHODS)


def method_class(name: str) -> type[Method]:
    """Class of a method.

    Raises
    ------
    InputError
        Unknown name.
    """
    if name not in _METHODS:
        raise InputError(f"unknown method '{name}'; known are {', '.join(_METHODS)}")
    return _METHODS[name]


def build_method(name: str, *, offered: Mapping[str, Any] | None = None, **options: Any) -> Method:
    """Build a method by name.

    Parameters
    ----------
    name : str
        A name of :func:`method_names`.
    offered : mapping, optional
        Values by the names in :data:`OFFERED`; those that the method takes and
        ``options`` does not set are passed on, the others are ignored.
    **options
        Constructor arguments of the method.

    Raises
    ------
    InputError
        Unknown name or option, a required one missing, or a value refused.
    """
    kind = method_class(name)
    accepted = inspect.signature(kind).parameters
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise InputError(
            f"method '{name}' has no option {', '.join(unknown)}; it has: "
            f"{', '.join(accepted) or 'none'}"
        )
    wrong = sorted(set(offered or {}) - set(OFFERED))
    if wrong:
        raise InputError(
            f"offered values may be called {', '.join(OFFERED)}, got {', '.join(wrong)}"
        )
    filled = {key: value for key, value in (offered or {}).items() if key in accepted} | options
    missing = [
        key
        for key, parameter in accepted.items()
        if parameter.default is inspect.Parameter.empty and key not in filled
    ]
    if missing:
        raise InputError(f"method '{name}' needs the option {', '.join(missing)}")
    return kind(**filled)
