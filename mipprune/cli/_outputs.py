"""Where results of a command go: refused before the work where they could not be written."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, TextIO

from mipprune._support.files import require_writable, write_json
from mipprune.errors import InputError

__all__ = ["STANDARD_OUTPUT", "check_files", "put_json", "words"]

STANDARD_OUTPUT = "-"


def check_files(options: Namespace, *names: str) -> None:
    """Refuse files to write that are missing their folder, are folders, or are one file twice.

    Raises
    ------
    DataFileError
        A file cannot be written.
    InputError
        Two options name the same file.
    """
    seen: dict[str, str] = {}
    for name in names:
        given = getattr(options, name)
        if given is None or (name == "json" and given == STANDARD_OUTPUT):
            continue
        place = os.path.realpath(require_writable(given))
        if place in seen:
            raise InputError(f"--{seen[place]} and --{name} name the same file {given}")
        seen[place] = name


def words(options: Namespace) -> TextIO:
    """Where text for people goes: beside the JSON, not into it."""
    return sys.stderr if getattr(options, "json", None) == STANDARD_OUTPUT else sys.stdout


def put_json(options: Namespace, content: Mapping[str, Any]) -> None:
    """Write what ``--json`` asks for: a file, or standard output for ``-``."""
    if options.json == STANDARD_OUTPUT:
        print(json.dumps(content, indent=2, allow_nan=False))
    elif options.json is not None:
        write_json(options.json, content)
