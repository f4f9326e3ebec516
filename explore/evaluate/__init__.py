"""How good an encoder is, judged as the field does: probe, neighbours, robustness, transfer."""

from .encoders import open_encoder
from .features import embed
from .knn import KNN, knn_accuracy
from .own import run_of
from .probe import Probe, take_labels
from .robust import robust_accuracy
from .transfer import transfer

__all__ = [
    "KNN",
    "Probe",
    "embed",
    "knn_accuracy",
    "open_encoder",
    "robust_accuracy",
    "run_of",
    "take_labels",
    "transfer",
]
