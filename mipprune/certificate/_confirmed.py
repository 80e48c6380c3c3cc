"""Certificates as the checker will see them, before anyone else does."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

from mipprune.certificate._certificate import Certificate
from mipprune.certificate._checker import verify
from mipprune.errors import CertificateError
from mipprune.problem import ChannelSelection

__all__ = ["confirmed"]

TRIES = 3
STEP = 1e-14
"""Taken off what the checker proves, relative to the energy, before it is asked again."""


def confirmed(problem: ChannelSelection, certificate: Certificate) -> Certificate:
    """The certificate with a claim that the checker accepts.

    A claim that is above what the checker recomputes, by a rounding as a rule, is lowered
    to that; a mask whose value it computes otherwise is left out.

    Parameters
    ----------
    problem : ChannelSelection
    certificate : Certificate

    Returns
    -------
    Certificate
        The same proof, claiming at most as much.

    Raises
    ------
    CertificateError
        The checker refuses the proof itself; the message has its reason.
    """
    with tempfile.TemporaryDirectory(prefix="mipprune-") as name:
        folder = Path(name)
        data = problem.save(folder / "problem.npz")
        for candidate in (certificate, replace(certificate, mask=None, value=None)):
            claim = candidate
            for _ in range(TRIES):
                verdict = verify(claim.save(folder / "certificate.npz"), data)
                if verdict.valid:
                    return claim
                if not (math.isfinite(verdict.bound) and verdict.bound < claim.bound):
                    break
                lower = verdict.bound - STEP * max(problem.energy, abs(verdict.bound))
                claim = replace(claim, bound=lower)
    raise CertificateError(f"the checker refuses this proof: {verdict.reason}")
