"""Classes, families, owners, costs and size attributes from the collected labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune.graph._boxes import Partition, resolve_boxes
from mipprune.graph._sizes import size_attributes
from mipprune.graph.groups import (
    FROZEN,
    Axis,
    ChannelGroups,
    CostTerm,
    Family,
    FrozenChannels,
    SizeAttribute,
)
from mipprune.graph.labeller import Labeller
from mipprune.graph.labels import Components

__all__ = ["assemble"]

Owner = NDArray[np.int64]
Key = tuple[str, int]


@dataclass(frozen=True, eq=False)
class _Classes:
    """Final numbering: class index of each component, `FROZEN` where it has none."""

    components: Components
    number: Owner

    def owner(self, labels: Owner) -> Owner:
        found = self.components.of(labels)
        return np.where(found < 0, FROZEN, self.number[found])


def assemble(model: nn.Module, state: Labeller) -> ChannelGroups:
    """Build `ChannelGroups` from what the walk over the network collected."""
    axes = {key: labels.numpy() for key, labels in state.axes.items()}
    partitions, components = _settled(state, axes)
    runs = _families(state, axes, components, partitions)
    number = np.full(components.count, FROZEN)
    number[[c for run in runs for c in run]] = np.arange(sum(len(run) for run in runs))
    classes = _Classes(components, number)
    owners = {key: classes.owner(labels) for key, labels in axes.items()}
    owned = {key: owner for key, owner in owners.items() if (owner >= 0).any()}
    families = _describe(state, runs, owned, partitions, components)
    return ChannelGroups(
        families=families,
        axes=tuple(
            Axis(name, dim, owner, _role(state, (name, dim)))
            for (name, dim), owner in owned.items()
        ),
        parameter_terms=_parameter_terms(model, state, owned),
        mac_terms=_mac_terms(state, classes),
        frozen=_frozen(state, axes, owners, components),
        attributes=_attributes(model, state, classes, owned),
        aliases=dict(state.traced.aliases),
        norms={
            call: owner
            for call, labels in state.norms.items()
            if ((owner := classes.owner(labels.numpy())) >= 0).any()
        },
        example=state.traced.example,
    )


def _settled(state: Labeller, axes: dict[Key, Owner]) -> tuple[list[Partition], Components]:
    """Freeze what nobody produces or reads, then make every box realisable."""
    resolve_boxes(state)
    components = state.space.components()
    made = _members(components, axes, state.produced)
    read = _members(components, axes, state.consumed)
    for labels in axes.values():
        found = components.of(labels)
        for member, reason in ((made, "no layer produces them"), (read, "no layer reads them")):
            lost = (found >= 0) & ~member[found]
            if lost.any():
                state.space.freeze_numbers(labels[lost], reason)
    return resolve_boxes(state), state.space.components()


def _members(
    components: Components, axes: dict[Key, Owner], keys: Iterable[Key]
) -> NDArray[np.bool_]:
    """Which components occur on one of the axes ``keys``."""
    member = np.zeros(components.count, dtype=bool)
    for key in keys:
        if key in axes:
            found = components.of(axes[key])
            member[found[found >= 0]] = True
    return member


def _role(state: Labeller, key: Key) -> str:
    if key in state.consumed:
        return "consume"
    return "produce" if key in state.produced else "carry"


def _families(
    state: Labeller, axes: dict[Key, Owner], components: Components, partitions: list[Partition]
) -> list[list[int]]:
    """Components with the same axes, joined where equal counts link them, in order of execution."""
    touched: dict[int, list[Key]] = {}
    order = _ordered(state, axes)
    for key in order:
        found = components.of(axes[key])
        for component in dict.fromkeys(found[found >= 0].tolist()):
            touched.setdefault(component, []).append(key)
    parent = {c: tuple(keys) for c, keys in touched.items()}
    runs: dict[object, list[int]] = {}
    for component, signature in parent.items():
        runs.setdefault(signature, []).append(component)
    groups = list(runs.values())
    for partition in partitions:
        linked = [g for g in groups if partition.row.keys() & set(g)]
        if len(linked) > 1:
            groups = [g for g in groups if all(g is not h for h in linked)]
            groups.append([c for g in linked for c in g])
    rank = {c: i for i, c in enumerate(parent)}
    for group in groups:
        group.sort(key=rank.__getitem__)
    groups.sort(key=lambda g: rank[g[0]])
    return groups


def _ordered(state: Labeller, axes: Iterable[Key]) -> list[Key]:
    """Produced axes in the order of execution, then the others as met."""
    ranks = {k: i for i, k in enumerate(state.order)}
    return sorted(axes, key=lambda k: (k not in state.produced, ranks.get(k, len(ranks))))


def _describe(
    state: Labeller,
    runs: list[list[int]],
    owned: dict[Key, Owner],
    partitions: list[Partition],
    components: Components,
) -> tuple[Family, ...]:
    family_of = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    touching: list[list[Key]] = [[] for _ in runs]
    for key in state.order:
        if key in owned:
            for index in np.unique(family_of[owned[key][owned[key] >= 0]]).tolist():
                touching[index].append(key)
    found = [components.of(labels.numpy()) for labels in state.norms.values()]
    normalised = set(np.concatenate(found).tolist()) if found else set()
    families = []
    start = 0
    used: set[str] = set()
    for run, keys in zip(runs, touching, strict=True):
        producers = _modules(state, [k for k in keys if k in state.produced])
        consumers = _modules(state, [k for k in keys if k in state.consumed])
        parts = tuple(_part(p, run) for p in partitions if p.row.keys() & set(run))
        name = _unique(producers[0] if producers else "model", used)
        minimum = max([1, *(len(set(p.tolist()) - {FROZEN}) for p in parts)])
        stop = start + len(run)
        exact = normalised.isdisjoint(run)
        families.append(Family(name, start, stop, producers, consumers, parts, exact, minimum))
        start = stop
    return tuple(families)


def _modules(state: Labeller, keys: Sequence[Key]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(state.order[k] or k[0] for k in keys))


def _unique(name: str, used: set[str]) -> str:
    candidate, i = name, 1
    while candidate in used:
        i += 1
        candidate = f"{name}#{i}"
    used.add(candidate)
    return candidate


def _part(partition: Partition, run: list[int]) -> Owner:
    return np.array([partition.row.get(c, FROZEN) for c in run], dtype=np.int64)


def _parameter_terms(
    model: nn.Module, state: Labeller, owned: dict[Key, Owner]
) -> tuple[CostTerm, ...]:
    terms = []
    for name, parameter in model.named_parameters():
        if name in state.traced.aliases:
            continue
        axes = []
        coefficient = 1.0
        for dim, size in enumerate(parameter.shape):
            if (name, dim) in owned:
                axes.append(owned[name, dim])
            else:
                coefficient *= size
        terms.append(CostTerm(name, coefficient, tuple(axes)))
    return tuple(terms)


def _mac_terms(state: Labeller, classes: _Classes) -> tuple[CostTerm, ...]:
    terms = []
    for term in state.terms:
        axes = []
        coefficient = term.coefficient
        for labels in term.axes:
            owner = classes.owner(labels.numpy())
            if (owner >= 0).any():
                axes.append(owner)
            else:
                coefficient *= owner.size
        terms.append(CostTerm(term.name, coefficient, tuple(axes)))
    return tuple(terms)


def _frozen(
    state: Labeller, axes: dict[Key, Owner], owners: dict[Key, Owner], components: Components
) -> tuple[FrozenChannels, ...]:
    """Output channels of layers that stay, by layer and reason."""
    found: dict[tuple[str, str], int] = {}
    for key in state.order:
        if key not in state.produced or key not in axes:
            continue
        if (key[0], 1) not in axes and key[0].endswith("bias"):
            continue
        stays = axes[key][owners[key] < 0]
        for component in components.index[stays].tolist():
            reason = components.reasons.get(component, "tied to channels that stay")
            entry = (state.order[key] or key[0], reason)
            found[entry] = found.get(entry, 0) + 1
    return tuple(FrozenChannels(name, count, reason) for (name, reason), count in found.items())


def _attributes(
    model: nn.Module, state: Labeller, classes: _Classes, owned: dict[Key, Owner]
) -> tuple[SizeAttribute, ...]:
    return size_attributes(
        model, state.sites, classes.owner, owned, state.traced.aliases, state.integers_read
    )
