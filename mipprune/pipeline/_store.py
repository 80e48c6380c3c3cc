"""Finished steps of a compression run on disk, so that nothing is computed twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.files import atomic_path, write_json
from mipprune.errors import DataFileError, InputError
from mipprune.formulation.widths import WidthCurve
from mipprune.pipeline._compressed import FamilyResult
from mipprune.pipeline._curves import FamilyCurve
from mipprune.solvers.widths import WidthSolution

__all__ = ["CompressStore"]

Solved = tuple[NDArray[np.bool_], tuple[NDArray[np.float64], ...], FamilyResult]


@dataclass(frozen=True)
class CompressStore:
    """Folder of a run; with ``path`` None nothing is kept.

    ::

        compress.json      what the steps belong to
        curve_N.npz        curve and masks of the N-th family, as measured
        curves.npz         the same of all families, in units that compare
        widths.json        the widths chosen, and what was tried
        family_N.npz       mask and weights of the N-th family, and its result
    """

    path: Path | None
    names: tuple[str, ...]

    @classmethod
    def open(
        cls, out: str | Path | None, resume: bool, fingerprint: Mapping[str, Any]
    ) -> "CompressStore":
        """Make a new folder, or check that an old one belongs to this run."""
        names = tuple(fingerprint["families"])
        if out is None:
            if resume:
                raise InputError("resume needs out=, the folder of the run to go on with")
            return cls(None, names)
        folder, file = Path(out), Path(out) / "compress.json"
        if not resume:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise InputError(f"{folder} exists already; resume the run or choose another")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataFileError(f"cannot make the folder {folder}: {error}") from error
            write_json(file, dict(fingerprint))
            return cls(folder, names)
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"there is no compression run in {folder} to resume") from error
        plain = json.loads(json.dumps(dict(fingerprint)))
        differing = sorted(key for key in plain if plain[key] != stored.get(key))
        if differing:
            raise InputError(f"{folder} is a run with other {', '.join(differing)}")
        return cls(folder, names)

    def curves(self) -> list[FamilyCurve] | None:
        """Curves of a finished measurement."""
        arrays = self._read("curves.npz")
        if arrays is None:
            return None
        return [_unpacked(arrays, str(name), i) for i, name in enumerate(arrays["names"])]

    def save_curves(self, curves: Sequence[FamilyCurve]) -> None:
        """Keep the curves."""
        arrays: dict[str, NDArray[Any]] = {
            "names": np.array([found.curve.family for found in curves], dtype=np.str_)
        }
        for i, found in enumerate(curves):
            arrays |= _packed(found, i)
        self._write("curves.npz", arrays)

    def curve(self, name: str) -> FamilyCurve | None:
        """Curve of one family as it was measured."""
        arrays = self._read(f"curve_{self.names.index(name)}.npz")
        return None if arrays is None else _unpacked(arrays, name, 0)

    def save_curve(self, found: FamilyCurve) -> None:
        """Keep the curve of one family."""
        self._write(f"curve_{self.names.index(found.curve.family)}.npz", _packed(found, 0))

    def widths(self) -> tuple[WidthSolution, dict[str, float]] | None:
        """Widths that were chosen, and the errors of those tried."""
        if self.path is None or not (self.path / "widths.json").is_file():
            return None
        file = self.path / "widths.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return WidthSolution(**content["solution"]), dict(content["tried"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataFileError(
                f"{file} is damaged ({error}); delete it to redo its step"
            ) from error

    def save_widths(self, solution: WidthSolution, tried: Mapping[str, float]) -> None:
        """Keep the widths."""
        if self.path is not None:
            write_json(
                self.path / "widths.json", {"solution": asdict(solution), "tried": dict(tried)}
            )

    def family(self, name: str) -> Solved | None:
        """Mask, weights and result of a finished family."""
        arrays = self._read(f"family_{self.names.index(name)}.npz")
        if arrays is None:
            return None
        weights = tuple(arrays[f"weights_{i}"] for i in range(int(arrays["n_terms"])))
        return arrays["mask"], weights, FamilyResult(**json.loads(str(arrays["result"])))

    def save_family(
        self,
        name: str,
        mask: NDArray[np.bool_],
        weights: Sequence[NDArray[np.float64]],
        result: FamilyResult,
    ) -> None:
        """Keep what was decided for a family."""
        arrays: dict[str, NDArray[Any]] = {"mask": mask, "n_terms": np.asarray(len(weights))}
        arrays |= {f"weights_{i}": array for i, array in enumerate(weights)}
        arrays["result"] = np.asarray(json.dumps(asdict(result)))
        self._write(f"family_{self.names.index(name)}.npz", arrays)

    def _read(self, name: str) -> dict[str, NDArray[Any]] | None:
        if self.path is None or not (self.path / name).is_file():
            return None
        try:
            with np.load(self.path / name, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (ValueError, OSError, EOFError) as error:
            raise DataFileError(
                f"{self.path / name} is damaged ({error}); delete it to redo its step"
            ) from error

    def _write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        if self.path is None:
            return
        with atomic_path(self.path / name) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)


def _packed(found: FamilyCurve, index: int) -> dict[str, NDArray[Any]]:
    curve = found.curve
    return {
        f"counts_{index}": curve.counts,
        f"values_{index}": curve.values,
        f"bounds_{index}": curve.bounds,
        f"masks_{index}": found.masks,
    }


def _unpacked(arrays: Mapping[str, NDArray[Any]], name: str, index: int) -> FamilyCurve:
    counts, values, bounds, masks = (
        arrays[f"{part}_{index}"] for part in ("counts", "values", "bounds", "masks")
    )
    return FamilyCurve(WidthCurve(name, counts, values, bounds), masks)
