"""``mipprune models``: the networks by name, or one of them in detail."""

from argparse import Namespace

from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least
from mipprune.cli._parser import Parser, key_value


def _configure(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", help="show this network (or package.module:factory)")
    parser.add_argument("--in-channels", type=at_least(1), default=3, metavar="N", help="of images")
    parser.add_argument("--classes", type=at_least(1), default=10, metavar="N", help="outputs")
    parser.add_argument(
        "--image-size", type=at_least(1), default=32, metavar="PIXELS", help="square"
    )
    parser.add_argument(
        "--option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the network, such as base_width=8; may be repeated",
    )


def _execute(options: Namespace) -> int:
    from mipprune.models import load_model, model_names

    if options.name is None:
        print("\n".join(model_names()))
        return 0
    model = load_model(
        options.name,
        in_channels=options.in_channels,
        num_classes=options.classes,
        image_size=options.image_size,
        **dict(options.option),
    )
    import torch

    from mipprune.graph import channel_groups

    shape = (2, options.in_channels, options.image_size, options.image_size)
    print(channel_groups(model, (torch.zeros(shape),)))
    return 0


COMMAND = Command(
    name="models",
    summary="List the networks, or show the tied channels and costs of one.",
    configure=_configure,
    execute=_execute,
    example="mipprune models resnet20 --in-channels 1 --image-size 8",
)
