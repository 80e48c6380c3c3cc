"""The pruned network on disk, and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mipprune.errors import DataFileError, InputError
from mipprune.graph import Masks, remove
from mipprune.models import Dataset, DataSource, load_weights
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._task import (
    ModelFactory,
    example_inputs,
    find_groups,
    load_task_data,
    new_network,
)

__all__ = ["MASKS_NAME", "MODEL_NAME", "PrunedNetwork", "load_pruned", "read_masks"]

MODEL_NAME = "model.pt"
MASKS_NAME = "masks.json"


@dataclass(frozen=True, eq=False)
class PrunedNetwork:
    """A pruned network read from the folder of its run, with example inputs.

    Attributes
    ----------
    model : nn.Module
        In eval mode, on the CPU.
    args, kwargs
        Inputs of the network: the first two training examples.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def load_pruned(
    folder: str | Path,
    *,
    model: ModelFactory | None = None,
    data: Dataset | DataSource | None = None,
) -> PrunedNetwork:
    """Read the pruned network of a finished run.

    The network is built anew as the run's settings say, shrunk by the stored
    masks, and filled with the stored weights; nothing in the files is executed.

    Parameters
    ----------
    folder : path
        Of a finished run.
    model, data
        As for :func:`mipprune.prune`, where the run was given them.

    Raises
    ------
    InputError
        No run, or one that is not finished.
    DataFileError
        A damaged file.
    """
    run = RunDirectory.open(folder)
    weights, masks = run.path / MODEL_NAME, read_masks(run)
    if masks is None or not weights.is_file():
        raise InputError(f"the run in {run.path} is not finished; go on with --resume")
    config = run.config
    found = load_task_data(config, data)
    args, kwargs = example_inputs(found)
    network = new_network(config, found, model).cpu()
    groups = find_groups(network, (args, kwargs), "cpu")
    smaller = remove(network, groups, masks, verify=False)
    load_weights(smaller, weights)
    return PrunedNetwork(smaller.eval(), args, kwargs)


def read_masks(run: RunDirectory) -> Masks | None:
    """Masks chosen by a run, None where it has not come to that."""
    file = run.path / "remove" / MASKS_NAME
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: np.array(mask, dtype=bool) for name, mask in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataFileError(f"{file} is damaged: {error}; delete it to choose again") from error
