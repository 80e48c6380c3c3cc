"""Budgets: how much of a network may remain."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import gcd

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import (
    require_instance,
    require_iterable,
    require_mapping,
    shown,
    suggestion,
)
from mipprune.errors import BudgetError, InputError
from mipprune.graph._entry import require_groups
from mipprune.graph.groups import FROZEN, ChannelGroups, CostTerm, Family, Masks

__all__ = ["BudgetReport", "Budgets", "Resource", "admissible_counts", "cheapest"]

_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmg%]?)\s*", re.IGNORECASE)
_UNITS = {"macs": "MACs per example", "params": "parameters", "channels": "channels",
          "latency": "ms"}  # fmt: skip

_SAY = "; write '40%' (of what remains), or an amount such as '1.2M'"
_TERMS = "a list of CostTerm, from LatencyTable.terms(groups)"

Amount = str | int | float


@dataclass(frozen=True, eq=False)
class Resource:
    """One budget made absolute.

    Attributes
    ----------
    name : {"macs", "params", "channels", "latency"}
    asked : str
        As given.
    limit, total, least : float
        Most that may remain; cost of the whole network; least that is reachable.
    terms : tuple of CostTerm
    """

    name: str
    asked: str
    limit: float
    total: float
    least: float
    terms: tuple[CostTerm, ...]


@dataclass(frozen=True)
class BudgetReport:
    """Asked against achieved: rows (resource, asked, limit, achieved, fraction of the whole)."""

    rows: tuple[tuple[str, str, float, float, float], ...]

    @property
    def met(self) -> bool:
        """Whether nothing exceeds its limit."""
        return all(achieved <= limit for _, _, limit, achieved, _ in self.rows)

    def __str__(self) -> str:
        lines = [f"{'budget':10}{'asked':>12}{'limit':>18}{'achieved':>18}{'of whole':>10}"]
        lines += [
            f"{name:10}{asked:>12}{limit:>18,.10g}{achieved:>18,.10g}{fraction:>10.2%}"
            for name, asked, limit, achieved, fraction in self.rows
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Budgets:
    """What may remain of a network: all that are given hold together.

    Each amount is a percentage of the whole network, as text ("40%"), or an
    absolute number, also as text ("1.2M"). Percentages are of what REMAINS.

    Parameters
    ----------
    macs : str, int or float, optional
        Multiply-accumulates per example.
    params : str, int or float, optional
        Parameters.
    channels : str, int or float, optional
        Channel classes; tied channels count once.
    latency : str, int or float, optional
        Milliseconds; needs a latency model, see `resolve`.
    multiple_of : int
        The number of channels kept in each family is a multiple of this, or
        the family stays whole.

    Raises
    ------
    InputError
        An amount that is no percentage in (0, 100] and no positive number.
    """

    macs: Amount | None = None
    params: Amount | None = None
    channels: Amount | None = None
    latency: Amount | None = None
    multiple_of: int = 1

    def __post_init__(self) -> None:
        for name, amount in self.given().items():
            parse_amount(name, amount)
        if type(self.multiple_of) is not int or self.multiple_of < 1:
            raise InputError(f"multiple_of must be a positive integer, got {self.multiple_of!r}")

    @classmethod
    def parse(cls, given: "Budgets | Mapping[str, Amount | None]") -> "Budgets":
        """Budgets from a mapping such as ``{"macs": "40%"}``; unknown names are refused."""
        if isinstance(given, Budgets):
            return given
        known = sorted(f.name for f in fields(cls))
        example = "a mapping such as {'macs': '50%'}, or Budgets(macs='50%')"
        for name in require_mapping("budgets", given, example):
            if name not in known:
                raise InputError(
                    f"unknown budget '{name}'; known are {', '.join(known)}"
                    f"{suggestion(name, known)}"
                )
        values = {k: v for k, v in given.items() if v is not None}
        multiple_of = values.pop("multiple_of", 1)
        if type(multiple_of) is not int:
            raise InputError(f"multiple_of must be a positive integer, got {multiple_of!r}")
        return cls(**values, multiple_of=multiple_of)

    def given(self) -> dict[str, Amount]:
        """The budgets that were set, by name."""
        amounts = {
            "macs": self.macs,
            "params": self.params,
            "channels": self.channels,
            "latency": self.latency,
        }
        return {name: amount for name, amount in amounts.items() if amount is not None}

    def resolve(
        self, groups: ChannelGroups, latency_terms: Sequence[CostTerm] = ()
    ) -> tuple[Resource, ...]:
        """Absolute limits for a network.

        Parameters
        ----------
        groups : ChannelGroups
        latency_terms : sequence of CostTerm
            Latency model in milliseconds, required for a latency budget.

        Raises
        ------
        BudgetError
            No budget given, or one below what is reachable with every family
            at its minimum; the message gives the reachable range.
        """
        require_groups(groups)
        latency_terms = tuple(require_iterable("latency_terms", latency_terms, _TERMS))
        for term in latency_terms:
            require_instance("latency_terms", term, CostTerm)
        if not self.given():
            raise BudgetError("no budget given; set at least one of macs, params, channels")
        terms = {
            "macs": groups.mac_terms,
            "params": groups.parameter_terms,
            "channels": (CostTerm("channels", 1.0, (np.arange(groups.n_classes),)),),
            "latency": latency_terms,
        }
        resources = []
        for name, amount in self.given().items():
            if not terms[name]:
                what = "a latency model (latency_terms)" if name == "latency" else "any such cost"
                raise BudgetError(f"a {name} budget needs {what}, and there is none")
            resources.append(self._resource(groups, name, amount, terms[name]))
        return tuple(resources)

    def _resource(
        self, groups: ChannelGroups, name: str, amount: Amount, terms: tuple[CostTerm, ...]
    ) -> Resource:
        value, is_fraction = parse_amount(name, amount)
        total = sum(t.value(np.ones(groups.n_classes, dtype=bool)) for t in terms)
        limit = value * total if is_fraction else value
        smallest = cheapest(groups, terms, self.multiple_of)
        least = sum(t.value(smallest) for t in terms)
        if limit < least * (1 - 1e-12):
            percent = f"; for a percentage write '{amount}%'" if _looks_like_percent(amount) else ""
            raise BudgetError(
                f"budget {name}={amount} is {limit:,.10g} {_UNITS[name]}, which cannot be reached: "
                f"this network goes from {least:,.10g} ({least / total:.2%}, every family at its "
                f"minimum) to {total:,.10g} (100%){percent}"
            )
        return Resource(name, str(amount), limit, total, least, terms)

    def report(
        self, groups: ChannelGroups, masks: Masks, latency_terms: Sequence[CostTerm] = ()
    ) -> BudgetReport:
        """Asked against achieved for given masks."""
        kept = require_groups(groups).kept(masks)
        rows = []
        for r in self.resolve(groups, latency_terms):
            achieved = sum(t.value(kept) for t in r.terms)
            rows.append((r.name, r.asked, r.limit, achieved, achieved / r.total))
        return BudgetReport(tuple(rows))


def parse_amount(name: str, amount: Amount) -> tuple[float, bool]:
    """(value, is it a fraction of the whole) of a percentage or an absolute number."""
    if isinstance(amount, bool) or not isinstance(amount, str | int | float):
        raise InputError(f"budget {name}={shown(amount)}: expected '40%', a number or '1.2M'")
    text = str(amount)
    match = _NUMBER.fullmatch(text)
    if match is None:
        if text.strip().startswith("-"):
            raise InputError(f"budget {name}={amount}: what remains cannot be negative{_SAY}")
        raise InputError(
            f"budget {name}={amount!r} is not understood; write '40%' (of what remains), "
            "a positive number, or '300k', '1.2M', '2G'"
        )
    value = float(match[1])
    if match[2] == "%":
        if not 0 < value <= 100:
            what = "more than everything" if value > 100 else "nothing"
            raise InputError(
                f"budget {name}={amount}: a percentage must be in (0, 100], the share that "
                f"remains, and this is {what}"
            )
        return value / 100, True
    value *= _SUFFIX[match[2].lower()]
    if not 0 < value < math.inf:
        raise InputError(f"budget {name}={amount}: the amount must be positive and finite{_SAY}")
    if value < 1 and name != "latency":
        raise InputError(
            f"budget {name}={amount}: an absolute amount must be at least 1; "
            f"for a fraction write '{100 * value:g}%'"
        )
    return value, False


def _looks_like_percent(amount: Amount) -> bool:
    """A number from 1 to 100 without a unit, of a network that has far more."""
    value, is_fraction = parse_amount("", amount)
    return not is_fraction and 1 <= value <= 100 and str(amount).strip()[-1].isdigit()


def channels_per_class(groups: ChannelGroups, family: Family) -> int:
    """Positions that each class has on the family's first produced axis, 1 where they differ."""
    for axis in groups.axes:
        own = axis.owner[(axis.owner >= family.start) & (axis.owner < family.stop)]
        if axis.role == "produce" and own.size:
            counts = np.bincount(own - family.start, minlength=len(family))
            return int(counts[0]) if (counts == counts[0]).all() and counts[0] else 1
    return 1


def admissible_counts(
    groups: ChannelGroups, family: Family, size: int, minimum: int, multiple_of: int
) -> NDArray[np.int64]:
    """Numbers of units of ``size`` that may stay, ascending: multiples, or all."""
    width = channels_per_class(groups, family)
    step = multiple_of // gcd(multiple_of, width)
    counts = [k for k in range(step, size, step) if k >= minimum]
    return np.array([*counts, size], dtype=np.int64)


def cheapest(
    groups: ChannelGroups, terms: Sequence[CostTerm], multiple_of: int = 1
) -> NDArray[np.bool_]:
    """Mask with every family at its minimum, keeping the classes with the fewest positions."""
    weight = np.zeros(groups.n_classes)
    for term in terms:
        for owner in term.axes:
            share = term.coefficient * np.prod([a.size for a in term.axes]) / owner.size
            weight += share * np.bincount(owner[owner >= 0], minlength=groups.n_classes)
    kept = np.zeros(groups.n_classes, dtype=bool)
    for family in groups:
        own = weight[family.start : family.stop]
        for rows in unit_rows(family):
            exempt = len(rows) == 1 and bool(family.parts)
            minimum = 0 if exempt else max(1, -(-family.minimum // len(rows)))
            size = min(len(row) for row in rows)
            count = 0
            if not exempt:
                count = int(admissible_counts(groups, family, size, minimum, multiple_of)[0])
            for row in rows:
                kept[family.start + row[np.argsort(own[row], kind="stable")[:count]]] = True
    return kept


def unit_rows(family: Family) -> list[list[NDArray[np.int64]]]:
    """Sets of rows of local class indices; rows of one set keep equal numbers.

    A family without parts is one set of one row; classes exempt from its parts
    form a set of their own, last.
    """
    if not family.parts:
        return [[np.arange(len(family))]]
    part = family.parts[0]
    rows = [np.flatnonzero(part == label) for label in np.unique(part[part != FROZEN])]
    exempt = np.flatnonzero(part == FROZEN)
    return [rows, [exempt]] if exempt.size else [rows]
