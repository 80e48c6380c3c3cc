"""``mipprune verify``: check a certificate without any solver."""

import tempfile
import zipfile
from argparse import Namespace
from pathlib import Path

from mipprune.cli._command import Command
from mipprune.cli._parser import Parser
from mipprune.cli._problems import add_keep, read_problem

EXIT_REFUSED = 1


def _configure(parser: Parser) -> None:
    parser.add_argument("certificate", help="certificate file (.npz)")
    parser.add_argument("--problem", required=True, metavar="FILE", help="problem file (.npz)")
    add_keep(parser)


def _execute(options: Namespace) -> int:
    from mipprune.certificate import verify
    from mipprune.errors import DataFileError

    for file in (options.certificate, options.problem):
        if not Path(file).is_file():
            raise DataFileError(f"there is no file {file}")
    if options.keep is None and not _is_shorthand(options.problem):
        verdict = verify(options.certificate, options.problem)
    else:
        with tempfile.TemporaryDirectory() as folder:
            changed = read_problem(options.problem, options.keep).save(Path(folder) / "problem.npz")
            verdict = verify(options.certificate, changed)
    if not verdict.readable:
        raise DataFileError(verdict.reason)
    if not verdict.valid:
        print(f"REFUSED: {verdict.reason}")
        return EXIT_REFUSED
    print(f"proved ({verdict.kind}): no mask has an error below {verdict.claimed:.10g}")
    if verdict.value is not None:
        gap = 0.0 if verdict.value <= 0 else (verdict.value - verdict.claimed) / verdict.value
        print(f"its mask has at most {verdict.value:.10g}: gap {100 * max(gap, 0.0):.4g} %")
    return 0


def _is_shorthand(file: str) -> bool:
    """Whether a problem file leaves out what certificates quote (it then has its defaults)."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # the checker says what is wrong with it
    return "gram.npy" in names and "n_terms.npy" not in names


COMMAND = Command(
    name="verify",
    summary="Check a certificate against a problem file; needs no solver. "
    "Exit code 1: refused; 2: not a certificate or problem file.",
    configure=_configure,
    execute=_execute,
    example="mipprune verify cert.npz --problem layer.npz --keep 16",
)
