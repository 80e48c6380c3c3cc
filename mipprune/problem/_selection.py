"""The channel-selection program: terms that share one mask, and its constraints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import (
    require_choice,
    require_floats,
    require_instance,
    require_iterable,
    require_number,
)
from mipprune.errors import BudgetError, InputError
from mipprune.problem._resources import RELATIVE_SLACK, Resource, check_reachable, resources_from
from mipprune.problem._term import Term, read_only
from mipprune.problem._value import best_weights, quadratic_form, value_of_weights

__all__ = ["VARIANTS", "ChannelSelection"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

VARIANTS = ("refit", "scale", "mask")


@dataclass(frozen=True, eq=False, init=False)
class ChannelSelection:
    r"""Choose channels of a layer: the mixed-integer program, immutable.

    .. math:: \min_{W, y} \sum_t \Big[ \tfrac12 \operatorname{tr}(W_t^\top G_t W_t)
        - \operatorname{tr}(C_t^\top W_t) + \tfrac12 e_t
        + \tfrac12 \sum_j \rho_{tj} \|W_{tj}\|_F^2 \Big] + \sum_j \mu_j y_j

    subject to :math:`W_{tj} = 0` where :math:`y_j = 0`,
    :math:`l \le A y \le u`, optionally :math:`|W_{tj}| \le M_{tj}`, y binary.

    The constructor is the shorthand for one term; :meth:`from_terms` takes
    several consumers of the same channels.

    Parameters
    ----------
    gram : array (d, d)
        X'X / N of the calibration inputs.
    cross : array (d, m)
        X'Y / N.
    energy : float
        ||Y||^2 / N.
    group_sizes : int array (p,)
        Rows of each channel, in order.
    ridge : float or array (p,), default 0
        Coefficient of the squared norm of each channel's weights.
    costs : array (p,) or (r, p), optional
        Resources that a kept channel uses (parameters, MACs, ...).
    budgets : float or array (r,), optional
        Upper limit of each resource.
    keep : int, optional
        At most this many channels.
    prices : float or array (p,), default 0
        Added to the objective for each kept channel.
    big_m : float or array (p,), default inf
        Bound on each absolute weight.
    variant : {"refit", "scale", "mask"}
        Weights free, one factor per channel, or the original weights.
    dense : array (d, m), optional
        Original weights, for ``scale`` and ``mask``.
    lower : float or array (r,), optional
        Lower limit of each resource.
    forced_in, forced_out : bool array (p,), optional
        Channels decided beforehand.
    parts : sequence of int arrays (p,), optional
        Equal counts: within each array, every label >= 0 occurs equally often
        among the kept channels.

    Raises
    ------
    InputError
        Data that do not fit together.
    BudgetError
        No mask satisfies the limits; the message gives the reachable range.

    Examples
    --------
    >>> import numpy as np
    >>> problem = ChannelSelection(np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1)
    >>> float(problem.value(np.array([True, False])))
    0.125
    """

    terms: tuple[Term, ...]
    prices: Floats
    resources: tuple[Resource, ...]
    variant: str
    forced_in: Bools
    forced_out: Bools
    parts: tuple[NDArray[np.int64], ...]

    def __init__(
        self,
        gram: ArrayLike,
        cross: ArrayLike,
        energy: float,
        group_sizes: ArrayLike,
        *,
        ridge: ArrayLike = 0.0,
        costs: ArrayLike | None = None,
        budgets: ArrayLike | None = None,
        keep: int | None = None,
        prices: ArrayLike = 0.0,
        big_m: ArrayLike = np.inf,
        variant: str = "refit",
        dense: ArrayLike | None = None,
        lower: ArrayLike | None = None,
        forced_in: ArrayLike | None = None,
        forced_out: ArrayLike | None = None,
        parts: Sequence[ArrayLike] = (),
    ) -> None:
        term = Term.create(gram, cross, energy, group_sizes, ridge=ridge, big_m=big_m, dense=dense)
        resources = resources_from(term.n_channels, costs, budgets, lower)
        self._fill((term,), prices, resources, keep, variant, forced_in, forced_out, parts)

    @classmethod
    def from_terms(
        cls,
        terms: Iterable[Term],
        *,
        prices: ArrayLike = 0.0,
        resources: Sequence[Resource] = (),
        keep: int | None = None,
        variant: str = "refit",
        forced_in: ArrayLike | None = None,
        forced_out: ArrayLike | None = None,
        parts: Sequence[ArrayLike] = (),
    ) -> "ChannelSelection":
        """Build from several terms that share one mask (see the class for the rest)."""
        given = tuple(require_iterable("terms", terms, "a list of Term"))
        limits = tuple(require_iterable("resources", resources, "a list of Resource"))
        problem = cls.__new__(cls)
        problem._fill(given, prices, limits, keep, variant, forced_in, forced_out, parts)
        return problem

    def _fill(
        self,
        terms: tuple[Term, ...],
        prices: ArrayLike,
        resources: tuple[Resource, ...],
        keep: int | None,
        variant: str,
        forced_in: ArrayLike | None,
        forced_out: ArrayLike | None,
        parts: Sequence[ArrayLike],
    ) -> None:
        if not terms or not all(isinstance(term, Term) for term in terms):
            raise InputError("terms: expected at least one Term")
        p = terms[0].n_channels
        if any(term.n_channels != p for term in terms):
            raise InputError(
                f"terms have {[t.n_channels for t in terms]} channels; all must share one mask"
            )
        for resource in resources:
            require_instance("resources", resource, Resource)
        require_choice("variant", variant, VARIANTS)
        if variant != "refit":
            for term in terms:
                term.require_dense(variant)
        if keep is not None:
            resources = (Resource.count(p, keep), *resources)
        if len({resource.name for resource in resources}) != len(resources):
            raise InputError(f"resources share a name: {[r.name for r in resources]}")
        put = object.__setattr__
        put(self, "terms", terms)
        put(self, "prices", _prices(prices, p))
        put(self, "resources", tuple(resource.checked(p) for resource in resources))
        put(self, "variant", variant)
        put(self, "forced_in", _flags("forced_in", forced_in, p))
        put(self, "forced_out", _flags("forced_out", forced_out, p))
        put(self, "parts", tuple(_labels(part, p) for part in require_iterable("parts", parts)))
        both = np.flatnonzero(self.forced_in & self.forced_out)
        if both.size:
            raise BudgetError(f"channels {both.tolist()} are forced both in and out")
        check_reachable(self.resources, self.forced_in, self.forced_out)

    @property
    def n_channels(self) -> int:
        """Number of channels p."""
        return self.terms[0].n_channels

    @property
    def energy(self) -> float:
        """Sum of the terms' energies e; half of it is the value of the empty mask."""
        return sum(term.energy for term in self.terms)

    @property
    def keep(self) -> int | None:
        """Most channels that may stay, where such a limit is given."""
        for resource in self.resources:
            if resource.is_count and np.isfinite(resource.upper):
                return int(np.floor(resource.upper + RELATIVE_SLACK * self.n_channels))
        return None

    @property
    def has_box(self) -> bool:
        """True where some weight is bounded."""
        return any(term.has_box for term in self.terms)

    @cached_property
    def upper_constraints(self) -> tuple[Floats, Floats]:
        """All resource limits as ``A y <= b``: float64 (r, p) and (r,)."""
        rows = [r.costs for r in self.resources if np.isfinite(r.upper)]
        limits = [r.upper for r in self.resources if np.isfinite(r.upper)]
        rows += [-r.costs for r in self.resources if np.isfinite(r.lower)]
        limits += [-r.lower for r in self.resources if np.isfinite(r.lower)]
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), self.n_channels)
        return matrix, np.array(limits, dtype=np.float64)

    def is_feasible(self, mask: ArrayLike) -> bool:
        """Whether ``mask`` meets every limit, forced channel and equal count."""
        y = self.checked_mask(mask)
        if np.any(self.forced_in & ~y) or np.any(self.forced_out & y):
            return False
        if not all(resource.admits(y) for resource in self.resources):
            return False
        for part in self.parts:
            counts = {int(y[part == label].sum()) for label in np.unique(part[part >= 0])}
            if len(counts) > 1:
                return False
        return True

    def value(self, mask: ArrayLike) -> float:
        """Objective of a mask: error, ridge and prices, with the best weights."""
        y = self.checked_mask(mask)
        problem = self.canonical()
        if problem.variant == "mask":
            matrix, vector, constant = problem.binary_quadratic()
            chosen = matrix[np.ix_(y, y)]
            return float(constant + vector[y].sum() + 0.5 * chosen.sum())
        return problem._value_of(problem.weights(y), y)

    def solved(self, mask: ArrayLike) -> tuple[float, tuple[Floats, ...]]:
        """:meth:`value` and :meth:`weights` of a mask, from one solve per term if possible."""
        y = self.checked_mask(mask)
        weights = self.weights(y)
        value = self._value_of(weights, y) if self.variant == "refit" else self.value(y)
        return value, weights

    def _value_of(self, weights: Sequence[Floats], y: NDArray[np.bool_]) -> float:
        """Objective of refitted weights."""
        pairs = zip(self.terms, weights, strict=True)
        return float(sum(value_of_weights(t, w, y) for t, w in pairs) + self.prices[y].sum())

    def weights(self, mask: ArrayLike) -> tuple[Floats, ...]:
        """Best weights of each term under ``mask``, float64 (d, m), zero where removed."""
        y = self.checked_mask(mask)
        if self.variant == "refit":
            return tuple(best_weights(term, y) for term in self.terms)
        dense = [term.require_dense(self.variant) for term in self.terms]
        if self.variant == "mask":
            return tuple(
                w * term.rows(y)[:, None] for w, term in zip(dense, self.terms, strict=True)
            )
        scales = [best_weights(term, y)[:, 0] for term in self.canonical().terms]
        return tuple(
            w * beta[term.channel_of_row][:, None]
            for w, beta, term in zip(dense, scales, self.terms, strict=True)
        )

    def canonical(self) -> "ChannelSelection":
        """Equivalent problem of variant ``refit`` or ``mask`` (same masks and values)."""
        if self.variant != "scale":
            return self
        return self._scaled

    @cached_property
    def _scaled(self) -> "ChannelSelection":
        return self._copy(
            terms=tuple(term.scaled_channels() for term in self.terms), variant="refit"
        )

    def binary_quadratic(self) -> tuple[Floats, Floats, float]:
        """Variant ``mask`` as ``constant + vector'y + y'matrix y / 2``.

        Returns
        -------
        matrix : float64 (p, p), zero diagonal
        vector : float64 (p,)
        constant : float
        """
        if self.variant != "mask":
            raise InputError(f"binary_quadratic needs variant 'mask', this is '{self.variant}'")
        matrix, vector = quadratic_form([term.scaled_channels() for term in self.terms])
        return matrix, vector + self.prices, self.energy / 2

    def with_keep(self, keep: int) -> "ChannelSelection":
        """The same problem with another limit on the number of channels."""
        count = Resource.count(self.n_channels, keep).checked(self.n_channels)
        others = []
        for resource in self.resources:
            if resource.name != count.name:
                others.append(resource)
            elif resource.is_count:
                count = replace(count, lower=resource.lower).checked(self.n_channels)
            else:
                raise InputError("a resource called 'channels' is not a count; rename it")
        return self._copy(resources=(count, *others))

    def with_forced(self, forced_in: ArrayLike, forced_out: ArrayLike) -> "ChannelSelection":
        """The same problem with other channels decided beforehand."""
        p = self.n_channels
        return self._copy(
            forced_in=_flags("forced_in", forced_in, p),
            forced_out=_flags("forced_out", forced_out, p),
        )

    def with_damping(self, damping: float) -> "ChannelSelection":
        """Ridge of each term set to ``damping * mean(diag(gram))``."""
        damping = require_number("damping", damping, at_least=0)
        terms = []
        for term in self.terms:
            mean = float(np.diag(term.gram).mean()) if term.n_rows else 0.0
            terms.append(replace(term, ridge=np.full(term.n_channels, damping * mean)))
        return self._copy(terms=tuple(terms))

    def _copy(self, **changes: object) -> "ChannelSelection":
        problem = ChannelSelection.__new__(ChannelSelection)
        for name in self.__dataclass_fields__:
            object.__setattr__(problem, name, changes.get(name, getattr(self, name)))
        check_reachable(problem.resources, problem.forced_in, problem.forced_out)
        return problem

    def checked_mask(self, mask: ArrayLike) -> Bools:
        """``mask`` as a bool array (p,), or an InputError."""
        given = np.asarray(mask)
        if given.shape != (self.n_channels,):
            raise InputError(f"mask: expected shape ({self.n_channels},), got {given.shape}")
        if given.dtype != np.bool_ and not np.all((given == 0) | (given == 1)):
            raise InputError("mask: expected booleans or zeros and ones")
        return given.astype(bool)

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file without pickle; see :mod:`mipprune.problem`."""
        from mipprune.problem._file import save_problem

        return save_problem(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "ChannelSelection":
        """Read a file written by :meth:`save`, or any npz with the four first keys."""
        from mipprune.problem._file import load_problem

        return load_problem(path)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything the problem holds, hexadecimal."""
        from mipprune.problem._file import content_hash

        return content_hash(self)


def _prices(values: ArrayLike, p: int) -> Floats:
    array = require_floats("prices", values)
    if array.ndim > 1 or (array.ndim == 1 and array.size != p):
        raise InputError(f"prices: expected a scalar or shape ({p},), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InputError("prices: expected finite values")
    return read_only(np.broadcast_to(array, (p,)))


def _flags(name: str, values: ArrayLike | None, p: int) -> Bools:
    if values is None:
        return read_only(np.zeros(p, dtype=np.bool_))
    array = np.asarray(values)
    if array.shape != (p,) or array.dtype != np.bool_:
        raise InputError(f"{name}: expected bool of shape ({p},), got {array.dtype} {array.shape}")
    return read_only(array)


def _labels(values: ArrayLike, p: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (p,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"parts: expected integers of shape ({p},), got {array.shape}")
    return read_only(array.astype(np.int64))
