"""Accuracy under attack and noise, at every eps."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from .base import Check, SavedResult
from .scores import wilson


@dataclass(frozen=True)
class Robustness(SavedResult):
    """Which test images are classified correctly under each attack at each eps. CPU tensors."""

    called = "a saved robustness curve"
    attacks: tuple[str, ...]  # names of attacks and noises, A of them
    eps: tuple[float, ...]  # pixel units, E of them, ascending
    right: Tensor  # (A, E, n) bool
    loss: Tensor  # (A, E, n) cross-entropy, nats
    index: Tensor  # (n,) place of every image in its split
    checks: tuple[Check, ...] = ()  # against gradient masking
    provenance: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, attack: str, eps: float) -> float:
        """Share of images that are still right."""
        e = min(range(len(self.eps)), key=lambda i: abs(self.eps[i] - eps))
        return float(self.right[self.attacks.index(attack), e].double().mean())

    @property
    def table(self) -> pd.DataFrame:
        """One row an attack and eps: accuracy with Wilson's 95 % interval, mean loss in nats, n."""
        n, rows = self.right.shape[2], []
        for a, name in enumerate(self.attacks):
            for e, eps in enumerate(self.eps):
                share = float(self.right[a, e].double().mean())
                low, high = wilson(share, n)
                rows.append((name, eps, round(eps * 255, 4), share, low, high, float(self.loss[a, e].mean()), n))
        table = pd.DataFrame(rows, columns=["attack", "eps", "k", "accuracy", "low", "high", "loss", "n"])
        table.attrs = dict(self.provenance)
        return table
