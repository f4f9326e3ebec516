"""The perturbation lab."""
