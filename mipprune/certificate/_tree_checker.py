"""Checker of certificates from the removing side: root bounds and whole trees (numpy only).

A certificate of this kind is a list of branchings in depth-first preorder (-1 is a leaf;
a root bound is the tree of one leaf) and the multipliers of its pairwise bounds. Every
leaf is bounded again from the data; the claim must not exceed the least of them.
"""

from typing import Any

import numpy as np

from mipprune.certificate._block_checker import block_bounds
from mipprune.certificate._checker import EPS, Arrays, Problem, require

__all__ = ["replay"]


def _inverse(h: Any, c: Any) -> tuple[Any, Any, Any, float]:
    """P = H^-1 (on the range), B = P C, the null space, and the relative error of P."""
    values, vectors = np.linalg.eigh(h)
    inside = values > len(h) * EPS * values.max(initial=0.0)
    null, kept = vectors[:, ~inside], vectors[:, inside]
    p = (kept / values[inside]) @ kept.T
    p = (p + p.T) / 2
    b = p @ c
    b = b + p @ (c - h @ b)
    eta = 0.0 if null.size else np.linalg.norm(h @ p - np.eye(len(h)))
    return p, b, null, float(eta + EPS * np.linalg.norm(h) * np.linalg.norm(p))


def _loss(h: Any, c: Any, e: float, b: Any) -> float:
    return float(e / 2 - np.vdot(b, c) + 0.5 * np.vdot(b, h @ b))


def _slip(form: Any, tail: Any) -> Any:
    """Error of a cost z'Pz/2 and its b'z: P off by eta, B by ``tail`` in the norm of P."""
    eta, off = tail
    most = np.sqrt(np.abs(form))
    return eta * most**2 + 2 * off * (most + off)


def _decide(
    problem: Problem, state: Any, j: int, keep: bool, drift: list[float], tails: Any
) -> Any:
    """The state with channel j decided; removing is a rank-g_j downdate of P and B."""
    kept, undecided, terms, depth = state
    require(undecided[j], "a channel is decided twice")
    kept, undecided = kept.copy(), undecided.copy()
    kept[j], undecided[j] = keep, False
    fresh = []
    for t, (p, b, null, of, value, slip) in enumerate(terms):
        a, r = of == j, of != j
        left = p[np.ix_(r, a)]
        if not keep and a.any():
            require(not null.size, "trees need a non-singular G + ridge")
            x = np.linalg.solve(p[np.ix_(a, a)], np.concatenate([left.T, b[a]], axis=1))
            cost = 0.5 * np.vdot(b[a], x[:, r.sum() :])
            value, slip = value + cost, slip + 2 * _slip(2 * cost, tails[t])
            p, b = p[np.ix_(r, r)] - left @ x[:, : r.sum()], b[r] - left @ x[:, r.sum() :]
            if depth % 8 == 7:  # start again from the data: errors of downdates do not add up
                h, c, e, rows, _ = problem.terms[t]
                s = (kept | undecided)[rows]
                h, c, here = h[np.ix_(s, s)], c[s], undecided[rows][s]
                p, b, _, _ = _inverse(h, c)
                drift.append(abs(value - _loss(h, c, e, b)))
                value, slip, p, b = _loss(h, c, e, b), 0.0, p[np.ix_(here, here)], b[here]
        else:
            p, b = p[np.ix_(r, r)], b[r]
        fresh.append((p, b, null[r], of[r], value, slip))
    return kept, undecided, fresh, depth + (not keep)


def _pairwise(linear: Any, q: Any, skew: Any, counts: Any) -> Any:
    """Least linear'x - x'qx/2 over binary x with r ones, r in counts (Gilmore-Lawler)."""
    n, off = len(linear), q + (skew - skew.T) / 2
    np.fill_diagonal(off, np.inf)
    sums = -np.sort(-off, axis=1)
    sums[:, :1] = 0.0
    rows = np.sort((linear - np.diag(q) / 2)[:, None] - sums.cumsum(1) / 2, axis=0)
    margin = 4 * EPS * (n + 2) * (np.abs(linear).sum() + np.abs(q).sum() + np.abs(skew).sum())
    return np.concatenate([np.zeros(1), np.diag(rows.cumsum(0))])[counts] - margin


def replay(problem: Problem, cert: Arrays) -> float:
    """Replay branchings depth first (removed child, then kept) and bound every leaf again."""
    require(problem.variant != "mask", "kind and variant do not fit")
    state: Any = (np.zeros(problem.p, bool), problem.most > 0, [], 0)
    lost, drift, tails = 0.0, [0.0], []
    for h, c, e, of, _ in problem.terms:
        alive = problem.most[of] > 0
        h, c, of = h[np.ix_(alive, alive)], c[alive], of[alive]
        p, b, null, eta = _inverse(h, c)
        require(eta < 1e-2, "G + ridge is too ill-conditioned")
        rest, floor = c - h @ b, EPS * np.linalg.norm(b) * np.sqrt(np.linalg.norm(h))
        tails.append((eta, np.sqrt(abs(np.vdot(rest, p @ rest))) + floor))
        lost += 4 * EPS * (len(h) * e + np.vdot(np.abs(b), np.abs(h) @ np.abs(b)))
        lost += tails[-1][1] ** 2
        state[2].append((p, b, null, of, _loss(h, c, e, b), 0.0))
    for j in np.flatnonzero(problem.least > 0):
        state = _decide(problem, state, int(j), True, drift, tails)
    require(cert["nodes"].ndim == 1 and cert["nodes"].dtype.kind in "iu", "nodes")
    nodes, at, bound, stack = cert["nodes"].tolist(), 0, np.inf, [state]
    while stack:
        state = stack.pop()
        require(at < len(nodes), "a leaf is missing")
        code, at = nodes[at], at + 1
        if code < 0:
            leaf = _leaf(problem, cert, state, tails, float(cert["bound"]) + lost)
            require(not np.isnan(leaf), "a leaf has no bound")  # min() would forget it
            bound = min(bound, leaf)
        else:
            stack.append(_decide(problem, state, code, True, drift, tails))
            stack.append(_decide(problem, state, code, False, drift, tails))
    require(at == len(nodes), "nodes after the end of the tree")
    return bound - lost - 8 * len(problem.terms) * float(np.max(drift))


def _leaf(problem: Problem, cert: Arrays, state: Any, tails: Any, goal: float) -> float:
    """Best of: nothing more removed; the r-th cheapest single removal; pairwise bounds."""
    kept, undecided, terms, _ = state
    value = sum(term[4] - term[5] for term in terms)
    counts, ids = problem.counts(kept, undecided), np.flatnonzero(undecided)
    prices, n = problem.prices[ids], len(ids)
    if not len(counts):
        return np.inf
    stay = value + problem.prices[kept].sum() + np.minimum(prices, 0).sum()
    if stay >= goal:
        return float(stay)
    singles, delta = [], np.zeros(n)
    for (p, b, null, of, _, _), tail in zip(terms, tails, strict=True):
        z = np.zeros_like(b)
        for i, j in enumerate(ids):
            a = of == j
            basis = np.eye(a.sum())
            if null.size:
                basis = np.linalg.svd(null[a])[0][:, np.linalg.matrix_rank(null[a], 1e-9) :]
            own = p[np.ix_(a, a)]
            z[a] = basis @ np.linalg.lstsq(basis.T @ own @ basis, basis.T @ b[a])[0]
            form = np.vdot(z[a], own @ z[a])
            delta[i] += np.vdot(b[a], z[a]) - form / 2 - _slip(form, tail)
        singles.append(z)
    bounds = [stay + np.append(0.0, np.sort(delta))[counts] * (1 - 1e-9)]
    if bounds[0].min() >= goal:
        return float(bounds[0].min())
    for i in range(int(cert["members"])):
        price = cert[f"multipliers_{i}"]
        require(price.shape == problem.limits.shape and np.all(price >= 0), "multipliers")
        base = value + problem.prices[kept].sum() + prices.sum()
        base += price @ (problem.rows[:, kept | undecided].sum(1) - problem.limits)
        if f"blocks_{i}" in cert:
            found = base + block_bounds(problem, cert, i, undecided, terms, tails, counts)
        else:
            found = base + _member(problem, cert, i, ids, undecided, terms, tails, singles, counts)
        if not price.any() and np.all(prices <= 0):  # removing more never lowers the loss
            found = np.maximum.accumulate(found)
        bounds.append(np.where(np.isfinite(found), found, -np.inf))  # overflow proves nothing
        if np.max(bounds, axis=0).min() >= goal:
            break
    return float(np.max(bounds, axis=0).min())


def _member(
    problem: Problem,
    cert: Arrays,
    i: int,
    ids: Any,
    undecided: Any,
    terms: Any,
    tails: Any,
    singles: Any,
    counts: Any,
) -> Any:
    """What pairwise member i proves about the removal cost, prices and limits, per count."""
    price, factor, lost = cert[f"multipliers_{i}"], cert[f"factor_{i}"][ids], 0.0
    linear, q = -problem.prices[ids] - price @ problem.rows[:, ids], factor @ factor.T
    for t, (p, b, null, of, _, _) in enumerate(terms):
        z, scale = singles[t], float(cert.get(f"scale_{i}", np.asarray(1.0)))
        if f"direction_{i}_{t}" in cert:
            z, scale = cert[f"direction_{i}_{t}"][undecided[problem.terms[t][3]]], 1.0
        require(z.shape == b.shape, "a direction has the wrong shape")
        z, member = scale * z, (ids[:, None] == of) * 1.0
        own = member @ (p * (z @ z.T)) @ member.T
        linear, q = linear + member @ (b * z).sum(1), q + own
        lost += _slip(np.sqrt(np.abs(np.diag(own))).sum() ** 2, tails[t])
        flaw = max((np.linalg.norm(null[of == j].T @ z[of == j]) for j in ids), default=0.0)
        require(flaw <= 1e-9 * (1 + np.linalg.norm(z)), "direction outside the range")
    skew = cert[f"skew_{i}"][np.ix_(ids, ids)]
    return _pairwise(linear, q, skew, counts) - lost
