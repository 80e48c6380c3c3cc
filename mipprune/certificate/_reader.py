"""Reading npz files that nobody vouches for; numpy and the standard library only."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from struct import error as StructError
from tokenize import TokenError
from typing import Any

import numpy as np

__all__ = ["UNREADABLE", "read_arrays", "require", "require_plain"]

Arrays = dict[str, np.ndarray[Any, Any]]

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StructError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What damaged or hostile files raise inside zipfile and numpy."""

LARGEST = 2**37
"""Bytes of all arrays of a file together; no layer has more."""


def require(condition: Any, reason: str) -> None:
    """A ValueError with ``reason`` where the condition does not hold."""
    if not condition:
        raise ValueError(reason)


def read_arrays(path: Any, what: str, names: Sequence[str]) -> Arrays:
    """All arrays of an npz file that has at least ``names``; see :func:`require_plain`."""
    with open(os.fspath(path), "rb") as stream:
        require(stream.read(2) == b"PK", f"{path} is not an npz file")
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                _check_entry(archive, entry, path)
            total = sum(entry.file_size for entry in archive.infolist())
            require(total <= LARGEST, f"{path} unpacks to {total} bytes")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    missing = [name for name in names if name not in arrays]
    hint = ""
    if missing and what == "certificate" and "gram" in arrays:
        hint = "; it is a problem file, which comes second"
    if missing and what == "problem" and "problem_hash" in arrays:
        hint = "; it is a certificate, which comes first"
    require(not missing, f"{path} is no {what} file: it has no {', '.join(missing)}{hint}")
    return arrays


def require_plain(arrays: Arrays) -> None:
    """A ValueError where an array is not of finite numbers or text."""
    for key, array in arrays.items():
        require(array.dtype.kind in "fiubU", f"array '{key}' is not of plain numbers or text")
        if array.dtype.kind == "f" and key not in ("budgets", "lower") and key[:5] != "big_m":
            require(np.all(np.isfinite(array)), f"array '{key}' holds NaN or infinity")


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Any) -> None:
    """The shape in an array's head must be that of its bytes: nothing is reserved before."""
    formats = np.lib.format
    with archive.open(entry) as stream:
        version = formats.read_magic(stream)
        require(version in ((1, 0), (2, 0)), f"'{entry.filename}' has an unknown format")
        first = version == (1, 0)
        head = formats.read_array_header_1_0 if first else formats.read_array_header_2_0
        shape, _, dtype = head(stream)
        size = int(dtype.itemsize)
        for length in shape:
            size *= int(length)
        held = entry.file_size - stream.tell()
    plain = f"array '{entry.filename[:-4]}' is not of plain numbers or text"
    require(not dtype.hasobject, plain)
    require(size == held, f"{path}: '{entry.filename}' does not have the size of its shape")
