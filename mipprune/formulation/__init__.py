"""Pyomo formulations, one reformulation a file."""
