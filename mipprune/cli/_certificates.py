"""What the commands say about a certificate."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipprune.certificate import Certificate

__all__ = ["describe"]


def describe(certificate: "Certificate") -> str:
    """Bound, value and gap in one line."""
    if certificate.value is None:
        return f"bound {certificate.bound:.10g} ({certificate.kind})"
    gap = max(certificate.value - certificate.bound, 0.0) / max(abs(certificate.value), 1e-300)
    return (
        f"error {certificate.value:.10g}, bound {certificate.bound:.10g} ({certificate.kind}), "
        f"gap {100 * gap:.4g} % of the error"
    )
