"""Predictions of a classifier on a test set, and two classifiers compared image by image."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from .base import SavedResult

Z95 = 1.959964


def wilson(share: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share measured on n trials (95 % by default)."""
    centre, spread = share + z * z / (2 * n), z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


@dataclass(frozen=True)
class Scores(SavedResult):
    """A probe's prediction for every test image. CPU tensors."""

    called = "saved scores"
    labels: Tensor  # (n,) true classes
    ranked: Tensor  # (n, min(5, C)) predicted classes, the surest first
    confidence: Tensor  # (n,) probability given to the first
    classes: tuple[str, ...]  # names of the C classes
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of test images."""
        return len(self.labels)

    @property
    def predicted(self) -> Tensor:
        """(n,) the class that each image was taken for."""
        return self.ranked[:, 0]

    @property
    def right(self) -> Tensor:
        """(n,) bool: which images were taken for what they are."""
        return self.predicted == self.labels

    @property
    def top1(self) -> float:
        """Share of images whose first guess is right."""
        return float(self.right.double().mean())

    @property
    def top5(self) -> float:
        """Share of images whose class is among the first five guesses."""
        return float((self.ranked == self.labels[:, None]).any(1).double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of top-1 over the n test images."""
        return wilson(self.top1, self.n)

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C) counts: row the true class, column what it was taken for."""
        c = len(self.classes)
        return torch.bincount(self.labels * c + self.predicted, minlength=c * c).view(c, c)

    @property
    def per_class(self) -> Tensor:
        """(C,) recall of every class; NaN where the test set has none of it."""
        counts = self.confusion.sum(1)
        return torch.where(counts > 0, self.confusion.diagonal() / counts.clamp_min(1), torch.nan).float()

    @property
    def mean_per_class(self) -> float:
        """Mean recall of the classes that the test set has: each class counts the same."""
        return float(self.per_class.nanmean())

    @property
    def mean_per_class_interval(self) -> tuple[float, float]:
        """95 % interval of the mean per class, by the classes' binomial variances."""
        counts = self.confusion.sum(1)
        present = counts > 0
        p, m = self.per_class[present].double(), counts[present].double()
        spread = Z95 * math.sqrt(float((p * (1 - p) / m).sum())) / len(p)
        return max(0.0, self.mean_per_class - spread), min(1.0, self.mean_per_class + spread)

    def cell(self, true: str | int, predicted: str | int) -> pd.DataFrame:
        """Test images of one cell of the confusion matrix, most confident first."""
        row, column = self._class(true), self._class(predicted)
        found = ((self.labels == row) & (self.predicted == column)).nonzero()[:, 0]
        found = found[self.confidence[found].argsort(descending=True, stable=True)]
        return pd.DataFrame({"image": found.numpy(), "confidence": self.confidence[found].numpy()})

    def _class(self, name: str | int) -> int:
        if isinstance(name, str) and name in self.classes:
            return self.classes.index(name)
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        raise UserError(f"There is no class '{name}'; the classes are {', '.join(self.classes)}.")

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per class: images, correct, recall with 95 % interval, main confusion."""
        rows = []
        for i, name in enumerate(self.classes):
            counts = self.confusion[i]
            n, right = int(counts.sum()), int(counts[i])
            low, high = wilson(right / n, n) if n else (math.nan, math.nan)
            others = counts.clone()
            others[i] = 0
            wrong = self.classes[int(others.argmax())] if int(others.max()) else ""
            rows.append((name, n, right, right / n if n else math.nan, low, high, wrong))
        table = pd.DataFrame(rows, columns=["class", "n", "right", "recall", "low", "high", "taken for"])
        table.attrs = dict(self.provenance)
        return table

    def __repr__(self) -> str:
        low, high = self.interval
        return f"<{100 * self.top1:.1f} % right [{100 * low:.1f}, {100 * high:.1f}] of {self.n:,}, {len(self.classes)} classes>"


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same images: McNemar's table, test and difference (B minus A)."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Scores, b: Scores) -> "Paired":
        """Compare two scores of one test set, image by image."""
        if a.n != b.n or not a.labels.equal(b.labels):
            raise UserError(
                f"Two scores are compared on the same test images in the same order; these have {a.n:,} and {b.n:,} "
                "images or other labels."
            )
        r, s = a.right, b.right
        return cls(int((r & s).sum()), int((r & ~s).sum()), int((~r & s).sum()), int((~r & ~s).sum()))

    @property
    def n(self) -> int:
        """Number of test images."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """B's share of right images minus A's."""
        return (self.only_b - self.only_a) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference (Agresti & Min 2005, half counts added)."""
        a, b, n = self.only_a + 0.5, self.only_b + 0.5, self.n + 2
        spread = Z95 * math.sqrt(a + b - (b - a) ** 2 / n) / n
        return (b - a) / n - spread, (b - a) / n + spread

    @property
    def p(self) -> float:
        """p of McNemar's exact test, two-sided; equals scipy.stats.binomtest."""
        from scipy.special import bdtr  # the binomial distribution alone; scipy.stats takes a second to import

        k, m = min(self.only_a, self.only_b), self.only_a + self.only_b
        return min(1.0, 2 * float(bdtr(k, m, 0.5)))
