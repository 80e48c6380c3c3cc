"""Training: one loop and the methods that plug into it."""
