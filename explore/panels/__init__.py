"""Panels: the only place that imports ipywidgets. `explore.panels.Perturbation(run)`, `.Atlas(run)`, `.Probe(run_a, run_b)`."""

from ..errors import extra

with extra("A panel"):
    from .atlas import Atlas
    from .attribution.panel import WhatItSees
    from .base import Panel
    from .batch_mates.panel import BatchMates
    from .noise import FourAttacks, NoiseOrAdversary
    from .perturbation.panel import Perturbation
    from .probe import Probe
    from .scorecard.panel import Scorecard
    from .training.panel import Training
    from .two_views.panel import TwoViews
    from .upload.panel import Upload

__all__ = [
    "Atlas",
    "BatchMates",
    "FourAttacks",
    "NoiseOrAdversary",
    "Panel",
    "Perturbation",
    "Probe",
    "Scorecard",
    "Training",
    "TwoViews",
    "Upload",
    "WhatItSees",
]
