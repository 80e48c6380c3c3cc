"""``mipprune data``: the data sets by name, or one of them in detail."""

import json
from argparse import Namespace

from mipprune.cli._command import Command
from mipprune.cli._parser import Parser


def _configure(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", help="load and describe this data set")
    parser.add_argument("--root", metavar="FOLDER", help="where its files are")


def _execute(options: Namespace) -> int:
    from mipprune.errors import InputError
    from mipprune.models import Dataset, data_names, load_data

    if options.name is None:
        print("\n".join(data_names()))
        return 0
    data = load_data(options.name, options.root)
    if not isinstance(data, Dataset):
        raise InputError(f"'{options.name}' is data of your own; there is nothing to describe")
    print(json.dumps(data.describe(), indent=2))
    return 0


COMMAND = Command(
    name="data",
    summary="List the data sets, or load one, check its files and describe it.",
    configure=_configure,
    execute=_execute,
    example="mipprune data digits",
)
