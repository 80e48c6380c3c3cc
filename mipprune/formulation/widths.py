r"""Widths of all families at once under several budgets: a mixed-integer linear program.

Every family f has a curve: the error :math:`v_f(k)` of its readers when k of its
classes stay. With one binary :math:`u_{fk}` per family and admissible width,

.. math:: \min \sum_{f,k} v_f(k)\,u_{fk}, \qquad \sum_k u_{fk} = 1, \qquad
          \mathrm{cost}_r(u) \le b_r \quad \text{for every resource } r.

Costs are products of at most two axis widths (producer times consumer). Along
an axis a family contributes :math:`g(k)` positions; a product of two families is
linearised with :math:`r_{fk} = u_{fk} \cdot n`, where n is what the other
contributes:

.. math:: \sum_k r_{fk} = n, \qquad n_{\min} u_{fk} \le r_{fk} \le n_{\max} u_{fk}

which is exact for binary u; a product of a family with itself is linear in u.

Variables: u binary, r continuous. Exact: everything, where all classes of a
family have the same number of positions on an axis; elsewhere g(k) counts the k
largest, so a budget is never exceeded. Any MILP solver takes it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import BudgetError, InputError
from mipprune.graph import ChannelGroups, CostTerm
from mipprune.graph.budgets import Resource

if TYPE_CHECKING:
    import pyomo.environ as pyo

__all__ = ["ResourceCost", "WidthCurve", "build_width_program", "resource_costs"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WidthCurve:
    """Error of a family against the number of classes that stay.

    Attributes
    ----------
    family : str
    counts : int64 (q,)
        Admissible numbers of classes, ascending; the last keeps all.
    values : float64 (q,)
        Error of the best mask known with that many classes.
    bounds : float64 (q,)
        Lower bounds on the error of any mask with that many.
    """

    family: str
    counts: Integers
    values: Floats
    bounds: Floats

    def __post_init__(self) -> None:
        if not self.counts.size or np.any(np.diff(self.counts) <= 0):
            raise InputError(f"curve of '{self.family}': counts must ascend")
        shapes = {self.counts.shape, self.values.shape, self.bounds.shape}
        if len(shapes) > 1 or not np.all(np.isfinite(self.values)):
            raise InputError(f"curve of '{self.family}': one finite value and bound per count")


Pattern = tuple[int, bytes]
"""A family (index) and its positions g(k) on an axis at each of its counts."""


@dataclass
class ResourceCost:
    """Cost of a resource in the binaries u of the families.

    Attributes
    ----------
    constant : float
    linear : family index -> float64 (q,)
    products : (pattern, pattern) -> coefficient
        Bilinear part; a pattern is a family and what it contributes to an axis.
    """

    constant: float = 0.0
    linear: dict[int, Floats] = field(default_factory=dict)
    products: dict[tuple[Pattern, Pattern], float] = field(
        default_factory=lambda: defaultdict(float)
    )

    def value(self, choice: Sequence[int]) -> float:
        """Cost when family f takes its option ``choice[f]``."""
        total = self.constant + sum(row[choice[f]] for f, row in self.linear.items())
        for ((f, a), (g, b)), coefficient in self.products.items():
            total += coefficient * _positions(a)[choice[f]] * _positions(b)[choice[g]]
        return float(total)


def resource_costs(
    groups: ChannelGroups, curves: Sequence[WidthCurve], terms: Sequence[CostTerm]
) -> ResourceCost:
    """Write a resource in the options of the curves; families without a curve stay whole.

    Raises
    ------
    InputError
        A term is a product of more than two axes with prunable channels.
    """
    cost = ResourceCost()
    for term in terms:
        axes = [_axis(groups, curves, owner) for owner in term.axes]
        varying = [(constant, parts) for constant, parts in axes if parts]
        scale = term.coefficient * float(np.prod([c for c, parts in axes if not parts]))
        if len(varying) > 2:
            raise InputError(
                f"cost of '{term.name}' is a product of {len(varying)} prunable axes; "
                "widths are chosen for at most two"
            )
        if not varying:
            cost.constant += scale
        elif len(varying) == 1:
            _add_linear(cost, varying[0], scale)
        else:
            _add_product(cost, varying[0], varying[1], scale)
    return cost


AxisCount = tuple[float, list[Pattern]]
"""Positions that always stay, and the contribution of each family."""


def _axis(groups: ChannelGroups, curves: Sequence[WidthCurve], owner: Integers) -> AxisCount:
    constant = float(np.count_nonzero(owner < 0))
    parts: list[Pattern] = []
    per_class = np.bincount(owner[owner >= 0], minlength=groups.n_classes)
    curve_of = {curve.family: index for index, curve in enumerate(curves)}
    for family in groups:
        own = per_class[family.start : family.stop]
        if not own.any():
            continue
        if family.name not in curve_of:
            constant += float(own.sum())
            continue
        index = curve_of[family.name]
        largest = np.concatenate([[0], np.cumsum(np.sort(own)[::-1])])
        positions = largest[curves[index].counts].astype(np.float64)
        parts.append((index, positions.tobytes()))
    return constant, parts


def _add_linear(cost: ResourceCost, axis: AxisCount, scale: float) -> None:
    constant, parts = axis
    cost.constant += scale * constant
    for f, positions in parts:
        row = scale * _positions(positions)
        cost.linear[f] = cost.linear[f] + row if f in cost.linear else row


def _add_product(cost: ResourceCost, first: AxisCount, second: AxisCount, scale: float) -> None:
    cost.constant += scale * first[0] * second[0]
    _add_linear(cost, (0.0, first[1]), scale * second[0])
    _add_linear(cost, (0.0, second[1]), scale * first[0])
    for f, a in first[1]:
        for g, b in second[1]:
            if f == g:
                row = scale * _positions(a) * _positions(b)
                cost.linear[f] = cost.linear[f] + row if f in cost.linear else row
            else:
                key = ((f, a), (g, b)) if f < g else ((g, b), (f, a))
                cost.products[key] += scale


def build_width_program(
    curves: Sequence[WidthCurve],
    costs: Sequence[ResourceCost],
    resources: Sequence[Resource],
    *,
    use_bounds: bool = False,
) -> "pyo.ConcreteModel":
    """The program of the module's formula.

    Parameters
    ----------
    curves : sequence of WidthCurve
    costs : sequence of ResourceCost
        One per resource, from :func:`resource_costs`.
    resources : sequence of mipprune.graph.Resource
        Their limits.
    use_bounds : bool
        Minimise the sum of the curves' lower bounds instead of their values:
        its optimum bounds the total error of any choice of masks.

    Returns
    -------
    pyomo.environ.ConcreteModel
        With ``choose[f, i]`` for option i of curve f.

    Raises
    ------
    BudgetError
        A limit is below the cost of the narrowest options.
    """
    import pyomo.environ as pyo

    for cost, resource in zip(costs, resources, strict=True):
        least = cost.value([0] * len(curves))
        if least > resource.limit * (1 + 1e-12):
            raise BudgetError(
                f"{resource.name}: the limit {resource.limit:,.6g} is below {least:,.6g}, the "
                "cost at the narrowest widths offered"
            )
    model = pyo.ConcreteModel()
    options = [(f, i) for f, curve in enumerate(curves) for i in range(curve.counts.size)]
    model.choose = pyo.Var(options, domain=pyo.Binary)
    model.one_width = pyo.Constraint(
        range(len(curves)),
        rule=lambda m, f: sum(m.choose[f, i] for i in range(curves[f].counts.size)) == 1,
    )
    model.share = pyo.Var(pyo.Any, domain=pyo.NonNegativeReals, dense=False)
    model.product_rows = pyo.ConstraintList()
    keys = {key for cost in costs for key in cost.products}
    numbers = {key: n for n, key in enumerate(sorted(keys))}
    for key, n in numbers.items():
        _add_product_rows(model, key, n)
    model.budget_rows = pyo.ConstraintList()
    for cost, resource in zip(costs, resources, strict=True):
        # Scaled to 1: MACs of 1e9 beside binaries are below a solver's tolerance.
        model.budget_rows.add(_expression(model, cost, numbers) / resource.limit <= 1.0)
    rows = [curve.bounds if use_bounds else curve.values for curve in curves]
    model.objective = pyo.Objective(
        expr=sum(float(rows[f][i]) * model.choose[f, i] for f, i in options)
    )
    return model


def _add_product_rows(model: Any, key: tuple[Pattern, Pattern], n: int) -> None:
    """``share[n, i] = choose[f, i] * (positions of the other family)``."""
    (f, a), (g, b) = key
    other = _positions(b)
    count = sum(float(x) * model.choose[g, i] for i, x in enumerate(other))
    low, high = float(other.min()), float(other.max())
    for i in range(_positions(a).size):
        model.product_rows.add(model.share[n, i] <= high * model.choose[f, i])
        model.product_rows.add(model.share[n, i] >= low * model.choose[f, i])
    model.product_rows.add(sum(model.share[n, i] for i in range(_positions(a).size)) == count)


def _expression(model: Any, cost: ResourceCost, numbers: dict[tuple[Pattern, Pattern], int]) -> Any:
    total: Any = cost.constant
    for f, row in cost.linear.items():
        total = total + sum(float(x) * model.choose[f, i] for i, x in enumerate(row))
    for key, coefficient in cost.products.items():
        n = numbers[key]
        for i, x in enumerate(_positions(key[0][1])):
            total = total + coefficient * float(x) * model.share[n, i]
    return total


def _positions(pattern: bytes) -> Floats:
    return np.frombuffer(pattern, dtype=np.float64)
