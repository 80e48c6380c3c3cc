"""One entry to every relaxation."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import (
    require_choice,
    require_floats,
    require_number,
    require_time_limit,
)
from mipprune._support.devices import require_device
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, require_problem
from mipprune.relaxation._binary import relax_binary
from mipprune.relaxation._blocks import Blocks
from mipprune.relaxation._box import minimise_box
from mipprune.relaxation._keeping import evaluate_dual
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._optimal_split import optimal_splits
from mipprune.relaxation._perspective import WhitenedTerm, minimise_perspective
from mipprune.relaxation._removal_relax import REMOVAL_KINDS, relax_removal
from mipprune.relaxation._request import Request
from mipprune.relaxation._result import Relaxation
from mipprune.relaxation.splits import SPLITS, make_split

__all__ = ["RELAXATION_KINDS", "relax"]

Floats = NDArray[np.float64]

RELAXATION_KINDS = ("auto", "big-m", "perspective", "perspective-box", *REMOVAL_KINDS)
"""Kinds that :func:`relax` accepts."""

CLIMB_SHARE = 0.8
AFFORDABLE_BOX = 1e9
"""Multiplications per step up to which ``auto`` also bounds the weights (60 to 120 steps)."""
AFFORDABLE_ROWS = 2600
"""Rows up to which ``auto`` climbs the pair relaxation (a factorisation per 20 steps)."""
AFFORDABLE_CHANNELS = 512
"""Channels up to which it climbs to the end: each step takes eigenvalues of that size."""
WIDE_STEPS = 1000
"""Steps whose work, at that many channels, bounds the climb on wider layers."""
MAX_BLOCK_SIZE = 6
INVERTED_ROWS = 5000
"""Rows up to which ``auto`` forms the inverse that the removing side needs."""


def relax(
    problem: ChannelSelection,
    kind: str = "auto",
    *,
    split: str = "schur",
    tol: float = 1e-4,
    time_limit: float | None = None,
    start: "Relaxation | ArrayLike | None" = None,
    device: str | torch.device = "cpu",
    block_size: int = 3,
) -> Relaxation:
    r"""Lower bound on a channel-selection problem, without branching.

    Parameters
    ----------
    problem : ChannelSelection
    kind : str
        ``big-m`` (weights bounded by M_j y_j; needs ``big_m``), ``perspective``,
        ``perspective-box`` (both together: the relaxation of SPR); from the
        removing side ``gl`` (Gilmore-Lawler rows at the best single
        directions), ``rlt`` (the linear program of all pairs at those
        directions), ``sdp`` (Hadamard relaxation, all pairs and X psd),
        ``blocks`` (the same over the patterns of removals in blocks of channels,
        started at ``sdp``'s solution: the strongest); ``auto`` is the best of what
        is affordable at this width (all but ``rlt`` and ``blocks``). For variant
        ``mask``, ``perspective`` is the convexified binary program.
    split : {"ridge", "eigenvalue", "schur", "optimal"}
        How G + rho = R + blkdiag(D_j) is divided (:mod:`mipprune.relaxation.splits`).
        With a box the split is diagonal: ``ridge`` or ``eigenvalue``; ``schur``
        means the larger of the two there.
    tol : float
        Relative duality gap at which the solver stops.
    time_limit : float, optional
        Seconds; what is reached by then still certifies.
    start : Relaxation or array (p,), optional
        Gates to start from: a neighbour on a path, a parent node, a mask.
    device : str
        Where the d x d algebra runs ("cpu", "cuda").
    block_size : int
        Channels per block of kind ``blocks``, 1 to 6: rows and work grow by
        2^(block_size - 1).

    Returns
    -------
    Relaxation

    Raises
    ------
    InputError
        Unknown kind or split, or one that does not fit the problem.
    NoSolutionError
        It is proven that no mask meets all limits.

    Examples
    --------
    >>> import numpy as np
    >>> problem = ChannelSelection(
    ...     np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1, ridge=0.1)
    >>> relaxed = relax(problem, "perspective")
    >>> bool(relaxed.bound <= problem.value([True, False]))
    True
    """
    request = _checked(problem, kind, split, tol, time_limit, start, device, block_size)
    runners: dict[str, Callable[[Request], Relaxation]] = {
        "big-m": _relax_box,
        "perspective": _relax_perspective,
        "perspective-box": _relax_box,
        "auto": _relax_auto,
        **dict.fromkeys(REMOVAL_KINDS, relax_removal),
    }
    if problem.variant == "mask":
        return _relax_mask(request)
    return runners[kind](request)


def _checked(
    problem: ChannelSelection,
    kind: str,
    split: str,
    tol: float,
    time_limit: float | None,
    start: "Relaxation | ArrayLike | None",
    device: str | torch.device,
    block_size: int,
) -> Request:
    require_problem(problem)
    require_choice("kind", kind, RELAXATION_KINDS)
    require_choice("split", split, SPLITS)
    require_number("tol", tol, above=0, finite=False)
    require_time_limit(time_limit, zero=True)
    if problem.variant == "mask" and kind not in ("auto", "perspective"):
        raise InputError(f"kind '{kind}' does not hold for variant 'mask'; use 'perspective'")
    if not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise InputError(f"block_size: expected 1 to {MAX_BLOCK_SIZE}, got {block_size}")
    began = time.monotonic()
    limits = Limits.of(problem)
    p = problem.n_channels
    if start is None:
        gates = np.full(p, _share(limits))
    else:
        gates = require_floats("start", start.gates if isinstance(start, Relaxation) else start)
        if gates.shape != (p,) or not np.all(np.isfinite(gates)):
            raise InputError(f"start: expected {p} finite gates, got shape {gates.shape}")
    return Request(
        problem=problem,
        canonical=problem.canonical(),
        limits=limits,
        kind=kind,
        split=split,
        tolerance=tol,
        began=began,
        deadline=began + (np.inf if time_limit is None else time_limit),
        start=limits.nearest(np.clip(gates, 0.0, 1.0)),
        device=require_device(device),
        block_size=block_size,
    )


def _share(limits: Limits) -> float:
    """Fraction of the channels that a single upper limit admits, roughly."""
    total = np.abs(limits.rows).sum(1)
    positive = (limits.limits > 0) & (total > 0) & np.all(limits.rows >= 0, axis=1)
    return float(np.min(limits.limits[positive] / total[positive], initial=1.0))


def _relax_perspective(request: Request) -> Relaxation:
    problem, device = request.canonical, request.device
    splits = [make_split(term, request.split, device) for term in problem.terms]
    return perspective_with_splits(request, splits)


def perspective_with_splits(request: Request, splits: list[Blocks]) -> Relaxation:
    """Solve the perspective relaxation of given splits and certify it."""
    problem, limits = request.canonical, request.limits
    start = request.start
    if request.split == "optimal":
        # The climb may use most of the time; the rest solves the relaxation of its result.
        left = request.deadline - time.monotonic()
        splits, start = optimal_splits(
            problem,
            limits,
            splits,
            start,
            tolerance=request.tolerance,
            deadline=time.monotonic() + CLIMB_SHARE * left,
            device=request.device,
        )
    white = [
        WhitenedTerm(term, split, request.device)
        for term, split in zip(problem.terms, splits, strict=True)
    ]
    result = minimise_perspective(
        problem,
        limits,
        white,
        start,
        tolerance=request.tolerance,
        deadline=request.deadline,
        device=request.device,
    )
    gates = torch.tensor(result.gates, device=request.device)
    duals = tuple(term.dual(gates) for term in white)
    bound, multipliers, _ = evaluate_dual(problem, limits, splits, duals)
    arrays: dict[str, NDArray[np.generic]] = {"multipliers": multipliers}
    for index, (split, dual) in enumerate(zip(splits, duals, strict=True)):
        arrays[f"split_{index}"] = split.flat
        arrays[f"dual_{index}"] = dual
    return Relaxation(
        bound=bound,
        value=result.value,
        gates=result.gates,
        weights=duals,
        certificate=request.certificate("keeping", bound, arrays),
        kind="perspective",
        split=request.split,
        iterations=result.iterations,
        seconds=request.seconds,
        finished=result.finished,
    )


def _relax_box(request: Request) -> Relaxation:
    problem = request.canonical
    if request.kind == "big-m" and not all(
        np.all(np.isfinite(t.big_m[t.group_sizes > 0])) for t in request.problem.terms
    ):
        raise InputError("kind 'big-m' needs a finite big_m for every channel; give big_m=")
    if request.kind == "big-m":
        diagonals = [np.zeros(term.n_rows) for term in problem.terms]
    else:
        diagonals = [_diagonal(request, index) for index in range(len(problem.terms))]
    result = minimise_box(
        problem,
        request.limits,
        diagonals,
        tolerance=request.tolerance,
        deadline=request.deadline,
        device=request.device,
    )
    arrays: dict[str, NDArray[np.generic]] = {"multipliers": result.multipliers}
    for index, (diagonal, dual) in enumerate(zip(diagonals, result.weights, strict=True)):
        sizes = problem.terms[index].group_sizes
        blocks = np.split(diagonal, np.cumsum(sizes)[:-1])
        arrays[f"split_{index}"] = np.concatenate([np.diag(b).ravel() for b in blocks])
        arrays[f"dual_{index}"] = dual
    return Relaxation(
        bound=result.bound,
        value=result.value,
        gates=result.gates,
        weights=result.weights,
        certificate=request.certificate("keeping", result.bound, arrays),
        kind=request.kind,
        split="none" if request.kind == "big-m" else request.split,
        iterations=result.iterations,
        seconds=request.seconds,
        finished=result.finished,
    )


def _diagonal(request: Request, index: int) -> Floats:
    """Diagonal split of one term that leaves a psd rest."""
    term = request.canonical.terms[index]
    names = (request.split,) if request.split in ("ridge", "eigenvalue") else SPLITS[:2]
    splits = [make_split(term, name, request.device) for name in names]
    best = max(splits, key=lambda s: s.smallest_eigenvalue())
    diagonal = np.zeros(term.n_rows)
    for rows, blocks in best.stacks:
        own = torch.diagonal(blocks, dim1=1, dim2=2)
        diagonal[rows.cpu().numpy().ravel()] = own.cpu().numpy().ravel()
    return diagonal


def _relax_mask(request: Request) -> Relaxation:
    result = relax_binary(
        request.problem,
        request.limits,
        optimise=request.split in ("optimal", "schur"),
        tolerance=request.tolerance,
        deadline=request.deadline,
    )
    arrays: dict[str, NDArray[np.generic]] = {
        "diagonal": result.diagonal,
        "dual": result.gates,
        "multipliers": result.multipliers,
    }
    return Relaxation(
        bound=result.bound,
        value=result.value,
        gates=result.gates,
        weights=(),
        certificate=request.certificate("binary", result.bound, arrays),
        kind="perspective",
        split=request.split,
        iterations=result.iterations,
        seconds=request.seconds,
        finished=result.finished,
    )


def _relax_auto(request: Request) -> Relaxation:
    """The best of both sides, as far as the width allows: no cheaper kind proves more.

    Splits are not ordered, nor are the two sides, and first-order steps on the pairs
    may stop short of what they contain in theory: what is affordable is run.
    """
    terms = request.canonical.terms
    rows = max(term.n_rows for term in terms)
    uniform = all(np.all(term.ridge == term.ridge[0]) for term in terms)
    splits = dict.fromkeys((request.split, "schur"))
    # The smallest eigenvalue is at least a uniform ridge, but dearer to find.
    splits |= dict.fromkeys(("eigenvalue",) if rows <= AFFORDABLE_ROWS else ("ridge",))
    splits |= dict.fromkeys(() if uniform else ("ridge",))
    found = [_relax_perspective(replace(request, split=split)) for split in splits]
    if _box_work(request) <= AFFORDABLE_BOX:
        found.append(_relax_box(replace(request, kind="perspective-box", split="schur")))
    if rows <= INVERTED_ROWS:
        kind, p = "sdp" if rows <= AFFORDABLE_ROWS else "gl", request.problem.n_channels
        steps = request.steps
        if p > AFFORDABLE_CHANNELS:
            steps = max(10, int(WIDE_STEPS * (AFFORDABLE_CHANNELS / p) ** 3))
        found.append(relax_removal(replace(request, kind=kind, steps=steps)))
    return max(found, key=lambda relaxed: relaxed.bound)


def _box_work(request: Request) -> float:
    """Multiplications of one step of the barrier method, inf without a box."""
    if not request.canonical.has_box:
        return np.inf
    return float(sum(t.n_responses * t.n_rows**3 for t in request.canonical.terms))
