"""Where do images go, in a fixed map of their embedding, as an adversary's eps grows?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets import Data, Split
from ..environment import environment
from ..errors import UserError
from ..evaluate import Probe, embed
from ..experiments.cell import images_of
from ..losses import alignment, uniformity
from ..maps import (
    METHODS,
    NEAREST,
    Projection,
    fit_map,
    kept_map,
    neighbours,
    overlap,
    procrustes,
    shared,
    trustworthiness,
    vote,
)
from ..results.atlas import FIGURES, Atlas
from ..runfolder import Run, open_run
from ..training import contrast_settings, resolve_device
from .trajectory import KINDS, Progress, Trajectory

LEAST = 2 * NEAREST + 1  # images: trustworthiness compares the neighbours with as many others
UNIFORM = 2000  # images that uniformity is measured on: it takes all pairs


class AtlasStudy(Trajectory):
    """A film's images in maps fitted on them as they are; in stages, each computed once.

    `features`, then `pca()` or `umap()`, then `frames_h`, then `atlas(method)`. UMAP stays on disk where the film's features do
    (`keep`). `probe`: a fitted one, or a function that fits one when it is first needed; it may be set later. All else is `Trajectory`'s.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: Split,
        *,
        images: int = 2000,
        method: str = "umap",
        n_neighbors: int = 15,
        min_dist: float = 0.1,
        probe: Probe | Callable[[], Probe] | None = None,
        classes: Sequence[str] = (),
        provenance: dict[str, Any] | None = None,
        **film: Any,
    ):
        if method not in METHODS:
            raise UserError(f"map is 'pca' or 'umap', got '{method}'.")
        there = min(images, len(split)) if isinstance(images, int) else images
        if not isinstance(there, int) or there < LEAST:
            raise UserError(
                f"An atlas shows {NEAREST} neighbours of every image, so it takes {LEAST} images or more, got {there}; "
                "take the training images of a small set."
            )
        super().__init__(encoder, split, images=images, **film)
        self.method, self.n_neighbors, self.min_dist = method, n_neighbors, min_dist
        self.probe, self.classes = probe, tuple(classes)
        self._maps: dict[tuple, Projection] = {}
        self._atlases: dict[tuple, Atlas] = {}
        self.provenance = {"study": "atlas", **self.provenance, **(provenance or {})}

    def has(self, method: str) -> bool:
        """True where this map, with the parameters as they are now, would answer at once."""
        return self._key(method) in self._maps

    def pca(self) -> Projection:
        """The linear map, at once."""
        return self._map("pca")

    def umap(self) -> Projection:
        """The UMAP of the clean features; from disk where it was made before."""
        return self._map("umap")

    def atlas(self, method: str | None = None) -> Atlas:
        """Everything, in one map ('pca' or 'umap'; the study's own unless given)."""
        method = method or self.method
        key = self._key(method)
        if key not in self._atlases:
            self._atlases[key] = self._made(method)
        return replace(self._atlases[key], right=self._right())

    def neighbours(self, i: int, k: float, count: int = 5) -> tuple[Tensor, Tensor]:
        """Rows (count,) of the nearest clean images to image i as it is, and at eps = k/255 of the film; by cosine of h."""
        bank, found = F.normalize(self.features, dim=1), []
        for h in (self.features[i], self.frames_h[self._frame(k), i]):
            similar = bank @ F.normalize(h, dim=0)
            similar[i] = -torch.inf
            found.append(similar.topk(count).indices)
        return found[0], found[1]

    def _key(self, method: str) -> tuple:
        """What a map and all that hangs on it are kept under: the parameters as they are now."""
        if method not in METHODS:
            raise UserError(f"map is 'pca' or 'umap', got '{method}'.")
        return (method,) if method == "pca" else (method, self.n_neighbors, self.min_dist)

    def _map(self, method: str) -> Projection:
        key = self._key(method)
        if key not in self._maps:
            params: dict[str, Any] = {"n_neighbors": self.n_neighbors, "min_dist": self.min_dist, "seed": self.seed}
            make: Callable[..., Projection] = kept_map if self.keep else fit_map
            self._maps[key] = make(self.features, method=method, progress=self.progress, **params)
        return self._maps[key]

    @cached_property
    def _truths(self) -> list[dict[str, Any]]:
        """Of every kind and eps, what does not depend on a map; `moved` and `kept` (n,) for every image."""
        clean, labelled = self.features, bool((self.labels >= 0).all())
        rows: list[dict[str, Any]] = []
        own = neighbours(clean)
        for kind, prefix in KINDS.items():
            for e, h in enumerate(self._filmed(prefix + "h")):
                self._tell("measuring", len(rows), 2 * len(self.eps))
                near = neighbours(h, clean) if e else own
                moved = 1 - F.cosine_similarity(h, clean, dim=1) if e else torch.zeros(len(h))
                z, loss = self._film[prefix + "z"][e], self._film[prefix + "loss"][e]
                row = {"kind": kind, "eps": self.eps[e], "k": round(self.eps[e] * 255, 6)}
                row |= {"kept": shared(own, near), "moved": moved, "loss": loss}
                row["knn"] = float((vote(near, self.labels) == self.labels).float().mean()) if labelled else math.nan
                row["alignment"] = float(alignment(self._filmed("reference"), z))
                rows.append(row | {"uniformity": float(uniformity(z[:UNIFORM]))})
        return rows

    def _made(self, method: str) -> Atlas:
        fitted, truths, clean = self._map(method), self._truths, self.features
        frames: dict[str, Tensor] = {}
        rows: list[dict[str, Any]] = []
        for kind, prefix in KINDS.items():
            film = self._filmed(prefix + "h")
            frames[kind] = torch.stack([fitted.xy, *(fitted.place(h) for h in film[1:])])
            for h, xy in zip(film, frames[kind], strict=True):
                self._tell("measuring the map", len(rows), len(truths))
                trust = trustworthiness(h, xy, bank=clean, bank_xy=fitted.xy)
                row = truths[len(rows)]
                means = {name: float(value.mean()) for name, value in row.items() if isinstance(value, Tensor)}
                rows.append({**row, **means, "trustworthiness": trust})
        each = {name: torch.stack([row[name] for row in truths[: len(self.eps)]]) for name in ("moved", "kept", "loss")}
        vendor = self.split.extra.get("vendor")
        return Atlas(
            eps=self.eps,
            attack=self.attack,
            method=method,
            xy=frames["adversary"],
            xy_control=frames["gaussian"],
            index=self.index,
            labels=self.labels,
            **each,
            right=self._right(),
            figures=pd.DataFrame(rows)[["kind", "eps", "k", *FIGURES]],
            classes=self.classes,
            vendor=None if vendor is None else vendor.cpu(),
            vendors=tuple(self.split.extra_names.get("vendor", ())),
            provenance={**self.provenance, "map": fitted.params, "images": len(self)},
        )

    @torch.no_grad()
    def _right(self) -> Tensor:
        """(E, n) 1 where the probe is right, 0 where not; NaN without a probe or a label."""
        found = torch.full((len(self.eps), len(self)), math.nan)
        if self.probe is not None and not isinstance(self.probe, Probe):
            self.probe = self.probe()
        if self.probe is not None:
            known = self.labels >= 0
            for e, h in enumerate(self.frames_h):
                found[e, known] = (self.probe.predict(h).cpu() == self.labels)[known].float()
        return found


def study_of(
    run: Run | str,
    *,
    split: str = "test",
    device: str = "auto",
    data: Data | None = None,
    probe: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> AtlasStudy:
    """A run's study on its own data set, with its temperature, views and batch size, and a probe fitted on the
    training features when it is first needed."""
    run, where = open_run(run) if isinstance(run, str) else run, resolve_device(device)
    if split not in ("train", "test"):
        raise UserError(f"split is 'train' or 'test', got '{split}'.")
    data = (data or images_of(run.config)[0]).to(where)
    chosen = data.test if split == "test" else (data.labelled or data.train)
    encoder, c, env = run.encoder(where), run.config, environment()
    about = {"run": run.name, "data": data.name, "split": split, "config": c.with_(data_dir=None).to_dict()}
    about |= {key: env[key] for key in ("time", "machine", "commit", "versions")}
    usual = contrast_settings(c, data) | {"batch_size": c.batch_size, "classes": data.classes, "provenance": about}
    study = AtlasStudy(encoder, chosen, progress=progress, **{**usual, **options})
    labelled, names = data.labelled, data.classes

    def fit() -> Probe:
        assert labelled is not None
        return Probe().fit(*embed(encoder, labelled, cache=study.keep, progress=study.progress), classes=names)

    if probe and labelled is not None:
        study.probe = fit
    return study


def atlas(run: Run | str, **options: Any) -> Atlas:
    """A run's images in one map at every eps; options are those of `study_of` and `AtlasStudy`."""
    return study_of(run, **options).atlas()


def compare_atlases(a: AtlasStudy, b: AtlasStudy, method: str | None = None) -> tuple[Atlas, Atlas, dict[str, Any]]:
    """Two encoders on the same images: both atlases, the second's map turned onto the first's, and how far they agree.

    `residual`: the share of the first map's spread that no turn explains (0 to 1). `shared_neighbours`: the share of an image's ten
    nearest that both encoders name, in h; `each` (n,) for every image, `chance` that of two random embeddings.
    """
    if len(a) != len(b) or not a.index.equal(b.index):
        raise UserError(
            f"Two atlases are laid side by side image by image, got {len(a)} and {len(b)} images, or others; make both of the same "
            "split with the same number of images."
        )
    first, second = a.atlas(method), b.atlas(method or a.method)
    turn = procrustes(first.xy[0], second.xy[0])
    each = overlap(a.features, b.features)
    turned = replace(second, xy=turn(second.xy), xy_control=turn(second.xy_control))
    figures = {"residual": turn.residual, "shared_neighbours": float(each.mean()), "each": each}
    return first, turned, figures | {"chance": NEAREST / (len(a) - 1)}
