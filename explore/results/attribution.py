"""Signed attribution maps for clean images, perturbed images and randomised weights."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .base import Check, SavedResult

TOP = 0.1  # share of the pixels that `top_share` looks at


@dataclass(frozen=True)
class Attribution(SavedResult):
    """How much every pixel of n images contributes to one number per image. CPU tensors."""

    called = "a saved attribution"
    x: Tensor  # (n, c, h, w) the images, in [0, 1]
    channels: Tensor  # (n, c or 1, h, w) signed, in the number's unit (saliency: per unit of pixel)
    value: Tensor  # (n,) the number at x
    at_baseline: Tensor  # (n,) the number at the baseline
    delta: Tensor | None  # (n,) sum of the map - (value - at_baseline); None where the method promises no such sum
    method: str
    target: str  # what the number is, in words
    layer: str = ""  # GradCAM's
    baseline: str = ""  # 'black', 'mean', 'blur', 'images'; '' where the method has none
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def maps(self) -> Tensor:
        """Signed maps (n, h, w): the sum over channels (the chain rule for gray images)."""
        return self.channels.sum(1)

    @property
    def error(self) -> Tensor:
        """Completeness delta relative to value - at_baseline, (n,); NaN if the method has none."""
        if self.delta is None:
            return torch.full_like(self.value, torch.nan)
        return self.delta.abs() / (self.value - self.at_baseline).abs().clamp_min(1e-12)

    @property
    def table(self) -> pd.DataFrame:
        """One row per image: number, at the baseline, map's sum, delta, top 10 % share."""
        maps = self.maps
        columns = {
            "value": self.value,
            "at_baseline": self.at_baseline,
            "sum": maps.flatten(1).sum(1),
            "delta": torch.full_like(self.value, torch.nan) if self.delta is None else self.delta,
            "error": self.error,
            "top": top_share(maps),
        }
        table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
        table.attrs = {"method": self.method, "target": self.target, "baseline": self.baseline, **self.provenance}
        return table


@dataclass(frozen=True)
class Seen(SavedResult):
    """Maps of clean and of perturbed images, and of the clean ones with randomised weights."""

    called = "a saved pair of attributions"
    clean: Attribution
    perturbed: Attribution
    randomised: (
        Attribution  # the clean images, the network's weights drawn anew (Adebayo et al. 2018, arXiv:1810.03292)
    )
    eps: float  # pixel units, k/255
    attack: str
    index: Tensor  # (n,) place of every image in its split
    labels: Tensor  # (n,)
    classes: tuple[str, ...] = ()
    reference: Tensor | None = None  # (n, c, h, w) the other views
    checks: tuple[Check, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def correlation(self) -> Tensor:
        """Spearman's rank correlation of the clean and the perturbed map, (n,)."""
        return rank_correlation(self.clean.maps, self.perturbed.maps)

    @cached_property
    def sanity(self) -> Tensor:
        """Rank correlation (n,) of clean and randomised-weights maps: near 0 is good."""
        return rank_correlation(self.clean.maps, self.randomised.maps)

    @cached_property
    def sanity_size(self) -> Tensor:
        """The same for absolute values, (n,); an image's outline can keep it high."""
        return rank_correlation(self.clean.maps.abs(), self.randomised.maps.abs())

    def row(self, i: int) -> "Seen":
        """Image i by itself."""

        def part(value: Any) -> Any:
            if isinstance(value, Attribution):
                return replace(value, **{each.name: part(getattr(value, each.name)) for each in fields(value)})
            return value[i : i + 1] if isinstance(value, Tensor) else value

        return replace(self, **{each.name: part(getattr(self, each.name)) for each in fields(self)})

    def scale(self, i: int) -> float:
        """Largest absolute value of image i's clean and perturbed maps: their colour scale."""
        return float(torch.stack([self.clean.maps[i], self.perturbed.maps[i]]).abs().max()) or 1.0

    @cached_property
    def table(self) -> pd.DataFrame:
        """`Attribution.table` per image and kind, with the rank correlation to the clean map."""
        n = len(self.index)
        found = {"clean": (self.clean, torch.ones(n)), "perturbed": (self.perturbed, self.correlation)}
        found["randomised"] = (self.randomised, self.sanity)
        parts = []
        for kind, (maps, to_clean) in found.items():
            name = [self.classes[y] if 0 <= y < len(self.classes) else str(y) for y in self.labels.tolist()]
            head = pd.DataFrame({"image": self.index.numpy(), "label": name, "kind": kind})
            parts.append(pd.concat([head, maps.table.assign(to_clean=to_clean.numpy())], axis=1))
        table = pd.concat(parts, ignore_index=True)
        table.attrs = dict(self.provenance)
        return table


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation (n,) of pairs of maps (n, h, w); NaN if one is constant."""
    ranks = [torch.tensor(pd.DataFrame(m.flatten(1).T.double().numpy()).rank().to_numpy()) for m in (a, b)]
    u, v = (r - r.mean(0) for r in ranks)
    return ((u * v).sum(0) / (u.square().sum(0) * v.square().sum(0)).sqrt()).float()


def top_share(maps: Tensor, share: float = TOP) -> Tensor:
    """Fraction (n,) of a map's absolute values in its top `share` of pixels; `share` if even."""
    size = maps.flatten(1).abs().double()
    top = max(1, round(share * size.shape[1]))
    return (size.topk(top, dim=1).values.sum(1) / size.sum(1).clamp_min(1e-300)).float()
