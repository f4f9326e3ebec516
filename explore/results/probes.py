"""Encoders compared by linear probes on one test set."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from .base import Check, SavedResult
from .perturbation import to_pixels
from .scores import Paired, Scores

TESTS = ("clean", "attacked", "noise")  # what the test images are
CURVE = ("encoder", "share", "labels", "seed", "l2", "accuracy", "low", "high", "n")


@dataclass(frozen=True)
class Cell:
    """The test images of one true class that a probe took for one class, the surest first."""

    table: (
        pd.DataFrame
    )  # image (place in the split), true, predicted, confidence, and other_right where two are compared
    encoder: str  # whose probe
    of: int  # test images of the true class
    seen: Tensor | None = None  # (m, c, h, w) uint8, the images as the probe saw them; None: as the split has them

    def __len__(self) -> int:
        return len(self.table)

    def pixels(self, split: Any, rows: slice = slice(None)) -> np.ndarray:
        """Images as the probe saw them: uint8 (m, h, w, 3). `split`: the test split."""
        if self.seen is not None:
            return self.seen[rows].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
        return to_pixels(split[torch.as_tensor(self.table["image"].to_numpy()[rows].copy())][0])


@dataclass(frozen=True)
class ProbeComparison(SavedResult):
    """Probes on one encoder, or on two with the same labels, and their test predictions."""

    called = "a saved comparison of probes"
    a: Scores
    b: Scores | None
    names: tuple[str, ...]  # of the encoders: 'SimCLR', 'CLAE'
    share: float  # of the labels
    labels: int  # training images whose label was used ...
    train: int  # ... of so many
    seed: int  # of the draw of labels
    features: str  # 'h' or 'z'
    test: str  # one of TESTS
    eps: float  # pixel units; 0 where clean
    l2: tuple[float, ...]
    index: Tensor  # (n,) place of every test image in its split
    curve: pd.DataFrame  # columns CURVE: clean accuracy by share of labels, one row an encoder, share and draw
    seen: dict[str, Tensor] = field(default_factory=dict)  # 'a', 'b' -> (n, c, h, w) uint8; empty where clean
    checks: tuple[Check, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[Scores, ...]:
        """One or two."""
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.a.classes

    @cached_property
    def paired(self) -> Paired | None:
        """B against A, image by image; None for a single encoder."""
        return None if self.b is None else Paired.of(self.a, self.b)

    def differences(self) -> dict[int, float]:
        """B's clean accuracy minus A's at this share of labels, by draw of labels (seed)."""
        if self.b is None:
            return {}
        here = self.curve[(self.curve.share - self.share).abs() < 1e-9]
        wide = here.pivot(index="seed", columns="encoder", values="accuracy")
        if not set(self.names) <= set(wide.columns):
            return {}
        found = (wide[self.names[1]] - wide[self.names[0]]).dropna()
        return {int(seed): float(value) for seed, value in found.items()}  # type: ignore[call-overload]

    def cell(self, true: str | int, predicted: str | int, encoder: str | None = None) -> Cell:
        """Images of class `true` predicted as `predicted`. `encoder`: 'a', 'b', a name.

        `other_right` says whether the other encoder's probe is right.
        """
        which = self._which(encoder)
        own, other = self.scores[which], self.scores[1 - which] if self.b is not None else None
        table = own.cell(true, predicted)
        rows = torch.from_numpy(table["image"].to_numpy().copy())
        table["image"] = self.index[rows].numpy()
        for j, (name, value) in enumerate((("true", true), ("predicted", predicted)), 1):
            table.insert(j, name, self.classes[value] if isinstance(value, int) else value)
        if other is not None:
            table["other_right"] = other.right[rows].numpy()
        of = int((own.labels == own._class(true)).sum())
        seen = self.seen.get("ab"[which])
        return Cell(table, self.names[which], of, None if seen is None else seen[rows])

    def _which(self, encoder: str | None) -> int:
        known = {**{name: i for i, name in enumerate(self.names)}, "a": 0, **({"b": 1} if self.b is not None else {})}
        if encoder is None:
            return len(self.names) - 1
        if encoder not in known:
            raise UserError(f"There is no encoder '{encoder}' here; say {' or '.join(known)}.")
        return known[encoder]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Classes ordered so that confusions of all encoders form blocks."""
        return blocks(sum((s.confusion for s in self.scores[1:]), self.a.confusion))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per encoder: accuracy, interval, top-5, mean per class; then B − A."""
        rows = []
        for name, s, l2 in zip(self.names, self.scores, self.l2, strict=True):
            rows.append((name, s.top1, *s.interval, s.top5, s.mean_per_class, s.n, self.labels, l2))
        if self.paired is not None and self.b is not None:
            p, low, high = self.paired, *self.paired.interval
            top5, mean = self.b.top5 - self.a.top5, self.b.mean_per_class - self.a.mean_per_class
            rows.append(
                (f"{self.names[1]} − {self.names[0]}", p.difference, low, high, top5, mean, p.n, self.labels, np.nan)
            )
        names = ["encoder", "accuracy", "low", "high", "top5", "mean_per_class", "n", "labels", "l2"]
        table = pd.DataFrame(rows, columns=names)
        table.attrs = dict(self.provenance)
        return table

    def __repr__(self) -> str:
        parts = [f"{name} {100 * s.top1:.1f} %" for name, s in zip(self.names, self.scores, strict=True)]
        return f"<{', '.join(parts)} of {self.a.n:,} right, probes on {self.labels:,} labels>"

    @classmethod
    def upgrade(cls, arrays: dict[str, Tensor], rest: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Before, classes and the scores' provenance stood beside the scores."""
        if "own" in rest:
            classes = rest.pop("classes")
            about = zip("ab", rest.pop("own"), strict=False)
            rest |= {key: {"classes": classes, "provenance": own} for key, own in about}
        return arrays, rest


@dataclass(frozen=True)
class Selection(SavedResult):
    """One protocol, reported by several selection rules."""

    called = "a saved selection"
    table: pd.DataFrame  # rule, looks_at, accuracy (mean over draws), least, most, draws
    curve: pd.DataFrame  # seed, epoch, loss, test, half_a, half_b, held_out: accuracies after every epoch
    provenance: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, rule: str) -> float:
        """What a rule reports, mean over the draws of labels."""
        return float(self.table.set_index("rule").accuracy[rule])

    @property
    def optimism(self) -> float:
        """Best-epoch accuracy on half the test images minus the other half's, averaged."""
        gaps = []
        for _, part in self.curve.groupby("seed"):
            for own, other in (("half_a", "half_b"), ("half_b", "half_a")):
                best = part[own].idxmax()
                gaps.append(part.loc[best, own] - part.loc[best, other])
        return float(np.mean(gaps))

    @classmethod
    def upgrade(cls, arrays: dict[str, Tensor], rest: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Before, the columns of the curve were arrays."""
        return {}, {"curve": {name: values.tolist() for name, values in arrays.items()}} | rest


def curve_row(name: str, share: float, labels: int, seed: int, l2: float, scores: Scores) -> tuple:
    """One row of a curve over label shares, in the order of CURVE."""
    return (name, share, labels, seed, l2, scores.top1, *scores.interval, scores.n)


def curve_table(rows: Any) -> pd.DataFrame:
    """A curve from rows of `curve_row`, or from its own dictionary."""
    return pd.DataFrame(rows, columns=list(CURVE))


def blocks(confusion: Tensor) -> tuple[int, ...]:
    """An order of the classes in which those that are confused stand together.

    Groups are merged, those with the largest mean share of confusions first, and laid so that their
    most confused ends meet. confusion: (C, C) counts, rows the true class.
    """
    share = (confusion.double() / confusion.sum(1, keepdim=True).clamp_min(1)).numpy()
    near = share + share.T
    between, size, groups = near.copy(), np.ones(len(near)), {i: [i] for i in range(len(near))}
    np.fill_diagonal(between, -np.inf)
    while len(groups) > 1:
        i, j = sorted(np.unravel_index(int((between / np.outer(size, size)).argmax()), between.shape))
        own, other = groups[int(i)], groups.pop(int(j))
        ends = [(p, q) for p in (own, own[::-1]) for q in (other, other[::-1])]
        left, right = max(ends, key=lambda e: near[e[0][-1], e[1][0]])
        groups[int(i)] = left + right
        between[i] += between[j]
        between[:, i] = between[i]
        size[i] += size[j]
        between[j], between[:, j], between[i, i] = -np.inf, -np.inf, -np.inf
    return tuple(groups.popitem()[1])
