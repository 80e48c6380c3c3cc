"""The streaming pass: hooks on the consumers, Gram matrices in float64."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.attention import plain_attention
from mipprune._support.checks import (
    require_callable,
    require_flag,
    require_instance,
    require_integer,
    require_iterable,
    require_text,
)
from mipprune._support.progress import Progress
from mipprune.calibration._attention import attention_of, heads_of
from mipprune.calibration._consumers import Consumer, Statistics, find_consumers
from mipprune.calibration._design import Sampler, rows_of, targets_at
from mipprune.calibration.families import Calibration, build_calibration
from mipprune.errors import InputError
from mipprune.graph import ChannelGroups, require_groups, require_network

__all__ = ["calibrate"]

Forward = Callable[[nn.Module, Any], Any]


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    groups: ChannelGroups,
    *,
    reference: nn.Module | None = None,
    families: Iterable[str] | None = None,
    patches: int | None = None,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
    like: Calibration | None = None,
    log: bool = False,
) -> Calibration:
    r"""Collect the statistics of every layer that reads prunable channels.

    For a layer with inputs X (one row per output position) and targets Y the
    pass accumulates, in float64,

    .. math:: G = X^\top X / N, \qquad C = X^\top Y / N, \qquad e = \|Y\|_F^2 / N

    and never keeps X: memory is the sum of d x d over the layers, plus one batch.
    Y is the layer's output without its bias: in ``reference``, the network as it
    was before anything was pruned, so that errors of earlier layers are seen and
    compensated; without it, in ``model`` itself.

    Parameters
    ----------
    model : torch.nn.Module
        Run in eval mode; modes and hooks are restored.
    batches : iterable
        What the model takes: tensors, ``(inputs, target)`` pairs (targets are
        ignored), mappings, or anything with ``forward``. Read once.
    groups : ChannelGroups
        Of ``model``, from :func:`mipprune.graph.channel_groups`.
    reference : torch.nn.Module, optional
        Same layers and output shapes as ``model``; channels pruned upstream must
        be masked, not removed.
    families : iterable of str, optional
        Names of families to collect, default all.
    patches : int, optional
        Output positions drawn per example and layer, default all.
    generator : torch.Generator, optional
        For ``patches``; required with it.
    forward : callable, optional
        ``forward(model, batch)``, replaces the default call.
    like : Calibration, optional
        Of the same network on batches of the same kind. It knows how often each layer is called,
        and every batch is then run only up to the last call that is wanted.
    log : bool
        Progress on standard error.

    Returns
    -------
    Calibration
        Family name -> statistics; families that cannot be observed are in
        ``skipped`` with the reason.

    Raises
    ------
    InputError
        No batch, a batch that the model does not take, NaN or infinite inputs,
        an unknown family, a reference of another shape.
    """
    require_network(model)
    require_groups(groups)
    require_iterable("batches", batches, "a list of batches or a data loader")
    if reference is not None:
        require_network(reference, "reference")
    if forward is not None:
        require_callable("forward", forward, "a function (model, batch)")
    require_flag("log", log)
    sampler = _checked_sampler(patches, generator)
    wanted = _checked_families(groups, families)
    consumers, refused = find_consumers(model, groups)
    consumers = {
        name: consumer
        for name, consumer in consumers.items()
        if any(_reads(consumer, groups, family) for family in wanted)
    }
    calls = {} if like is None else like.calls
    collector = _Collector(model, reference, list(consumers.values()), sampler, calls)
    count = 0
    bar = Progress("calibrate", unit="batches", enabled=log)
    with plain_attention(), collector, bar as progress:
        for batch in batches:
            collector.run(batch, count, forward)
            count += 1
            progress.update()
    if count == 0:
        raise InputError("batches: expected at least one batch, got none")
    found = build_calibration(model, groups, wanted, consumers, refused, reference is not None)
    return replace(found, calls=collector.steady)


def _checked_sampler(patches: int | None, generator: torch.Generator | None) -> Sampler:
    if patches is not None:
        patches = require_integer("patches", patches, at_least=1, alternative="or None")
    if generator is not None:
        require_instance("generator", generator, torch.Generator)
    if patches is not None and generator is None:
        raise InputError("patches are drawn at random; give generator=, a torch.Generator")
    return Sampler(patches, generator)


def _checked_families(groups: ChannelGroups, families: Iterable[str] | None) -> list[str]:
    if families is None:
        return list(groups.by_name)
    given = [families] if isinstance(families, str) else require_iterable("families", families)
    names = [require_text("families", name, "names of families") for name in given]
    for name in names:
        if name not in groups.by_name:
            raise InputError(
                f"no family is called '{name}'; the families are: {', '.join(groups.by_name)}"
            )
    return names


def _reads(consumer: Consumer, groups: ChannelGroups, family: str) -> bool:
    start, stop = groups.by_name[family].start, groups.by_name[family].stop
    return bool(((consumer.owner >= start) & (consumer.owner < stop)).any())


class _Reached(Exception):
    """The last call that is wanted of this batch has been made."""


class _Collector:
    """Hooks for the duration of the pass; the reference runs first on every batch.

    ``expected`` has the calls per batch of each layer; where one is not in it, batches run to
    their end. ``steady`` has those found to be the same in every batch.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module | None,
        consumers: list[Consumer],
        sampler: Sampler,
        expected: Mapping[str, int],
    ) -> None:
        self.model = model
        self.reference = reference
        self.consumers = consumers
        self.sampler = sampler
        self.names = [name for consumer in consumers for name in consumer.modules]
        self.expected = expected if all(name in expected for name in self.names) else {}
        self.steady: dict[str, int] = {}
        self.varying: set[str] = set()
        self.targets: dict[str, list[Tensor]] = {}
        self.calls: dict[str, int] = {}
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.training: list[tuple[nn.Module, bool]] = []

    def __enter__(self) -> "_Collector":
        networks = [self.model] + ([self.reference] if self.reference is not None else [])
        self.training = [(m, m.training) for network in networks for m in network.modules()]
        for network in networks:
            network.eval()
        for consumer in self.consumers:
            for name in consumer.modules:
                layer: nn.Module | None = attention_of(self.model, name)
                if layer is not None:
                    hook = self._heads_hook(consumer, name)
                else:
                    layer = self.model.get_submodule(name)
                    hook = self._collect_hook(consumer, name)
                self.handles.append(layer.register_forward_hook(hook, with_kwargs=True))
                if self.reference is not None:
                    twin = _twin(self.reference, name)
                    self.handles.append(twin.register_forward_hook(self._target_hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        for module, training in self.training:
            module.training = training

    @torch.no_grad()
    def run(self, batch: Any, index: int, forward: Forward | None) -> None:
        """Add one batch."""
        self.targets, self.calls = {}, {}
        try:
            if self.reference is not None:
                self._run_one(self.reference, batch, forward)
            self._run_one(self.model, batch, forward)
        except InputError as error:
            raise InputError(f"batch {index}: {error}") from error
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"batch {index}: the model does not take it ({error}); give batches of the "
                "shape the model was traced with, or forward="
            ) from error
        for name in self.names:
            count = self.calls.get(name, 0)
            if self.steady.setdefault(name, count) != count:
                self.varying.add(name)
        for name in self.varying:
            self.steady.pop(name, None)

    @staticmethod
    def _run_one(network: nn.Module, batch: Any, forward: Forward | None) -> None:
        with suppress(_Reached):
            _call(network, batch, forward)

    def _stop_if_reached(self, calls: Mapping[str, int]) -> None:
        if self.expected and all(calls.get(n, 0) >= self.expected[n] for n in self.names):
            raise _Reached

    def _target_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, tuple):  # attention gives its weights too
                output = output[0]
            # A copy: an in-place activation may follow.
            self.targets.setdefault(name, []).append(output.detach().clone())
            self._stop_if_reached({n: len(found) for n, found in self.targets.items()})

        return hook

    def _collect_hook(self, consumer: Consumer, name: str) -> Callable[..., None]:
        def hook(
            layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> None:
            x = args[0] if args else kwargs["input"]
            self._add(consumer, name, layer, x.detach(), output)

        return hook

    def _heads_hook(self, consumer: Consumer, name: str) -> Callable[..., None]:
        projecting = False

        def hook(
            module: nn.MultiheadAttention,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            output: tuple[Tensor, Tensor | None],
        ) -> None:
            nonlocal projecting
            if projecting:  # the call made below
                return
            projecting = True
            try:
                x = heads_of(module, args, kwargs)
            finally:
                projecting = False
            self._add(consumer, name, module.out_proj, x.detach(), output[0])

        return hook

    def _add(
        self, consumer: Consumer, name: str, layer: nn.Module, x: Tensor, output: Tensor
    ) -> None:
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"the input of layer '{name}' contains NaN or infinity")
        target, twin = None, layer
        if self.reference is not None:
            stored = self.targets.get(name, [])
            if call >= len(stored) or stored[call].shape != output.shape:
                given = tuple(stored[call].shape) if call < len(stored) else "no call"
                raise InputError(
                    f"layer '{name}' gives {tuple(output.shape)} and in the reference {given}; "
                    "mask the pruned channels instead of removing them"
                )
            target, twin = stored[call], self.reference.get_submodule(name)
        for rows in rows_of(layer, x, output, self.sampler):
            wanted = None if target is None else targets_at(twin, target, rows)
            self._accumulate(consumer, rows.values, wanted)
        self._stop_if_reached(self.calls)

    @staticmethod
    def _accumulate(consumer: Consumer, values: Tensor, wanted: Tensor | None) -> None:
        n, d = values.size(1), values.size(2)
        if not consumer.statistics:
            consumer.statistics = [Statistics(values.new_zeros(d, d)) for _ in range(n)]
        for group, statistics in enumerate(consumer.statistics):
            statistics.add(values[:, group], None if wanted is None else wanted[:, group])


def _twin(reference: nn.Module, name: str) -> nn.Module:
    try:
        layer: nn.Module | None = attention_of(reference, name)
        return reference.get_submodule(name) if layer is None else layer
    except AttributeError as error:
        raise InputError(
            f"the reference has no layer '{name}'; give the network as it was before pruning"
        ) from error


def _call(model: nn.Module, batch: Any, forward: Forward | None) -> None:
    from mipprune.models import move_batch, run_model

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    run_model(model, move_batch(batch, device), forward)
