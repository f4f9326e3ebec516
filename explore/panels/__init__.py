"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`, `.Probe(run_a, run_b)`, `.WhatItSees(run)`."""

from .base import Panel
from .perturbation import Perturbation
from .probe import Probe
from .seen import WhatItSees
from .sweep import NoiseOrAdversary

__all__ = ["NoiseOrAdversary", "Panel", "Perturbation", "Probe", "WhatItSees"]
