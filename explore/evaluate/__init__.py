"""How good an encoder is, judged as the field does: probe, neighbours, robustness, transfer."""

from .features import embed
from .neighbours import KNN, knn_accuracy

__all__ = ["KNN", "embed", "knn_accuracy"]
