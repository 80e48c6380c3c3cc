"""What all phases of a run share: data, networks, groups, budget and settings."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mipprune.errors import InputError
from mipprune.graph import ChannelGroups, channel_groups
from mipprune.models import (
    Dataset,
    DataSource,
    Forward,
    batches,
    check_data,
    load_data,
    load_model,
    move_batch,
    run_model,
    split_batch,
)
from mipprune.pipeline._config import PruneConfig
from mipprune.pipeline._recipes import model_options
from mipprune.training import Criterion, TrainConfig, classification_loss, evaluate

__all__ = [
    "ModelFactory",
    "Task",
    "example_inputs",
    "find_groups",
    "load_task_data",
    "new_network",
    "refuse_wrong_shapes",
    "steps_per_epoch",
]

ModelFactory = Callable[[], nn.Module]

EXAMPLE_BATCH = 2


@dataclass(frozen=True, eq=False)
class Task:
    """Everything a phase needs besides the run's folder.

    Attributes
    ----------
    config : PruneConfig
    data : Dataset or DataSource
    factory : callable
        A newly initialised network, the same weights each time.
    groups : ChannelGroups
        Of that network.
    inputs : (args, kwargs)
        Example inputs of the network.
    settings : mapping
        Phase (``dense``, ``train``, ``tune``) -> TrainConfig.
    """

    config: PruneConfig
    data: Dataset | DataSource
    factory: ModelFactory
    groups: ChannelGroups
    inputs: tuple[tuple[Any, ...], Mapping[str, Any]]
    settings: Mapping[str, TrainConfig]
    forward: Forward | None = None
    criterion: Criterion | None = None
    progress: bool = True

    def score(self, model: nn.Module, split: str) -> dict[str, float | None]:
        """Loss and accuracy of ``model`` on a split."""
        settings = self.settings["train"]
        found = evaluate(
            model,
            self.data,
            split,
            precision=settings.precision,
            channels_last=settings.channels_last,
            device=self.config.device,
            forward=self.forward,
            criterion=self.criterion,
        )
        return {"loss": found.loss, "accuracy": found.accuracy}

    def training_accuracy(self, model: nn.Module) -> float:
        """Accuracy, 0 to 1, on the training images without augmentation."""
        accuracy = self.score(model, "train")["accuracy"]
        if accuracy is None:
            raise InputError("this rule needs an accuracy, and the data has no class labels")
        return accuracy

    def training_losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Loss of each training batch without augmentation, with its graph; in a fixed order."""
        settings = self.settings["train"]
        criterion = self.criterion or classification_loss
        source = batches(
            self.data, "train", settings.batch_size, seed=self.config.seed, augment=False
        )
        for batch in source:
            moved = move_batch(batch, self.config.device)
            yield criterion(run_model(model, moved, self.forward), moved)

    def announce(self, text: str) -> None:
        """Say on standard error what begins now, where progress is shown."""
        if self.progress:
            print(text, file=sys.stderr, flush=True)


def load_task_data(config: PruneConfig, given: Dataset | DataSource | None) -> Dataset | DataSource:
    """The data in memory, or those that the settings name."""
    if given is not None:
        return check_data(given, "data")
    return load_data(config.data, config.data_root, **config.data_options)


def new_network(
    config: PruneConfig, data: Dataset | DataSource, given: ModelFactory | None
) -> nn.Module:
    """A newly initialised network; the same weights for the same seed."""
    options: dict[str, Any] = {}
    if isinstance(data, Dataset):
        channels, height, width = data.image_shape
        options |= {"in_channels": channels, "image_size": (height, width)}
        options["num_classes"] = data.n_classes
    devices: list[int] = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        if given is not None:
            model = given()
            if not isinstance(model, nn.Module):
                raise InputError(
                    f"model= returned a {type(model).__name__}, expected a torch.nn.Module"
                )
        elif ":" in config.model:
            model = load_model(config.model, **model_options(config, data))
        else:
            generator = torch.Generator().manual_seed(config.seed)
            model = load_model(
                config.model, generator=generator, **{**options, **model_options(config, data)}
            )
    return model.to(config.device)


def example_inputs(data: Dataset | DataSource) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the network from the first two examples (a whole batch of your own data)."""
    batch = next(iter(batches(data, "train", EXAMPLE_BATCH, shuffle=False, augment=False)), None)
    if batch is None:
        raise InputError("the training split has no batches")
    args, kwargs, _ = split_batch(batch)
    return args, kwargs


def refuse_wrong_shapes(
    model: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]], device: str
) -> None:
    """Run the network once on the example inputs.

    Raises
    ------
    InputError
        It does not take them; the message has their shapes.
    """
    args, kwargs = move_batch(inputs, device)
    mode = model.training
    try:
        with torch.no_grad():
            model.eval()(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        shapes = ", ".join(
            str(tuple(leaf.shape))
            for leaf in pytree.tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        )
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{type(model).__name__} does not take inputs of shape {shapes}: "
            f"{type(error).__name__}: {first}; give a network that fits the data"
        ) from error
    finally:
        model.train(mode)


def find_groups(
    model: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]], device: str
) -> ChannelGroups:
    """Channel groups of ``model`` on its device.

    Raises
    ------
    TraceError
        The network cannot be traced, or does not take these inputs.
    InputError
        There is no channel that can be removed.
    """
    args, kwargs = move_batch(inputs, device)
    found = channel_groups(model, args, example_kwargs=kwargs or None)
    if not found.families:
        reasons = sorted({frozen.reason for frozen in found.frozen})
        raise InputError(
            f"no channel of {type(model).__name__} can be removed"
            + (f": {'; '.join(reasons)}" if reasons else "")
        )
    return found


def steps_per_epoch(data: Dataset | DataSource, settings: TrainConfig) -> int:
    """Optimizer steps of one epoch."""
    if isinstance(data, Dataset):
        n_batches = math.ceil(len(data.train) / settings.batch_size)
    elif settings.batches_per_epoch is not None:
        n_batches = settings.batches_per_epoch
    elif isinstance(data.train, Sized):
        n_batches = len(data.train)
    else:
        raise InputError(
            "the training data has no length; give batches_per_epoch in the training settings"
        )
    return math.ceil(n_batches / settings.accumulate)
