"""Reading problems and masks, and writing results, for the commands of the solvers."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.provenance import provenance
from mipprune.cli._numbers import at_least
from mipprune.cli._parser import Parser
from mipprune.errors import DataFileError

if TYPE_CHECKING:
    from mipprune.problem import ChannelSelection, Solution

__all__ = ["add_keep", "finite", "read_mask", "read_problem", "solution_json"]


def add_keep(parser: Parser) -> None:
    """The option that replaces the problem's own limit on the number of channels."""
    parser.add_argument(
        "--keep",
        type=at_least(0),
        metavar="K",
        help="at most K channels stay (replaces the limit in the file)",
    )


def read_problem(path: str | Path, keep: int | None) -> "ChannelSelection":
    """The problem in a file, with another limit on the number of channels where given."""
    from mipprune.problem import ChannelSelection

    problem = ChannelSelection.load(path)
    return problem if keep is None else problem.with_keep(keep)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """A mask from ``.npy``, or from JSON: a list, or what ``mipprune solve --json`` wrote.

    Raises
    ------
    DataFileError
        Missing file, or one that holds no mask.
    """
    source = Path(path)
    try:
        if source.suffix == ".npy":
            found = np.load(source, allow_pickle=False)
        else:
            content = json.loads(source.read_text(encoding="utf-8"))
            found = np.array(content["mask"] if isinstance(content, Mapping) else content)
    except FileNotFoundError as error:
        raise DataFileError(f"there is no mask file {source}") from error
    except (OSError, ValueError, KeyError) as error:
        raise DataFileError(
            f"{source} holds no mask ({error}); expected .npy, or JSON with a list of true/false"
        ) from error
    values = np.asarray(found)
    if values.ndim != 1 or values.dtype == object or not np.isin(values, (0, 1)).all():
        raise DataFileError(f"{source} holds no mask: expected a list of true/false or 1/0")
    return values.astype(bool)


def finite(value: float) -> float | None:
    """JSON has no infinity: None where nothing is known."""
    return value if math.isfinite(value) else None


def solution_json(solution: "Solution", problem: "ChannelSelection") -> dict[str, Any]:
    """A solution as plain JSON types, with the problem's hash and where it was found."""
    log = [{name: finite(entry) for name, entry in asdict(point).items()} for point in solution.log]
    return {
        "problem_hash": problem.content_hash,
        "mask": None if solution.mask is None else solution.mask.tolist(),
        "value": finite(solution.value),
        "bound": finite(solution.bound),
        "gap": finite(solution.gap),
        "energy_gap": finite(solution.energy_gap),
        "certified_bound": finite(solution.certified_bound),
        "status": solution.status.name.lower(),
        "termination": solution.termination.name.lower(),
        "solver": solution.solver,
        "version": solution.version,
        "nodes": solution.nodes,
        "seconds": solution.seconds,
        "statistics": {name: finite(value) for name, value in solution.statistics.items()},
        "log": log,
        "provenance": provenance(),
    }
