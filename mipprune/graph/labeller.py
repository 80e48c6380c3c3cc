"""Walks a traced network and labels every tensor in it."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from mipprune.graph.labels import STAYS, Labels, LabelSpace, compress, grid, line, varying
from mipprune.graph.tracing import Traced

__all__ = ["Arguments", "Labeller", "Rectangle", "Rule", "Site", "Term"]

Arguments = Mapping[str, Any]
"""Arguments of an operator by the names of its schema; tensors are `Labels`."""


# A rule that meets a form of its operator that it was not written for.
_RULE_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Labels that form a box in the program; what is kept must form one too.

    ``equal_along``: the extent of this dimension is fixed and every slice of
    it must keep the same number; None where any box is good.
    """

    labels: Tensor
    equal_along: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Site:
    """A place in module ``module`` where a size that follows ``labels`` is written."""

    module: str
    labels: Tensor
    divisor: int = 1
    attribute: str | None = None


@dataclass(frozen=True, eq=False)
class Term:
    """Multiply-accumulates per example as coefficient times kept positions of each axis."""

    name: str
    coefficient: float
    axes: tuple[Tensor, ...]


@dataclass(eq=False)
class Labeller:
    """State of one walk: labels of all values and everything learnt about them.

    Rules read and write it through `tie`, `pin`, `freeze`, `settle` and the lists.
    """

    traced: Traced
    rules: Mapping[str, "Rule"]
    attributes: Callable[[str, int], list[str]]
    integers_read: Callable[[], set[tuple[str, str]] | None] = lambda: None
    space: LabelSpace = field(default_factory=LabelSpace)
    rectangles: list[Rectangle] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    produced: set[tuple[str, int]] = field(default_factory=set)
    consumed: set[tuple[str, int]] = field(default_factory=set)
    order: dict[tuple[str, int], str] = field(default_factory=dict)
    axes: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    prune_normalised: bool = False
    norms: dict[int, Tensor] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    dynamic: set[fx.Node] = field(default_factory=set)
    module: str = ""
    where: str = ""

    def run(self) -> None:
        """Label every node of the graph."""
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "output":
                self._outputs(node)
            elif node.op == "call_function":
                self._enter(node)
                if any(used in self.dynamic for used in node.all_input_nodes):
                    self.dynamic.add(node)
                self.values[node] = self._call(node)
            else:
                self.values[node] = None

    def static(self, node: fx.Node, labels: Labels) -> bool:
        """Whether this argument of ``node`` depends on parameters and constants only."""
        return any(
            self.values[used] is labels and used not in self.dynamic
            for used in node.all_input_nodes
        )

    def _placeholder(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        shape = tuple(value.shape)
        source = self.traced.sources.get(node.name)
        if source is None:
            if node.name not in self.traced.constants:
                self.dynamic.add(node)
            return Labels(shape)
        return Labels(shape, self._parameter_fields(source, shape))

    def _parameter_fields(self, source: str, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        fields = []
        for dim, size in enumerate(shape):
            if size < 2:
                continue
            if (source, dim) not in self.axes:
                self.axes[source, dim] = self.space.fresh(size, source, dim)
            view = [size if d == dim else 1 for d in range(len(shape))]
            fields.append(self.axes[source, dim].view(view).expand(shape))
        return tuple(fields)

    def _outputs(self, node: fx.Node) -> None:
        for used in node.all_input_nodes:
            self.freeze_all(self.values[used], "an output of the network")

    def _enter(self, node: fx.Node) -> None:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [entry[0] for entry in stack.values()]
        self.module = paths[-1] if paths else ""
        name = getattr(node.target, "_schema", None)
        op = name.name if name is not None else getattr(node.target, "__name__", str(node.target))
        self.where = f"{op} in {self.module or 'the network'}"

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            value = self.values[source] if isinstance(source, fx.Node) else source
            if isinstance(value, (tuple, list)) and isinstance(index, int):
                return value[index]
            return _unlabelled(node)
        if not isinstance(node.target, torch._ops.OpOverload):
            return self.unknown(node)
        name = node.target._schema.name.removeprefix("aten::").removesuffix("_")
        rule = self.rules.get(node.target._schema.name) or self.rules.get(name)
        if rule is None and torch.Tag.pointwise in node.target.tags:
            rule = self.rules["pointwise"]
        if rule is None:
            return self.unknown(node)
        try:
            result = rule(self, node, self.bind(node))
        except _RULE_FAILURES as error:
            # More ties than needed may have been recorded by then, never fewer.
            return self.unknown(node, f"the rule failed: {type(error).__name__}")
        if node.target._schema.is_mutable and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = result
        return result

    def bind(self, node: fx.Node) -> dict[str, Any]:
        """Arguments by schema name, nodes replaced by their labels or values."""
        assert isinstance(node.target, torch._ops.OpOverload)
        bound: dict[str, Any] = {}
        for position, argument in enumerate(node.target._schema.arguments):
            if position < len(node.args):
                raw: Any = node.args[position]
            else:
                raw = node.kwargs.get(argument.name, argument.default_value)
            bound[argument.name] = fx.map_arg(raw, lambda n: self.values[n])
        return bound

    def unknown(self, node: fx.Node, why: str = "has no rule") -> Any:
        """Freeze everything that meets an operator without a rule."""
        for used in node.all_input_nodes:
            self.freeze_all(self.values[used], f"{self.where}: {why}")
        return _unlabelled(node)

    # What rules use -----------------------------------------------------------------

    def tie(self, a: Tensor, b: Tensor, reason: str | None = None) -> None:
        """Elements at the same place (after broadcasting) belong together."""
        self.space.tie(a, b, reason or f"combined with channels that stay by {self.where}")

    def freeze(self, labels: Tensor, reason: str | None = None) -> None:
        """These channels stay."""
        self.space.freeze(labels, reason or f"read by {self.where}")

    def freeze_all(self, value: Any, reason: str) -> None:
        """Freeze every channel in a value (nested lists included)."""
        for labels in labels_in(value):
            for f in labels.fields:
                self.space.freeze(f, reason)

    def collapse(self, f: Tensor, dims: Iterable[int]) -> Tensor:
        """Tie the field along ``dims``; the result varies along the others only."""
        first = f
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        self.tie(f, first)
        return first.expand(f.shape)

    def pin(self, f: Tensor, dims: Iterable[int], reason: str | None = None) -> Tensor | None:
        """Demand that the extents along ``dims`` stay; None where nothing can vary then."""
        changing = varying(f)
        pinned = [d for d in dims if d in changing]
        if not pinned:
            return f
        if len(pinned) == len(changing):
            self.freeze(f, reason or f"combined with something of fixed size by {self.where}")
            return None
        return self.collapse(f, pinned)

    def axis(self, labels: Labels, dim: int) -> tuple[Tensor, list[Tensor]]:
        """Labels along ``dim`` (size,), `STAYS` where none, and the other fields.

        A field that varies along other dimensions too is tied along those.
        """
        along = torch.full((labels.shape[dim],), STAYS)
        rest = []
        for f in labels.fields:
            changing = varying(f)
            if dim not in changing:
                rest.append(f)
                continue
            f = self.collapse(f, [d for d in changing if d != dim])
            along = line(f, dim)
        return along, rest

    def settle(self, fields: Iterable[Tensor], shape: Iterable[int]) -> Labels:
        """Labels from fields: constant ones are frozen, conflicting ones too."""
        kept: list[Tensor] = []
        for f in fields:
            f = compress(f)
            changing = varying(f)
            if not changing:
                if f.numel():
                    self.freeze(f, f"all tied to one another by {self.where}")
                continue
            clash = [g for g in kept if set(varying(g)) & set(changing)]
            if clash:
                for g in (*clash, f):
                    self.freeze(g, f"two kinds of channels mixed along one axis by {self.where}")
                kept = [g for g in kept if all(g is not c for c in clash)]
                continue
            kept.append(f)
        return Labels(tuple(shape), tuple(kept))

    def along(self, labels: Tensor, dim: int, shape: Iterable[int]) -> Tensor:
        """Field of ``shape`` with ``labels`` (size,) along ``dim``."""
        size = list(shape)
        return labels.view([-1 if d == dim else 1 for d in range(len(size))]).expand(size)

    def box(self, f: Tensor, equal_along: int | None = None) -> None:
        """Record that what is kept of ``f`` must form a box."""
        changing = varying(f)
        if len(changing) > 1 or equal_along is not None:
            position = None if equal_along is None else changing.index(equal_along)
            self.rectangles.append(
                Rectangle(grid(f), position, f"cut into equal parts by {self.where}")
            )

    def site(self, labels: Tensor, attribute: str) -> None:
        """The attribute ``attribute`` of the current module holds the size of this axis."""
        self.sites.append(Site(self.module, labels.reshape(-1, 1), attribute=attribute))

    def consume(self, labels: Tensor) -> None:
        """Parameter axes among ``labels`` are read by a layer."""
        for origin in self.space.origins(labels):
            self.consumed.add(origin)
            self.order.setdefault(origin, self.module or origin[0].rpartition(".")[0])

    def produce(self, labels: Tensor) -> None:
        """Parameter axes among ``labels`` are output channels of a layer."""
        for origin in self.space.origins(labels):
            self.produced.add(origin)
            self.order.setdefault(origin, self.module or origin[0].rpartition(".")[0])

    def count(self, total: float, axes: Iterable[Tensor]) -> None:
        """Record ``total`` multiply-accumulates of the whole batch, split over ``axes``."""
        coefficient = total / self.traced.example.batch_size
        flat = tuple(grid(a).reshape(-1) for a in axes)
        for axis in flat:
            coefficient /= max(1, axis.numel())
        self.terms.append(Term(self.module, coefficient, flat))


Rule = Callable[[Labeller, fx.Node, Arguments], Any]
"""Computes the labels of an operator's result from those of its arguments."""


def labels_in(value: Any) -> list[Labels]:
    """All labels in a nested value."""
    if isinstance(value, Labels):
        return [value]
    if isinstance(value, (tuple, list)):
        return [labels for item in value for labels in labels_in(item)]
    return []


def _unlabelled(node: fx.Node) -> Any:
    return result_like(node.meta.get("val"), lambda shape: Labels(shape))


def result_like(value: Any, make: Callable[[tuple[int, ...]], Labels]) -> Any:
    """Map every tensor in a (nested) example value through ``make(shape)``."""
    if isinstance(value, Tensor):
        return make(tuple(value.shape))
    if isinstance(value, (tuple, list)):
        return tuple(result_like(v, make) for v in value)
    return value
