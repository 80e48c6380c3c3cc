"""One consumer of the channels: its calibration statistics and the loss they define."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_floats, require_number
from mipprune.errors import InputError

__all__ = ["Term", "read_only"]

Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

PSD_TOLERANCE = 1e-9
"""Most negative eigenvalue accepted, relative to (largest entry) * (rows)."""


@dataclass(frozen=True, eq=False)
class Term:
    r"""Quadratic loss of one layer that reads the channels.

    .. math:: \tfrac12 \operatorname{tr}(W^\top G W) - \operatorname{tr}(C^\top W)
              + \tfrac12 e + \tfrac12 \sum_j \rho_j \|W_j\|_F^2

    with :math:`G = X^\top X/N`, :math:`C = X^\top Y/N`, :math:`e = \|Y\|^2/N` for
    inputs X (N, d) and targets Y (N, m). Channel j owns ``group_sizes[j]``
    consecutive rows of W: 9 for a 3x3 convolution, 1 for a linear layer.
    A weighted sum of terms is written with :meth:`weighted`.

    Attributes
    ----------
    gram : float64 (d, d)
        Symmetric positive semidefinite.
    cross : float64 (d, m)
    energy : float
        Mean squared target; the loss of the empty mask is energy / 2.
    group_sizes : int64 (p,)
        Rows per channel; 0 where this consumer does not read the channel.
    ridge : float64 (p,)
        Coefficient of the squared norm per channel, >= 0.
    big_m : float64 (p,)
        Bound on the absolute value of each weight, inf where there is none.
    dense : float64 (d, m) or None
        Weights of the original layer; needed by the variants scale and mask.
    name : str

    Raises
    ------
    InputError
        Wrong shapes, values that are not finite, negative ridge or bound,
        Gram matrix not symmetric or not positive semidefinite, or, without
        ridge, targets that the inputs cannot have produced (loss unbounded).
    """

    gram: Floats
    cross: Floats
    energy: float
    group_sizes: NDArray[np.int64]
    ridge: Floats
    big_m: Floats
    dense: Floats | None = None
    name: str = "layer"

    @classmethod
    def create(
        cls,
        gram: ArrayLike,
        cross: ArrayLike,
        energy: float,
        group_sizes: ArrayLike,
        *,
        ridge: ArrayLike = 0.0,
        big_m: ArrayLike = np.inf,
        dense: ArrayLike | None = None,
        name: str = "layer",
    ) -> "Term":
        """Validate and freeze; ``ridge`` and ``big_m`` may be scalars or (p,)."""
        sizes = _group_sizes(group_sizes)
        d, p = int(sizes.sum()), sizes.size
        gram_ = _finite("gram", gram, (d, d))
        cross_ = require_floats("cross", cross)
        if cross_.ndim <= 1:
            cross_ = cross_.reshape(-1, 1)
        cross_ = _finite("cross", cross_, (d, cross_.shape[-1]))
        energy_ = require_floats("energy", energy)
        if energy_.size != 1 or not np.isfinite(energy_).all() or energy_.item() < 0:
            raise InputError(f"energy: expected a finite number >= 0, got {energy}")
        ridge_ = _per_channel("ridge", ridge, p)
        if not np.all(np.isfinite(ridge_)) or np.any(ridge_ < 0):
            raise InputError("ridge: expected finite values >= 0")
        big_m_ = _per_channel("big_m", big_m, p)
        if np.any(np.isnan(big_m_)) or np.any(big_m_ <= 0):
            raise InputError("big_m: expected positive values (inf where there is no bound)")
        dense_ = None if dense is None else _finite("dense", dense, cross_.shape)
        _check_psd(gram_)
        gram_ = (gram_ + gram_.T) / 2
        _check_bounded(gram_, cross_, energy_.item(), np.repeat(ridge_, sizes))
        return cls(
            gram=read_only(gram_),
            cross=read_only(cross_),
            energy=energy_.item(),
            group_sizes=read_only(sizes),
            ridge=read_only(ridge_),
            big_m=read_only(big_m_),
            dense=None if dense_ is None else read_only(dense_),
            name=name,
        )

    @property
    def n_channels(self) -> int:
        return int(self.group_sizes.size)

    @property
    def n_rows(self) -> int:
        return int(self.gram.shape[0])

    @property
    def n_responses(self) -> int:
        return int(self.cross.shape[1])

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """First row of each channel and the end, int64 (p + 1,)."""
        return np.concatenate([[0], np.cumsum(self.group_sizes)])

    @cached_property
    def channel_of_row(self) -> NDArray[np.int64]:
        """Channel of each row, int64 (d,)."""
        return np.repeat(np.arange(self.n_channels), self.group_sizes)

    @cached_property
    def damped_gram(self) -> Floats:
        """``gram + blkdiag(ridge_j I)``, float64 (d, d)."""
        damped = self.gram.copy()
        damped[np.diag_indices(self.n_rows)] += self.ridge[self.channel_of_row]
        return damped

    @cached_property
    def compressed_cross(self) -> Floats:
        """At most d columns with the same product ``cross cross'``, float64 (d, <= d).

        Every value of the problem without a box depends on ``cross`` through
        that product alone.
        """
        if self.n_responses <= self.n_rows:
            return self.cross
        _, triangle = np.linalg.qr(self.cross.T)
        return read_only(np.asarray(triangle.T, dtype=np.float64))

    @property
    def has_box(self) -> bool:
        return bool(np.any(np.isfinite(self.big_m)))

    def rows(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows of the kept channels, bool (d,)."""
        return mask[self.channel_of_row]

    def weighted(self, weight: float) -> "Term":
        """This term multiplied by ``weight`` > 0 (loss and ridge alike)."""
        weight = require_number("weight", weight, above=0)
        return replace(
            self,
            gram=read_only(weight * self.gram),
            cross=read_only(weight * self.cross),
            energy=weight * self.energy,
            ridge=read_only(weight * self.ridge),
        )

    def scaled_channels(self) -> "Term":
        """The problem in one factor per channel, ``W_j = beta_j dense_j``.

        A term with one row a channel and one response: gram (p, p), ridge
        ``ridge_j * ||dense_j||^2``, bound ``big_m_j / max|dense_j|``.
        """
        dense = self.require_dense("scale")
        member = np.arange(self.n_channels)[:, None] == self.channel_of_row
        gram = member @ ((dense @ dense.T) * self.gram) @ member.T
        cross = member @ (self.cross * dense).sum(1)
        norms = member @ (dense**2).sum(1)
        largest = np.where(member, np.abs(dense).max(1, initial=0.0), 0.0).max(1, initial=0.0)
        big_m = np.full(self.n_channels, np.inf)
        np.divide(self.big_m, largest, out=big_m, where=largest > 0)
        return replace(
            self,
            gram=read_only((gram + gram.T) / 2),
            cross=read_only(cross[:, None]),
            group_sizes=read_only(np.ones(self.n_channels, dtype=np.int64)),
            ridge=read_only(self.ridge * norms),
            big_m=read_only(big_m),
            dense=None,
        )

    def require_dense(self, variant: str) -> Floats:
        """Original weights, or an InputError that says who needs them."""
        if self.dense is None:
            raise InputError(
                f"variant '{variant}' needs the original weights of term '{self.name}'; "
                "give dense=, float (d, m)"
            )
        return self.dense


def read_only(array: NDArray[T]) -> NDArray[T]:
    """A contiguous copy that cannot be written to."""
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy


def _group_sizes(values: ArrayLike) -> NDArray[np.int64]:
    given = require_floats("group_sizes", values)
    whole = given.ndim == 1 and given.size > 0 and bool(np.all(np.isfinite(given)))
    sizes = given.astype(np.int64) if whole else np.zeros(0, dtype=np.int64)
    if not whole or np.any(sizes != given) or np.any(sizes < 0):
        raise InputError(
            f"group_sizes: expected a 1-d array of at least one integer >= 0, got {values!r}"
        )
    return sizes


def _per_channel(name: str, values: ArrayLike, p: int) -> Floats:
    array = require_floats(name, values)
    if array.ndim > 1 or (array.ndim == 1 and array.size != p):
        raise InputError(f"{name}: expected a scalar or shape ({p},), got {array.shape}")
    return np.broadcast_to(array, (p,)).copy()


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = require_floats(name, values)
    if array.shape != shape:
        raise InputError(
            f"{name}: expected shape {shape} (rows = sum of group_sizes), got {array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name}: contains NaN or infinity")
    return array


def _check_bounded(gram: Floats, cross: Floats, energy: float, ridge: Floats) -> None:
    """Refuse a loss without minimum: cross leaves the range of a singular damped Gram.

    ``tr(C'(G + s I)^-1 C)`` is at most the energy for consistent data, and tends
    to a limit for s -> 0 whenever the loss is bounded; otherwise it grows as 1/s.
    """
    if not gram.size or bool(np.all(ridge > 0)):
        return
    damped = gram + np.diag(ridge)
    shift = _psd_shift(gram) or 1e-100
    fitted = [_fitted(damped, cross, factor * shift) for factor in (1.0, 10.0)]
    if fitted[0] > energy * (1 + 1e-6) and fitted[0] > 2.0 * fitted[1]:
        raise InputError(
            "cross: outside the range of a singular gram, so the loss has no minimum without "
            "ridge; give X'Y / N of the same inputs as gram, the energy of the same targets, "
            "or a ridge > 0"
        )


def _fitted(gram: Floats, cross: Floats, shift: float) -> float:
    factor = np.linalg.cholesky(gram + shift * np.eye(len(gram)))
    return float((np.linalg.solve(factor, cross) ** 2).sum())


def _psd_shift(gram: Floats) -> float:
    """Most negative eigenvalue taken for rounding, as a positive number."""
    return PSD_TOLERANCE * float(np.abs(gram).max(initial=0.0)) * len(gram)


def _check_psd(gram: Floats) -> None:
    scale = float(np.abs(gram).max(initial=0.0))
    if np.abs(gram - gram.T).max(initial=0.0) > 1e-8 * max(scale, np.finfo(float).tiny):
        raise InputError("gram: not symmetric; give X'X / N")
    shift = _psd_shift(gram)
    if scale > 0:
        try:
            np.linalg.cholesky((gram + gram.T) / 2 + shift * np.eye(gram.shape[0]))
        except np.linalg.LinAlgError:
            smallest = float(np.linalg.eigvalsh(gram)[0])
            raise InputError(
                f"gram: not positive semidefinite (smallest eigenvalue {smallest:.3g}, "
                f"accepted down to {-shift:.3g}); accumulate it in float64"
            ) from None
