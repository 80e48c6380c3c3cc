"""What a pruning run does, as one frozen object that goes to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from mipprune._support.checks import (
    require_choice,
    require_mapping,
    require_number,
    require_path,
    require_text,
)
from mipprune._support.files import write_json
from mipprune.errors import DataFileError, InputError
from mipprune.graph import Budgets

__all__ = ["ROUNDINGS", "PruneConfig", "load_config"]

FORMAT_VERSION = 1
ROUNDINGS = ("budget", "optimiser", "authors")
Limit = str | float | None


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """Settings of :func:`mipprune.prune`.

    Attributes
    ----------
    data, model : str
        Names (see ``mipprune data`` and ``mipprune models``) or
        ``package.module:factory``.
    method : str
        Name of a training method.
    macs, params, channels : str, float or None
        What remains: ``"40%"``, ``"12M"`` or an absolute number; None: no limit.
    multiple_of : int
        Every family keeps a multiple of this many channels.
    rounding : {"budget", "optimiser", "authors"}
        ``budget`` keeps the channels with the best scores within the budget;
        ``optimiser`` chooses widths and masks on calibration data and refits the
        weights (:func:`mipprune.compress`), within ``rounding_seconds``;
        ``authors`` is the accuracy-tolerant threshold rule of the SPR authors'
        code, which takes no budget.
    rounding_seconds : float
        Time limit of rounding ``optimiser``.
    seed : int
        Initial weights, order, augmentation and noise derive from it.
    weights : str or None
        Trained weights of the dense reference; its training is then left out.
    data_root : str or None
        Folder of the data files.
    data_options, model_options, method_options : mapping
        Passed on by name.
    dense_epochs, epochs, tune_epochs : int or None
        Epochs of the three phases; None: the recipe of the data set. 0
        fine-tuning epochs leave that phase out.
    training : mapping
        Fields of :class:`mipprune.training.TrainConfig` for all phases, over
        the recipe.
    device : str
    latency_repeats : int
        Timed forward passes of each network; 0 leaves the measurement out.

    Raises
    ------
    InputError
        A value outside its range.
    """

    data: str
    model: str
    method: str = "spr"
    macs: Limit = None
    params: Limit = None
    channels: Limit = None
    multiple_of: int = 1
    rounding: str = "budget"
    rounding_seconds: float = 60.0
    seed: int = 0
    weights: str | None = None
    data_root: str | None = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    method_options: Mapping[str, Any] = field(default_factory=dict)
    dense_epochs: int | None = None
    epochs: int | None = None
    tune_epochs: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    latency_repeats: int = 30

    def __post_init__(self) -> None:
        self._check_types()
        given = self.limits
        if self.rounding != "authors" and not given:
            raise InputError(
                "there is no budget; give macs, params or channels (percent of what remains, "
                "such as '40%', or an absolute number), or rounding 'authors'"
            )
        if self.rounding == "authors" and given:
            raise InputError(
                f"rounding 'authors' finds its own size and takes no budget, but got {given}"
            )
        for name, smallest in {"multiple_of": 1, "seed": 0, "latency_repeats": 0}.items():
            _require_integer(name, getattr(self, name), smallest)
        for name, smallest in {"dense_epochs": 1, "epochs": 1, "tune_epochs": 0}.items():
            if getattr(self, name) is not None:
                _require_integer(name, getattr(self, name), smallest)
        if given:
            Budgets.parse({**given, "multiple_of": self.multiple_of})
        reserved = sorted({"epochs", "seed", "device"} & set(self.training))
        if reserved:
            raise InputError(f"set {', '.join(reserved)} by its own field, not in 'training'")

    def _check_types(self) -> None:
        for name in ("data", "model", "method"):
            require_text(name, getattr(self, name), "a name (text)")
        require_text("device", self.device, "the name of a device, such as cpu or cuda")
        require_choice("rounding", self.rounding, ROUNDINGS)
        require_number("rounding_seconds", self.rounding_seconds, above=0, unit="seconds")
        for name in ("data_options", "model_options", "method_options", "training"):
            require_mapping(name, getattr(self, name))
        for name in ("weights", "data_root"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(require_path(name, getattr(self, name))))

    @property
    def limits(self) -> dict[str, str | float]:
        """The budgets that were given, by resource."""
        every = {"macs": self.macs, "params": self.params, "channels": self.channels}
        return {name: limit for name, limit in every.items() if limit is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with a format version."""
        return {"format": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The inverse of :meth:`to_json`."""
        if not isinstance(content, Mapping) or content.get("format") != FORMAT_VERSION:
            raise InputError(f"not a configuration of format {FORMAT_VERSION}")
        given = {name: value for name, value in content.items() if name != "format"}
        unknown = sorted(set(given) - {entry.name for entry in fields(cls)})
        if unknown:
            raise InputError(f"unknown settings {', '.join(unknown)}")
        if "data" not in given or "model" not in given:
            raise InputError("the settings 'data' and 'model' are missing")
        return cls(**given)

    def differences(self, other: "PruneConfig") -> list[str]:
        """What differs, one text per setting."""
        mine, theirs = _plain(self.to_json()), _plain(other.to_json())
        return [
            f"{name} ({mine[name]!r} and {theirs[name]!r})"
            for name in mine
            if mine[name] != theirs[name]
        ]

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())


def load_config(path: str | Path) -> PruneConfig:
    """Read a configuration written by :meth:`PruneConfig.save`.

    Raises
    ------
    DataFileError
        Missing file, or not a configuration.
    """
    file = require_path("path", path, "configuration")
    try:
        return PruneConfig.from_json(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataFileError(f"there is no configuration at {path}") from error
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path} is not a configuration: {error}") from error


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from disk: tuples are lists there."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _require_integer(name: str, value: object, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise InputError(f"{name} must be an integer >= {smallest}, got {value!r}")
