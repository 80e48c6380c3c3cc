"""Torch's fused transformer layers, which call no module and read weights past ``forward``."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["plain_attention"]


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused layers meanwhile: hooks are called and masked weights are used."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
