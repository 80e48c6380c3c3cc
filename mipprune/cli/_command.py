"""What a command is, and how its file is found."""

import importlib
import pkgutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mipprune.cli import commands
from mipprune.cli._parser import Parser

__all__ = ["Command", "available_commands"]


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    A file in ``mipprune/cli/commands`` holds one as ``COMMAND``. It imports
    heavy packages inside ``execute`` only, so that ``mipprune --help`` is quick.

    Attributes
    ----------
    name : str
    summary : str
        One line for the list of commands.
    configure : callable
        Adds the options to the command's parser.
    execute : callable
        Does the work and returns the exit code.
    example : str
        A whole command line, shown below the options.
    """

    name: str
    summary: str
    configure: Callable[[Parser], None]
    execute: Callable[[Namespace], int]
    example: str = ""


def available_commands() -> Mapping[str, Command]:
    """All commands by name, in alphabetical order."""
    found: dict[str, Command] = {}
    for info in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            command: Command = importlib.import_module(info.name).COMMAND
            found[command.name] = command
    return dict(sorted(found.items()))
