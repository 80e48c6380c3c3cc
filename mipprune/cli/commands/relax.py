"""``mipprune relax``: a lower bound without branching."""

from argparse import Namespace
from collections.abc import Sequence

from mipprune.cli._certificates import describe
from mipprune.cli._command import Command
from mipprune.cli._numbers import at_least, seconds
from mipprune.cli._outputs import check_files, put_json, words
from mipprune.cli._parser import Parser, one_of
from mipprune.cli._problems import add_keep, finite, read_problem


def _kinds() -> Sequence[str]:
    from mipprune.relaxation import RELAXATION_KINDS

    return RELAXATION_KINDS


def _configure(parser: Parser) -> None:
    parser.add_argument("problem", help="problem file (.npz)")
    add_keep(parser)
    parser.add_argument(
        "--kind",
        type=one_of(_kinds, "kind of relaxation"),
        default="auto",
        metavar="NAME",
        help="auto (default), big-m, perspective, perspective-box, ...",
    )
    parser.add_argument(
        "--block-size",
        type=at_least(1),
        metavar="N",
        help="channels per block of --kind blocks, 1 to 6 (default 3)",
    )
    parser.add_argument("--time-limit", type=seconds, metavar="SECONDS", help="bound so far then")
    parser.add_argument(
        "--tolerance", metavar="T", type=float, default=1e-4, help="relative duality gap"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write bound and gates; - is standard output"
    )
    parser.add_argument("--certificate", metavar="FILE", help="write the proof (.npz)")


def _execute(options: Namespace) -> int:
    from mipprune._support.provenance import provenance
    from mipprune.certificate import confirmed
    from mipprune.errors import InputError
    from mipprune.relaxation import relax

    check_files(options, "json", "certificate")
    if options.block_size is not None and options.kind != "blocks":
        raise InputError("--block-size belongs to one kind: give --kind blocks too")
    problem = read_problem(options.problem, options.keep)
    found = relax(
        problem,
        options.kind,
        tol=options.tolerance,
        time_limit=options.time_limit,
        block_size=options.block_size or 3,
    )
    stream = words(options)
    print(f"bound      {found.bound:.10g}", file=stream)
    print(
        f"relaxation {found.value:.10g} ({found.kind}, {found.iterations} iterations)", file=stream
    )
    print(f"gates      {' '.join(f'{gate:.3f}' for gate in found.gates)}", file=stream)
    proof = None
    if options.certificate is not None:
        proof = confirmed(problem, found.certificate)
        proof.save(options.certificate)
        print(f"proof      {describe(proof)}: {options.certificate}", file=stream)
    if options.json is not None:
        content = {
            "problem_hash": problem.content_hash,
            "kind": found.kind,
            "split": found.split,
            "bound": finite(found.bound),
            "certified_bound": None if proof is None else proof.bound,
            "value": finite(found.value),
            "gates": found.gates.tolist(),
            "seconds": found.seconds,
            "provenance": provenance(),
        }
        put_json(options, content)
    return 0


COMMAND = Command(
    name="relax",
    summary="Bound the error of any mask of one layer from below, without branching.",
    configure=_configure,
    execute=_execute,
    example="mipprune relax layer.npz --keep 16 --kind perspective",
)
