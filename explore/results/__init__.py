"""Results of studies: frozen dataclasses with `.table`, `.save(path)`, `.load(path)`."""

from .atlas import Atlas
from .attribution import Attribution, Seen
from .base import Check
from .batch_mates import BatchMates
from .comparisons import Family, detectable, holm, pooled_sd
from .perturbation import KINDS, Perturbation, png, to_pixels
from .probes import ProbeComparison, Selection
from .robust import Robustness
from .scorecard import Claim, Finding, Scorecard
from .scores import Paired, Scores, wilson
from .similarities import Similarities
from .sweep import Difference, Sweep
from .training import RunProgress, TrainingCurves
from .transfer import REBUTTAL, Transfer

__all__ = [
    "KINDS",
    "REBUTTAL",
    "Atlas",
    "Attribution",
    "BatchMates",
    "Check",
    "Claim",
    "Difference",
    "Family",
    "Finding",
    "Paired",
    "Perturbation",
    "ProbeComparison",
    "Robustness",
    "RunProgress",
    "Scorecard",
    "Scores",
    "Seen",
    "Selection",
    "Similarities",
    "Sweep",
    "TrainingCurves",
    "Transfer",
    "detectable",
    "holm",
    "png",
    "pooled_sd",
    "to_pixels",
    "wilson",
]
