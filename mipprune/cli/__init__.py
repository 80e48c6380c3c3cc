"""The command line: ``mipprune COMMAND ...``.

A command is one file in :mod:`mipprune.cli.commands` with a constant
``COMMAND``; it is found there without being listed anywhere.
"""

from mipprune.cli._main import main

__all__ = ["main"]
