"""Independent checker of certificates: one file, numpy and the standard library only.

It recomputes every bound from the arrays of the problem file and of the certificate file
and believes nothing else; docs/certificates.md has the formulas. From each bound it takes
off what float64 rounding can have added: ``EPS`` times operations times absolute sums, and
the residual of each inverse. Alone: ``python _checker.py certificate.npz problem.npz``.
"""

import hashlib
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipprune.certificate._reader import UNREADABLE, read_arrays, require, require_plain

__all__ = ["EPS", "Arrays", "Problem", "Verdict", "require", "verify"]

EPS = float(np.finfo(np.float64).eps)
HEAD = ("kind", "bound", "problem_hash", "format_version")
NEEDED = ("gram", "cross", "energy", "group_sizes", "variant", "prices", "n_terms")
COUNTED = ("nodes", "members", "format_version", "mask")
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Verdict:
    """``bound`` is what the arrays prove, ``claimed`` what the certificate says.

    ``readable`` is False where a file is damaged or not of its kind: nothing was judged.
    """

    valid: bool
    bound: float
    claimed: float
    value: float | None
    kind: str
    reason: str
    readable: bool = True


@np.errstate(all="ignore")  # forged arrays overflow; what is not finite proves nothing
def verify(certificate_path: Any, problem_path: Any) -> Verdict:
    """Check a certificate file against the problem file it quotes."""
    kind, bound, claimed, value, readable = "unknown", -np.inf, np.nan, None, False
    from mipprune.certificate._tree_checker import replay

    proofs = {"keeping": _keeping, "binary": _binary, "removing": replay, "tree": replay}
    try:
        cert = read_arrays(certificate_path, "certificate", HEAD)
        arrays = read_arrays(problem_path, "problem", NEEDED)
        require(str(cert["format_version"]) == "1", "unknown format version")
        readable = True
        require_plain(cert)
        require_plain(arrays)
        for key, array in cert.items():  # whole numbers wrap around, True + True is True
            if array.dtype.kind in "fiub" and key not in COUNTED:
                cert[key] = array.astype(np.float64)
                require(np.all(np.isfinite(cert[key])), f"array '{key}' is beyond float64")
        kind, claimed = str(cert["kind"]), float(cert["bound"])
        require(kind in proofs, f"unknown kind of proof '{kind}'")
        require(str(cert["problem_hash"]) == _hash(arrays), "made for another problem")
        problem = Problem(arrays)
        bound = float(proofs[kind](problem, cert))
        require(np.isfinite(claimed) and claimed <= bound, f"claims {claimed}, proves {bound}")
        if "mask" in cert:
            value = float(cert["value"])
            _check_mask(problem, cert, cert["mask"].astype(bool), value)
            require(claimed <= value, "bound above the value of its own mask")
        return Verdict(True, bound, claimed, value, kind, "proved")
    except UNREADABLE as error:
        name = "" if type(error) is ValueError else f"{type(error).__name__}: "
        return Verdict(False, bound, claimed, value, kind, name + str(error), readable)


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for key in sorted(set(arrays) - {"format_version", "content_hash"}):
        plain = np.ascontiguousarray(arrays[key])
        if plain.dtype.kind == "U":
            plain = np.frombuffer("\0".join(plain.ravel().tolist()).encode(), dtype=np.uint8)
        little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{key}|{little.dtype.str}|{little.shape}|".encode() + little.tobytes())
    return digest.hexdigest()


class Problem:
    """Terms (H, C, e, channel of each row, box), prices and limits."""

    def __init__(self, a: Arrays) -> None:
        self.variant, self.prices, self.p = str(a["variant"]), a["prices"], len(a["prices"])
        self.terms = [self._term(a, f"_{t}" if t else "") for t in range(int(a["n_terms"]))]
        self.energy = float(sum(e for _, _, e, _, _ in self.terms))
        costs, up, low = a["costs"].reshape(-1, self.p), a["budgets"], a["lower"]
        rows = np.concatenate([costs[np.isfinite(up)], -costs[np.isfinite(low)]])
        limits = np.concatenate([up[np.isfinite(up)], -low[np.isfinite(low)]])
        limits = limits + 1e-9 * np.abs(rows).sum(1)  # rounding that feasibility grants
        limits = np.where(np.all(rows == np.round(rows), axis=1), np.floor(limits), limits)
        self.rows, self.limits, self.parts = rows, limits, a["parts"].reshape(-1, self.p)
        self.least, self.most = a["forced_in"] * 1.0, 1.0 - a["forced_out"]

    def _term(self, a: Arrays, suffix: str) -> tuple[Any, Any, float, Any, Any]:
        names = ("gram", "cross", "group_sizes", "ridge", "big_m")
        gram, cross, sizes, ridge, box = (a[name + suffix] for name in names)
        of = np.repeat(np.arange(self.p), sizes)
        if self.variant != "refit":  # one factor per channel: W_j = beta_j * dense_j
            dense, member = a["dense" + suffix], (np.arange(self.p)[:, None] == of) * 1.0
            gram = member @ ((dense @ dense.T) * gram) @ member.T
            cross, ridge = member @ (cross * dense).sum(1), ridge * (member @ (dense**2).sum(1))
            peak = (member * np.abs(dense).max(1, initial=0.0)).max(1, initial=0.0)
            box = np.where(peak > 0, box / np.where(peak > 0, peak, 1.0), np.inf)
            cross, of = cross[:, None], np.arange(self.p)
        return (gram + gram.T) / 2 + np.diag(ridge[of]), cross, float(a["energy" + suffix]), of, box

    def best(self, scores: Any, price: Any) -> float:
        """Upper bound on max scores'y over the limits, from multipliers >= 0."""
        require(price.shape == self.limits.shape and np.all(price >= 0), "multipliers")
        reduced = scores - price @ self.rows
        size = np.abs(scores).sum() + np.abs(price * self.limits).sum()
        size += (price @ np.abs(self.rows)).sum()
        total = price @ self.limits + reduced @ np.where(reduced > 0, self.most, self.least)
        return float(total + EPS * (self.p + len(price) + 4) * size)

    def counts(self, kept: Any, undecided: Any) -> Any:
        """Numbers of removals among ``undecided`` that no single limit forbids."""
        used = np.sort(self.rows[:, undecided], axis=1).cumsum(1)
        used = np.concatenate([np.zeros((len(used), 1)), used], axis=1)
        used += (self.rows[:, kept].sum(1) - 1e-12 * np.abs(self.rows).sum(1))[:, None]
        return np.flatnonzero((used <= self.limits[:, None]).all(0)[::-1])


def _is_psd(matrix: Any) -> bool:
    """Rump (2006): Cholesky of the matrix less (d + 3) eps trace proves it psd."""
    shift = (len(matrix) + 3) * EPS * abs(np.trace(matrix))
    try:
        np.linalg.cholesky(matrix - shift * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def _keeping(problem: Problem, cert: Arrays) -> float:
    """e/2 - tr(V'RV)/2 - max_y sum_j y_j (h_j(C - RV) - mu_j), h_j the conjugate of D_j."""
    require(problem.variant != "mask", "kind and variant do not fit")
    scores, constant = -problem.prices, 0.0
    for t, (h, c, e, of, box) in enumerate(problem.terms):
        v, own, rest = cert[f"dual_{t}"], [of == j for j in range(problem.p)], h.copy()
        parts = np.split(cert[f"split_{t}"], np.cumsum([r.sum() ** 2 for r in own]))
        require(v.shape == c.shape and parts[-1].size == 0, "shape of the dual point or split")
        blocks = [x.reshape(r.sum(), -1) for r, x in zip(own, parts[:-1], strict=True) if len(x)]
        own, limit = [r for r in own if r.any()], [box[j] for j in np.unique(of)]
        for rows, block in zip(own, blocks, strict=True):
            rest[np.ix_(rows, rows)] -= (block + block.T) / 2
        psd = _is_psd(rest) or not any(np.any(b) for b in blocks)
        require(psd, "G + ridge - D is not positive semidefinite")
        image, size = rest @ v, np.abs(rest) @ np.abs(v)
        u, off = c - image, EPS * (len(h) + 4) * (np.abs(c) + size)
        steps = sum(c.shape) + problem.p + 8
        constant += e / 2 - 0.5 * np.vdot(v, image) - EPS * steps * (e + np.vdot(np.abs(v), size))
        gains = np.zeros(problem.p)
        for j, rows, block, most in zip(np.unique(of), own, blocks, limit, strict=True):
            gains[j] = _score((block + block.T) / 2, u[rows], off[rows], most, c)
            if not np.any(block) and np.isinf(most):  # these weights are free: u'w, w near v
                constant -= abs(np.vdot(u[rows], v[rows]))
        scores = scores + gains * (1 + EPS * steps)
    return float(constant - problem.best(scores, cert["multipliers"]))


def _score(d: Any, u: Any, off: Any, box: float, c: Any) -> float:
    """max over |w| <= box of tr(u'w) - tr(w'Dw)/2, rounded up (box used where D is diagonal)."""
    if np.isfinite(box) and not np.any(d - np.diag(np.diag(d))):
        require(np.all(np.diag(d) >= 0), "negative split")
        point, d = np.abs(u) + off, np.diag(d)[:, None]
        w = np.minimum(point / np.where(d > 0, d, 1e-300), box)
        return float((point * w - d * w**2 / 2).sum())
    if not np.any(d):  # range space of a singular G
        require(np.linalg.norm(u) <= 1e-12 * np.linalg.norm(c), "weights without box or split")
        return 0.0
    values, vectors = np.linalg.eigh(d)
    require(values[0] > 1e-12 * values[-1], "a block of the split is not positive definite")
    score, error = 0.5 * (((vectors.T @ u) ** 2).sum(1) / values).sum(), (off**2).sum() / values[0]
    rounding = 8 * EPS * len(d) * (values[-1] / values[0]) * score
    return float(score + np.sqrt(2 * score * error) + error + rounding)


def _binary(problem: Problem, cert: Arrays) -> float:
    """c - u'Ru/2 - max_y sum_j y_j (d_j/2 - v_j - (Ru)_j), R = M + diag d psd."""
    require(problem.variant == "mask", "kind and variant do not fit")
    matrix, d, u = sum(h for h, _, _, _, _ in problem.terms), cert["diagonal"], cert["dual"]
    require(d.shape == u.shape == (problem.p,), "a dual array has the wrong shape")
    vector = problem.prices - sum(c[:, 0] for _, c, _, _, _ in problem.terms) + np.diag(matrix) / 2
    rest = matrix - np.diag(np.diag(matrix)) + np.diag(d)
    require(_is_psd(rest), "M + diag(d) is not psd")
    image, size = rest @ u, np.abs(rest) @ np.abs(u)
    total = problem.energy + np.abs(u) @ size + size.sum() + np.abs(vector).sum() + np.abs(d).sum()
    total = EPS * (problem.p + 16) * (total + np.trace(matrix))
    return float(
        problem.energy / 2
        - 0.5 * (u @ image)
        - total
        - problem.best(d / 2 - vector - image, cert["multipliers"])
    )


def _check_mask(problem: Problem, cert: Arrays, mask: Any, value: float) -> None:
    slack = 1e-9 * np.abs(problem.rows).sum(1)
    require(mask.shape == problem.prices.shape, "shape of the mask")
    require(np.all(problem.rows @ mask <= problem.limits + slack), "the mask breaks a limit")
    require(np.all((mask >= problem.least) & (mask <= problem.most)), "mask and forced channels")
    for part in problem.parts:
        counts = {int(mask[part == label].sum()) for label in np.unique(part[part >= 0])}
        require(len(counts) <= 1, "the mask breaks equal counts")
    total = problem.prices[mask].sum()
    for t, (h, c, e, of, box) in enumerate(problem.terms):
        r = mask[of]
        w = np.ones(c.shape)  # variant mask: one factor per channel, which is 1
        if problem.variant != "mask" and f"weights_{t}" in cert:
            w = cert[f"weights_{t}"]
            require(w.shape == c.shape, "shape of the weights")
        elif problem.variant != "mask":
            w = np.zeros_like(c)
            w[r] = np.linalg.lstsq(h[np.ix_(r, r)], c[r], rcond=1e-14)[0]
        inside = problem.variant == "mask" or np.all(np.abs(w[r]) <= box[of][r][:, None])
        require(inside, "weights outside the box")
        total += 0.5 * np.vdot(w[r], h[np.ix_(r, r)] @ w[r]) - np.vdot(c[r], w[r]) + e / 2
    require(total <= value, f"states value {value}, the mask has {total}")


if __name__ == "__main__":
    print(verdict := verify(sys.argv[1], sys.argv[2]))
    sys.exit(0 if verdict.valid else 1)
