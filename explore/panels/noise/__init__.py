"""Noise or adversary: `source` gives the rows, `points` selects them, `verdicts` states the result, `missing` trains, the rest draws."""

from .panel import FourAttacks, NoiseOrAdversary

__all__ = ["FourAttacks", "NoiseOrAdversary"]
