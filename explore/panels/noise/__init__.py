"""Noise or adversary: `source` has the rows, `points` their selection, `verdicts` the sentence about them, `missing` trainings in the
background; the other modules are the drawing.
"""

from .panel import FourAttacks, NoiseOrAdversary

__all__ = ["FourAttacks", "NoiseOrAdversary"]
