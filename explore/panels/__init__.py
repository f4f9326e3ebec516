"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`."""

from .base import Panel
from .perturbation import Perturbation

__all__ = ["Panel", "Perturbation"]
