"""Parse, call, and turn errors into one line and an exit code."""

import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata

from mipprune.cli._command import Command, available_commands
from mipprune.cli._parser import Parser, suggestion
from mipprune.errors import MippruneError

__all__ = ["main"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
LONGEST_MESSAGE = 600
WIDTH = 80
EPILOG = """\
example:
  mipprune prune --data digits --model resnet20 --macs 40% --out runs/demo

mipprune COMMAND --help shows the options of a command and an example.
exit codes: 0 done, 1 the answer is no (verify), 2 wrong options or input,
130 stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; default: those of the process.

    Returns
    -------
    int
        0: done; 1: done, the answer is no (a certificate that does not hold);
        2: wrong options or input; 130: interrupted by Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = available_commands()
    try:
        with _plain_warnings():
            return _dispatch(given, commands)
    except MippruneError as error:
        print(f"mipprune: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("mipprune: interrupted; no file is half written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`mipprune models | head`); keep Python's exit quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


def _one_line(error: MippruneError) -> str:
    """The message on one line; what an exporter printed is cut off."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ..."


def _dispatch(arguments: list[str], commands: Mapping[str, Command]) -> int:
    parser, parsers = _build(commands)
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    if first is not None and first not in commands and first == arguments[0]:
        parser.error(f"unknown command '{first}'{suggestion(first, commands)}")
    if first in parsers:
        parsers[first].refuse_unknown_options(arguments[arguments.index(first) + 1 :])
    else:
        parser.refuse_unknown_options(arguments)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return EXIT_ERROR
    return commands[options.command].execute(options)


def _build(commands: Mapping[str, Command]) -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="mipprune",
        description="Mixed-integer optimisation for structured pruning of neural networks.",
        epilog=EPILOG,
    )
    version = f"mipprune {metadata.version('mipprune')}"
    parser.add_argument("--version", action="version", version=version)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    parsers = {}
    for name, command in commands.items():
        epilog = f"example:\n{_wrapped(command.example)}" if command.example else None
        about = textwrap.fill(command.summary, WIDTH - 2)
        one = sub.add_parser(name, help=command.summary, description=about, epilog=epilog)
        command.configure(one)
        parsers[name] = one
    return parser, parsers


def _wrapped(line: str) -> str:
    """A command line on lines of at most 78 characters, as a shell takes it."""
    lines = [" "]
    for part in re.split(r" (?=--)", line):
        if len(lines[-1]) + len(part) > WIDTH - 2:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join(lines)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line, without the place in our code."""
    before = warnings.formatwarning

    def one_line(message: Warning | str, *_: object, **__: object) -> str:
        return f"mipprune: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = before
