"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`, `.Atlas(run)`, `.Probe(run_a, run_b)`."""

from .atlas import Atlas
from .base import Panel
from .perturbation import Perturbation
from .probe import Probe
from .scorecard import Scorecard
from .seen import WhatItSees
from .sweep import FourAttacks, NoiseOrAdversary

__all__ = ["Atlas", "FourAttacks", "NoiseOrAdversary", "Panel", "Perturbation", "Probe", "Scorecard", "WhatItSees"]
