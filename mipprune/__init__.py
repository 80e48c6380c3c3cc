"""Mixed-integer optimisation for structured pruning of neural networks."""
