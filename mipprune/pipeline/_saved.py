"""The pruned network on disk, and back."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mipprune._support.files import atomic_path, write_json
from mipprune.errors import DataFileError, InputError
from mipprune.graph import Masks, restore, spec
from mipprune.models import Dataset, DataSource
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._task import (
    ModelFactory,
    example_inputs,
    load_task_data,
    new_network,
)

__all__ = ["MASKS_NAME", "MODEL_NAME", "PrunedNetwork", "load_pruned", "read_masks", "save_pruned"]

MODEL_NAME = "model.pt"
SPECIFICATION_NAME = "specification.json"
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

    The network is built anew as the run's settings say, shrunk as the stored
    specification says, and filled with the stored weights; nothing in the
    files is executed.

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
    weights, specification = run.path / MODEL_NAME, run.path / SPECIFICATION_NAME
    if not weights.is_file() or not specification.is_file():
        raise InputError(f"the run in {run.path} is not finished; go on with --resume")
    config = run.config
    found = load_task_data(config, data)
    args, kwargs = example_inputs(found)
    network = new_network(config, found, model).cpu()
    smaller = restore(network, specification.read_text(encoding="utf-8"), weights)
    return PrunedNetwork(smaller.eval(), args, kwargs)


def save_pruned(run: RunDirectory, model: nn.Module) -> None:
    """Write specification and weights into the folder of a run."""
    write_json(run.path / SPECIFICATION_NAME, spec(model))
    # Through memory, so that a failed write is an OSError with its reason.
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    with atomic_path(run.path / MODEL_NAME) as temporary:
        temporary.write_bytes(buffer.getbuffer())


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
