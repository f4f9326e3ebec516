"""One picture's perturbation before and after another picture of its batch was exchanged."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .base import Check, SavedResult

COUPLINGS = (("contrastive", "eval"), ("contrastive", "train"), ("positive alone", "eval"), ("positive alone", "train"))


@dataclass(frozen=True)
class BatchMates(SavedResult):
    """Gradients at one image, the anchor, with a batch mate and with another in its place.

    CPU tensors. Rows of `before` and `after` are `COUPLINGS`: the loss that is attacked, and the
    mode of the network's batch norms. 'positive alone' is minus the cosine to the other view over
    the temperature, without negatives.
    """

    called = "saved batch mates"
    x: Tensor  # (n, c, h, w) the batch before the exchange, in [0, 1]
    new: Tensor  # (c, h, w) what takes the mate's place
    anchor: int
    mate: int
    before: Tensor  # (4, c, h, w) gradient of the batch's summed loss at the anchor
    after: Tensor  # (4, c, h, w)
    loss: Tensor  # (2, 4) the anchor's own loss before and after, nats (positive alone: -cosine / temperature)
    gray: bool  # perturbations stay gray: the channels' gradients are summed
    index: Tensor  # (n,) place of every image in its split
    labels: Tensor  # (n,)
    classes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def signs(self) -> Tensor:
        """FGSM's directions (2, 4, c, h, w): before and after; c is 1 where they stay gray."""
        both = torch.stack([self.before, self.after])
        return (both.sum(2, keepdim=True) if self.gray else both).sign()

    @cached_property
    def differs(self) -> Tensor:
        """Share of the anchor's pixels whose sign is another after the exchange, (4,)."""
        before, after = self.signs
        return (before != after).flatten(1).float().mean(1)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine of the two gradients, (4,)."""
        return torch.cosine_similarity(self.before.flatten(1), self.after.flatten(1), dim=1)

    @property
    def table(self) -> pd.DataFrame:
        """One row per loss and mode: share of signs that differ, cosine, losses."""
        rows = {
            "loss": [loss for loss, _ in COUPLINGS],
            "mode": [mode for _, mode in COUPLINGS],
            "signs_differ": self.differs.numpy(),
            "cosine": self.cosine.numpy(),
            "loss_before": self.loss[0].numpy(),
            "loss_after": self.loss[1].numpy(),
        }
        table = pd.DataFrame(rows)
        table.attrs = dict(self.provenance)
        return table
