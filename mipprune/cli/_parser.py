"""An argument parser that suggests what was meant."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mipprune._support.checks import suggestion

__all__ = ["Parser", "key_value", "one_of", "suggestion"]

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def one_of(names: Callable[[], Sequence[str]], what: str) -> Callable[[str], str]:
    """Type of an option whose values are listed by ``names`` when it is read."""

    def check(given: str) -> str:
        known = names()
        if given not in known:
            hint = suggestion(given, known)
            raise argparse.ArgumentTypeError(
                f"unknown {what} '{given}'{hint} (known: {', '.join(known)})"
            )
        return given

    return check


def key_value(text: str) -> tuple[str, Any]:
    """``name=value``: numbers, true, false and null are read as such, all else is text."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got '{text}'")
    words: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


class Parser(argparse.ArgumentParser):
    """Whole option names only, one-line errors, and a suggestion for unknown options."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def refuse_unknown_options(self, arguments: Sequence[str]) -> None:
        """Name unknown options before argparse complains about what is then missing."""
        known = set(OPTION.findall(self.format_help()))
        for argument in arguments:
            if argument == "--":
                return
            option = argument.partition("=")[0]
            if argument.startswith("--") and option not in known:
                self.error(f"unknown option {option}{suggestion(option, known)}")
