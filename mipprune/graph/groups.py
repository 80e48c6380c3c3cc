"""Which channels are tied, what each owns and what each costs: plain data.

A *class* is a set of channels that can only be removed together: one binary
variable of the program. A *family* is a run of classes that share producers
and consumers (the channels of one layer, of one residual stream). Everything
else is written per axis of a tensor: position ``i`` of axis ``dim`` of a
parameter belongs to class ``owner[i]``, or to nobody (``FROZEN``) and stays.

Costs follow from that and nothing else: a tensor has as many elements as the
product of what is kept along its axes, and an operation takes a coefficient
times such a product. Predicted and counted sizes therefore agree exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import require_mapping
from mipprune.errors import InputError
from mipprune.graph.example import Example

__all__ = [
    "FROZEN",
    "Axis",
    "ChannelGroups",
    "CostTerm",
    "Family",
    "FrozenChannels",
    "Masks",
    "SizeAttribute",
]

FROZEN = -1
"""Owner of a position that no class owns; it is always kept."""

Masks = Mapping[str, NDArray[np.bool_]]
"""Family name -> bool array (n_classes of the family,), True = kept."""

Owner = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one parameter or buffer, position by position.

    Attributes
    ----------
    tensor : str
        Qualified name as in ``state_dict`` (first name if the storage is tied).
    dim : int
        Axis of the tensor.
    owner : ndarray of int64, shape (size of the axis,)
        Class that owns each position, ``FROZEN`` where none does.
    role : {"produce", "consume", "carry"}
        ``produce``: output channels of a convolution or linear layer (weight
        and bias); ``consume``: the channels such a layer reads; ``carry``:
        per-channel parameters and buffers in between (norms, scales).
    """

    tensor: str
    dim: int
    owner: Owner
    role: str


@dataclass(frozen=True, eq=False)
class Family:
    """A run of classes ``start .. stop - 1`` with common producers and consumers.

    Attributes
    ----------
    name : str
        Readable and unique: the module that produces the channels first.
    start, stop : int
        Range of global class indices.
    producers, consumers : tuple of str
        Module names, in the order of execution.
    parts : tuple of int64 arrays, shape (stop - start,)
        Equal-count constraints: within each array every label occurs as often
        among the kept classes as every other (label ``FROZEN`` is exempt).
    removal_is_zeroing : bool
        False where a norm reads over the family's axis or a removed channel
        would leave a constant: the masked and the smaller network then differ.
    minimum : int
        Fewest classes that must stay, at least 1.
    """

    name: str
    start: int
    stop: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    parts: tuple[Owner, ...] = ()
    removal_is_zeroing: bool = True
    minimum: int = 1

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class CostTerm:
    """``coefficient * prod_axes (number of kept positions of the axis)``.

    Attributes
    ----------
    name : str
        Parameter name (elements) or module name (MACs).
    coefficient : float
        Elements or multiply-accumulates (per example) of one combination.
    axes : tuple of int64 arrays
        Owners along each axis; axes without any owned position are folded
        into the coefficient, so a term is constant, linear or bilinear.
    """

    name: str
    coefficient: float
    axes: tuple[Owner, ...] = ()

    def value(self, kept: NDArray[np.bool_]) -> float:
        """Cost under ``kept``, bool (n_classes,)."""
        total = self.coefficient
        for owner in self.axes:
            total *= count_kept(owner, kept)
        return total


@dataclass(frozen=True)
class FrozenChannels:
    """Channels that stay, with the reason."""

    name: str
    n_channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class SizeAttribute:
    """A Python attribute that holds a size, e.g. ``bn1.num_features``.

    ``divisor``: the attribute equals kept positions / divisor (heads, groups).
    """

    module: str
    attribute: str
    owner: Owner
    divisor: int = 1


def count_kept(owner: Owner, kept: NDArray[np.bool_]) -> int:
    """Positions of an axis that stay: those kept or owned by nobody."""
    owned = owner >= 0
    return int(np.count_nonzero(~owned) + np.count_nonzero(kept[owner[owned]]))


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """All tied channels of one network: the variables and costs of the program.

    Attributes
    ----------
    families : tuple of Family
        Their class ranges are disjoint and cover ``0 .. n_classes - 1``.
    axes : tuple of Axis
        Every axis with at least one owned position.
    parameter_terms, mac_terms : tuple of CostTerm
        One per distinct parameter (tied storage once) and per counted
        operation; buffers are not parameters. MACs are per example.
    frozen : tuple of FrozenChannels
    attributes : tuple of SizeAttribute
    aliases : mapping
        Other name of a tied tensor -> the name used in ``axes``.
    norms : mapping
        Number of the call of a layer or RMS norm -> owner of each channel that
        its statistics are taken over.
    example : Example, optional
        The inputs the network was traced with; removal is checked on them.

    Raises
    ------
    InputError
        If the class ranges of the families do not cover ``0..n_classes-1``.
    """

    families: tuple[Family, ...]
    axes: tuple[Axis, ...]
    parameter_terms: tuple[CostTerm, ...]
    mac_terms: tuple[CostTerm, ...]
    frozen: tuple[FrozenChannels, ...] = ()
    attributes: tuple[SizeAttribute, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[int, Owner] = field(default_factory=dict)
    example: Example | None = None

    def __post_init__(self) -> None:
        expected = 0
        for family in self.families:
            if family.start != expected or family.stop <= family.start:
                raise InputError(
                    f"family '{family.name}' has classes {family.start}..{family.stop - 1}, "
                    f"expected a non-empty range starting at {expected}"
                )
            expected = family.stop
        if len({family.name for family in self.families}) != len(self.families):
            raise InputError("two families have the same name; names must be unique")

    @property
    def n_classes(self) -> int:
        """Number of binary variables."""
        return self.families[-1].stop if self.families else 0

    @cached_property
    def by_name(self) -> Mapping[str, Family]:
        """Families by name."""
        return {family.name: family for family in self.families}

    def __iter__(self) -> Iterator[Family]:
        return iter(self.families)

    def __len__(self) -> int:
        return len(self.families)

    def kept(self, masks: Masks) -> NDArray[np.bool_]:
        """Flatten ``masks`` to one bool array (n_classes,).

        Families that are not named stay whole.

        Raises
        ------
        InputError
            Unknown family, wrong length, dtype other than bool, fewer than the
            family's minimum kept, or an equal-count constraint violated.
        """
        expected = "a mapping of family names to bool arrays, True = kept"
        kept = np.ones(self.n_classes, dtype=bool)
        for name, mask in require_mapping("masks", masks, expected).items():
            if name not in self.by_name:
                raise InputError(
                    f"no family is called '{name}'; the families are: {', '.join(self.by_name)}"
                )
            family = self.by_name[name]
            kept[family.start : family.stop] = _checked_mask(family, mask)
        return kept

    def masks(self, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        """Split a flat bool array (n_classes,) into masks by family name."""
        if kept.shape != (self.n_classes,) or kept.dtype != np.bool_:
            raise InputError(
                f"expected a bool array of shape ({self.n_classes},), got {kept.dtype} {kept.shape}"
            )
        return {f.name: kept[f.start : f.stop].copy() for f in self.families}

    def parameters(self, kept: NDArray[np.bool_] | None = None) -> int:
        """Number of parameters of the network after removal."""
        return round(_total(self.parameter_terms, self._or_all(kept)))

    def macs(self, kept: NDArray[np.bool_] | None = None) -> int:
        """Multiply-accumulates per example after removal."""
        return round(_total(self.mac_terms, self._or_all(kept)))

    def _or_all(self, kept: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        return np.ones(self.n_classes, dtype=bool) if kept is None else kept

    def __str__(self) -> str:
        rows = [("family", "classes", "producers", "consumers", "notes")]
        for f in self.families:
            notes = [] if f.removal_is_zeroing else ["removal differs from zeroing"]
            notes += [f"{len(set(p.tolist()) - {FROZEN})} equal parts" for p in f.parts]
            rows.append(
                (
                    f.name,
                    str(len(f)),
                    _shorten(f.producers),
                    _shorten(f.consumers),
                    "; ".join(notes),
                )
            )
        rows += [(z.name, str(z.n_channels), "", "", f"frozen: {z.reason}") for z in self.frozen]
        widths = [max(len(row[c]) for row in rows) for c in range(5)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        lines.append(
            f"{self.n_classes} classes in {len(self)} families; "
            f"{self.parameters():,} parameters, {self.macs():,} MACs per example"
        )
        return "\n".join(line.rstrip() for line in lines)


def _checked_mask(family: Family, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (len(family),):
        raise InputError(
            f"mask of family '{family.name}': expected bool of shape ({len(family)},), "
            f"got {mask.dtype} {mask.shape}"
        )
    if mask.sum() < family.minimum:
        raise InputError(
            f"mask of family '{family.name}' keeps {mask.sum()} of {len(family)} classes, "
            f"at least {family.minimum} must stay"
        )
    for part in family.parts:
        counts = [int(mask[part == label].sum()) for label in np.unique(part[part >= 0])]
        if len(set(counts)) > 1:
            raise InputError(
                f"mask of family '{family.name}' keeps {counts} classes in its parts; "
                "the network needs the same number in each"
            )
    return mask


def _total(terms: tuple[CostTerm, ...], kept: NDArray[np.bool_]) -> float:
    return sum(term.value(kept) for term in terms)


def _shorten(names: tuple[str, ...], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)})"
