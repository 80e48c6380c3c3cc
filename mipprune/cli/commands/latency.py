"""``mipprune latency``: time the layers of a network, for latency budgets."""

from argparse import Namespace

from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least
from mipprune.cli._outputs import check_files
from mipprune.cli._parser import Parser, key_value


def _configure(parser: Parser) -> None:
    parser.add_argument("model", help="network, or package.module:factory")
    parser.add_argument("--data", required=True, metavar="NAME", help="data set, or factory")
    parser.add_argument("--out", required=True, metavar="FILE", help="table to write (JSON)")
    parser.add_argument("--batch-size", type=at_least(1), default=32, metavar="N", help="examples")
    parser.add_argument("--repeats", type=at_least(1), default=20, metavar="N", help="per point")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data files are")
    parser.add_argument(
        "--model-option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the network, such as base_width=8; may be repeated",
    )


def _execute(options: Namespace) -> int:
    from mipprune.models import batches
    from mipprune.pipeline import PruneConfig, make_task, measure_layer_latency

    check_files(options, "out")
    config = PruneConfig(
        data=options.data,
        model=options.model,
        method="none",
        channels="100%",
        data_root=options.data_root,
        model_options=dict(options.model_option),
    )
    task = make_task(config, None, None, None, None, None, True)
    batch = next(iter(batches(task.data, "train", options.batch_size, shuffle=False)))
    table = measure_layer_latency(task.factory(), batch, repeats=options.repeats)
    table.save(options.out)
    total = sum(max(time for _, _, time in rows) for rows in table.times.values())
    print(
        f"{len(table.times)} layers timed at batch {table.batch_size} on {table.device} "
        f"({table.threads} threads), {total:.3g} ms in all: {options.out}"
    )
    return 0


COMMAND = Command(
    name="latency",
    summary="Time the layers of a network at a grid of widths, for latency budgets.",
    configure=_configure,
    execute=_execute,
    example="mipprune latency resnet20 --data digits --out latency.json",
)
