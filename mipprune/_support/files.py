"""Atomic writes: a reader sees the old file or the whole new one."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mipprune.errors import DataFileError

__all__ = [
    "atomic_path",
    "require_writable",
    "require_writable_folder",
    "write_json",
    "write_text",
]


def require_writable(target: str | Path) -> Path:
    """Refuse a file that cannot be written, before the work whose result it is to take.

    A disk that fills up later is still found only when writing.

    Raises
    ------
    DataFileError
        Its folder is missing or takes no new file, or ``target`` is a folder.
    """
    path = Path(target)
    if path.is_dir():
        raise DataFileError(f"cannot write {path}: it is a folder; give the name of a file")
    if not path.parent.exists():
        raise DataFileError(
            f"cannot write {path}: there is no folder {path.parent}; make it or choose another"
        )
    handle, temporary = _open_beside(path)
    os.close(handle)
    temporary.unlink()
    return path


def require_writable_folder(target: str | Path) -> Path:
    """Refuse a folder that cannot be made or takes no new file; nothing is made.

    Raises
    ------
    DataFileError
        It, or the nearest folder above that exists, is a file or takes no new file.
    """
    path = Path(target)
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise DataFileError(f"cannot make the folder {path}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise DataFileError(f"cannot make the folder {path}: {place} takes no new files")
    return path


def _open_beside(path: Path) -> tuple[int, Path]:
    """A new temporary file beside ``path``: its handle and its name."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DataFileError(f"cannot write {path}: {error}") from error
    return handle, Path(name)


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
    handle, temporary = _open_beside(path)
    os.close(handle)
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
