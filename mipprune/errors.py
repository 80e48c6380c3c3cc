"""Errors of the library.

Every error names what was given, what was expected and what to do. Each class
also inherits the fitting builtin, so ``except ValueError`` keeps working.
"""

__all__ = [
    "BudgetError",
    "CertificateError",
    "DataFileError",
    "InputError",
    "MippruneError",
    "MissingExtraError",
    "NoSolutionError",
    "NonFiniteLossError",
    "RemovalError",
    "SolverError",
    "TraceError",
    "WorkerError",
]


class MippruneError(Exception):
    """Base class of every error raised on purpose by this library."""


class InputError(MippruneError, ValueError):
    """An argument, option or file content does not fit."""


class BudgetError(InputError):
    """A budget that cannot be met; the message gives the reachable range."""


class DataFileError(MippruneError, OSError):
    """A file is missing, damaged or not of the expected format."""


class MissingExtraError(MippruneError, ImportError):
    """An optional package is not installed; the message names the extra.

    Parameters
    ----------
    package : str
        Import name of the missing package.
    extra : str
        The extra of mipprune that installs it.
    purpose : str
        What needs the package, completing "... is needed ...".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"the package '{package}' is needed {purpose} but is not installed; "
            f"install it with: pip install 'mipprune[{extra}]'"
        )
        self.package = package
        self.extra = extra


class TraceError(MippruneError, RuntimeError):
    """A network could not be traced; the message names the operation."""


class RemovalError(MippruneError, RuntimeError):
    """Removing channels was refused or changed the network's outputs."""


class SolverError(MippruneError, RuntimeError):
    """A solver failed or is not available for this problem."""


class NoSolutionError(SolverError):
    """The solver stopped before it had a feasible mask, or none exists."""


class CertificateError(MippruneError, ValueError):
    """A certificate does not prove what it claims."""


class NonFiniteLossError(MippruneError, ArithmeticError):
    """The training loss became NaN or infinite."""


class WorkerError(MippruneError, RuntimeError):
    """A process that worked for this one died."""
