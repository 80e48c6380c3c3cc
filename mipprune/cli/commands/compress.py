"""``mipprune compress``: prune a trained network to hard budgets, without training."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least, refuse_bare_percentages, seconds
from mipprune.cli._parser import Parser, key_value

if TYPE_CHECKING:
    from mipprune.pipeline import PruneConfig

EXIT_INTERRUPTED = 130


def _configure(parser: Parser) -> None:
    parser.add_argument("model", help="network, or package.module:factory")
    parser.add_argument("--data", required=True, metavar="NAME", help="data set, or factory")
    parser.add_argument("--weights", metavar="FILE", help="trained weights of the network")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    _configure_budgets(parser)
    group = parser.add_argument_group("how")
    group.add_argument(
        "--samples", type=at_least(1), default=1024, metavar="N", help="training images"
    )
    group.add_argument("--time-limit", type=seconds, default=300.0, metavar="SECONDS")
    group.add_argument("--damping", type=float, default=0.1, help="ridge / mean diagonal")
    group.add_argument(
        "--shrink-to",
        choices=("trained", "zero"),
        default="trained",
        help="where the ridge pulls the refitted weights",
    )
    group.add_argument(
        "--weighting", choices=("output", "relative"), default="output", help="of the families"
    )
    group.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="processes for curves"
    )
    group.add_argument(
        "--tune-epochs", type=at_least(0), default=0, metavar="N", help="fine-tuning"
    )
    group.add_argument("--seed", type=at_least(0), default=0, metavar="N")
    group.add_argument("--data-root", metavar="FOLDER", help="where the data files are")
    for name in ("model", "data", "train"):
        group.add_argument(
            f"--{name}-option",
            type=key_value,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="may be repeated",
        )
    group.add_argument("--latency-repeats", type=at_least(0), default=30, metavar="N")
    group.add_argument("--quiet", action="store_true", help="no progress")


def _configure_budgets(parser: Parser) -> None:
    group = parser.add_argument_group(
        "budgets", "what remains: a percentage such as 50%, or a number; all hold together"
    )
    group.add_argument("--macs", metavar="AMOUNT", help="multiply-accumulates per example")
    group.add_argument("--params", metavar="AMOUNT", help="parameters")
    group.add_argument("--channels", metavar="AMOUNT", help="channels; tied ones count once")
    group.add_argument("--latency", metavar="AMOUNT", help="milliseconds per batch, or percent")
    group.add_argument("--latency-table", metavar="FILE", help="from 'mipprune latency'")
    group.add_argument("--multiple-of", type=at_least(1), default=1, metavar="N")


def _execute(options: Namespace) -> int:
    from mipprune.pipeline import CompressOptions, run_compression
    from mipprune.report import render_text

    refuse_bare_percentages(options)
    try:
        run = run_compression(
            _config(options),
            options.out,
            options=CompressOptions(
                damping=options.damping,
                shrink_to=options.shrink_to,
                weighting=options.weighting,
                time_limit=options.time_limit,
                jobs=options.jobs,
                seed=options.seed,
            ),
            samples=options.samples,
            latency=options.latency,
            latency_table=options.latency_table,
            resume=options.resume,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        kept = (Path(options.out) / "compress.json").exists()
        way_on = f"everything is saved in {options.out}, go on with the same command and --resume"
        print(f"\ninterrupted; {way_on if kept else 'nothing was kept yet'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(render_text(run.report))
    print(f"report: {run.files.html or run.files.markdown}")
    return 0


def _config(options: Namespace) -> "PruneConfig":
    from mipprune.errors import InputError
    from mipprune.pipeline import PruneConfig

    limits = {"macs": options.macs, "params": options.params, "channels": options.channels}
    if not any(limits.values()):
        if options.latency is None:
            raise InputError("there is no budget; give --macs, --params, --channels or --latency")
        limits["channels"] = "100%"
    return PruneConfig(
        data=options.data,
        model=options.model,
        method="none",
        weights=options.weights,
        multiple_of=options.multiple_of,
        seed=options.seed,
        data_root=options.data_root,
        data_options=dict(options.data_option),
        model_options=dict(options.model_option),
        training=dict(options.train_option),
        tune_epochs=options.tune_epochs,
        latency_repeats=options.latency_repeats,
        **limits,
    )


COMMAND = Command(
    name="compress",
    summary="Prune a trained network to hard budgets without training it, with gaps.",
    configure=_configure,
    execute=_execute,
    example="mipprune compress resnet20 --weights dense.pt --data digits --macs 50% --out runs/c",
)
