"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`, `.Atlas(run)`, `.Probe(run_a, run_b)`."""

from .atlas import Atlas
from .base import Panel
from .perturbation import Perturbation
from .probe import Probe
from .sweep import NoiseOrAdversary

__all__ = ["Atlas", "NoiseOrAdversary", "Panel", "Perturbation", "Probe"]
