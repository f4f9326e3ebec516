"""Plain results of studies: frozen dataclasses with a `.table`, `.save(path)`, `.load(path)`; no pickle anywhere."""

from .perturbation import KINDS, Check, Perturbation, to_pixels
from .scores import Paired, Scores, wilson

__all__ = ["KINDS", "Check", "Paired", "Perturbation", "Scores", "to_pixels", "wilson"]
