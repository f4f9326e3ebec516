"""Batch mates: one picture of a batch is exchanged, and the perturbation of another changes."""
