"""Which channels are tied, what each costs, and their physical removal."""

from mipprune.graph._entry import require_groups, require_network
from mipprune.graph.budgets import BudgetReport, Budgets, Resource
from mipprune.graph.costs import CostState, CostTable
from mipprune.graph.counting import count_macs, count_parameters
from mipprune.graph.finder import channel_groups, default_rules
from mipprune.graph.groups import (
    FROZEN,
    Axis,
    ChannelGroups,
    CostTerm,
    Family,
    FrozenChannels,
    Masks,
    SizeAttribute,
)
from mipprune.graph.optimizer import carry_optimizer
from mipprune.graph.removal import RemovalCheck, mask_model, remove, verify_removal
from mipprune.graph.rounding import random_masks, round_by_score
from mipprune.graph.specification import restore, spec, untied_state

__all__ = [
    "FROZEN",
    "Axis",
    "BudgetReport",
    "Budgets",
    "ChannelGroups",
    "CostState",
    "CostTable",
    "CostTerm",
    "Family",
    "FrozenChannels",
    "Masks",
    "RemovalCheck",
    "Resource",
    "SizeAttribute",
    "carry_optimizer",
    "channel_groups",
    "count_macs",
    "count_parameters",
    "default_rules",
    "mask_model",
    "random_masks",
    "remove",
    "require_groups",
    "require_network",
    "restore",
    "round_by_score",
    "spec",
    "untied_state",
    "verify_removal",
]
