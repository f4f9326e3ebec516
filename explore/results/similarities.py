"""Two views of every image of a batch, the cosines of their embeddings, and their weights."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from .base import Check, SavedResult


@dataclass(frozen=True)
class Similarities(SavedResult):
    """Cosines of a batch's 2n views, and the share of NT-Xent's gradient that each pair has.

    CPU tensors. Rows 0 .. n - 1 are first views, rows n .. 2n - 1 second views; the positive of row
    i is the other view of the same image, all others are its negatives.
    """

    called = "saved similarities"
    x: Tensor  # (n, c, h, w) the images, in [0, 1]
    views: Tensor  # (2n, 3, s, s) in [0, 1]
    boxes: Tensor  # (2n, 4) each view's crop as fractions of the image: top, left, height, width
    flips: Tensor  # (2n,) bool: the view is mirrored
    cosine: Tensor  # (2n, 2n) of the projections z
    temperature: float
    index: Tensor  # (n,) place of every image in its split, -1 for a file of one's own
    labels: Tensor  # (n,) class, -1 where there is none
    classes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def at(self, temperature: float) -> "Similarities":
        """The same cosines at another temperature."""
        if not temperature > 0:
            raise UserError(f"temperature must be above 0, got {temperature}; 0.5 is SimCLR's value for CIFAR.")
        return replace(self, temperature=temperature)

    @property
    def positive(self) -> Tensor:
        """Row of every view's positive, (2n,)."""
        return torch.arange(len(self.cosine)).roll(len(self.x))

    @property
    def negative(self) -> Tensor:
        """Where row i and column j are a negative pair, (2n, 2n) bool."""
        m = len(self.cosine)
        return ~torch.eye(m, dtype=torch.bool).scatter(1, self.positive[:, None], True)

    @cached_property
    def weights(self) -> Tensor:
        """Softmax over every row's candidates, (2n, 2n); rows sum to 1, the diagonal is 0.

        NT-Xent's derivative by the logit of a negative is its weight, by that of the positive its
        weight minus 1: the weights of the negatives are what they push with.
        """
        itself = torch.eye(len(self.cosine), dtype=torch.bool)
        return (self.cosine / self.temperature).masked_fill(itself, -math.inf).softmax(dim=1)

    @property
    def loss(self) -> Tensor:
        """NT-Xent of every row, (2n,), in nats; its mean is the loss of the batch."""
        itself = torch.eye(len(self.cosine), dtype=torch.bool)
        logits = (self.cosine / self.temperature).masked_fill(itself, -math.inf)
        return logits.logsumexp(dim=1) - logits.gather(1, self.positive[:, None])[:, 0]

    def hardest(self, i: int, most: int | None = None) -> Tensor:
        """Rows of view i's negatives, the most similar first."""
        order = self.cosine[i].masked_fill(~self.negative[i], -math.inf).argsort(descending=True, stable=True)
        return order[: len(order) - 2][:most]

    def carried(self, share: float = 0.1) -> float:
        """Part of the negatives' weight that the hardest `share` of them has, mean over rows."""
        own = self.weights * self.negative
        top = max(1, round(share * (len(own) - 2)))
        return float((own.topk(top, dim=1).values.sum(1) / own.sum(1)).mean())

    def same_class(self, top: int = 5) -> tuple[float, float]:
        """Share of negatives with the anchor's class: among the `top` hardest, and among all.

        The second is what chance would give; images without a class are left out. NaN without any.
        """
        y = torch.cat([self.labels, self.labels])
        known = (y >= 0)[:, None] & (y >= 0) & self.negative
        same = (y[:, None] == y) & known
        if not bool(known.any()):
            return math.nan, math.nan
        top = min(top, int(known.sum(1).max()))
        near = self.cosine.masked_fill(~known, -math.inf).topk(top, dim=1).indices[y >= 0]
        return float(same[y >= 0].gather(1, near).double().mean()), float(same.sum() / known.sum())

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per view: loss (nats), cosine and weight of positive and hardest negative."""
        positive, first = self.positive, torch.stack([self.hardest(i, 1)[0] for i in range(len(self.cosine))])
        n = len(self.x)
        name = [self.classes[y] if 0 <= y < len(self.classes) else "" for y in self.labels.tolist()] * 2

        def of(values: Tensor, rows: Tensor) -> Any:
            return values.gather(1, rows[:, None])[:, 0].numpy()

        columns = {
            "image": self.index.repeat(2).numpy(),
            "view": [1] * n + [2] * n,
            "label": name,
            "loss": self.loss.numpy(),
            "cosine_positive": of(self.cosine, positive),
            "weight_positive": of(self.weights, positive),
            "hardest": self.index.repeat(2)[first].numpy(),
            "cosine_hardest": of(self.cosine, first),
            "weight_hardest": of(self.weights, first),
            "same_class": [bool(a) and a == b for a, b in zip(name, (name[j] for j in first.tolist()), strict=True)],
        }
        table = pd.DataFrame(columns)
        table.attrs = dict(self.provenance)
        return table
