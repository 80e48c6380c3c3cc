"""A trained network and a hard budget in, a smaller network and its gaps out; no labels needed."""

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import require_instance
from mipprune._support.progress import Progress
from mipprune.calibration import CalibratedFamily, Calibration, apply_weights, calibrate
from mipprune.errors import InputError
from mipprune.graph import (
    Budgets,
    ChannelGroups,
    CostTerm,
    remove,
)
from mipprune.graph.budgets import Resource
from mipprune.models import Forward
from mipprune.pipeline._agreement import Agreement, KnownOutputs, measure_agreement
from mipprune.pipeline._compress_checks import check_compress_arguments
from mipprune.pipeline._compress_input import (
    checked_batches,
    counted_macs,
    fingerprint,
    found_groups,
)
from mipprune.pipeline._compressed import Compressed, CompressOptions, FamilyResult
from mipprune.pipeline._curves import FamilyCurve, measure_curves
from mipprune.pipeline._family_solve import solve_family
from mipprune.pipeline._norms import refresh_norms
from mipprune.pipeline._store import CompressStore
from mipprune.pipeline._trials import (
    carry_out,
    held_out,
    late_weighted,
    try_out,
    uniform_widths,
    with_counts,
)
from mipprune.pipeline._weighting import in_units_of_outputs, relative_to_energy
from mipprune.problem import ChannelSelection
from mipprune.solvers.widths import WidthSolution, choose_widths

__all__ = ["compress"]

WEIGHTING_BATCHES = 4
"""Batches on which the change of the outputs is measured, per family and width."""


def compress(
    model: nn.Module,
    batches: Iterable[Any],
    budgets: Budgets | Mapping[str, Any],
    *,
    options: CompressOptions | None = None,
    latency_terms: Iterable[CostTerm] = (),
    out: str | Path | None = None,
    resume: bool = False,
    groups: ChannelGroups | None = None,
    forward: Forward | None = None,
    log: bool = False,
) -> Compressed:
    """Prune a trained network to hard budgets without training it.

    Calibrate; measure the error of every family against its width, with
    bounds; choose all widths at once by an integer program with the exact
    bilinear costs; choose the channels family by family in the order of the
    network, solved or bounded, weights refitted on the statistics of the
    network pruned so far; remove them.

    Parameters
    ----------
    model : nn.Module
        Trained; left as it is.
    batches : iterable that can be read several times
        Calibration data: tensors, pairs, mappings, or what ``forward`` takes.
    budgets : Budgets or mapping
        For example ``{"macs": "50%", "params": "60%"}``; percent of what remains.
    options : CompressOptions, optional
    latency_terms : iterable of CostTerm
        For a latency budget, from ``LatencyTable.terms``.
    out : path, optional
        Folder where every finished step is kept.
    resume : bool
        Go on with the steps kept in ``out``.
    groups : ChannelGroups, optional
        Of ``model``; found by :func:`mipprune.channel_groups` from the first batch
        if not given.
    forward : callable, optional
        ``forward(model, batch)``, replaces the default call.
    log : bool
        Show progress.

    Returns
    -------
    Compressed

    Raises
    ------
    InputError
        Batches that can be read only once, are empty or do not fit the model;
        no channel can be removed; ``out`` exists (without ``resume``) or
        belongs to another network or other settings (with it).
    BudgetError
        A budget that cannot be reached, or budgets that conflict.
    WorkerError
        A process that measured curves died (``jobs`` > 1).
    """
    began = time.monotonic()
    check_compress_arguments(model, batches, latency_terms, out, resume, groups, forward, log)
    settings = CompressOptions() if options is None else options
    require_instance("options", settings, CompressOptions)
    budget = Budgets.parse(budgets)
    data = checked_batches(batches)
    groups = found_groups(model, data) if groups is None else groups
    terms = tuple(latency_terms)
    resources = budget.resolve(groups, terms)
    store = CompressStore.open(out, resume, fingerprint(model, groups, budget, settings))
    part, aside = held_out(data)
    work = _Work(model, data, part, aside, groups, settings, forward, log, store)
    # All batches first, so that an error names the batch by its place in what was given.
    whole = work.calibrate(model, data)
    calibration = whole if part is data else work.calibrate(model, part)
    if not calibration.families:
        reasons = "; ".join(sorted(set(calibration.skipped.values())))
        raise InputError(f"no family can be calibrated: {reasons}")
    plain = work.plain_curves(calibration, budget.multiple_of)
    curves = work.curves(calibration, plain)
    widths, tried = work.widths(calibration, plain, curves, resources)
    current, masks, families = work.choose_masks(whole, curves, widths, began)
    smaller = remove(current, groups, masks)
    agreement = work.finish(smaller)
    return Compressed(
        model=smaller,
        groups=groups,
        masks=masks,
        budgets=budget.report(groups, masks, terms),
        curves=tuple(curves),
        widths=widths,
        tried=tried,
        families=tuple(families),
        agreement=agreement,
        macs=counted_macs(smaller, data),
        skipped=calibration.skipped,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """One run: the network, its data and settings.

    Curves and widths come from statistics of ``part`` and from outputs on
    ``aside``; masks and weights from all ``batches``.
    """

    model: nn.Module
    batches: Iterable[Any]
    part: Iterable[Any]
    aside: Iterable[Any]
    groups: ChannelGroups
    settings: CompressOptions
    forward: Forward | None
    log: bool
    store: CompressStore

    def calibrate(
        self,
        current: nn.Module,
        batches: Iterable[Any],
        family: str | None = None,
        like: Calibration | None = None,
    ) -> Calibration:
        """Statistics in ``current``, with the original network's targets."""
        settings = self.settings
        generator = None
        if settings.patches is not None:
            generator = torch.Generator().manual_seed(settings.seed)
        return calibrate(
            current,
            batches,
            self.groups,
            reference=None if current is self.model else self.model,
            families=None if family is None else [family],
            patches=settings.patches,
            generator=generator,
            forward=self.forward,
            like=like,
            log=self.log and family is None,
        )

    def plain_curves(self, calibration: Calibration, multiple_of: int) -> list[FamilyCurve]:
        """Curves of all families, each in its own unit."""
        settings = self.settings
        limit = None if settings.time_limit is None else 0.25 * settings.time_limit
        return measure_curves(
            self.groups,
            list(calibration.values()),
            damping=settings.damping,
            shrink_to=settings.shrink_to,
            multiple_of=multiple_of,
            most=settings.most_widths,
            time_limit=limit,
            jobs=settings.jobs,
            log=self.log,
            kept=self.store.curve,
            found=self.store.save_curve,
        )

    def curves(self, calibration: Calibration, plain: list[FamilyCurve]) -> list[FamilyCurve]:
        """Curves of all families in units that compare."""
        kept = self.store.curves()
        if kept is not None:
            return kept
        known = None
        if self.settings.weighting != "relative":
            known = KnownOutputs(self.model, islice(self.aside, WEIGHTING_BATCHES), self.forward)
        weighted = [self.weighted(calibration[c.curve.family], c, known) for c in plain]
        self.store.save_curves(weighted)
        return weighted

    def weighted(
        self, family: CalibratedFamily, found: FamilyCurve, known: KnownOutputs | None
    ) -> FamilyCurve:
        """The curve in units that compare between families."""
        if known is None:
            return relative_to_energy(family, found)
        problem = self.problem(family)
        return in_units_of_outputs(self.model, family, problem, found, known.error)

    def problem(self, family: CalibratedFamily, keep: int | None = None) -> ChannelSelection:
        """The program of one family with the run's ridge."""
        settings = self.settings
        return family.problem(damping=settings.damping, shrink_to=settings.shrink_to, keep=keep)

    def widths(
        self,
        calibration: Calibration,
        plain: list[FamilyCurve],
        curves: list[FamilyCurve],
        resources: Sequence[Resource],
    ) -> tuple[WidthSolution, dict[str, float]]:
        """Widths by the program; others that do better on held-out outputs in their place."""
        kept = self.store.widths()
        if kept is not None:
            return kept
        total = self.settings.time_limit
        limit = None if total is None else 0.1 * total
        own = [found.curve for found in curves]
        solution = choose_widths(self.groups, own, resources, time_limit=limit)
        tried: dict[str, float] = {}
        if self.settings.try_widths:
            candidates = {"program": solution.counts}
            if self.settings.weighting != "relative":
                pairs = [relative_to_energy(calibration[c.curve.family], c) for c in plain]
                other = [found.curve for found in pairs]
                relative = choose_widths(self.groups, other, resources, time_limit=limit)
                candidates["relative"] = relative.counts
            later = choose_widths(self.groups, late_weighted(own), resources, time_limit=limit)
            candidates["late"] = later.counts
            uniform = uniform_widths(self.groups, own, resources)
            if uniform is not None:
                candidates["uniform"] = uniform
            share = None if total is None else 0.2 * total
            error = partial(self.tried_error, calibration, curves)
            tried = try_out(candidates, error, share, self.log)
            best = candidates[min(tried, key=tried.__getitem__)]
            if best is not solution.counts:
                solution = with_counts(solution, best, self.groups, own, resources)
        self.store.save_widths(solution, tried)
        return solution, tried

    def tried_error(
        self, calibration: Calibration, curves: list[FamilyCurve], counts: Mapping[str, int]
    ) -> float:
        """Error of the outputs on held-out batches with some widths, masks not searched."""

        def statistics(current: nn.Module, name: str) -> CalibratedFamily:
            return self.calibrate(current, self.part, name, calibration)[name]

        network = carry_out(self.model, counts, curves, statistics, self.problem)
        error = self.agreement(network, self.aside).relative_error
        if self.settings.refresh_norms and refresh_norms(network, self.part, forward=self.forward):
            error = min(error, self.agreement(network, self.aside).relative_error)
        return error

    def choose_masks(
        self,
        calibration: Calibration,
        curves: list[FamilyCurve],
        widths: WidthSolution,
        began: float,
    ) -> tuple[nn.Module, dict[str, NDArray[np.bool_]], list[FamilyResult]]:
        """Masks and refitted weights, family by family in the order of the network."""
        current = copy.deepcopy(self.model)
        masks: dict[str, NDArray[np.bool_]] = {}
        results: list[FamilyResult] = []
        names = list(widths.counts)
        by_name = {curve.curve.family: curve for curve in curves}
        with Progress("masks", len(names), unit="families", enabled=self.log) as progress:
            for index, name in enumerate(names):
                changed = any(not mask.all() for mask in masks.values())
                family = calibration[name]
                if self.settings.recalibrate and changed:
                    family = self.calibrate(current, self.batches, name, calibration)[name]
                limit = self.share(began, len(names) - index)
                mask, weights, result = self.solved(family, by_name[name], widths, limit)
                apply_weights(current, family, weights)
                masks[name] = mask
                results.append(result)
                progress.update(1, family=name, gap=result.gap)
        return current, masks, results

    def solved(
        self,
        family: CalibratedFamily,
        curve: FamilyCurve,
        widths: WidthSolution,
        limit: float | None,
    ) -> tuple[NDArray[np.bool_], tuple[NDArray[np.float64], ...], FamilyResult]:
        """The mask of one family, from the store where it is there."""
        name = family.family.name
        kept = self.store.family(name)
        if kept is not None:
            return kept
        count = widths.counts[name]
        problem = self.problem(family, count)
        start = curve.masks[int(np.flatnonzero(curve.curve.counts == count)[0])]
        solution = solve_family(problem, start, limit, self.settings)
        if solution.mask is None:
            raise InputError(f"family '{name}': no mask with {count} classes was found")
        result = FamilyResult(
            name=name,
            before=len(family.family),
            after=int(solution.mask.sum()),
            value=solution.value,
            bound=solution.bound,
            gap=solution.gap,
            solver=solution.solver,
            status=solution.status.name.lower(),
            seconds=solution.seconds,
        )
        self.store.save_family(name, solution.mask, solution.weights, result)
        return solution.mask, solution.weights, result

    def share(self, began: float, left: int) -> float | None:
        """Seconds for the next family: what is left, divided evenly."""
        if self.settings.time_limit is None:
            return None
        remaining = self.settings.time_limit - (time.monotonic() - began)
        return max(remaining / left, 0.2)

    def agreement(self, other: nn.Module, batches: Iterable[Any]) -> Agreement:
        """Agreement of ``other`` with the original network."""
        return measure_agreement(other, self.model, batches, forward=self.forward)

    def finish(self, smaller: nn.Module) -> Agreement:
        """Refresh the norms where that helps; returns the agreement."""
        before = self.agreement(smaller, self.batches)
        if not self.settings.refresh_norms:
            return before
        trial = copy.deepcopy(smaller)
        if not refresh_norms(trial, self.batches, forward=self.forward):
            return before
        after = self.agreement(trial, self.batches)
        if after.relative_error >= before.relative_error:
            return before
        smaller.load_state_dict(trial.state_dict())
        return after
