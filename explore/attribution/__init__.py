"""What an encoder looks at: captum's maps of one number an image, which we name.

A target is a function `images -> one number an image`, as an objective is: `similarity` to a reference view, a head's `logit`, the
contrastive loss (an `ex.contrast`), or your own. The map says how much every pixel of an image adds to that image's number.
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
