"""Every choice of neurons, by plain matrix products: the reference for the other solvers.

It shares neither bounds nor compiled code with the search, and no model with
the programs, so where it applies it checks a reported optimum independently.
"""

import itertools
import math
import time

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError, NoSolutionError
from mipprune.formulation.relu_network import NetworkPruning
from mipprune.problem import LogPoint, SolutionStatus, Termination
from mipprune.solvers.relu_network._solution import Masks, NetworkSolution

__all__ = ["MAX_ENUMERATED", "enumerate_network"]

MAX_ENUMERATED = 22
"""Most hidden neurons in all."""

BATCH_ELEMENTS = 1 << 22
"""Outputs held at a time."""


def enumerate_network(
    task: NetworkPruning, first: Masks | None, *, time_limit: float | None
) -> NetworkSolution:
    """Evaluate all masks; stopped early, the bound is zero, which every objective is at least."""
    if task.network.n_neurons > MAX_ENUMERATED:
        raise InputError(
            f"solver 'enumeration' takes at most {MAX_ENUMERATED} hidden neurons, this network "
            f"has {task.network.n_neurons}; use solver='search'"
        )
    began = time.monotonic()
    deadline = math.inf if time_limit is None else began + time_limit
    masks, value, count = first, math.inf if first is None else task.value(first), 0
    widths = task.network.widths
    termination = Termination.COMPLETE
    try:
        for bits in itertools.product((False, True), repeat=sum(widths[:-1])):
            if time.monotonic() > deadline:
                termination = Termination.TIME_LIMIT
                break
            before = tuple(np.split(np.array(bits, dtype=bool), np.cumsum(widths[:-1])[:-1]))
            before = before if len(widths) > 1 else ()
            last, found = _best_last_layer(task, before)
            count += 2 ** widths[-1]
            if found < value:
                masks, value = (*before, last), found
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
    complete = termination is Termination.COMPLETE
    if complete and masks is None:
        raise NoSolutionError(
            "no choice of neurons meets the limits (proven); raise max_neurons or "
            "max_deviation, or drop keep_predictions"
        )
    value = math.inf if masks is None else task.value(masks)
    bound = value if complete else 0.0
    status = SolutionStatus.NONE if masks is None else SolutionStatus.FEASIBLE
    seconds = time.monotonic() - began
    return NetworkSolution(
        masks=masks,
        value=value,
        bound=bound,
        violation=0.0 if masks is None else task.violation(masks),
        tolerance=task.tolerance,
        forward_error=0.0,
        status=SolutionStatus.OPTIMAL if complete else status,
        termination=termination,
        nodes=count,
        n_binaries=task.network.n_neurons,
        n_rows=0,
        seconds=seconds,
        tighten_seconds=0.0,
        solver="enumeration",
        formulation="",
        trace=(LogPoint(seconds, count, value, bound),),
    )


def _best_last_layer(task: NetworkPruning, before: Masks) -> tuple[NDArray[np.bool_], float]:
    """Best mask of the last hidden layer and its value, inf if none is feasible."""
    network, width = task.network, task.network.widths[-1]
    values = network.preactivations(task.inputs, (*before, np.ones(width, dtype=bool)))
    hidden = np.maximum(values[-2], 0.0)
    shape = task.dense.shape
    terms = (hidden.T[:, :, None] * network.weights[-1].T[:, None, :]).reshape(width, -1)
    kept_before = sum(int(mask.sum()) for mask in before)
    codes = np.arange(2**width)
    best, least = np.zeros(width, dtype=bool), math.inf
    for part in np.array_split(codes, max(1, len(codes) * shape[0] * shape[1] // BATCH_ELEMENTS)):
        choices = ((part[:, None] >> np.arange(width)) & 1).astype(bool)
        outputs = (choices @ terms).reshape(len(part), *shape) + network.biases[-1]
        results = _values(task, outputs, kept_before + choices.sum(axis=1))
        at = int(np.argmin(results))
        if results[at] < least:
            best, least = choices[at], float(results[at])
    return best, least


def _values(
    task: NetworkPruning, outputs: NDArray[np.float64], kept: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Objective of outputs (K, N, C), inf where a limit is missed."""
    rows = np.arange(outputs.shape[1])
    change = np.abs(outputs - task.dense)
    own = outputs[:, rows, task.classes]
    rivals = outputs.copy()
    rivals[:, rows, task.classes] = -np.inf
    leads = own - rivals.max(axis=2)
    feasible = np.ones(len(outputs), dtype=bool)
    if task.max_neurons is not None:
        feasible &= kept <= task.max_neurons
    if task.max_deviation is not None:
        feasible &= change.max(axis=(1, 2)) <= task.max_deviation + task.tolerance
    if task.keep_predictions:
        feasible &= leads.min(axis=1) >= task.least_lead
    if task.objective == "neurons":
        results = kept.astype(np.float64)
    elif task.objective == "deviation":
        results = change.sum(axis=2).mean(axis=1)
    elif task.objective == "hinge":
        results = np.maximum(1.0 - leads, 0.0).mean(axis=1)
    else:
        results = (leads < task.least_lead).mean(axis=1)
    return np.asarray(np.where(feasible, results, np.inf))
