"""What the output projection of ``torch.nn.MultiheadAttention`` reads.

The module hands the weights of ``out_proj`` to a function instead of calling
it, so a hook there sees nothing. Its input is the module's own output with the
identity as projection.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["attention_of", "heads_of"]

PROJECTION = "out_proj"


def attention_of(model: nn.Module, layer: str) -> nn.MultiheadAttention | None:
    """The attention module that computes with ``layer`` instead of calling it, if there is one."""
    parent, _, name = layer.rpartition(".")
    if name != PROJECTION:
        return None
    module = model.get_submodule(parent)
    if not isinstance(module, nn.MultiheadAttention):
        return None
    # Subclasses with a forward of their own call the projection.
    return module if type(module).forward is nn.MultiheadAttention.forward else None


def heads_of(
    module: nn.MultiheadAttention, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """Outputs of all heads side by side, in the shape of the module's output.

    Parameters
    ----------
    module : torch.nn.MultiheadAttention
    args, kwargs
        Of the call; ``need_weights`` is set to False.
    """
    weight = module.out_proj.weight
    identity = {"out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
    if module.out_proj.bias is not None:
        identity["out_proj.bias"] = torch.zeros_like(module.out_proj.bias)
    positional = list(args)
    keywords = dict(kwargs)
    # The fifth argument of the call; the averaged weights are of no use here.
    if len(positional) > 4:
        positional[4] = False
    else:
        keywords["need_weights"] = False
    output, _ = torch.func.functional_call(module, identity, tuple(positional), keywords)
    assert isinstance(output, Tensor)
    return output
