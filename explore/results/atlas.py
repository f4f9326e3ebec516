"""Images in one fixed map at every eps, with measures of what the map does not show."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from .base import SavedResult

FIGURES = ("kept", "moved", "knn", "loss", "trustworthiness", "alignment", "uniformity")


@dataclass(frozen=True, eq=False)
class Atlas(SavedResult):
    """One encoder, its images under one attack and Gaussian noise, in a fixed map.

    E eps (ascending, the first 0), n images; the noise's std is eps. `figures`: one row per eps and
    kind ('adversary', 'gaussian'): k; the means of kept, moved and loss; knn (class by the ten
    nearest clean images); trustworthiness of the map's neighbours; alignment of the projections
    with the reference view's, and their uniformity.
    """

    called = "a saved atlas"
    eps: tuple[float, ...]  # pixel units
    attack: str  # 'fgsm', ...
    method: str  # the map: 'pca' or 'umap'
    xy: Tensor  # (E, n, 2); xy[0] is the map of the clean images
    xy_control: Tensor  # (E, n, 2) Gaussian noise in the same map
    index: Tensor  # (n,) place of every image in its split
    labels: Tensor  # (n,) class, -1 where there is none
    moved: Tensor  # (E, n) 1 - cosine of h to the clean image's
    kept: Tensor  # (E, n) share of the 10 nearest clean images kept
    loss: Tensor  # (E, n) contrastive loss, nats
    right: Tensor  # (E, n) 1 where the probe is right, 0 where not, NaN where there is no probe or no label
    figures: pd.DataFrame
    classes: tuple[str, ...] = ()
    vendor: Tensor | None = None  # (n,) a second label, where the set has one (emoji)
    vendors: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def ks(self) -> tuple[float, ...]:
        """The eps as k of k/255."""
        return tuple(round(e * 255, 6) for e in self.eps)

    def frame(self, k: float, control: bool = False) -> Tensor:
        """Positions (n, 2) at eps = k/255, linearly interpolated between measured eps."""
        frames, ks = self.xy_control if control else self.xy, self.ks
        if not ks[0] <= k <= ks[-1]:
            raise UserError(f"The film goes from {ks[0]:g}/255 to {ks[-1]:g}/255, got {k:g}/255.")
        j = max(i for i, each in enumerate(ks) if each <= k)
        if ks[j] == k:
            return frames[j]
        share = (k - ks[j]) / (ks[j + 1] - ks[j])
        return torch.lerp(frames[j], frames[j + 1], share)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per image and eps: its position in the map, and how its features changed."""
        e, n = self.moved.shape
        names = [self.classes[y] if 0 <= y < len(self.classes) else "" for y in self.labels.tolist()]
        columns: dict[str, Any] = {
            "image": np.tile(self.index.numpy(), e),
            "label": np.tile(self.labels.numpy(), e),
            "class": names * e,
        }
        if self.vendor is not None:
            columns["vendor"] = [self.vendors[v] for v in self.vendor.tolist()] * e
        columns |= {"eps": np.repeat(self.eps, n), "k": np.repeat(self.ks, n)}
        columns |= {"x": self.xy[..., 0].flatten().numpy(), "y": self.xy[..., 1].flatten().numpy()}
        columns |= {name: getattr(self, name).flatten().numpy() for name in ("moved", "kept", "loss", "right")}
        table = pd.DataFrame(columns)
        table.attrs = dict(self.provenance)
        return table
