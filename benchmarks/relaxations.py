"""The ladder of gaps on layers, and the speed of the relaxations.

    python benchmarks/relaxations.py ladder --out FILE layer.npz ...
    python benchmarks/relaxations.py speed --out FILE
    python benchmarks/relaxations.py scale --out FILE
    python benchmarks/relaxations.py table --out FILE      (a ladder's file, as Markdown)

``ladder`` needs problem files (``mipprune calibrate`` writes them). Processor seconds
are given beside wall-clock ones: on a shared machine only they compare.
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
from mipprune._support.provenance import provenance
from mipprune.problem import ChannelSelection
from mipprune.relaxation import Relaxation, relax
from mipprune.solvers import solve
from mipprune.solvers.conic_relaxation import conic_relaxation

KINDS = (
    ("perspective", "ridge"),
    ("perspective", "eigenvalue"),
    ("perspective", "schur"),
    ("perspective", "optimal"),
    ("gl", "schur"),
    ("rlt", "schur"),
    ("sdp", "schur"),
)
SHARES = (0.75, 0.5)
DAMPINGS = (0.01, 0.1)
PAIRS_UP_TO = 64
OPTIMAL_SPLIT_UP_TO = 16


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("ladder", "speed", "scale", "table"))
    parser.add_argument("layers", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit per relaxation")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, for a test")
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(options.out.read_text())["rows"]))
        return
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    runner = {"ladder": ladder, "speed": speed, "scale": scale}[options.what]
    for row in runner(options):
        rows.append(row)
        print(
            " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        )
        write_json(
            options.out, {"provenance": provenance(), "threads": options.threads, "rows": rows}
        )


def timed(
    problem: ChannelSelection, kind: str, split: str, tol: float, limit: float | None
) -> tuple[Relaxation, float, float]:
    """Relaxation with wall-clock and processor seconds."""
    began, used = time.perf_counter(), time.process_time()
    relaxed = relax(problem, kind, split=split, tol=tol, time_limit=limit)
    return relaxed, time.perf_counter() - began, time.process_time() - used


def ladder(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Every bound against the best known value, per layer, keep share and damping."""
    for path in options.layers:
        base = ChannelSelection.load(path)
        p = base.n_channels
        for damping in DAMPINGS[: 1 if options.tiny else None]:
            damped = base.with_damping(damping)
            everything = damped.value(np.ones(p, dtype=bool))
            for share in SHARES:
                problem = damped.with_keep(round(share * p))
                best = best_value(problem, options.seconds)
                for kind, split in KINDS:
                    if split == "optimal" and p > OPTIMAL_SPLIT_UP_TO:
                        continue
                    if kind == "rlt" and p > PAIRS_UP_TO:
                        continue
                    relaxed, wall, used = timed(problem, kind, split, 1e-4, options.seconds)
                    removal = best[0] - everything
                    yield {
                        "layer": path.stem,
                        "p": p,
                        "keep": round(share * p),
                        "damping": damping,
                        "kind": kind,
                        "split": relaxed.split,
                        "best": best[0],
                        "proven": best[1],
                        "f_all": everything,
                        "bound": relaxed.bound,
                        "ratio": relaxed.bound / best[0],
                        "removal_ratio": (relaxed.bound - everything) / removal
                        if removal > 0
                        else 1.0,
                        "relaxation_gap": relaxed.gap if np.isfinite(relaxed.value) else None,
                        "iterations": relaxed.iterations,
                        "seconds": wall,
                        "processor_seconds": used,
                    }


def table(rows: list[dict[str, Any]]) -> str:
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


def _name(row: dict[str, Any]) -> str:
    return row["kind"] if row["split"] == "none" else str(row["split"])


def best_value(problem: ChannelSelection, seconds: float) -> tuple[float, bool]:
    """Best known value and whether it is proven optimal."""
    local = solve(problem, "local-search", time_limit=min(seconds, 10.0))
    if problem.n_channels > 32:
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


def speed(options: argparse.Namespace) -> Iterator[dict[str, object]]:
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


def scale(options: argparse.Namespace) -> Iterator[dict[str, object]]:
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
