"""What others do at the same budget: masks and weights of a compression, without training.

Every function takes a case and a budget on MACs and gives masks and the masked
network of full size. Widths of ``thinet`` and ``local-search`` are uniform (the same
share of every family), as their papers have it; both go through the network in
order, see the errors made so far, and refit the weights with the ridge of ours.
"""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from compress_cases import Case
from numpy.typing import NDArray
from torch import nn

from mipprune.calibration import Calibration, apply_weights, calibrate
from mipprune.errors import InputError
from mipprune.graph import Budgets, Masks, mask_model
from mipprune.models import split_batch
from mipprune.pipeline import CompressOptions
from mipprune.problem import ChannelSelection
from mipprune.solvers import solve
from mipprune.solvers.elimination_path import elimination_path
from mipprune.training import Taylor
from mipprune.training.l1_uniform import L1Uniform

__all__ = [
    "DAMPING",
    "PEERS",
    "SHRINK_TO",
    "calibrated",
    "l1_mask",
    "taylor_mask",
    "taylor_scores",
    "thinet_mask",
]

Bools = NDArray[np.bool_]
Found = tuple[dict[str, Bools], nn.Module]
DAMPING = CompressOptions().damping
SHRINK_TO = CompressOptions().shrink_to


def l1(case: Case, budget: str) -> Found:
    """Smallest mean |w| in equal shares, weights as they are (Li et al. 2017)."""
    method = L1Uniform()
    method.prepare(copy.deepcopy(case.model), case.groups)
    return _as_they_are(case, method.choose(Budgets(macs=budget)))


def taylor(case: Case, budget: str) -> Found:
    """First-order Taylor importance, whole network (Molchanov et al. 2019); needs labels."""
    method = Taylor(losses=case.losses)
    method.prepare(copy.deepcopy(case.model), case.groups)
    return _as_they_are(case, method.choose(Budgets(macs=budget)))


def l1_mask(case: Case, family: str, keep: int) -> Bools:
    """The ``keep`` channels of one family with the largest mean |w|."""
    method = L1Uniform()
    method.prepare(copy.deepcopy(case.model), case.groups)
    return _largest(case, method.scores(), family, keep)


def taylor_mask(case: Case, scores: NDArray[np.float64], family: str, keep: int) -> Bools:
    """The ``keep`` channels of one family with the largest of ``taylor_scores``."""
    return _largest(case, scores, family, keep)


def taylor_scores(case: Case) -> NDArray[np.float64]:
    """Taylor importance of every class."""
    method = Taylor(losses=case.losses)
    method.prepare(copy.deepcopy(case.model), case.groups)
    return method.scores()


def _largest(case: Case, scores: NDArray[np.float64], family: str, keep: int) -> Bools:
    found = case.groups.by_name[family]
    own = scores[found.start : found.stop]
    mask = np.zeros(len(own), dtype=bool)
    mask[np.argsort(-own, kind="stable")[:keep]] = True
    return mask


def _as_they_are(case: Case, masks: Masks) -> Found:
    return dict(masks), mask_model(case.model, case.groups, masks)


def thinet(case: Case, budget: str) -> Found:
    """Greedy on the layer's error with its own weights, then refitted (Luo et al. 2017)."""
    return _sequential(case, budget, lambda problem, keep: thinet_mask(problem[1], keep))


def local_search(case: Case, budget: str) -> Found:
    """Remove, refit and swap to a local optimum per layer (after Meng et al., OSSCAR, 2024)."""

    def choose(problem: tuple[ChannelSelection, ChannelSelection], keep: int) -> Bools:
        refit = problem[0].with_keep(keep)
        # On wide layers the search removes several at a time; one by one is better, and no dearer.
        start = None if refit.parts else elimination_path(refit, [keep])[keep]
        mask = solve(refit, "local-search", seed=0, rounds=0, start=start).mask
        assert mask is not None  # a count alone can always be met
        return mask

    return _sequential(case, budget, choose)


def thinet_mask(problem: ChannelSelection, keep: int) -> Bools:
    """Channels left after removing, one by one, the one that adds least to the error.

    ``problem`` has the variant ``mask``: value c + v'y + y'My / 2 with zero diagonal of M.
    """
    matrix, vector, _ = problem.binary_quadratic()
    mask = np.ones(problem.n_channels, dtype=bool)
    gradient = vector + matrix @ mask
    while mask.sum() > keep:
        allowed = mask if not problem.parts else _fullest(problem, mask)
        j = int(np.argmin(np.where(allowed, -gradient, np.inf)))
        mask[j] = False
        gradient = gradient - matrix[:, j]
    return mask


def _fullest(problem: ChannelSelection, mask: Bools) -> Bools:
    """Channels of the parts that still have most of them: parts stay equal in number."""
    allowed = mask.copy()
    for part in problem.parts:
        labels = np.unique(part[part >= 0])
        sizes = {label: int(mask[part == label].sum()) for label in labels}
        most = max(sizes.values())
        for label in labels:
            if sizes[label] < most:
                allowed[part == label] = False
    return allowed


def _sequential(
    case: Case,
    budget: str,
    choose: Callable[[tuple[ChannelSelection, ChannelSelection], int], Bools],
) -> Found:
    """Uniform widths; family by family on the network pruned so far."""
    uniform, _ = l1(case, budget)
    current = copy.deepcopy(case.model)
    masks: dict[str, Bools] = {}
    whole = calibrated(case, case.model)
    for name in whole:
        keep = int(uniform[name].sum())
        family = calibrated(case, current, name, whole)[name]
        refit = family.problem(damping=DAMPING, shrink_to=SHRINK_TO)
        mask = np.ones(len(family.family), dtype=bool)
        if keep < mask.size:
            mask = choose((refit, family.problem(damping=DAMPING, variant="mask")), keep)
            apply_weights(current, family, refit.weights(mask))
        masks[name] = mask
    for name, mask in uniform.items():
        if name not in masks and not mask.all():
            raise InputError(f"family '{name}' is pruned but cannot be calibrated")
    return masks, current


def calibrated(
    case: Case, current: nn.Module, family: str | None = None, like: Calibration | None = None
) -> Calibration:
    """Statistics in ``current`` with the targets of the trained network."""
    return calibrate(
        current,
        case.calibration,
        case.groups,
        reference=None if current is case.model else case.model,
        families=None if family is None else [family],
        patches=case.patches,
        generator=None if case.patches is None else torch.Generator().manual_seed(0),
        forward=case.forward,
        like=like,
    )


def torch_pruning(case: Case, budget: str) -> Found:
    """Global group magnitude of the package torch-pruning, its own groups; ratio by bisection."""
    try:
        library: Any = importlib.import_module("torch_pruning")
    except ImportError:
        raise InputError("torch-pruning is not installed; leave it out with --methods") from None
    limit = Budgets(macs=budget).resolve(case.groups)[0].limit
    low, high, best = 0.0, 1.0, None
    for _ in range(12):
        middle = (low + high) / 2
        masks = _with_torch_pruning(library, case, middle)
        if case.groups.macs(case.groups.kept(masks)) <= limit:
            high, best = middle, masks
        else:
            low = middle
    if best is None:
        raise InputError(f"torch-pruning does not reach {budget} of the MACs")
    return _as_they_are(case, best)


def _with_torch_pruning(library: Any, case: Case, ratio: float) -> dict[str, Bools]:
    model = copy.deepcopy(case.model)
    args, kwargs = first_inputs(case)
    producers = {name for family in case.groups for name in family.producers}
    layers = dict(model.named_modules())
    ignored = [
        layer
        for name, layer in layers.items()
        if isinstance(layer, nn.Conv2d | nn.Linear) and name not in producers
    ]
    heads = {
        layer: len(family)
        for family in case.groups
        for name, layer in layers.items()
        if name in family.producers
        and isinstance(layer, nn.Linear)
        and layer.out_features > len(family)
    }
    pruner = library.pruner.BasePruner(
        model,
        example_inputs=kwargs or args[0],
        importance=library.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=ignored,
        num_heads=heads,
        prune_num_heads=bool(heads),
        prune_head_dims=False,
        head_pruning_ratio=ratio if heads else 0.0,
    )
    names = {layer: name for name, layer in layers.items()}
    masks = {family.name: np.ones(len(family), dtype=bool) for family in case.groups}
    for group in pruner.step(interactive=True):
        dependency, indices = group[0]
        _record(case, masks, names[dependency.target.module], indices)
        group.prune()
    return masks


def _record(case: Case, masks: dict[str, Bools], layer: str, indices: list[int]) -> None:
    """Mark the classes that output channels ``indices`` of ``layer`` belong to as removed."""
    owner = next(
        (
            axis.owner
            for axis in case.groups.axes
            if axis.tensor == f"{layer}.weight" and axis.role == "produce"
        ),
        None,
    )
    if owner is None:
        raise InputError(f"torch-pruning starts a group at '{layer}', which none of ours prunes")
    for index in owner[list(indices)]:
        family = next(f for f in case.groups if f.start <= index < f.stop)
        masks[family.name][index - family.start] = False


def first_inputs(case: Case) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of one call of the network: one example of images, the first batch of texts."""
    first = case.calibration[0]
    if isinstance(first, torch.Tensor):
        return (first[:1],), {}
    args, kwargs, _ = split_batch(first)
    return args, kwargs


PEERS: dict[str, Callable[[Case, str], Found]] = {
    "l1": l1,
    "taylor": taylor,
    "thinet-like": thinet,
    "osscar-like": local_search,
    "torch-pruning": torch_pruning,
}
