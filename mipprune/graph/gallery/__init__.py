"""Small networks, one for each way in which channels can be tied.

``python -m mipprune.graph.gallery`` finds the groups of every network, removes
random channels group by group and all together, compares, and prints the table
of ``docs/graph.md``: a check of this library against the installed torch.
"""

from mipprune.graph.gallery._registry import STRUCTURES, Structure, examine

__all__ = ["STRUCTURES", "Structure", "examine"]
