"""The ladder of gaps on layers, and the speed of the relaxations.

    python benchmarks/relaxations.py ladder --out FILE layer.npz ...
    python benchmarks/relaxations.py speed --out FILE
    python benchmarks/relaxations.py scale --out FILE
    python benchmarks/relaxations.py table --out FILE      (a ladder's file, as Markdown)

``ladder`` needs problem files (``benchmarks/layers.py``, ``benchmarks/pretrained_layers.py`` or
``mipprune calibrate`` write them); it appends to FILE after every bound and, started again, goes
on where it stopped. Processor seconds are given beside wall-clock ones: on a shared machine only
they compare. ``benchmarks/relaxation_figures.py`` draws the results.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mipprune._support.files import write_json
from mipprune._support.progress import Progress
from mipprune._support.provenance import provenance
from mipprune.problem import ChannelSelection
from mipprune.relaxation import Relaxation, relax
from mipprune.solvers import solve
from mipprune.solvers.conic_relaxation import conic_relaxation

KINDS = (
    ("perspective", "ridge", 10_000),
    ("perspective", "eigenvalue", 10_000),
    ("perspective", "schur", 10_000),
    ("perspective", "optimal", 16),
    ("gl", "none", 10_000),
    ("rlt", "none", 32),
    ("sdp", "none", 512),
    ("blocks", "none", 64),
)
"""Kind, split, and the widest layer it is measured on, unless ``--kinds`` names it."""
SHARES = (0.9, 0.75, 0.5, 0.25)
DAMPINGS = (0.01, 0.1)
PROVEN_UP_TO = 32

Row = dict[str, Any]


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("ladder", "speed", "scale", "table"))
    parser.add_argument("layers", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit per relaxation")
    parser.add_argument("--proof-seconds", type=float, default=20.0, help="limit per proof")
    parser.add_argument("--search-seconds", type=float, default=60.0, help="limit per search")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="keeps / channels")
    parser.add_argument("--dampings", type=float, nargs="+", default=DAMPINGS)
    parser.add_argument("--kinds", nargs="+", default=(), help="only these, at any width")
    parser.add_argument("--damping", type=float, help="only this one in the table")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, for a test")
    options = parser.parse_intermixed_args()
    rows: list[Row] = []
    if options.what == "table":
        rows = json.loads(options.out.read_text())["rows"]
        print(table([r for r in rows if options.damping in (None, r["damping"])]))
        return
    torch.set_num_threads(options.threads)
    if options.what == "ladder" and options.out.exists():
        rows = json.loads(options.out.read_text())["rows"]
    runner = {"ladder": ladder, "speed": speed, "scale": scale}[options.what]
    for row in runner(options, list(rows)):
        rows.append(row)
        content = {"provenance": provenance(), "threads": options.threads, "rows": rows}
        write_json(options.out, content)


def timed(
    problem: ChannelSelection, kind: str, split: str, tol: float, limit: float | None
) -> tuple[Relaxation, float, float]:
    """Relaxation with wall-clock and processor seconds."""
    began, used = time.perf_counter(), time.process_time()
    relaxed = relax(problem, kind, split=split, tol=tol, time_limit=limit)
    return relaxed, time.perf_counter() - began, time.process_time() - used


def ladder(options: argparse.Namespace, done: list[Row]) -> Iterator[Row]:
    """Every bound against the best known value, per layer, keep share and damping."""
    if not options.layers:
        raise SystemExit("ladder: give problem files, such as those benchmarks/layers.py writes")
    shares, dampings = options.shares, options.dampings
    if options.tiny:
        shares, dampings = SHARES[2:3], DAMPINGS[:1]
    cases = [(path, d, s) for path in options.layers for d in dampings for s in shares]
    with Progress("ladder", len(cases), unit="cases") as progress:
        for path, damping, share in cases:
            base = ChannelSelection.load(path).with_damping(damping)
            problem = base.with_keep(round(share * base.n_channels))
            yield from _case(path.stem, problem, damping, options, done)
            progress.update()


def _case(
    layer: str,
    problem: ChannelSelection,
    damping: float,
    options: argparse.Namespace,
    done: list[Row],
) -> Iterator[Row]:
    """Rows of one layer, keep and damping that are not done yet."""
    p, limit = problem.n_channels, options.seconds
    known = {(r["kind"], r["split"]): r for r in done if r["problem"] == problem.content_hash}
    asked = [k for k in KINDS if (k[0] in options.kinds if options.kinds else p <= k[2])]
    missing = [k for k in asked if k[:2] not in known]
    if not missing:
        return
    some = next(iter(known.values()), None)
    if some is None:
        best, proven = best_value(problem, options.search_seconds, options.proof_seconds)
    else:
        best, proven = some["best"], some["proven"]
    everything = problem.value(np.ones(p, dtype=bool))
    for kind, split, _ in missing:
        used_split = "schur" if split == "none" else split
        relaxed, wall, used = timed(problem, kind, used_split, 1e-4, limit)
        removal = best - everything
        share = (relaxed.bound - everything) / removal if removal > 0 else 1.0
        yield {
            "layer": layer,
            "problem": problem.content_hash,
            "p": p,
            "rows": problem.terms[0].n_rows,
            "keep": problem.keep,
            "damping": damping,
            "kind": kind,
            "split": split,
            "best": best,
            "proven": proven,
            "f_all": everything,
            "bound": relaxed.bound,
            "ratio": relaxed.bound / best,
            "removal_ratio": share,
            "relaxation_gap": relaxed.gap if np.isfinite(relaxed.value) else None,
            "iterations": relaxed.iterations,
            "finished": relaxed.finished,
            "seconds": wall,
            "processor_seconds": used,
        }


def table(rows: list[Row]) -> str:
    """Markdown: ``bound / best`` and ``(bound - f_all) / (best - f_all)`` per kind."""
    names = list(dict.fromkeys(_name(row) for row in rows))
    lines = ["| layer, p, keep, damping | best | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    cases = dict.fromkeys((r["layer"], r["p"], r["keep"], r["damping"]) for r in rows)
    for case in cases:
        own = [r for r in rows if (r["layer"], r["p"], r["keep"], r["damping"]) == case]
        cells = {_name(r): f"{r['ratio']:.3f} / {r['removal_ratio']:.3f}" for r in own}
        best = f"{own[0]['best']:.4g}" + ("" if own[0]["proven"] else "*")
        line = f"| {case[0]}, {case[1]}, {case[2]}, {case[3]} | {best} | "
        lines.append(line + " | ".join(cells.get(name, "-") for name in names) + " |")
    return "\n".join(lines)


def _name(row: Row) -> str:
    return str(row["kind"] if row["split"] == "none" else row["split"])


def best_value(problem: ChannelSelection, search: float, seconds: float) -> tuple[float, bool]:
    """Best value found in ``search`` seconds, and whether ``seconds`` proved it optimal."""
    local = solve(problem, "local-search", time_limit=search)
    if problem.n_channels > PROVEN_UP_TO:
        return local.value, False
    proof = solve(problem, "branch-and-bound", time_limit=seconds, start=local.mask, gap=1e-4)
    return min(local.value, proof.value), proof.gap <= 1e-4


def synthetic(p: int, g: int, m: int, keep: int, seed: int = 0) -> ChannelSelection:
    """Correlated inputs of decaying scale and a random dense layer, damping .01."""
    rng = np.random.default_rng(seed)
    d = p * g
    rank = min(d, 256)
    samples = 2 * d if d <= 3000 else d + 64
    inputs = rng.standard_normal((samples, rank)) @ rng.standard_normal((rank, d)) * 0.3
    inputs = (inputs + rng.standard_normal((samples, d))) * np.exp(0.3 * rng.standard_normal(d))
    weights = rng.standard_normal((d, m))
    gram = inputs.T @ inputs / samples
    cross = gram @ weights
    energy = 1.05 * float(np.vdot(weights, cross))
    ridge = 0.01 * float(np.diag(gram).mean())
    return ChannelSelection(gram, cross, energy, [g] * p, keep=keep, ridge=ridge)


def speed(options: argparse.Namespace, _: list[Row]) -> Iterator[Row]:
    """Own solver against Clarabel through cvxpy, the ridge split, equal bounds."""
    shapes = ((8, 3, 4),) if options.tiny else ((16, 9, 16), (32, 9, 16), (64, 9, 16))
    for p, g, m in shapes:
        problem = synthetic(p, g, m, p // 2)
        relaxed, wall, used = timed(problem, "perspective", "ridge", 1e-8, None)
        began, conic_used = time.perf_counter(), time.process_time()
        conic = conic_relaxation(problem, tolerance=1e-8)
        conic_used = time.process_time() - conic_used
        yield {
            "p": p,
            "rows": g,
            "responses": m,
            "bound": relaxed.bound,
            "conic": conic.value,
            "difference": abs(relaxed.bound - conic.value) / conic.value,
            "seconds": wall,
            "processor_seconds": used,
            "conic_seconds": time.perf_counter() - began,
            "conic_processor_seconds": conic_used,
            "speed_up": conic_used / used,
        }


def scale(options: argparse.Namespace, _: list[Row]) -> Iterator[Row]:
    """Perspective certificates at a relative duality gap of 1e-3 on wide layers."""
    shapes = (
        ((16, 1, 8),)
        if options.tiny
        else ((64, 9, 64), (128, 9, 128), (256, 9, 256), (1536, 1, 384), (512, 9, 512))
    )
    for p, g, m in shapes:
        problem = synthetic(p, g, m, p // 2)
        for split in ("ridge", "schur"):
            relaxed, wall, used = timed(problem, "perspective", split, 1e-3, None)
            yield {
                "p": p,
                "rows": g,
                "responses": m,
                "split": split,
                "bound": relaxed.bound,
                "gap": relaxed.gap,
                "iterations": relaxed.iterations,
                "seconds": wall,
                "processor_seconds": used,
            }


if __name__ == "__main__":
    main()
