"""What a comparison runs: methods x budgets x seeds on equal terms, from JSON or TOML."""

import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from mipprune._support.checks import (
    require_choice,
    require_flag,
    require_integer,
    require_iterable,
    require_mapping,
    require_number,
    require_path,
    require_text,
    shown,
)
from mipprune._support.files import write_json
from mipprune.errors import DataFileError, InputError
from mipprune.graph import Budgets
from mipprune.graph.budgets import parse_amount
from mipprune.pipeline._config import PruneConfig
from mipprune.training import method_class, recipe_for

__all__ = ["Cell", "CompareConfig", "MethodEntry", "load_compare_config"]

FORMAT_VERSION = 1
ROUNDINGS = ("own", "optimiser")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One method of a comparison.

    Attributes
    ----------
    method : str
        Name of a training method.
    name : str
        How it is called in tables and folders; default the method's name. The
        same method may appear with several settings under different names.
    options : mapping
        Settings of the method, over the recipe of the data set.
    per_budget : bool or None
        Whether it is trained anew for each budget; None: where the method takes
        ``budget`` and one run does not pass through all of them (``levels``).
        Trained once, it is given the smallest budget.
    """

    method: str
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    per_budget: bool | None = None

    def __post_init__(self) -> None:
        kind = method_class(require_text("method", self.method, "the name of a method"))
        if self.method == "none":
            raise InputError("the dense network is compared with anyway; leave out method 'none'")
        if not isinstance(self.name, str):
            raise InputError(f"name: expected a text, got {shown(self.name)}")
        object.__setattr__(self, "name", self.name or self.method)
        if not _LABEL.fullmatch(self.name) or self.name == "dense":
            raise InputError(
                f"'{self.name}' cannot name a method: letters, digits and . _ + -, not 'dense'"
            )
        require_mapping(f"options of '{self.name}'", self.options, "a table of settings")
        if self.per_budget is not None:
            require_flag("per_budget", self.per_budget)
        else:
            takes = "budget" in inspect.signature(kind).parameters
            once = hasattr(kind, "levels")
            object.__setattr__(self, "per_budget", takes and kind.trains and not once)

    @property
    def start(self) -> str | None:
        """Shared dense phase that the method begins with: ``start``, ``half`` or none."""
        kind = method_class(self.method)
        if kind.starts_from == "scratch":
            return None
        return "half" if kind.trains else "start"


@dataclass(frozen=True)
class Cell:
    """One entry of the table: a method at a budget, with one rounding and seed."""

    seed: int
    entry: MethodEntry
    budget: str
    rounding: str

    @property
    def folder(self) -> str:
        """Of its result, relative to the comparison."""
        return f"seed-{self.seed}/{self.entry.name}/{plain_name(self.budget)}-{self.rounding}"

    @property
    def training_folder(self) -> str:
        """Of the method's training, which cells of a method without budget share."""
        base = f"seed-{self.seed}/{self.entry.name}"
        return (
            f"{base}/train-{plain_name(self.budget)}" if self.entry.per_budget else f"{base}/train"
        )


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of :func:`mipprune.pipeline.compare`.

    Every pruned network is trained for ``epochs`` + ``tune_epochs`` in all.
    Methods that train from scratch use ``epochs``; one-shot methods start from a
    network trained for ``epochs`` (shared per seed); methods that train from a
    dense network divide ``epochs`` between it (shared) and themselves; methods
    without fine-tuning train for the sum. The dense baseline is trained for
    ``dense_epochs`` and also serves methods that measure on a reference.

    Attributes
    ----------
    data, model : str
        As in :class:`PruneConfig`.
    methods : tuple of MethodEntry
        Also given as names of methods, or as tables of the settings of an entry.
    budgets : tuple of str
        Amounts of ``resource`` that remain, in the order in which to run them.
    resource : {"macs", "params"}
    seeds : tuple of int
    roundings : tuple of {"own", "optimiser"}
        By the method's scores, and by the integer program over widths with
        masks solved or bounded on calibration data (:func:`compress`).
    samples : int
        Training images that calibrate the optimiser's rounding.
    rounding_seconds : float
        Time limit of each rounding by the optimiser.
    dense_epochs, epochs, tune_epochs : int or None
        None: the recipe of the data set.
    training, data_options, model_options : mapping
    data_root : str or None
    limit : mapping
        Sizes of subsets, such as ``{"train": 2000}``; for trials.
    device : str
    latency_repeats : int
        Timed forward passes of each network; 0 leaves the measurement out.
    """

    data: str
    model: str
    methods: tuple[MethodEntry, ...]
    budgets: tuple[str, ...]
    resource: str = "macs"
    seeds: tuple[int, ...] = (0,)
    roundings: tuple[str, ...] = ("own",)
    samples: int = 512
    rounding_seconds: float = 60.0
    dense_epochs: int | None = None
    epochs: int | None = None
    tune_epochs: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_root: str | None = None
    limit: Mapping[str, int] = field(default_factory=dict)
    device: str = "cpu"
    latency_repeats: int = 30

    def __post_init__(self) -> None:
        for name in ("methods", "budgets", "seeds", "roundings"):
            values = tuple(require_iterable(name, getattr(self, name)))
            if name == "methods":
                values = tuple(_entry(value) for value in values)
            object.__setattr__(self, name, values)
            if not values or len(set(map(str, values))) != len(values):
                raise InputError(f"{name} must be a list without repetition, got {list(values)}")
        require_text("data", self.data, "a name (text)")
        names = [entry.name for entry in self.methods]
        if len(set(names)) != len(names):
            raise InputError(f"two methods have the same name; give each its own: {names}")
        require_choice("resource", self.resource, ("macs", "params"))
        for rounding in self.roundings:
            require_choice("roundings", rounding, ROUNDINGS)
        for name, size in require_mapping("limit", self.limit, "a table of sizes").items():
            require_integer(f"limit of {name}", size, at_least=1)
        for budget in self.budgets:
            if not isinstance(budget, str):
                raise InputError(f"budgets are texts such as '50%' or '2M', got {budget!r}")
            Budgets.parse({self.resource: budget})
        for name, smallest in {"samples": 1, "latency_repeats": 0}.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < smallest:
                raise InputError(f"{name} must be an integer >= {smallest}, got {number!r}")
        require_number("rounding_seconds", self.rounding_seconds, above=0, unit="seconds")
        for seed in self.seeds:
            self.run_config(seed, self.methods[0], self.budgets[0])

    @property
    def phases(self) -> tuple[int, int, int]:
        """Epochs of the dense baseline, of training and of fine-tuning."""
        recipe = recipe_for(self.data)
        return (
            recipe.dense if self.dense_epochs is None else self.dense_epochs,
            recipe.train if self.epochs is None else self.epochs,
            recipe.tune if self.tune_epochs is None else self.tune_epochs,
        )

    def shared_epochs(self, which: str) -> int:
        """Epochs of a shared dense phase: ``dense``, ``start`` or ``half``."""
        dense, train, _ = self.phases
        return {"dense": dense, "start": train, "half": max(1, train - train // 2)}[which]

    @property
    def smallest_budget(self) -> str:
        """Of budgets in the same unit the smallest, else the last."""
        amounts = [parse_amount(self.resource, budget) for budget in self.budgets]
        if len({fraction for _, fraction in amounts}) > 1:
            return self.budgets[-1]
        return min(zip(amounts, self.budgets, strict=True))[1]

    def cells(self) -> Iterator[Cell]:
        """All cells: budget by budget, within it seed by seed."""
        for budget in self.budgets:
            for seed in self.seeds:
                for entry in self.methods:
                    for rounding in self.roundings:
                        yield Cell(seed, entry, budget, rounding)

    def run_config(self, seed: int, entry: MethodEntry, budget: str) -> PruneConfig:
        """The settings of one run of the pipeline with this method."""
        dense, train, tune = self.phases
        if entry.start == "half":
            train = max(1, train // 2)
        fine_tuned = method_class(entry.method).needs_fine_tuning
        return PruneConfig(
            data=self.data,
            model=self.model,
            method=entry.method,
            macs=budget if self.resource == "macs" else None,
            params=budget if self.resource == "params" else None,
            seed=seed,
            data_root=self.data_root,
            data_options=self.data_options,
            model_options=self.model_options,
            method_options=entry.options,
            dense_epochs=dense,
            epochs=train if fine_tuned else train + tune,
            tune_epochs=tune if fine_tuned else 0,
            training=self.training,
            device=self.device,
            latency_repeats=self.latency_repeats,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with a format version."""
        content = {"format": FORMAT_VERSION, **asdict(self)}
        plain: dict[str, Any] = json.loads(json.dumps(content))
        return plain

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Self:
        """From parsed JSON or TOML; ``methods`` are names or tables."""
        require_mapping("content", content, "a table of settings")
        given = {name: value for name, value in content.items() if name != "format"}
        if content.get("format", FORMAT_VERSION) != FORMAT_VERSION:
            raise InputError(f"not a comparison of format {FORMAT_VERSION}")
        _refuse_unknown(given, cls, "setting")
        missing = sorted({"data", "model", "methods", "budgets"} - set(given))
        if missing:
            raise InputError(f"the settings {', '.join(missing)} are missing")
        return cls(**given)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())


def load_compare_config(path: str | Path) -> CompareConfig:
    """Read a configuration, TOML or JSON by its ending.

    Raises
    ------
    DataFileError
        Missing, or neither.
    InputError
        An unknown setting or a value that is refused.
    """
    file = require_path("path", path, "configuration")
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except FileNotFoundError as error:
        raise DataFileError(f"there is no configuration at {file}") from error
    except (OSError, ValueError) as error:
        raise DataFileError(f"{file} is not a configuration: {error}") from error
    if not isinstance(content, dict):
        raise DataFileError(f"{file} is not a configuration: expected a table of settings")
    return CompareConfig.from_mapping(content)


def _entry(item: object) -> MethodEntry:
    """An entry from itself, a method's name, or a table of settings."""
    if isinstance(item, MethodEntry):
        return item
    if isinstance(item, str):
        return MethodEntry(method=item)
    table = require_mapping("methods", item, "names of methods, or tables with the key 'method'")
    _refuse_unknown(table, MethodEntry, "setting of a method")
    if "method" not in table:
        raise InputError(f"a method needs the setting 'method', got {dict(table)}")
    return MethodEntry(**table)


def plain_name(budget: str) -> str:
    """A budget as part of a file name: ``2.5%`` -> ``2.5pc``."""
    return budget.strip().replace(" ", "").replace("%", "pc")


def _refuse_unknown(given: Mapping[str, Any], kind: type, what: str) -> None:
    known = [entry.name for entry in fields(kind)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"unknown {what} {', '.join(unknown)}; known are {', '.join(known)}")
