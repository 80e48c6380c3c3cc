"""Compression without training of real trained networks, against others at the same budget.

    python benchmarks/compress_real.py digit-cnn efficientnet minilm
    python benchmarks/compress_real.py fashion --weights dense.pt --tune ours osscar-like
    python benchmarks/compress_real.py --table

Every method gets the same channel groups, the same calibration examples, the same
budget on MACs and, at the end, the same fresh norm statistics where the outputs then
agree better. Measured on examples that calibrated nothing:

- ``layers``: mean over the layers that read prunable channels of ||Y' - Y||^2 / ||Y||^2, Y the
  layer's outputs in the trained network and Y' in the smaller one, output channels that stayed;
- ``outputs``: the same of the network's outputs; ``same``: examples whose class is the same;
- ``accuracy``, and after fine-tuning where ``--tune`` names the method.

``--masks`` compares only the choice of channels: for every family, at equal widths and
on equal statistics, the error of each method's channels after the same refit over ours.
Rows that the file of results has already are not computed again, so that a stopped run goes on;
with ``--work FOLDER`` it goes on within a row of ours too, from the last finished step.
What a case needs is said in ``compress_cases.py``; torch-pruning is used where it is installed.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compress_cases import CASES, Case, make_case
from compress_peers import (
    DAMPING,
    PEERS,
    SHRINK_TO,
    calibrated,
    l1_mask,
    taylor_mask,
    taylor_scores,
    thinet_mask,
)
from torch import Tensor, nn

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.errors import InputError
from mipprune.graph import Masks, remove
from mipprune.models import main_output, run_model
from mipprune.pipeline import CompressOptions, compress, measure_agreement
from mipprune.pipeline._norms import refresh_norms
from mipprune.solvers import solve

RESULTS = Path(__file__).resolve().parent / "results" / "compress_real.json"
OURS = "ours"


def main() -> None:
    """Run the cases asked for, adding to the file of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    parser.add_argument("--methods", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    parser.add_argument("--budgets", nargs="+", help="default: those of the case")
    parser.add_argument("--weights", type=Path, help="trained weights, for the case fashion")
    parser.add_argument("--tune", nargs="*", default=[], help="methods to fine-tune for one epoch")
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of ours")
    parser.add_argument("--work", type=Path, help="folder for the finished steps of ours")
    parser.add_argument("--masks", action="store_true", help="compare the choice of channels alone")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="redo what the file has already")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
    if options.table:
        print(table(rows))
        return
    for name in options.cases:
        case = make_case(name, options.weights)
        done = {tuple(row.get(key) for key in KEYS) for row in rows}
        for row in study(case, options, done):
            rows = [r for r in rows if any(r.get(k) != row.get(k) for k in KEYS)] + [row]
            print(" ".join(f"{k}={_plain(v)}" for k, v in row.items()), flush=True)
            write_json(options.json, {"provenance": provenance(), "rows": rows})


KEYS = ("case", "budget", "method", "what")


def study(
    case: Case, options: argparse.Namespace, done: set[tuple[Any, ...]]
) -> Iterable[dict[str, Any]]:
    """One row per budget and method, the trained network first; what is ``done`` is left out."""
    if options.masks:
        yield from choices(case, options.seconds)
        return
    if case.score is not None and (case.name, "100%", "dense", None) not in done:
        accuracy = case.score(case.model)
        yield {"case": case.name, "budget": "100%", "method": "dense", "accuracy": accuracy}
    for budget in options.budgets or case.budgets:
        for method in options.methods:
            if (case.name, budget, method, None) in done and not options.again:
                continue
            began = time.process_time()
            try:
                folder = options.work and options.work / f"{case.name}-{budget.rstrip('%')}"
                masks, smaller, extra = run(case, budget, method, options.seconds, folder)
            except InputError as error:
                print(f"{case.name} {budget} {method}: {error}")
                continue
            seconds = time.process_time() - began
            row = {"case": case.name, "budget": budget, "method": method}
            row |= measured(case, masks, smaller) | extra | {"cpu_seconds": round(seconds, 1)}
            if method in options.tune and case.tune is not None and case.score is not None:
                case.tune(smaller)
                row["accuracy_tuned"] = case.score(smaller)
            yield row


def run(
    case: Case, budget: str, method: str, seconds: float, folder: Path | None = None
) -> tuple[Masks, nn.Module, dict[str, Any]]:
    """Masks, smaller network, and what only ours knows; its steps are kept in ``folder``."""
    if method == OURS:
        found = compress(
            case.model,
            case.calibration,
            {"macs": budget},
            options=CompressOptions(time_limit=seconds, patches=case.patches),
            groups=case.groups,
            forward=case.forward,
            out=folder,
            resume=folder is not None and folder.is_dir(),
        )
        gaps = [family.gap for family in found.families if family.after < family.before]
        extra = {
            "gap_widths": found.widths.gap,
            "tried": dict(found.tried),
            "gap_masks_median": float(np.median(gaps)),
            "gap_masks_largest": float(max(gaps)),
            "masks_proven": sum(gap <= 1e-3 for gap in gaps),
            "masks": len(gaps),
        }
        return found.masks, found.model, extra
    masks, current = PEERS[method](case, budget)
    smaller = remove(current, case.groups, masks)
    trial = copy.deepcopy(smaller)
    if refresh_norms(trial, case.calibration, forward=case.forward):
        before, after = (
            measure_agreement(n, case.model, case.calibration, forward=case.forward)
            for n in (smaller, trial)
        )
        if after.relative_error < before.relative_error:
            smaller = trial
    return masks, smaller, {}


def measured(case: Case, masks: Masks, smaller: nn.Module) -> dict[str, Any]:
    """Errors, agreement and accuracy on held-out examples."""
    agreement = measure_agreement(smaller, case.model, case.test, forward=case.forward)
    errors = layer_errors(case, masks, smaller)
    row: dict[str, Any] = {
        "macs_kept": case.groups.macs(case.groups.kept(masks)) / case.groups.macs(),
        "layers": float(np.mean(list(errors.values()))),
        "layers_largest": max(errors.values()),
        "outputs": agreement.relative_error,
    }
    if case.scores_are_classes:
        row["same"] = agreement.same_top
    if case.score is not None:
        row["accuracy"] = case.score(smaller)
    return row


def layer_errors(case: Case, masks: Masks, smaller: nn.Module) -> dict[str, float]:
    """Relative error of the outputs of every layer that reads prunable channels."""
    kept = case.groups.kept(masks)
    readers = [a.tensor for a in case.groups.axes if a.role == "consume" and (a.owner >= 0).any()]
    outputs = {a.tensor: a.owner for a in case.groups.axes if a.role == "produce" and a.dim == 0}
    places: dict[str, Tensor | None] = {}
    for tensor in dict.fromkeys(readers):
        owner = outputs.get(tensor)
        stays = None if owner is None else np.flatnonzero((owner < 0) | kept[owner])
        places[tensor.rpartition(".")[0]] = None if stays is None else torch.from_numpy(stays)
    sums = {name: [0.0, 0.0] for name in places}
    with torch.no_grad():
        for batch in case.test:
            dense = _recorded(case, case.model, places, batch)
            small = _recorded(case, smaller, places, batch)
            for name, place in places.items():
                wanted = dense[name].double()
                if place is not None:
                    wanted = wanted.index_select(_channel_dim(case.model, name, wanted), place)
                sums[name][0] += float((small[name].double() - wanted).square().sum())
                sums[name][1] += float(wanted.square().sum())
    return {name: error / max(energy, 1e-300) for name, (error, energy) in sums.items()}


def _channel_dim(model: nn.Module, name: str, output: Tensor) -> int:
    return output.dim() - 1 if isinstance(model.get_submodule(name), nn.Linear) else 1


def _recorded(
    case: Case, model: nn.Module, names: Iterable[str], batch: Any
) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = output.clone()  # an in-place activation may follow

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        main_output(run_model(model.eval(), batch, case.forward))
    finally:
        for handle in handles:
            handle.remove()
    return found


def choices(case: Case, seconds: float) -> Iterable[dict[str, Any]]:
    """Errors of each method's channels over ours, refitted alike, on the same statistics."""
    statistics = calibrated(case, case.model)
    scores = taylor_scores(case)
    limit = seconds / (2 * len(statistics))
    for share in (0.5, 0.25):
        ratios: dict[str, list[float]] = {"l1": [], "taylor": [], "thinet-like": []}
        ratios["osscar-like"] = []
        gaps = []
        for name, family in statistics.items():
            keep = max(family.family.minimum, round(share * len(family.family)))
            problem = family.problem(damping=DAMPING, shrink_to=SHRINK_TO, keep=keep)
            greedy = family.problem(damping=DAMPING, variant="mask")
            local = solve(problem, "local-search", seed=0, rounds=0)
            best = solve(problem, time_limit=limit, start=local.mask, gap=1e-3, seed=0)
            gaps.append(best.gap)
            masks = {
                "l1": l1_mask(case, name, keep),
                "taylor": taylor_mask(case, scores, name, keep),
                "thinet-like": thinet_mask(greedy, keep),
                "osscar-like": local.mask,
            }
            for method, mask in masks.items():
                ratios[method].append(problem.value(mask) / best.value)
        for method, found in ratios.items():
            yield {
                "case": case.name,
                "budget": f"{share:.0%}",
                "method": method,
                "what": "masks",
                "mean_ratio": float(np.exp(np.mean(np.log(found)))),
                "largest_ratio": max(found),
                "smallest_ratio": min(found),
                "families": len(found),
                "proven": sum(gap <= 1e-3 for gap in gaps),
                "median_gap": float(np.median(gaps)),
            }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    columns = ("macs_kept", "layers", "outputs", "same", "accuracy", "accuracy_tuned")
    lines = ["| case | budget | method | " + " | ".join(columns) + " |"]
    lines.append("|---|---|---|" + "---|" * len(columns))
    for row in rows:
        if row.get("what") is None:
            cells = [_plain(row.get(column, "")) for column in columns]
            lines.append(
                f"| {row['case']} | {row['budget']} | {row['method']} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
