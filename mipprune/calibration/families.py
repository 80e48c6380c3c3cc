"""Statistics per family: terms, problems, and weights back into the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mipprune._support.checks import (
    require_choice,
    require_floats,
    require_instance,
    require_iterable,
    require_number,
)
from mipprune.calibration._consumers import (
    Consumer,
    Statistics,
    group_weights,
    store_group_weights,
)
from mipprune.calibration._design import TRANSPOSED
from mipprune.errors import InputError
from mipprune.graph import ChannelGroups, Family, require_network
from mipprune.problem import ChannelSelection, Resource, Term

__all__ = ["CalibratedFamily", "Calibration", "Rows", "apply_weights", "build_calibration"]


SHRINK_TO = ("zero", "trained")
"""What a ridge may pull the weights to."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the rows of a term lie in a layer: group, and rows of its weights by class."""

    layer: str
    group: int
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CalibratedFamily:
    """Statistics of all layers that read the channels of one family.

    Attributes
    ----------
    family : Family
    terms : tuple of Term
        One per layer (per group of a grouped convolution), without ridge; the
        rows of a class are contiguous, and ``dense`` holds the current weights.
    rows : tuple of Rows
        The layer and the rows of each term.
    samples : tuple of int
        Rows N that each term averages over.
    """

    family: Family
    terms: tuple[Term, ...]
    rows: tuple[Rows, ...]
    samples: tuple[int, ...]

    def problem(
        self,
        *,
        damping: float = 0.01,
        weights: Sequence[float] | None = None,
        keep: int | None = None,
        resources: Sequence[Resource] = (),
        prices: ArrayLike = 0.0,
        variant: str = "refit",
        forced_in: ArrayLike | None = None,
        forced_out: ArrayLike | None = None,
        shrink_to: str = "zero",
    ) -> ChannelSelection:
        r"""Program over the classes of the family, its equal counts included.

        Parameters
        ----------
        damping : float
            Ridge of each term relative to the mean diagonal of its Gram matrix.
        weights : sequence of float, optional
            Positive factor of each term, default 1: each layer counts with its
            mean squared error per output position, summed over its outputs.
        keep, resources, prices, variant, forced_in, forced_out
            See :class:`mipprune.ChannelSelection`. Where the objective may
            prefer to keep nothing (prices, variant mask), the family's minimum
            is added as a lower limit.
        shrink_to : {"zero", "trained"}
            What the ridge pulls the weights to: ``rho/2 ||W||^2``, or
            ``rho/2 ||W - W0||^2`` with the layer's current weights W0 (channels
            that go then cost ``rho/2 ||W0_j||^2``). Expanded, the latter is the
            same program with ``C + rho W0`` and ``e + rho ||W0||^2``: where the
            data say little, weights stay what training made them.
        """
        require_choice("shrink_to", shrink_to, SHRINK_TO)
        damping = require_number("damping", damping, at_least=0)
        hint = "a list of positive factors, one per term, or None"
        given = [1.0] * len(self.terms) if weights is None else weights
        factors = list(require_iterable("weights", given, hint))
        if len(factors) != len(self.terms):
            raise InputError(f"weights: expected {len(self.terms)} factors, got {len(factors)}")
        own = self.terms
        if shrink_to == "trained":
            own = tuple(_towards_trained(term, damping) for term in own)
        terms = [term.weighted(factor) for term, factor in zip(own, factors, strict=True)]
        limits = list(require_iterable("resources", resources, "a list of Resource"))
        if (isinstance(variant, str) and variant == "mask") or np.any(
            require_floats("prices", prices) > 0
        ):
            p = len(self.family)
            limits.append(Resource("minimum", np.ones(p), lower=float(self.family.minimum)))
        problem = ChannelSelection.from_terms(
            terms,
            prices=prices,
            resources=limits,
            keep=keep,
            variant=variant,
            forced_in=forced_in,
            forced_out=forced_out,
            parts=self.family.parts,
        )
        return problem.with_damping(damping)


def _towards_trained(term: Term, damping: float) -> Term:
    """The term plus ``rho/2 ||W - dense||^2``, with the rho that ``damping`` means."""
    ridge = damping * float(np.diag(term.gram).mean()) if term.n_rows else 0.0
    if term.dense is None or not ridge > 0:
        return term
    return Term.create(
        term.gram,
        term.cross + ridge * term.dense,
        term.energy + ridge * float(np.vdot(term.dense, term.dense)),
        term.group_sizes,
        ridge=ridge,
        big_m=term.big_m,
        dense=term.dense,
        name=term.name,
    )


@dataclass(frozen=True, eq=False)
class Calibration(Mapping[str, CalibratedFamily]):
    """Family name -> :class:`CalibratedFamily`, in the order of the network.

    Attributes
    ----------
    families : mapping
    skipped : mapping
        Families that cannot be observed, with the reason.
    calls : mapping
        Layer -> calls per batch, of the layers where all batches had as many.
    """

    families: Mapping[str, CalibratedFamily]
    skipped: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> CalibratedFamily:
        if name in self.skipped:
            raise InputError(f"family '{name}' was not calibrated: {self.skipped[name]}")
        return self.families[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.families)

    def __len__(self) -> int:
        return len(self.families)


def apply_weights(
    model: nn.Module, family: CalibratedFamily, weights: Sequence[NDArray[np.float64]]
) -> None:
    """Write weights of the terms, e.g. ``Solution.weights``, into the layers of ``model``.

    Only the rows that read the family change; biases stay. Removed channels
    have weight zero, so the network then computes what remains after removal.

    Raises
    ------
    InputError
        Number or shapes of the weights do not fit, or they are not finite.
    """
    require_network(model)
    hint = "take it from calibrate(model, batches, groups)"
    require_instance("family", family, CalibratedFamily, hint)
    weights = [
        require_floats("weights", given)
        for given in require_iterable("weights", weights, "a list of arrays, one per term")
    ]
    if len(weights) != len(family.terms):
        raise InputError(f"weights: expected {len(family.terms)} arrays, got {len(weights)}")
    for term, rows, given in zip(family.terms, family.rows, weights, strict=True):
        if is_parametrized(model.get_submodule(rows.layer), "weight"):
            raise InputError(
                f"layer '{rows.layer}' computes its weight (parametrization); remove it with "
                "torch.nn.utils.parametrize.remove_parametrizations first"
            )
        if given.shape != term.cross.shape or not np.all(np.isfinite(given)):
            raise InputError(
                f"weights of '{rows.layer}': expected finite values of shape "
                f"{term.cross.shape}, got {given.shape}"
            )
    for rows, given in zip(family.rows, weights, strict=True):
        layer = model.get_submodule(rows.layer)
        full = group_weights(layer, rows.group)
        full[torch.from_numpy(rows.index)] = torch.from_numpy(np.array(given)).to(full)
        store_group_weights(layer, rows.group, full)


def build_calibration(
    model: nn.Module,
    groups: ChannelGroups,
    wanted: Sequence[str],
    consumers: Mapping[str, Consumer],
    refused: Mapping[str, str],
    with_targets: bool,
) -> Calibration:
    """Cut the statistics of the layers into terms per family."""
    families: dict[str, CalibratedFamily] = {}
    skipped: dict[str, str] = {}
    for name in wanted:
        family = groups.by_name[name]
        reason = _unobserved(groups, family, consumers, refused)
        if reason is not None:
            skipped[name] = reason
            continue
        built = [
            part
            for consumer in consumers.values()
            for part in _terms(model, consumer, family, with_targets)
        ]
        families[name] = CalibratedFamily(
            family,
            tuple(term for term, _, _ in built),
            tuple(rows for _, rows, _ in built),
            tuple(samples for _, _, samples in built),
        )
    return Calibration(families, skipped)


def _unobserved(
    groups: ChannelGroups,
    family: Family,
    consumers: Mapping[str, Consumer],
    refused: Mapping[str, str],
) -> str | None:
    """Why a family cannot be calibrated, None where it can."""
    readers = [
        axis.tensor
        for axis in groups.axes
        if axis.role == "consume"
        and bool(((axis.owner >= family.start) & (axis.owner < family.stop)).any())
    ]
    if not readers:
        return "no layer reads its channels"
    for tensor in readers:
        if tensor in refused:
            return refused[tensor]
        if not consumers[tensor].statistics:
            return f"layer '{consumers[tensor].name}' was not called during the pass"
    return None


def _terms(
    model: nn.Module, consumer: Consumer, family: Family, with_targets: bool
) -> list[tuple[Term, Rows, int]]:
    layer = model.get_submodule(consumer.name)
    n = len(consumer.statistics)
    result = []
    for group, statistics in enumerate(consumer.statistics):
        owner = consumer.owner_of_group(group, n, isinstance(layer, TRANSPOSED))
        mine = np.flatnonzero((owner >= family.start) & (owner < family.stop))
        if not mine.size:
            continue
        mine = mine[np.argsort(owner[mine], kind="stable")]
        kernel = statistics.gram.size(0) // owner.size
        index = (mine[:, None] * kernel + np.arange(kernel)).ravel()
        sizes = np.bincount(owner[mine] - family.start, minlength=len(family)) * kernel
        dense = group_weights(layer, group)
        name = consumer.name if n == 1 else f"{consumer.name}[{group}]"
        term = _term(statistics, dense, index, sizes, name, with_targets)
        result.append((term, Rows(consumer.name, group, index), statistics.rows))
    return result


def _term(
    statistics: Statistics,
    dense: Tensor,
    index: NDArray[np.int64],
    sizes: NDArray[np.int64],
    name: str,
    with_targets: bool,
) -> Term:
    """Term of the rows ``index``; what the other rows contribute is taken off the targets."""
    gram = (statistics.gram / statistics.rows).cpu().numpy()
    weights = dense.cpu().numpy()
    own = gram[np.ix_(index, index)]
    if not with_targets:
        cross = own @ weights[index]
        energy = float(np.vdot(weights[index], cross))
    else:
        if statistics.cross is None or statistics.energy is None:
            raise InputError(f"layer '{name}' saw no targets; the reference was not called")
        full = (statistics.cross / statistics.rows).cpu().numpy()
        others = np.setdiff1d(np.arange(len(gram)), index)
        fixed = weights[others]
        cross = full[index] - gram[np.ix_(index, others)] @ fixed
        energy = float(statistics.energy.cpu()) / statistics.rows
        energy += float(np.vdot(fixed, gram[np.ix_(others, others)] @ fixed))
        energy -= 2.0 * float(np.vdot(fixed, full[others]))
    return Term.create(own, cross, max(energy, 0.0), sizes, dense=weights[index], name=name)
