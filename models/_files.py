"""Finding and reading data files, with errors that say how to get them."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from mipprune._support.checks import require_path
from mipprune.errors import DataFileError

__all__ = ["DATA_VARIABLE", "check_digest", "find_file", "read_bytes", "search_folders"]

DATA_VARIABLE = "MIPPRUNE_DATA"
"""Environment variable with the folder of data sets, used where no root is given."""


def search_folders(
    root: str | Path | None, subfolders: Iterable[str], system: Iterable[str] = ()
) -> list[Path]:
    """Folders to look in: ``root`` and its sub-folders, else the variable's, else the system's."""
    bases = [require_path("root", root, "folder")] if root is not None else []
    if root is None and os.environ.get(DATA_VARIABLE):
        bases.append(Path(os.environ[DATA_VARIABLE]))
    folders = [folder for base in bases for folder in (base, *(base / sub for sub in subfolders))]
    if root is None:
        folders += [Path(folder) for folder in system]
    return folders


def find_file(names: Iterable[str], folders: Iterable[Path], what: str, how: str) -> Path:
    """First existing file of ``names`` in ``folders``.

    Raises
    ------
    DataFileError
        Naming the file, the folders searched and ``how`` to get it.
    """
    names, folders = list(names), list(folders)
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    searched = ", ".join(
        str(folder) if folder.is_dir() else f"{folder} (no such folder)" for folder in folders
    )
    raise DataFileError(
        f"{what}: found no '{names[0]}' in {searched or 'no folder (none was given)'}; "
        f"pass its folder as root or set {DATA_VARIABLE}; to get it: {how}"
    )


def read_bytes(path: Path, how: str) -> bytes:
    """Content of a file, decompressed where the name ends in ``.gz``.

    Raises
    ------
    DataFileError
        If it cannot be read or decompressed.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(
            f"'{path}' cannot be read or is damaged ({error}); get it again: {how}"
        ) from error


def check_digest(content: bytes, path: Path, expected: str | None, how: str) -> str:
    """sha256 of ``content`` in hex; compared with ``expected`` where that is given.

    Raises
    ------
    DataFileError
        If they differ.
    """
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected:
        raise DataFileError(
            f"the content of '{path}' has sha256 {digest[:16]}..., expected {expected[:16]}...; "
            f"get it again: {how}; or pass verify=False for other data of the same format"
        )
    return digest
