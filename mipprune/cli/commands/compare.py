"""``mipprune compare``: methods x budgets x seeds on equal terms."""

from argparse import Namespace
from shlex import quote

from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least, seconds_or_none_left
from mipprune.cli._parser import Parser

EXIT_INTERRUPTED = 130


def _configure(parser: Parser) -> None:
    parser.add_argument("config", help="TOML or JSON file: data, model, methods, budgets, seeds")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the comparison")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the comparison in --out; methods, budgets and seeds may be added",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="processes (joblib)"
    )
    parser.add_argument(
        "--time-limit",
        type=seconds_or_none_left,
        metavar="SECONDS",
        help="start nothing new after it",
    )
    parser.add_argument(
        "--threads", type=at_least(1), metavar="N", help="of torch, with one process"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _execute(options: Namespace) -> int:
    from mipprune.pipeline import compare, load_compare_config
    from mipprune.report.comparison import render_comparison_text

    config = load_compare_config(options.config)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    try:
        result = compare(
            config,
            options.out,
            resume=options.resume,
            jobs=options.jobs,
            time_limit=options.time_limit,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        import sys

        again = f"mipprune compare {quote(options.config)} --out {quote(options.out)} --resume"
        print(f"\ninterrupted; everything is saved, go on with: {again}", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(render_comparison_text(result.comparison))
    print(f"comparison: {result.files.html or result.files.markdown}")
    if result.files.missing:
        print(f"no HTML: {result.files.missing}")
    return 0


COMMAND = Command(
    name="compare",
    summary="Compare methods at equal budgets, epochs and seeds; resumable cell by cell.",
    configure=_configure,
    execute=_execute,
    example="mipprune compare comparison.toml --out runs/comparison --jobs 2",
)
