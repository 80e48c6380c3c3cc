"""Problem files: npz without pickle, with a content hash."""

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mipprune._support.checks import require_path
from mipprune._support.files import atomic_path
from mipprune.errors import DataFileError, InputError
from mipprune.problem._resources import Resource
from mipprune.problem._term import Term

if TYPE_CHECKING:
    from mipprune.problem._selection import ChannelSelection

__all__ = ["FORMAT_VERSION", "content_hash", "load_problem", "problem_arrays", "save_problem"]

FORMAT_VERSION = 1
REQUIRED = ("gram", "cross", "energy", "group_sizes")
TERM_KEYS = (*REQUIRED, "ridge", "big_m", "dense", "name")

Arrays = dict[str, NDArray[np.generic]]


def problem_arrays(problem: "ChannelSelection") -> Arrays:
    """Everything a problem holds, as arrays by key.

    The first term uses the plain keys (``gram``, ``cross``, ``energy``,
    ``group_sizes``, ``ridge``, ``big_m``, ``dense``, ``name``), term t >= 1
    the same with ``_t`` appended.
    """
    p, r = problem.n_channels, len(problem.resources)
    arrays: Arrays = {}
    for index, term in enumerate(problem.terms):
        suffix = f"_{index}" if index else ""
        for key in TERM_KEYS:
            value = getattr(term, key)
            if value is not None:
                arrays[key + suffix] = np.asarray(value)
    arrays["n_terms"] = np.asarray(len(problem.terms))
    arrays["prices"] = problem.prices
    arrays["costs"] = np.array([x.costs for x in problem.resources]).reshape(r, p)
    arrays["budgets"] = np.array([x.upper for x in problem.resources], dtype=np.float64)
    arrays["lower"] = np.array([x.lower for x in problem.resources], dtype=np.float64)
    arrays["resource_names"] = np.array([x.name for x in problem.resources], dtype=np.str_)
    arrays["variant"] = np.asarray(problem.variant)
    arrays["forced_in"] = problem.forced_in
    arrays["forced_out"] = problem.forced_out
    arrays["parts"] = np.array(problem.parts, dtype=np.int64).reshape(len(problem.parts), p)
    return arrays


def content_hash(problem: "ChannelSelection") -> str:
    """SHA-256 over key, dtype, shape and bytes of every array, sorted by key."""
    digest = hashlib.sha256()
    for key, array in sorted(problem_arrays(problem).items()):
        plain = np.ascontiguousarray(array)
        if plain.dtype.kind == "U":
            plain = np.frombuffer("\0".join(plain.ravel().tolist()).encode(), dtype=np.uint8)
        little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{key}|{little.dtype.str}|{little.shape}|".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def save_problem(problem: "ChannelSelection", path: str | Path) -> Path:
    """Write ``problem`` atomically; an existing file is replaced only when complete."""
    target = require_path("path", path)
    arrays = problem_arrays(problem)
    arrays["format_version"] = np.asarray(FORMAT_VERSION)
    arrays["content_hash"] = np.asarray(problem.content_hash)
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return target


def load_problem(path: str | Path) -> "ChannelSelection":
    """Read a problem file; see :func:`save_problem`.

    Raises
    ------
    DataFileError
        Missing file, not an npz, pickled content, a missing key, an unknown
        format version, or content that does not match the stored hash.
    """
    source = require_path("path", path, "problem file")
    arrays = _read(source)
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise DataFileError(f"{source}: keys {missing} are missing; expected at least {REQUIRED}")
    try:
        version = int(arrays.get("format_version", np.asarray(FORMAT_VERSION)))
        if version != FORMAT_VERSION:
            raise InputError(f"format version {version}, this release reads {FORMAT_VERSION}")
        problem = _build(arrays)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataFileError(f"{source}: {error}") from error
    stored = arrays.get("content_hash")
    if stored is not None and str(stored) != problem.content_hash:
        raise DataFileError(f"{source}: content does not match its hash; the file was changed")
    return problem


def _read(source: Path) -> Arrays:
    if not source.is_file():
        raise DataFileError(f"{source}: no such file; expected a problem file (.npz)")
    if not zipfile.is_zipfile(source):
        raise DataFileError(f"{source}: not an npz file; expected a problem file")
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError, OSError, AttributeError) as error:
        raise DataFileError(f"{source}: not a readable npz without pickle ({error})") from error


def _build(arrays: Arrays) -> "ChannelSelection":
    from mipprune.problem._selection import ChannelSelection

    n_terms = int(arrays.get("n_terms", np.asarray(1)))
    terms = [_term(arrays, f"_{index}" if index else "") for index in range(n_terms)]
    resources: list[Resource] = []
    if "costs" in arrays:
        costs = np.atleast_2d(arrays["costs"].astype(np.float64))
        upper = arrays.get("budgets", np.full(len(costs), np.inf))
        lower = arrays.get("lower", np.full(len(costs), -np.inf))
        names = arrays.get("resource_names", np.array([f"cost{i}" for i in range(len(costs))]))
        for name, row, low, high in zip(names, costs, lower, upper, strict=True):
            resources.append(Resource(str(name), row, float(high), float(low)))
    keep = arrays.get("keep")
    return ChannelSelection.from_terms(
        terms,
        prices=arrays.get("prices", np.asarray(0.0)),
        resources=resources,
        keep=None if keep is None else int(keep),
        variant=str(arrays.get("variant", "refit")),
        forced_in=arrays.get("forced_in"),
        forced_out=arrays.get("forced_out"),
        parts=list(arrays.get("parts", np.zeros((0, 0), dtype=np.int64))),
    )


def _term(arrays: Arrays, suffix: str) -> Term:
    given = {key: arrays[key + suffix] for key in TERM_KEYS if key + suffix in arrays}
    missing = [key for key in REQUIRED if key not in given]
    if missing:
        raise InputError(f"keys {[key + suffix for key in missing]} are missing")
    return Term.create(
        given["gram"],
        given["cross"],
        float(given["energy"]),
        given["group_sizes"],
        ridge=given.get("ridge", 0.0),
        big_m=given.get("big_m", np.inf),
        dense=given.get("dense"),
        name=str(given.get("name", "layer")),
    )
