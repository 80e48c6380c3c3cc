"""Certificate files: npz without pickle, quoting the problem's content hash."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_mapping, require_path
from mipprune._support.files import atomic_path
from mipprune.certificate._reader import UNREADABLE, read_arrays, require_plain
from mipprune.errors import CertificateError, DataFileError
from mipprune.problem import ChannelSelection, require_problem

__all__ = ["KINDS", "Certificate"]

FORMAT_VERSION = 1

KINDS = ("keeping", "binary", "removing", "tree")
"""What the arrays of a certificate mean; docs/certificates.md has the formulas."""

HEAD = ("format_version", "kind", "problem_hash", "bound", "mask", "value")


@dataclass(frozen=True, eq=False)
class Certificate:
    """A proof that no feasible mask of one problem has a value below ``bound``.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    problem_hash : str
        ``ChannelSelection.content_hash`` of the problem.
    bound : float
        The claim, rounding of the checker's arithmetic already subtracted.
    arrays : mapping of str to array
        Dual point of the kind; see docs/certificates.md.
    mask : bool (p,) or None
        A feasible mask whose value is part of the claim.
    value : float or None
        At least the value of ``mask``.
    """

    kind: str
    problem_hash: str
    bound: float
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    mask: NDArray[np.bool_] | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise CertificateError(f"kind: expected one of {', '.join(KINDS)}, got '{self.kind}'")
        require_mapping("arrays", self.arrays, "a mapping of names to arrays")
        clash = [key for key in self.arrays if key in HEAD]
        if clash:
            raise CertificateError(f"arrays may not be named {clash}")

    def with_mask(self, problem: ChannelSelection, mask: ArrayLike) -> "Certificate":
        """The same proof together with a mask and its value, rounded up."""
        if require_problem(problem).content_hash != self.problem_hash:
            raise CertificateError("the mask belongs to another problem than the certificate")
        chosen = problem.checked_mask(mask)
        if not problem.is_feasible(chosen):
            raise CertificateError("the mask breaks a limit of the problem")
        value = problem.value(chosen)
        rounded = value + 1e-10 * (abs(value) + problem.energy)
        arrays = {k: v for k, v in self.arrays.items() if not k.startswith("weights_")}
        canonical = problem.canonical()
        if canonical.has_box and canonical.variant == "refit":
            for index, weights in enumerate(canonical.weights(chosen)):
                arrays[f"weights_{index}"] = weights
        return replace(self, arrays=arrays, mask=chosen, value=rounded)

    def save(self, path: str | Path) -> Path:
        """Write atomically; an existing file is replaced only when complete."""
        target = require_path("path", path)
        content: dict[str, NDArray[np.generic]] = dict(self.arrays)
        content["format_version"] = np.asarray(FORMAT_VERSION)
        content["kind"] = np.asarray(self.kind)
        content["problem_hash"] = np.asarray(self.problem_hash)
        content["bound"] = np.asarray(self.bound)
        if self.mask is not None:
            content["mask"] = self.mask
            content["value"] = np.asarray(self.value)
        with atomic_path(target) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **content)
        return target

    @classmethod
    def load(cls, path: str | Path) -> "Certificate":
        """Read a file written by :meth:`save`; nothing is checked but its form.

        Raises
        ------
        DataFileError
            Missing file, not an npz, pickled content, or keys missing.
        """
        source = require_path("path", path, "certificate")
        if not source.is_file():
            raise DataFileError(f"{source}: no such file; expected a certificate (.npz)")
        try:
            content = read_arrays(source, "certificate", HEAD[:4])
            require_plain(content)
        except UNREADABLE as error:
            raise DataFileError(f"{source}: not a readable certificate ({error})") from error
        if content["format_version"].tolist() != FORMAT_VERSION:
            raise DataFileError(
                f"{source}: format version {content['format_version']}, "
                f"this release reads {FORMAT_VERSION}"
            )
        try:
            return cls(
                kind=str(content["kind"]),
                problem_hash=str(content["problem_hash"]),
                bound=float(content["bound"]),
                arrays={key: value for key, value in content.items() if key not in HEAD},
                mask=content["mask"].astype(bool) if "mask" in content else None,
                value=float(content["value"]) if "value" in content else None,
            )
        except (TypeError, ValueError) as error:
            raise DataFileError(f"{source}: not a readable certificate ({error})") from error
