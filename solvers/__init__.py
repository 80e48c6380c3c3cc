"""Solvers of the channel-selection program behind one :func:`solve`."""

from mipprune.solvers._dispatch import METHODS, features, methods_for, solve
from mipprune.solvers._features import Features

__all__ = ["METHODS", "Features", "features", "methods_for", "solve"]
