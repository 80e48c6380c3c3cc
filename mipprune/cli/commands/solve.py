"""``mipprune solve``: choose the channels of one layer, with a bound."""

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from mipprune.cli._certificates import describe
from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least, seconds
from mipprune.cli._outputs import check_files, put_json, words
from mipprune.cli._parser import Parser, key_value, one_of
from mipprune.cli._problems import add_keep, read_mask, read_problem, solution_json

if TYPE_CHECKING:
    from mipprune.problem import Solution

EXIT_INTERRUPTED = 130


def _method_names() -> Sequence[str]:
    from mipprune.solvers import METHODS

    return ("auto", *METHODS)


def _configure(parser: Parser) -> None:
    parser.add_argument("problem", help="problem file (.npz)")
    add_keep(parser)
    parser.add_argument(
        "--method",
        type=one_of(_method_names, "method"),
        default="auto",
        metavar="NAME",
        help="auto (default), branch-and-bound, enumerate, local-search, ...",
    )
    parser.add_argument(
        "--gap", metavar="G", type=float, default=1e-6, help="stop at this (value-bound)/value"
    )
    parser.add_argument("--time-limit", type=seconds, metavar="SECONDS", help="best so far then")
    parser.add_argument("--start", metavar="FILE", help="mask to start from (.npy or JSON)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of restarts")
    parser.add_argument("--json", metavar="FILE", help="write the result; - is standard output")
    parser.add_argument("--certificate", metavar="FILE", help="write the proof (.npz)")
    parser.add_argument(
        "--option",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the method; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def _execute(options: Namespace) -> int:
    from mipprune.errors import InputError
    from mipprune.problem import Termination
    from mipprune.solvers import solve

    check_files(options, "json", "certificate")
    given = dict(options.option)
    if given and options.method == "auto":
        raise InputError("--option belongs to one method: give --method too")
    problem = read_problem(options.problem, options.keep)
    solution = solve(
        problem,
        options.method,
        time_limit=options.time_limit,
        gap=options.gap,
        start=None if options.start is None else read_mask(options.start),
        seed=options.seed,
        log=not options.quiet,
        certificate=options.certificate is not None,
        **given,
    )
    _show(solution, words(options))
    if options.json is not None:
        put_json(options, solution_json(solution, problem))
    if options.certificate is not None:
        _save_certificate(solution, options.certificate, words(options))
    return EXIT_INTERRUPTED if solution.termination is Termination.INTERRUPTED else 0


def _save_certificate(solution: "Solution", file: str, stream: TextIO) -> None:
    from mipprune.certificate import Certificate
    from mipprune.errors import NoSolutionError

    if not isinstance(solution.certificate, Certificate):
        raise NoSolutionError(f"no certificate could be made: {solution.no_certificate}")
    solution.certificate.save(file)
    print(f"{'proof':<11}{describe(solution.certificate)}: {file}", file=stream)


def _show(solution: "Solution", stream: TextIO) -> None:
    kept = "-" if solution.mask is None else " ".join(map(str, solution.mask.nonzero()[0].tolist()))
    rows = (
        ("status", solution.status.value),
        ("stopped", solution.termination.value),
        ("kept", kept),
        ("error", _number(solution.value)),
        ("bound", _number(solution.bound)),
        ("gap", _percent(solution.gap, "of the error")),
        ("energy gap", _percent(solution.energy_gap, "of half the energy")),
        ("nodes", f"{solution.nodes:,} in {solution.seconds:.2f} s"),
        ("solver", f"{solution.solver} {solution.version}"),
    )
    for name, value in rows:
        print(f"{name:<11}{value}", file=stream)


def _number(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else "unknown"


def _percent(value: float, base: str) -> str:
    return f"{100 * value:.4g} % {base}" if math.isfinite(value) else "unknown"


COMMAND = Command(
    name="solve",
    summary="Choose the channels of one layer: a mask, its error and a proven bound.",
    configure=_configure,
    execute=_execute,
    example="mipprune solve layer.npz --keep 16 --time-limit 60 --json out.json",
)
