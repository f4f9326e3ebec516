"""A batch of images, what an adversary and noises add to it, and what that does to an encoder."""

import base64
import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .base import Check, SavedResult

KINDS = ("adversary", "gaussian", "uniform", "sign")  # what can be added to an image, in the order of every table


@dataclass(frozen=True)
class Perturbation(SavedResult):
    """A batch under an adversary and three noises at one eps, and the effect on an encoder.

    CPU tensors. Rows of `loss`, `cosine` and `neighbours`: 'clean', then `KINDS` in order.
    """

    called = "a saved perturbation"
    x: Tensor  # (n, 3, h, w) clean images in [0, 1]
    perturbed: dict[str, Tensor]  # kind -> (n, 3, h, w) in [0, 1]
    eps: float  # pixel units, k/255
    attack: str  # 'fgsm', 'pgd', ...
    match: str  # 'linf' or 'l2': which length the noises share with the adversary
    direction: Tensor  # (n, 3, h, w) in [-1, 1]: sign of the gradient for a single step, delta / eps otherwise
    share: Tensor  # (n,) the positive pair's share of the gradient's L2 norm at the clean image, 0 to 1
    loss: Tensor  # (5, n) contrastive loss, nats
    cosine: Tensor  # (5, n) cosine of the features h to the clean image's
    neighbours: Tensor  # (5, n, 5) nearest images of the pool, by cosine of h
    index: Tensor  # (n,) place of every image in its split
    labels: Tensor  # (n,)
    classes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def x_adv(self) -> Tensor:
        """The adversary's images (n, 3, h, w)."""
        return self.perturbed["adversary"]

    @property
    def delta(self) -> Tensor:
        """What the adversary added (n, 3, h, w), in pixel units."""
        return self.x_adv - self.x

    def pixels(self, kind: str = "adversary") -> np.ndarray:
        """The images of a kind as shown on a screen: uint8 (n, h, w, 3)."""
        return to_pixels(self.x if kind == "clean" else self.perturbed[kind])

    def kept(self) -> Tensor:
        """How many of the clean image's nearest neighbours remain, (5, n)."""
        return (self.neighbours[:, :, :, None] == self.neighbours[:1, :, None, :]).any(3).sum(2)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per image and kind: loss, change (nats), lengths (pixels), cosine, kept."""
        n, rows, kept = len(self.x), ("clean", *KINDS), self.kept()
        deltas = [torch.zeros_like(self.x), *(self.perturbed[kind] - self.x for kind in KINDS)]
        columns = {
            "image": np.tile(self.index.numpy(), len(rows)),
            "label": [self.classes[y] if 0 <= y < len(self.classes) else str(y) for y in self.labels.tolist()]
            * len(rows),
            "kind": np.repeat(rows, n),
            "loss": self.loss.flatten().numpy(),
            "change": (self.loss - self.loss[:1]).flatten().numpy(),
            "linf": torch.cat([d.flatten(1).abs().amax(1) for d in deltas]).numpy(),
            "l2": torch.cat([d.flatten(1).norm(dim=1) for d in deltas]).numpy(),
            "cosine": self.cosine.flatten().numpy(),
            "kept": kept.flatten().numpy(),
            "neighbours": [tuple(row) for row in self.neighbours.flatten(0, 1).tolist()],
        }
        table = pd.DataFrame(columns)
        table.attrs = dict(self.provenance)
        return table


def to_pixels(x: Tensor) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1] to uint8 (n, h, w, c), rounded half up as pixels.js does."""
    return (x.float() * 255 + 0.5).floor().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def png(pixels: np.ndarray) -> str:
    """A uint8 image (h, w, 3), or (h, w, 4) with transparency, as the data URI of a PNG."""
    from PIL import Image

    gray = pixels.shape[2] == 3 and bool((pixels == pixels[:, :, :1]).all())
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if gray else pixels).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
