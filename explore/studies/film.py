"""Images at every eps of an attack, embedded and placed in fixed maps; staged, each stage computed once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import ATTACKS, Attack
from ..config import check_eps
from ..datasets import Split
from ..errors import UserError, nearest
from ..evaluate import Probe, embed
from ..losses import LOSSES, alignment, uniformity
from ..maps import (
    METHODS,
    NEAREST,
    Fitted,
    fit_map,
    kept_map,
    neighbours,
    shared,
    trustworthiness,
    vote,
)
from ..nets import as_encoder
from ..objectives import contrast
from ..results.atlas import FIGURES, Atlas
from ..state import seeded, untouched
from ..training import describe_device
from ..views import Views
from .batches import Batch
from .sweep import TEST_EPS, _mix

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much; may raise to stop
KINDS = {"adversary": "", "gaussian": "control_"}  # of a film, and what its parts are called by
UNIFORM = 2000  # images that uniformity is measured on: it takes all pairs


class AtlasStudy:
    """Some images of a split, at every eps of one attack, in maps fitted on them as they are; in stages, each computed once.

    `features`, then `pca()` or `umap()`, then `frames_h`, then `atlas(method)`. `images`: how many, the classes in turn.
    `reference`: what the attack's contrastive loss compares with, 'view' (another random view of every image, Algorithm 1), 'self'
    (the image's own embedding, the authors' code) or images, one each. Every batch of `batch_size` gives its own negatives. eps is in
    pixel units; 0 is always among them. `keep`: features and UMAP stay on disk, named by content. `probe`: a fitted one, or
    a function that fits one when it is first needed; it may be set later.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: Split,
        *,
        images: int = 2000,
        attack: str = "fgsm",
        eps: Sequence[float] = TEST_EPS,
        method: str = "umap",
        n_neighbors: int = 15,
        min_dist: float = 0.1,
        seed: int = 0,
        reference: str | Tensor = "view",
        temperature: float = 0.5,
        loss: str = "nt_xent",
        steps: int = 5,
        batch_size: int = 256,
        views: Views | None = None,
        probe: "Probe | Callable[[], Probe] | None" = None,
        classes: Sequence[str] = (),
        provenance: dict[str, Any] | None = None,
        keep: bool = True,
        progress: Progress | None = None,
    ):
        if attack not in ATTACKS:
            raise UserError(f"attack must be one of {', '.join(ATTACKS)}, got '{attack}'.{nearest(attack, ATTACKS)}")
        if method not in METHODS:
            raise UserError(f"map is 'pca' or 'umap', got '{method}'.")
        if images < NEAREST + 2:
            raise UserError(
                f"An atlas shows {NEAREST} neighbours of every image, so it takes {NEAREST + 2} images or more, got {images}."
            )
        self.encoder: Any = as_encoder(encoder)
        self.attack, self.method, self.seed, self.steps = attack, method, seed, steps
        self.eps = tuple(sorted({0.0, *(check_eps(float(e)) for e in eps)}))
        self.n_neighbors, self.min_dist, self.temperature, self.loss = n_neighbors, min_dist, temperature, loss
        self.keep, self.progress, self.probe, self.classes = keep, progress, probe, tuple(classes)
        self.index = split._chosen(min(images, len(split)), seeded(0)).cpu()
        self.split = split.select(self.index)
        self.labels = self.split.labels.cpu()
        self.parts = torch.arange(len(self.index)).tensor_split(max(1, math.ceil(len(self.index) / batch_size)))
        self.reference, self._views = self._checked(reference), views
        self._film: dict[str, Tensor] = {}
        self._maps: dict[tuple, Fitted] = {}
        self._atlases: dict[tuple, Atlas] = {}
        about = {
            "study": "atlas",
            "attack": attack,
            "steps": steps if attack == "pgd" else 1,
            "seed": seed,
            "loss": loss,
        }
        about |= {"reference": reference if isinstance(reference, str) else "images", "temperature": temperature}
        about |= {"batch": len(self.parts[0]), "device": describe_device(self.split.device), "torch": torch.__version__}
        self.provenance = {**about, **(provenance or {})}

    def __len__(self) -> int:
        return len(self.index)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)

    @cached_property
    def features(self) -> Tensor:
        """Clean features h (n, D)."""
        return embed(self.encoder, self.split, cache=self.keep, progress=self.progress)[0].cpu()

    @property
    def frames_h(self) -> Tensor:
        """(E, n, D) features under the attack; [0] are the clean ones."""
        return self._filmed("h")

    @property
    def control_h(self) -> Tensor:
        """(E, n, D) features under Gaussian noise of std eps; [0] are the clean ones."""
        return self._filmed("control_h")

    @property
    def filmed(self) -> bool:
        """True where `frames_h` would answer at once."""
        return "h" in self._film

    def has(self, method: str) -> bool:
        """True where this map, with the parameters as they are now, would answer at once."""
        return self._key(method) in self._maps

    def pca(self) -> Fitted:
        """The linear map, at once."""
        return self._map("pca")

    def umap(self) -> Fitted:
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

    def images(self, i: int, k: float, kind: str = "adversary") -> tuple[Tensor, Tensor]:
        """Image i as it is and as it was embedded at eps = k/255, (c, h, w) each; `kind`: 'adversary' or 'gaussian'."""
        part = next(j for j, rows in enumerate(self.parts) if int(rows[0]) <= i <= int(rows[-1]))
        at = i - int(self.parts[part][0])
        if kind == "adversary" and self._single_step:
            return self.split[[i]][0][0].cpu(), self._pictured(part, k, kind, slice(at, at + 1))[0]
        return self.split[[i]][0][0].cpu(), self._pictured(part, k, kind)[at]

    def pictures(self, k: float, kind: str = "adversary") -> Tensor:
        """All images (n, c, h, w) as they were embedded at eps = k/255."""
        return torch.cat([self._pictured(part, k, kind) for part in range(len(self.parts))])

    def _pictured(self, part: int, k: float, kind: str, some: slice = slice(None)) -> Tensor:
        """A batch's images at eps = k/255; of a single-step attack `some` of them, from the sign of the one gradient."""
        if kind not in KINDS:
            raise UserError(f"kind is 'adversary' or 'gaussian', got '{kind}'.")
        eps = next((e for e in self.eps if abs(e * 255 - k) < 1e-6), k / 255)
        rows = self.parts[part][some]
        x = self.split[rows][0]
        if not eps:
            return x.cpu()
        if kind == "adversary" and self._single_step:
            self._filmed("h")
            return Attack.fgsm(eps).move(x, x, self._film["sign"][rows].to(x.device).float()).cpu()
        with untouched(self.encoder):
            self.encoder.eval()
            return self._batch(part).at(self.attack if kind == "adversary" else "gaussian", [eps])[0].cpu()

    @property
    def _single_step(self) -> bool:
        return ATTACKS[self.attack](0.0).single_step

    def _checked(self, reference: str | Tensor) -> str | Tensor:
        if isinstance(reference, str):
            if reference not in ("view", "self"):
                raise UserError(f"reference is 'view', 'self' or a batch of images, got '{reference}'.")
        elif len(reference) != len(self.index):
            raise UserError(
                f"The reference has {len(reference)} images and the atlas {len(self.index)}; each image needs its own partner, so "
                "pass the same number of both."
            )
        return reference

    def _key(self, method: str) -> tuple:
        """What a map and all that hangs on it are kept under: the parameters as they are now."""
        if method not in METHODS:
            raise UserError(f"map is 'pca' or 'umap', got '{method}'.")
        return (method,) if method == "pca" else (method, self.n_neighbors, self.min_dist)

    def _map(self, method: str) -> Fitted:
        key = self._key(method)
        if key not in self._maps:
            params: dict[str, Any] = {"n_neighbors": self.n_neighbors, "min_dist": self.min_dist, "seed": self.seed}
            make: Callable[..., Fitted] = kept_map if self.keep else fit_map
            self._maps[key] = make(self.features, method=method, progress=self.progress, **params)
        return self._maps[key]

    def _frame(self, k: float) -> int:
        """The frame nearest to eps = k/255."""
        return min(range(len(self.eps)), key=lambda e: abs(self.eps[e] * 255 - k))

    def _batch(self, j: int) -> Batch:
        """One batch with its objective, as drawn."""
        x, seed = self.split[self.parts[j]][0], _mix(self.seed, j)
        if isinstance(self.reference, Tensor):
            other = self.reference[self.parts[j].to(self.reference.device)].to(x.device)
        elif self.reference == "self":
            other = x
        else:
            views = self._views or Views(size=x.shape[-1])
            gray = self._views is None and bool((x == x[:, :1]).all())
            other = (views.for_gray() if gray else views)(x, seeded(seed))
        objective = contrast(self.encoder, other, temperature=self.temperature, loss=self.loss)
        return Batch(x, objective, match="plain", steps=self.steps, seed=seed)

    def _filmed(self, name: str) -> Tensor:
        """A part of the film; the attack's first, the control when it is asked for."""
        if name not in self._film:
            kind = "gaussian" if name.startswith("control") else self.attack
            self._film |= self._shot(kind, "control_" if name.startswith("control") else "")
        return self._film[name]

    def _shot(self, kind: str, prefix: str) -> dict[str, Tensor]:
        """Features h (E, n, D), projections z (E, n, d), loss (E, n) of a kind; for the attack the reference's z and the sign too."""
        what, parts = "adding noise" if prefix else "attacking", []
        with untouched(self.encoder):
            self.encoder.eval()
            for j, rows in enumerate(self.parts):
                self._tell(what, int(rows[0]), len(self))
                batch = self._batch(j)
                h = [self.features[rows].to(batch.x.device)]
                for e in self.eps[1:]:  # one at a time: what fits a CPU's cache
                    h.append(embed(self.encoder, batch.at(kind, [e])[0])[0])
                parts.append(self._described(batch, torch.stack(h), first=not prefix))
        self._tell(what, len(self), len(self))
        return {
            prefix + name: torch.cat([p[name] for p in parts], dim=0 if name in ("reference", "sign") else 1)
            for name in parts[0]
        }

    @torch.no_grad()
    def _described(self, batch: Batch, h: Tensor, first: bool) -> dict[str, Tensor]:
        """What is kept of a batch at every eps, on the CPU; `first`: also what does not depend on the kind."""
        reference: Tensor = batch.objective.z  # type: ignore[union-attr]
        z = torch.stack([self._projected(each) for each in h])
        losses = torch.stack([LOSSES[self.loss](reference, each, self.temperature) for each in z])
        found = {"h": h, "z": z, "loss": losses}
        if first:
            found["reference"] = reference
            if self._single_step:
                unit = Attack.fgsm(1.0, clamp=None)
                found["sign"] = (unit.move(batch.x, batch.x, batch.gradient) - batch.x).round().to(torch.int8)
        return {name: tensor.cpu() for name, tensor in found.items()}

    def _projected(self, h: Tensor) -> Tensor:
        project = getattr(self.encoder, "project", None)
        return F.normalize(h, dim=1) if project is None else project(h)

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
