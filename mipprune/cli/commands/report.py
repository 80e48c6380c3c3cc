"""``mipprune report``: show a finished run again."""

from argparse import Namespace

from mipprune.cli._command import Command
from mipprune.cli._parser import Parser


def _configure(parser: Parser) -> None:
    parser.add_argument("run", help="folder of a finished run, or its report.json")
    parser.add_argument(
        "--write",
        metavar="FOLDER",
        help="write report.json, report.md and report.html into this folder",
    )


def _execute(options: Namespace) -> int:
    from mipprune._support.files import require_writable_folder
    from mipprune.report import load_report, render_text, write_report

    if options.write:
        require_writable_folder(options.write)
    report = load_report(options.run)
    print(render_text(report), end="")
    if options.write:
        files = write_report(report, options.write)
        print(f"\nreport: {files.html or files.markdown}")
        if files.missing:
            print(f"no HTML: {files.missing}")
    return 0


COMMAND = Command(
    name="report",
    summary="Show the report of a finished run, or write its files anew.",
    configure=_configure,
    execute=_execute,
    example="mipprune report runs/demo",
)
