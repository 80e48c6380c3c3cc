"""What a run found, as plain frozen data that goes to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from mipprune._support.checks import require_instance, require_path
from mipprune._support.files import write_json
from mipprune.errors import DataFileError, InputError

__all__ = [
    "Curve",
    "ErrorCurve",
    "FamilyWidth",
    "GapEntry",
    "GateHistogram",
    "Latency",
    "PruneReport",
    "Size",
    "Stage",
    "load_report",
]

FORMAT_VERSION = 1

Part = TypeVar("Part")


@dataclass(frozen=True)
class Stage:
    """The network after one phase.

    Attributes
    ----------
    name : str
        For example ``dense``, ``after spr``, ``after removal``.
    validation, test : float or None
        The metric on both sets, a fraction in [0, 1]; None where not measured.
    epochs : int
        Epochs trained in this phase.
    seconds : float
        Wall-clock time of the phase.
    """

    name: str
    validation: float | None
    test: float | None
    epochs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Size:
    """One resource before and after.

    Attributes
    ----------
    resource : str
        ``MACs`` (per example), ``parameters`` or ``channels``.
    dense : int
        Of the network that went in.
    asked : float or None
        Upper limit, absolute; None where no budget was given.
    predicted : int
        From the channel groups and the masks, before removal.
    counted : int
        On the smaller network itself.
    """

    resource: str
    dense: int
    asked: float | None
    predicted: int
    counted: int

    @property
    def kept(self) -> float:
        """Counted over dense: the part that remains."""
        return self.counted / self.dense if self.dense else 1.0


@dataclass(frozen=True)
class FamilyWidth:
    """Channels of one family before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Curve:
    """One quantity per epoch of one phase; ``epochs`` count on over the phases.

    ``quantity`` is ``training loss``, ``validation loss`` or ``validation accuracy``.
    """

    phase: str
    quantity: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class GateHistogram:
    """How many gates y* lie in each bin.

    Attributes
    ----------
    edges : tuple of float, n + 1
    counts : tuple of int, n
    threshold : float or None
        Gates below it count as closed.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threshold: float | None = None


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass, both networks measured in turn in one run.

    Times are medians in milliseconds, spreads the lower and upper quartile.

    Attributes
    ----------
    ratio : float
        Median over the repeats of pruned time / dense time of the same repeat.
    """

    dense_ms: float
    dense_spread: tuple[float, float]
    pruned_ms: float
    pruned_spread: tuple[float, float]
    ratio: float
    ratio_spread: tuple[float, float]
    batch_size: int
    repeats: int
    threads: int
    device: str


@dataclass(frozen=True)
class GapEntry:
    """How far from optimal one choice can be at most: ``(value - bound) / value``."""

    name: str
    value: float
    bound: float
    gap: float
    certified: bool = False


@dataclass(frozen=True)
class ErrorCurve:
    """Error of one family against the channels that stay.

    Attributes
    ----------
    family : str
    counts : tuple of int
        Ascending; the last keeps all.
    values, bounds : tuple of float
        Error of the best mask known with that many channels, and a lower bound.
    chosen : int
        The width that was chosen.
    """

    family: str
    counts: tuple[int, ...]
    values: tuple[float, ...]
    bounds: tuple[float, ...]
    chosen: int


@dataclass(frozen=True)
class PruneReport:
    """Everything one run found; see :func:`mipprune.report.write_report`.

    Attributes
    ----------
    title : str
    metric : str
        What ``Stage.validation`` and ``Stage.test`` measure.
    settings : mapping of str to str
        Data set, split, model, method, rounding and the like, to be read.
    stages, sizes, widths, curves, gaps, error_curves : tuple
    gates : GateHistogram or None
        None for methods without gates.
    latency : Latency or None
    provenance : mapping
        Seed, versions, machine, command, time.
    notes : tuple of str
        What a reader must know about this run.
    """

    title: str
    settings: Mapping[str, str]
    stages: tuple[Stage, ...]
    sizes: tuple[Size, ...]
    widths: tuple[FamilyWidth, ...] = ()
    curves: tuple[Curve, ...] = ()
    gates: GateHistogram | None = None
    latency: Latency | None = None
    gaps: tuple[GapEntry, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metric: str = "accuracy"
    error_curves: tuple[ErrorCurve, ...] = ()

    def size(self, resource: str) -> Size | None:
        """The entry of ``resource``, None where it was not recorded."""
        return next((size for size in self.sizes if size.resource == resource), None)

    def stage(self, name: str) -> Stage | None:
        """The stage called ``name``, None where there is none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with a format version."""
        return {"format": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The inverse of :meth:`to_json`.

        Raises
        ------
        InputError
            Not a report, or one of another format version.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT_VERSION:
            found = content.get("format") if isinstance(content, Mapping) else None
            raise InputError(f"not a report of format {FORMAT_VERSION} (found format {found!r})")
        given = {name: value for name, value in content.items() if name != "format"}
        for name, kind in _LISTS.items():
            given[name] = tuple(_part(kind, item) for item in given.get(name, ()))
        for name, single in (("gates", GateHistogram), ("latency", Latency)):
            value = given.get(name)
            given[name] = None if value is None else _part(single, value)
        given["notes"] = tuple(given.get("notes", ()))
        return _part(cls, given)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())


_LISTS: Mapping[str, type] = {
    "stages": Stage,
    "sizes": Size,
    "widths": FamilyWidth,
    "curves": Curve,
    "gaps": GapEntry,
    "error_curves": ErrorCurve,
}


def require_report(value: object) -> PruneReport:
    """``value`` if it is a report, else an InputError."""
    return require_instance("report", value, PruneReport, "read one with load_report(folder)")


def load_report(path: str | Path) -> PruneReport:
    """Read ``report.json``, or the one in a run directory.

    Raises
    ------
    DataFileError
        Missing file, or one that is not a report.
    """
    source = require_path("path", path, "report or folder")
    if source.is_dir():
        source = source / "report.json"
    try:
        return PruneReport.from_json(json.loads(source.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataFileError(
            f"there is no report at {source}; expected a report.json or the folder of a "
            "finished run (an interrupted one continues with --resume)"
        ) from error
    except (OSError, ValueError) as error:
        raise DataFileError(f"{source} is not a report: {error}") from error


def _part(kind: type[Part], given: Any) -> Part:
    if not isinstance(given, Mapping):
        raise InputError(f"expected the fields of a {kind.__name__}, got {given!r}")
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # kinds are dataclasses
    unknown = sorted(set(given) - names)
    if unknown:
        raise InputError(f"{kind.__name__} has no field {', '.join(unknown)}")
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise InputError(f"{kind.__name__}: {error}") from error
