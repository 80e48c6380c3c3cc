"""Our branch and bound: elimination tree, pairwise bounds, best-first frontier."""

from mipprune.solvers.branch_and_bound._solve import branch_and_bound

__all__ = ["branch_and_bound"]
