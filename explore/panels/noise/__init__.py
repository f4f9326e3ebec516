"""The noise-or-adversary panel: `supply` brings the rows, `points` says what is shown, `verdicts` what was found, the rest draws and orders."""

from .four import FourAttacks
from .panel import NoiseOrAdversary

__all__ = ["FourAttacks", "NoiseOrAdversary"]
