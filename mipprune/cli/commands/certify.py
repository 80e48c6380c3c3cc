"""``mipprune certify``: bound anybody's mask, also one made by another tool."""

from argparse import Namespace

from mipprune.cli._certificates import describe
from mipprune.cli._command import Command
from mipprune.cli._numbers import seconds
from mipprune.cli._outputs import check_files
from mipprune.cli._parser import Parser
from mipprune.cli._problems import add_keep, read_mask, read_problem


def _configure(parser: Parser) -> None:
    parser.add_argument("problem", help="problem file (.npz)")
    parser.add_argument("mask", help="mask: .npy, a JSON list, or what mipprune solve --json wrote")
    add_keep(parser)
    parser.add_argument("--time-limit", type=seconds, metavar="SECONDS", help="bound so far then")
    parser.add_argument("--certificate", metavar="FILE", help="write the proof (.npz)")


def _execute(options: Namespace) -> int:
    from mipprune.relaxation import certify

    check_files(options, "certificate")
    problem = read_problem(options.problem, options.keep)
    certificate = certify(problem, read_mask(options.mask), time_limit=options.time_limit)
    print(describe(certificate))
    if options.certificate is not None:
        certificate.save(options.certificate)
    return 0


COMMAND = Command(
    name="certify",
    summary="Prove how far a given mask is from optimal at most.",
    configure=_configure,
    execute=_execute,
    example="mipprune certify layer.npz mask.json --certificate cert.npz",
)
