"""Atomic writes: a reader sees the old file or the whole new one."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mipprune.errors import DataFileError

__all__ = ["atomic_path", "write_json", "write_text"]


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that replaces it on success.

    On any error, a full disk or Ctrl-C included, the temporary file is removed
    and ``target`` stays as it was.

    Raises
    ------
    DataFileError
        The folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DataFileError(f"cannot write {path}: {error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise DataFileError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity are refused rather than written."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")
