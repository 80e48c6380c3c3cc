"""Types of the arguments of a compression, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mipprune._support.checks import (
    require_callable,
    require_choice,
    require_flag,
    require_integer,
    require_iterable,
    require_number,
    require_path,
    require_time_limit,
)
from mipprune.graph import require_groups, require_network

__all__ = ["check_compress_arguments", "check_options"]


def check_compress_arguments(
    model: object,
    batches: object,
    latency_terms: object,
    out: object,
    resume: object,
    groups: object,
    forward: object,
    log: object,
) -> None:
    """Refuse wrong types by name."""
    require_network(model)
    require_iterable("batches", batches, "a list of batches or a data loader")
    require_iterable("latency_terms", latency_terms, "what LatencyTable.terms(groups) gives")
    if out is not None:
        require_path("out", out, "folder")
    require_flag("resume", resume)
    require_flag("log", log)
    if groups is not None:
        require_groups(groups)
    if forward is not None:
        require_callable("forward", forward, "a function (model, batch)")


def check_options(options: Any, weightings: Sequence[str]) -> None:
    """Refuse settings of a compression that make no sense."""
    require_number("damping", options.damping, at_least=0)
    require_choice("weighting", options.weighting, weightings)
    require_integer("most_widths", options.most_widths, at_least=2)
    require_time_limit(options.time_limit)
    require_number("gap", options.gap, at_least=0)
    if options.patches is not None:
        require_integer("patches", options.patches, at_least=1, alternative="or None")
    require_integer("jobs", options.jobs, at_least=1)
    require_integer("seed", options.seed, at_least=0)
    for entry in fields(options):
        if isinstance(entry.default, bool):
            require_flag(entry.name, getattr(options, entry.name))
