"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`, `.Probe(run_a, run_b)`."""

from .base import Panel
from .perturbation import Perturbation
from .probe import Probe
from .seen import WhatItSees
from .sweep import FourAttacks, NoiseOrAdversary

__all__ = ["FourAttacks", "NoiseOrAdversary", "Panel", "Perturbation", "Probe", "WhatItSees"]
