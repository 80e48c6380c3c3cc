"""Whole ReLU networks to proof: our search beside HiGHS and SCIP, three formulations.

    python benchmarks/relu_network.py --widths 16 16 --samples 30 --time-limit 60

The network is trained on the bundled digits with a fixed seed; every solver gets the
same tasks and the same starting masks. Writes JSON; time-outs keep their gap.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.errors import SolverError
from mipprune.formulation.relu_network import FORMULATIONS, NetworkPruning, ReLUNetwork
from mipprune.solvers.relu_network import greedy_masks, solve_network


def trained_network(
    widths: list[int], seed: int, steps: int
) -> tuple[ReLUNetwork, np.ndarray, float]:
    """An MLP on digits, the inputs in [0, 1], and its accuracy."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [64, *widths, 10]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        module = nn.Sequential(*layers[:-1])
        x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
        optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimiser.step()
        accuracy = float((module(x).argmax(1) == y).float().mean())
    return ReLUNetwork.from_module(module), images, accuracy


def tasks(network: ReLUNetwork, inputs: np.ndarray) -> dict[str, NetworkPruning]:
    """The questions asked of every network."""
    n = network.n_neurons
    return {
        "fewest neurons that keep every prediction": NetworkPruning(
            network, inputs, objective="neurons", keep_predictions=True
        ),
        "deviation, 3/4 of the neurons": NetworkPruning(network, inputs, max_neurons=3 * n // 4),
        "deviation, half of the neurons": NetworkPruning(network, inputs, max_neurons=n // 2),
        "misclassification, 3/8 of the neurons": NetworkPruning(
            network, inputs, objective="misclassification", max_neurons=3 * n // 8
        ),
        "hinge, half of the neurons": NetworkPruning(
            network, inputs, objective="hinge", max_neurons=n // 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 16])
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per solve")
    parser.add_argument("--search-limit", type=float, default=600.0, help="seconds, own search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/relu_network.json"))
    options = parser.parse_args()
    network, images, accuracy = trained_network(options.widths, options.seed, options.steps)
    rng = np.random.default_rng(options.seed)
    inputs = images[rng.choice(len(images), options.samples, replace=False)]
    runs = [("search", "perspective")]
    runs += [(solver, form) for solver in ("highs", "scip") for form in FORMULATIONS]
    warm = NetworkPruning(network, inputs[:2], max_neurons=0)
    solve_network(warm, solver="search")  # compiles the kernels outside the measurement
    rows = []
    for name, task in tasks(network, inputs).items():
        start = greedy_masks(task)
        for solver, formulation in runs:
            limit = options.search_limit if solver == "search" else options.time_limit
            row: dict[str, object] = {"task": name, "solver": solver, "formulation": formulation}
            try:
                result = solve_network(
                    task, solver=solver, formulation=formulation, time_limit=limit, start=start
                )
            except SolverError as error:
                row["error"] = str(error)
            else:
                row |= {
                    "value": result.value,
                    "bound": result.bound if np.isfinite(result.bound) else None,
                    "gap": result.gap if np.isfinite(result.gap) else None,
                    "nodes": result.nodes,
                    "seconds": round(result.seconds, 2),
                    "status": result.status.name,
                }
            rows.append(row)
            print(row, flush=True)
            write_json(
                options.out,
                {
                    "provenance": provenance(options.seed),
                    "network": {"widths": options.widths, "accuracy": accuracy},
                    "samples": options.samples,
                    "time_limit": options.time_limit,
                    "rows": rows,
                },
            )


if __name__ == "__main__":
    main()
