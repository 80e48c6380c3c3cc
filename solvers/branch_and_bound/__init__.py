"""Our branch and bound: elimination tree, pairwise bounds, best-first frontier."""

from mipprune.solvers.branch_and_bound._solve import branch_and_bound
from mipprune.solvers.branch_and_bound._tree import branch_and_bound_tree

__all__ = ["branch_and_bound", "branch_and_bound_tree"]
