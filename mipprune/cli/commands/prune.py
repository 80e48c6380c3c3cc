"""``mipprune prune``: train, prune to a budget, fine-tune, report."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least, refuse_bare_percentages, seconds
from mipprune.cli._parser import Parser, key_value, one_of

EXIT_INTERRUPTED = 130


def _method_names() -> Sequence[str]:
    from mipprune.training import method_names

    return method_names()


def _configure(parser: Parser) -> None:
    parser.add_argument("--data", metavar="NAME", help="data set, or package.module:factory")
    parser.add_argument("--model", metavar="NAME", help="network, or package.module:factory")
    parser.add_argument(
        "--method",
        type=one_of(_method_names, "method"),
        metavar="NAME",
        help="training method, default spr",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    _configure_budget(parser)
    _configure_training(parser)


def _configure_budget(parser: Parser) -> None:
    group = parser.add_argument_group(
        "budget", "what remains: a percentage such as 40%, or a number such as 1.2M"
    )
    group.add_argument("--macs", metavar="AMOUNT", help="multiply-accumulates per example")
    group.add_argument("--params", metavar="AMOUNT", help="parameters")
    group.add_argument("--channels", metavar="AMOUNT", help="channels; tied ones count once")
    group.add_argument(
        "--multiple-of", type=at_least(1), metavar="N", help="widths are multiples of N"
    )
    group.add_argument(
        "--rounding",
        choices=("budget", "optimiser", "authors"),
        help="best scores within the budget (default); widths and masks by the optimiser "
        "with refitted weights; or the accuracy-tolerant threshold of the SPR authors' code, "
        "which takes no budget",
    )
    group.add_argument(
        "--rounding-seconds", type=seconds, metavar="SECONDS", help="for the optimiser; default 60"
    )


def _configure_training(parser: Parser) -> None:
    group = parser.add_argument_group("training", "defaults: the recipe of the data set")
    group.add_argument("--seed", type=at_least(0), metavar="N", help="default 0")
    group.add_argument("--weights", metavar="FILE", help="trained weights of the dense network")
    group.add_argument("--data-root", metavar="FOLDER", help="where the data files are")
    group.add_argument(
        "--dense-epochs", type=at_least(1), metavar="N", help="of the dense reference"
    )
    group.add_argument("--epochs", type=at_least(1), metavar="N", help="of the method's training")
    group.add_argument(
        "--tune-epochs", type=at_least(0), metavar="N", help="of fine-tuning; 0: none"
    )
    for name, what in (
        ("train", "training setting, such as lr=0.05 or precision=bf16"),
        ("method", "setting of the method, such as strength=2"),
        ("model", "option of the network, such as stem_stride=2"),
        ("data", "option of your own data factory"),
    ):
        group.add_argument(
            f"--{name}-option",
            type=key_value,
            action="append",
            metavar="NAME=VALUE",
            help=f"{what}; may be repeated",
        )
    group.add_argument("--device", metavar="NAME", help="cpu (default) or cuda")
    group.add_argument("--threads", type=at_least(1), metavar="N", help="of torch on the CPU")
    group.add_argument("--latency-repeats", type=at_least(0), metavar="N", help="0: do not measure")
    group.add_argument("--quiet", action="store_true", help="no progress")


def _execute(options: Namespace) -> int:
    from mipprune.pipeline import PruneConfig, load_config, prune
    from mipprune.report import render_text

    refuse_bare_percentages(options)
    settings = _given(options)
    _set_threads(options.threads)
    if options.resume and not settings:
        config = load_config(Path(options.out) / "config.json")
    else:
        _require(options)
        config = PruneConfig(**settings)
    try:
        result = prune(config, options.out, resume=options.resume, progress=not options.quiet)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_way_on(options.out)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(render_text(result.report))
    print(f"report: {result.files.html or result.files.markdown}")
    if result.files.missing:
        print(f"no HTML report: {result.files.missing}")
    return 0


def _way_on(out: str) -> str:
    if not (Path(out) / "config.json").exists():
        return "nothing was trained yet"
    return f"everything is saved, go on with: mipprune prune --out {shlex.quote(out)} --resume"


def _given(options: Namespace) -> dict[str, Any]:
    """Settings that were given, by their names in PruneConfig."""
    plain = (
        "data", "model", "method", "macs", "params", "channels", "multiple_of", "rounding",
        "rounding_seconds", "seed", "weights", "data_root", "dense_epochs", "epochs",
        "tune_epochs", "device",
        "latency_repeats",
    )  # fmt: skip
    settings = {name: getattr(options, name) for name in plain}
    settings |= {
        "training": options.train_option,
        "method_options": options.method_option,
        "model_options": options.model_option,
        "data_options": options.data_option,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    return {name: dict(v) if isinstance(v, list) else v for name, v in given.items()}


def _require(options: Namespace) -> None:
    from mipprune.errors import InputError

    missing = [f"--{name}" for name in ("data", "model") if getattr(options, name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} must be given (see mipprune prune --help)")


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    import torch

    torch.set_num_threads(threads)


COMMAND = Command(
    name="prune",
    summary="Train a network so that it can lose channels, remove them, fine-tune and report.",
    configure=_configure,
    execute=_execute,
    example="mipprune prune --data digits --model resnet20 --method spr --macs 40% --out runs/demo",
)
