"""Settings and results of a compression."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from mipprune.errors import InputError
from mipprune.graph import BudgetReport, ChannelGroups, Masks
from mipprune.pipeline._agreement import Agreement
from mipprune.pipeline._compress_checks import check_options
from mipprune.pipeline._curves import FamilyCurve
from mipprune.solvers.widths import WidthSolution

__all__ = ["CompressOptions", "Compressed", "FamilyResult"]

WEIGHTINGS = ("output", "relative")
SHRINK_TO = ("trained", "zero")


@dataclass(frozen=True)
class CompressOptions:
    """Settings of :func:`compress`.

    Attributes
    ----------
    damping : float
        Ridge of each layer relative to the mean diagonal of its Gram matrix.
    shrink_to : {"trained", "zero"}
        What the ridge pulls the refitted weights to; the errors of masks, and
        their bounds, include it.
    weighting : {"output", "relative"}
        How errors of different families compare: by the change of the network's
        outputs that one unit of each causes (measured per family at a few widths), or
        relative to the energy of the layers that read it.
    most_widths : int
        Widths offered per family.
    time_limit : float or None
        Seconds for curves, widths and masks together.
    gap : float
        Error gap at which the search for a mask stops.
    recalibrate : bool
        Collect the statistics of each family again once those before it are
        pruned, with the targets of the original network.
    try_widths : bool
        Also carry out, quickly, the widths of the other weighting, of one that
        counts later families more, and the same share of every family; take
        those whose outputs agree best on every fourth batch, which is kept out of
        the statistics until then.
    refresh_norms : bool
        Re-estimate the running statistics of batch norms on the calibration
        data, kept where the outputs then agree better.
    patches : int or None
        Output positions drawn per example and layer, default all.
    jobs : int
        Families whose curves are measured at the same time, with the backend of
        joblib that is active: processes, or Dask inside ``joblib.parallel_config``.
    seed : int
    """

    damping: float = 0.1
    shrink_to: str = "trained"
    weighting: str = "output"
    most_widths: int = 32
    time_limit: float | None = 300.0
    gap: float = 1e-3
    recalibrate: bool = True
    try_widths: bool = True
    refresh_norms: bool = True
    patches: int | None = None
    jobs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self, WEIGHTINGS)
        if self.shrink_to not in SHRINK_TO:
            raise InputError(f"shrink_to: expected one of {SHRINK_TO}, got '{self.shrink_to}'")


@dataclass(frozen=True, eq=False)
class FamilyResult:
    """What was decided for one family.

    Attributes
    ----------
    name : str
    before, after : int
        Classes.
    value, bound : float
        Error of the mask and its lower bound on the statistics it was solved on.
    gap : float
        Error gap.
    solver, status : str
    seconds : float
    """

    name: str
    before: int
    after: int
    value: float
    bound: float
    gap: float
    solver: str
    status: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Compressed:
    """Result of :func:`compress`.

    Attributes
    ----------
    model : nn.Module
        The smaller network.
    groups : ChannelGroups
        Of the network that went in.
    masks : mapping
        Family name -> bool array, True = kept.
    budgets : BudgetReport
        Asked against achieved.
    curves : tuple of FamilyCurve
    widths : WidthSolution
    tried : mapping
        Widths that were carried out ("program", "relative", "late", "uniform") -> relative
        error of the outputs on held-out batches; the smallest was taken.
    families : tuple of FamilyResult
    agreement : Agreement
        With the original network, on the calibration batches.
    macs : int
        Counted on the smaller network, per example.
    skipped : mapping
        Families that stay whole because they could not be observed.
    seconds : float
    """

    model: nn.Module
    groups: ChannelGroups
    masks: Masks
    budgets: BudgetReport
    curves: tuple[FamilyCurve, ...]
    widths: WidthSolution
    tried: Mapping[str, float]
    families: tuple[FamilyResult, ...]
    agreement: Agreement
    macs: int
    skipped: Mapping[str, str]
    seconds: float
