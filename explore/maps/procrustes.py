"""Procrustes alignment of two maps, point by point."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError


class Alignment(NamedTuple):
    """Rotation, reflection, scale and shift that align one map with another."""

    matrix: np.ndarray  # (2, 2), scaled orthogonal
    before: np.ndarray  # (2,) centre that is taken away
    after: np.ndarray  # (2,) centre that is added
    residual: float  # share of the first map's spread that stays unexplained, 0 (same shape) to 1

    def __call__(self, xy: Tensor) -> Tensor:
        """Positions (..., 2) in the first map's frame."""
        moved = (xy.double().numpy() - self.before) @ self.matrix + self.after
        return torch.from_numpy(moved).float()


def procrustes(a_xy: Tensor, b_xy: Tensor) -> Alignment:
    """Orthogonal Procrustes with scale, b's points (n, 2) onto a's: least squares over pairs."""
    from scipy.linalg import orthogonal_procrustes

    if a_xy.shape != b_xy.shape or a_xy.dim() != 2:
        raise UserError(
            f"Two maps are aligned point by point, got {tuple(a_xy.shape)} and {tuple(b_xy.shape)}; make both of the same images."
        )
    a, b = a_xy.double().numpy(), b_xy.double().numpy()
    a_mean, b_mean = a.mean(0), b.mean(0)
    a, b = a - a_mean, b - b_mean
    size_a, size_b = float((a**2).sum()), float((b**2).sum())
    if not size_a > 0 or not size_b > 0:
        raise UserError("A map whose points are all in one place cannot be aligned; look at the encoder's features.")
    rotation, strength = orthogonal_procrustes(b, a)
    return Alignment(rotation * (strength / size_b), b_mean, a_mean, 1 - float(strength) ** 2 / (size_a * size_b))


def aligned(a_xy: Tensor, b_xy: Tensor) -> tuple[Tensor, float]:
    """b's points (n, 2) aligned with a's, and the residual (0 same shape to 1)."""
    turn = procrustes(a_xy, b_xy)
    return turn(b_xy), turn.residual
