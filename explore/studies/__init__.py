"""Studies: one question each, from plain settings to `results`. No widget is imported here."""

from .perturb import GRID, Study, perturb, scale_l2, scale_linf

__all__ = ["GRID", "Study", "perturb", "scale_l2", "scale_linf"]
