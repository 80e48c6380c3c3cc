"""Which channels are tied, what each costs, and their physical removal."""

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
from mipprune.graph.removal import RemovalCheck, mask_model, remove, verify_removal

__all__ = [
    "FROZEN",
    "Axis",
    "ChannelGroups",
    "CostTerm",
    "Family",
    "FrozenChannels",
    "Masks",
    "RemovalCheck",
    "SizeAttribute",
    "channel_groups",
    "default_rules",
    "mask_model",
    "remove",
    "verify_removal",
]
