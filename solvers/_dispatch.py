"""One ``solve`` for all methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from mipprune._support.checks import require_choice, require_flag, suggestion
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, Solution, require_problem
from mipprune.solvers._features import Features
from mipprune.solvers._monitor import Callback, checked_request

__all__ = ["METHODS", "Method", "features", "methods_for", "solve"]

AUTO = "branch-and-bound"
SolverFunction = Callable[..., Solution]
COMMON = ("problem", "time_limit", "gap", "start", "seed", "callback", "log")
"""Arguments of every method; what else one takes are its options."""


@dataclass(frozen=True)
class Method:
    """A solver: where it is, and what it takes."""

    module: str
    function: str
    features: Features

    def load(self) -> SolverFunction:
        """Import the solver; its packages are loaded only now."""
        function: SolverFunction = getattr(import_module(self.module), self.function)
        return function


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "branch-and-bound": Method(
            "mipprune.solvers.branch_and_bound", "branch_and_bound", Features()
        ),
        "enumerate": Method(
            "mipprune.solvers.enumeration", "enumerate_masks", Features(max_channels=24)
        ),
        "local-search": Method(
            "mipprune.solvers.local_search", "search_locally", Features(proves=False)
        ),
        "outer-approximation": Method(
            "mipprune.solvers.outer_approximation", "solve_by_cuts", Features(singular=False)
        ),
        "conic": Method("mipprune.solvers.conic", "solve_conic", Features(singular=False)),
    }
)
"""Every method of :func:`solve` but ``auto``."""


def features(method: str) -> Features:
    """What a method takes; ``auto`` is branch and bound."""
    return _method(method).features


def methods_for(problem: ChannelSelection) -> list[str]:
    """Names of the methods that take ``problem``."""
    require_problem(problem)
    return [name for name, method in METHODS.items() if not method.features.missing(problem)]


def solve(
    problem: ChannelSelection,
    method: str = "auto",
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    log: bool = False,
    certificate: bool = False,
    **options: object,
) -> Solution:
    """Choose the channels of a layer.

    Parameters
    ----------
    problem : ChannelSelection
    method : str
        ``auto`` (branch and bound), or a key of ``METHODS``.
    time_limit : float, optional
        Seconds; kept within one. The best mask and bound so far are returned.
    gap : float
        Stop when ``(value - bound) / value`` is at most this.
    start : bool array (p,), optional
        Mask to start from. One that breaks a limit is repaired or not used.
    seed : int
        Seed of everything random; a run is deterministic on one thread.
    callback : callable, optional
        Called with a :class:`mipprune.problem.LogPoint` now and then; returning
        True stops the search.
    log : bool
        Progress line on standard error.
    certificate : bool
        Attach a proof that ``mipprune verify`` checks: the replayable tree where
        optimality is proven and the problem allows it, else the dual point of the
        strongest affordable relaxation with its own ``certified_bound``. Takes
        up to ``time_limit`` once more. Whatever happens meanwhile, Ctrl-C included,
        the solution is returned; ``no_certificate`` then says why it has no proof.
    **options
        Options of the one method, see its function.

    Returns
    -------
    Solution
        With the value recomputed from the mask and a valid lower bound (-inf
        from a heuristic). Ctrl-C returns what is known.

    Raises
    ------
    InputError
        Unknown method, or an argument that makes no sense.
    SolverError
        The method does not take this problem; the message names what it lacks.
    MissingExtraError
        The method needs a package that is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from mipprune.problem import ChannelSelection
    >>> problem = ChannelSelection(np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1)
    >>> solve(problem, "enumerate").mask.tolist()
    [True, False]
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    require_flag("certificate", certificate)
    if start is not None:
        start = np.asarray(problem.checked_mask(start))
    name = AUTO if isinstance(method, str) and method == "auto" else method
    chosen = _method(name)
    chosen.features.require(name, problem)
    function = chosen.load()
    _refuse_unknown_options(name, function, options)
    solution = function(
        problem,
        time_limit=time_limit,
        gap=gap,
        start=start,
        seed=seed,
        callback=callback,
        log=log,
        **options,
    )
    if certificate:
        from mipprune.solvers._proof import with_certificate

        solution = with_certificate(problem, solution, time_limit=time_limit)
    return solution


def _method(name: str) -> Method:
    known = require_choice("method", name, ("auto", *METHODS))
    return METHODS[AUTO if known == "auto" else known]


def _refuse_unknown_options(
    name: str, function: SolverFunction, given: Mapping[str, object]
) -> None:
    """Options that the method does not have."""
    known = [option for option in signature(function).parameters if option not in COMMON]
    for option in given:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InputError(
                f"method '{name}' has no option '{option}'; {takes}{suggestion(option, known)}"
            )
