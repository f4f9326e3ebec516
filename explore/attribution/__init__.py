"""Attribution maps by captum: which pixels contribute to one number per image.

A target is a function `images -> one number per image`, like an objective: `similarity` to a
reference view, a head's `logit`, the contrastive loss (`ex.contrast`), or your own. The map says
how much every pixel of an image contributes to that image's number.
"""

from .attributing import BASELINES, METHODS, attribute, baseline_of
from .layers import feature_layers
from .targets import Target, logit, own_loss, similarity

__all__ = [
    "BASELINES",
    "METHODS",
    "Target",
    "attribute",
    "baseline_of",
    "feature_layers",
    "logit",
    "own_loss",
    "similarity",
]
