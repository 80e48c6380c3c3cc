r"""The mixed-integer program over a whole ReLU network on a sample of inputs.

Variables: :math:`y_{lj}` (neuron j of hidden layer l stays), :math:`h_{lij}`
(its output on input i), :math:`z_{lij}` (it is active), the latter only where
the sign of the pre-activation is open. The first hidden layer reads the inputs
alone: :math:`h_{0ij} = a_{ij} y_{0j}` with known a, no further variables.

With :math:`s = W h + b \in [L, U]`, :math:`L < 0 < U`, a neuron is off, active
or gone: a disjunction of three. The formulations differ in how tightly they
write it:

``big-m``
    :math:`0 \le h \le U z,\; h \le U y,\; s - U(1-y) \le h \le s - L(1-z)`
``perspective``
    the same with :math:`z \le y` in place of :math:`h \le U y`: eliminating
    the copies of h and s from the hull of the disjunction over the box
    :math:`s \in [L, U]` leaves just these rows
``extended``
    the hull over the box of the *previous layer's outputs*: copies v of the
    active and u of the inactive part of each h_k, with
    :math:`h = W v + b z,\; W u + b (y - z) \le 0`,
    :math:`0 \le v_k \le H_k z,\; 0 \le u_k \le H_k (y - z),\;
    0 \le h_k - v_k - u_k \le H_k (1 - y)`; tightest, with two copies of the
    previous layer for every open pair

All are exact for binary y and z and linear, so any MILP solver takes them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mipprune.errors import InputError
from mipprune.formulation.relu_network._bounds import PreactivationBounds
from mipprune.formulation.relu_network._task import NetworkPruning

if TYPE_CHECKING:
    import pyomo.environ as pyo

__all__ = ["FORMULATIONS", "build_relu_network"]

FORMULATIONS = ("big-m", "perspective", "extended")

Expression = Any
"""A Pyomo linear expression or a number."""


def build_relu_network(
    task: NetworkPruning, bounds: PreactivationBounds, formulation: str = "perspective"
) -> "pyo.ConcreteModel":
    """Write the program of ``task`` (see the module for the mathematics).

    Parameters
    ----------
    task : NetworkPruning
    bounds : PreactivationBounds
        Valid for the task; :func:`propagate_bounds` gives them.
    formulation : {"big-m", "perspective", "extended"}

    Returns
    -------
    pyomo.environ.ConcreteModel
        With ``keep[l, j]``, ``hidden[l, i, j]``, ``firing[l, i, j]`` and ``output[i, c]``.

    Raises
    ------
    InputError
        Unknown formulation.
    """
    if formulation not in FORMULATIONS:
        raise InputError(f"formulation: expected one of {FORMULATIONS}, got '{formulation}'")
    import pyomo.environ as pyo

    model = pyo.ConcreteModel()
    widths = task.network.widths
    model.keep = pyo.Var(
        [(layer, j) for layer, n in enumerate(widths) for j in range(n)], domain=pyo.Binary
    )
    model.hidden = pyo.Var(pyo.Any, domain=pyo.NonNegativeReals, dense=False)
    model.firing = pyo.Var(pyo.Any, domain=pyo.Binary, dense=False)
    model.output = pyo.Var(pyo.Any, domain=pyo.Reals, dense=False)
    model.on_part = pyo.Var(pyo.Any, domain=pyo.NonNegativeReals, dense=False)
    model.off_part = pyo.Var(pyo.Any, domain=pyo.NonNegativeReals, dense=False)
    model.rows = pyo.ConstraintList()
    if task.max_neurons is not None:
        model.rows.add(sum(model.keep.values()) <= task.max_neurons)
    for i in range(len(task.inputs)):
        _add_input(model, task, bounds, formulation, i)
    _add_objective(model, task, bounds, pyo)
    return model


def _add_input(
    model: Any, task: NetworkPruning, bounds: PreactivationBounds, formulation: str, i: int
) -> None:
    """Hidden and output variables of one input."""
    network = task.network
    known = np.maximum(bounds.upper[0][i], 0.0)
    hidden = [float(a) * model.keep[0, j] if a > 0 else 0.0 for j, a in enumerate(known)]
    limits = known
    for layer in range(1, len(network.weights) - 1):
        w, b = network.weights[layer], network.biases[layer]
        low, high = bounds.lower[layer][i], bounds.upper[layer][i]
        hidden = [
            _add_neuron(
                model, formulation, (layer, i, j), _affine(w[j], hidden, b[j]),
                float(low[j]), float(high[j]), (w[j], float(b[j]), hidden, limits),
            )
            for j in range(len(b))
        ]  # fmt: skip
        limits = np.maximum(high, 0.0)
    w, b = network.weights[-1], network.biases[-1]
    for c in range(len(b)):
        model.rows.add(model.output[i, c] == _affine(w[c], hidden, b[c]))
        model.output[i, c].setlb(float(bounds.lower[-1][i, c]))
        model.output[i, c].setub(float(bounds.upper[-1][i, c]))


def _affine(weights: np.ndarray, hidden: list[Expression], bias: float) -> Expression:
    total: Expression = float(bias)
    for weight, h in zip(weights, hidden, strict=True):
        if weight != 0.0 and not isinstance(h, float):
            total = total + float(weight) * h
    return total


def _add_neuron(
    model: Any,
    formulation: str,
    index: tuple[int, int, int],
    s: Expression,
    low: float,
    high: float,
    incoming: tuple[Any, float, list[Expression], Any],
) -> Expression:
    """One hidden neuron on one input; returns its output."""
    layer, _, j = index
    if high <= 0:
        return 0.0
    keep = model.keep[layer, j]
    if low == high:
        return high * keep
    h = model.hidden[index]
    h.setub(high)
    if low >= 0:
        model.rows.add(h <= high * keep)
        model.rows.add(h >= low * keep)
        model.rows.add(h <= s - low * (1 - keep))
        model.rows.add(h >= s - high * (1 - keep))
        return h
    z = model.firing[index]
    model.rows.add(h >= s - high * (1 - keep))
    if formulation == "extended":
        _add_parts(model, index, h, z, keep, incoming)
        return h
    model.rows.add(h <= high * z)
    model.rows.add(h <= s - low * (1 - z))
    model.rows.add(z <= keep if formulation == "perspective" else h <= high * keep)
    return h


def _add_parts(
    model: Any,
    index: tuple[int, int, int],
    h: Expression,
    z: Expression,
    keep: Expression,
    incoming: tuple[Any, float, list[Expression], Any],
) -> None:
    """Disaggregated copies of the previous layer: the hull over its box."""
    weights, bias, previous, limits = incoming
    on: Expression = bias * z
    off: Expression = bias * (keep - z)
    for k, (weight, before) in enumerate(zip(weights, previous, strict=True)):
        if weight == 0.0 or isinstance(before, float):
            continue
        limit = float(limits[k])
        v, u = model.on_part[(*index, k)], model.off_part[(*index, k)]
        model.rows.add(v <= limit * z)
        model.rows.add(u <= limit * (keep - z))
        model.rows.add(before - v - u >= 0)
        model.rows.add(before - v - u <= limit * (1 - keep))
        on = on + float(weight) * v
        off = off + float(weight) * u
    model.rows.add(h == on)
    model.rows.add(off <= 0)
    model.rows.add(z <= keep)


def _add_objective(model: Any, task: NetworkPruning, bounds: PreactivationBounds, pyo: Any) -> None:
    """Objective and the limits on outputs."""
    n, classes = len(task.inputs), task.network.weights[-1].shape[0]
    model.penalty = pyo.Var(pyo.Any, domain=pyo.NonNegativeReals, dense=False)
    model.miss = pyo.Var(pyo.Any, domain=pyo.Binary, dense=False)
    dense = task.dense
    if task.max_deviation is not None:
        most = task.max_deviation + task.tolerance
        for i in range(n):
            for c in range(classes):
                change = model.output[i, c] - float(dense[i, c])
                model.rows.add(change <= most)  # two rows: the interface to SCIP
                model.rows.add(change >= -most)  # drops the constant of a range
    if task.keep_predictions:
        _for_each_rival(
            task,
            lambda i, t, c: model.output[i, t] - model.output[i, c] >= task.least_lead,
            model,
        )
    total = _OBJECTIVE_TERMS[task.objective](model, task, bounds, dense)
    model.objective = pyo.Objective(expr=total)


def _for_each_rival(
    task: NetworkPruning, row: Callable[[int, int, int], Expression], model: Any
) -> None:
    for i, target in enumerate(task.classes.tolist()):
        for c in range(task.network.weights[-1].shape[0]):
            if c != target:
                model.rows.add(row(i, target, c))


def _deviation(model: Any, task: NetworkPruning, _: PreactivationBounds, dense: Any) -> Expression:
    for i in range(len(dense)):
        for c in range(dense.shape[1]):
            change = model.output[i, c] - float(dense[i, c])
            model.rows.add(model.penalty[i, c] >= change)
            model.rows.add(model.penalty[i, c] >= -change)
    return sum(model.penalty.values()) / len(dense)


def _hinge(model: Any, task: NetworkPruning, _: PreactivationBounds, dense: Any) -> Expression:
    _for_each_rival(
        task,
        lambda i, t, c: model.penalty[i, 0] >= 1 + model.output[i, c] - model.output[i, t],
        model,
    )
    return sum(model.penalty.values()) / len(dense)


def _misclassification(
    model: Any, task: NetworkPruning, bounds: PreactivationBounds, dense: Any
) -> Expression:
    low, high = bounds.lower[-1], bounds.upper[-1]

    def row(i: int, t: int, c: int) -> Expression:
        reach = task.least_lead - float(low[i, t] - high[i, c])
        lead = model.output[i, t] - model.output[i, c]
        return lead >= task.least_lead - max(reach, 0.0) * model.miss[i]

    _for_each_rival(task, row, model)
    return sum(model.miss.values()) / len(dense)


def _neurons(model: Any, task: NetworkPruning, _: PreactivationBounds, dense: Any) -> Expression:
    return sum(model.keep.values())


_OBJECTIVE_TERMS = {
    "deviation": _deviation,
    "hinge": _hinge,
    "misclassification": _misclassification,
    "neurons": _neurons,
}
