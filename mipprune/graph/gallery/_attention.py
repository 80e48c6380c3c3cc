"""Placeholder."""

from collections.abc import Callable
from typing import Any

from torch import nn

MEMBERS: dict[str, dict[str, Callable[[], tuple[nn.Module, Any]]]] = {}
