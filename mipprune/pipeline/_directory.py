"""The folder of a run: what lies where, and which phases are done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipprune._support.checks import require_path
from mipprune._support.files import require_writable_folder, write_json, write_text
from mipprune.errors import DataFileError, InputError
from mipprune.pipeline._config import PruneConfig, load_config

__all__ = ["PHASES", "RunDirectory"]

PHASES = ("dense", "train", "remove", "tune")


@dataclass(frozen=True)
class RunDirectory:
    """Folder of one run.

    ::

        config.json             the settings; their presence makes it a run
        dense/ train/ tune/     checkpoint.pt, metrics.jsonl, result.json
        remove/                 masks.json, result.json
        metrics.jsonl           the epochs of all phases
        specification.json      the shape of the pruned network
        model.pt                its weights (tensors only)
        report.json report.md report.html
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path, config: PruneConfig) -> "RunDirectory":
        """Make a new run; an existing folder that is not empty is refused."""
        folder = Path(path)
        cls.refuse_existing(folder)
        _make(folder)
        config.save(folder / "config.json")
        return cls(folder)

    @staticmethod
    def refuse_existing(path: str | Path) -> None:
        """Raise if ``path`` is there and is not an empty folder, or cannot be made."""
        folder = require_path("out", path, "folder")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            is_run = (folder / "config.json").exists()
            hint = "continue it with --resume" if is_run else "it is not a run of ours"
            raise InputError(f"{folder} exists already ({hint}), or choose another folder")
        require_writable_folder(folder)

    @classmethod
    def open(cls, path: str | Path, config: PruneConfig | None = None) -> "RunDirectory":
        """Open a run to go on with it; ``config``, where given, must be the stored one."""
        folder = require_path("out", path, "folder of a run")
        if not (folder / "config.json").is_file():
            raise InputError(f"there is no run in {folder} to resume; start it without --resume")
        if config is not None:
            differing = config.differences(load_config(folder / "config.json"))
            if differing:
                raise InputError(
                    f"{folder} is a run with other settings (given and stored): "
                    f"{'; '.join(differing)}"
                )
        return cls(folder)

    @property
    def config(self) -> PruneConfig:
        """The stored settings."""
        return load_config(self.path / "config.json")

    def phase(self, name: str) -> Path:
        """Folder of a phase, made when asked for."""
        folder = self.path / name
        _make(folder)
        return folder

    def result(self, phase: str) -> dict[str, Any] | None:
        """What a finished phase recorded; None while it is not finished."""
        file = self.path / phase / "result.json"
        if not file.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataFileError(
                f"{file} is damaged: {error}; delete it to redo its phase"
            ) from error
        return content

    def finish_phase(self, phase: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Record that a phase is done."""
        record = dict(content)
        write_json(self.phase(phase) / "result.json", record)
        self.merge_metrics()
        return record

    def merge_metrics(self) -> None:
        """Write the epochs of all phases into one file."""
        lines = [
            json.dumps({"phase": phase, **record})
            for phase in PHASES
            for record in self.epochs(phase)
        ]
        write_text(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in lines))

    def record_epochs(self, phase: str, history: Sequence[Mapping[str, float]]) -> None:
        """Write the epochs of a phase where its file lacks some (the disk was full)."""
        if len(self.epochs(phase)) != len(history):
            lines = "".join(f"{json.dumps(dict(record))}\n" for record in history)
            write_text(self.path / phase / "metrics.jsonl", lines)

    def epochs(self, phase: str) -> list[dict[str, float]]:
        """Records of the finished epochs of a phase."""
        file = self.path / phase / "metrics.jsonl"
        if not file.is_file():
            return []
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFileError(f"cannot make the folder {folder}: {error}") from error
