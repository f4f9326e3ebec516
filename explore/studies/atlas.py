"""Where do images go, in a fixed map of their embedding, as an adversary's eps grows?"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import ATTACKS, Attack
from ..config import check_eps
from ..datasets import Data, Split
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
    overlap,
    shared,
    trustworthiness,
    turn_onto,
    vote,
)
from ..nets import as_encoder
from ..objectives import contrast
from ..results import Atlas
from ..runfolder import Run, environment, open_run
from ..state import seeded, untouched
from ..training import describe_device, make_views, resolve_device
from ..views import Views
from .batches import Batch
from .cells import images_of
from .sweep import TEST_EPS, _mix

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much; may raise to stop
UNIFORM = 2000  # images that uniformity is measured on: it takes all pairs


class AtlasStudy:
    """Some images of a split, at every eps of one attack, in maps fitted on them as they are; in stages, each computed once.

    `features`, then `pca()` or `umap()`, then `frames_h`, then `atlas(method)`. `images`: how many, the classes in turn.
    `reference`: what the attack's contrastive loss compares with, 'view' (another random view of every image, Algorithm 1), 'self'
    (the image's own embedding, the authors' code) or images, one each. Every batch of `batch_size` gives its own negatives. eps is in
    pixel units; 0 is always among them. `keep`: features and UMAP stay on disk, named by content. `probe` may be set later.
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
        probe: Probe | None = None,
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
        self._maps: dict[str, Fitted] = {}
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

    def pca(self) -> Fitted:
        """The linear map, at once."""
        return self._map("pca")

    def umap(self) -> Fitted:
        """The UMAP of the clean features; from disk where it was made before."""
        return self._map("umap")

    def atlas(self, method: str | None = None) -> Atlas:
        """Everything, in one map ('pca' or 'umap'; the study's own unless given)."""
        method = method or self.method
        if (method, id(self.probe)) not in self._atlases:
            self._atlases[method, id(self.probe)] = self._made(method)
        return self._atlases[method, id(self.probe)]

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
        eps = next((e for e in self.eps if abs(e * 255 - k) < 1e-6), k / 255)
        x = self.split[[i]][0]
        if kind == "adversary" and self._single_step:
            self._filmed("h")
            moved = Attack.fgsm(eps).move(x, x, self._film["sign"][[i]].to(x.device).float())
        else:
            part = next(j for j, rows in enumerate(self.parts) if int(rows[0]) <= i <= int(rows[-1]))
            with untouched(self.encoder):
                self.encoder.eval()
                moved = self._batch(part).at(self.attack if kind == "adversary" else "gaussian", [eps])[0]
            moved = moved[[i - int(self.parts[part][0])]]
        return x[0].cpu(), (moved if eps else x)[0].cpu()

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

    def _map(self, method: str) -> Fitted:
        if method not in self._maps:
            params = {"n_neighbors": self.n_neighbors, "min_dist": self.min_dist, "seed": self.seed}
            make = kept_map if self.keep else fit_map
            self._maps[method] = make(self.features, method=method, progress=self.progress, **params)
        return self._maps[method]

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
        above, found = [e for e in self.eps if e > 0], {}
        found_in: dict[str, list[Tensor]] = {}
        clean = self.features
        with untouched(self.encoder):
            self.encoder.eval()
            for j, rows in enumerate(self.parts):
                if self.progress is not None:
                    self.progress("attacking" if not prefix else "adding noise", int(rows[0]), len(self))
                batch = self._batch(j)
                h = [clean[rows].to(batch.x.device)]
                for e in above:  # an eps at a time: what fits a CPU's cache
                    with torch.no_grad():
                        h.append(embed(self.encoder, batch.at(kind, [e])[0])[0])
                with torch.no_grad():
                    z = [self._projected(each) for each in h]
                    losses = [LOSSES[self.loss](batch.objective.z, each, self.temperature) for each in z]  # type: ignore[union-attr]
                shot = {"h": torch.stack(h), "z": torch.stack(z), "loss": torch.stack(losses)}
                if not prefix:
                    shot["reference"] = batch.objective.z[None]  # type: ignore[union-attr]
                    if self._single_step:
                        unit = Attack.fgsm(1.0, clamp=None)
                        shot["sign"] = (
                            (unit.move(batch.x, batch.x, batch.gradient) - batch.x).round().to(torch.int8)[None]
                        )
                for name, tensor in shot.items():
                    found_in.setdefault(name, []).append(tensor.cpu())
        for name, tensors in found_in.items():
            whole = torch.cat(tensors, dim=1)
            found[prefix + name] = whole[0] if name in ("reference", "sign") else whole
        if self.progress is not None:
            self.progress("attacking" if not prefix else "adding noise", len(self), len(self))
        return found

    def _projected(self, h: Tensor) -> Tensor:
        project = getattr(self.encoder, "project", None)
        return F.normalize(h, dim=1) if project is None else project(h)

    @cached_property
    def _near(self) -> Tensor:
        return neighbours(self.features)

    def _made(self, method: str) -> Atlas:
        fitted, clean = self._map(method), self.features
        labelled = bool((self.labels >= 0).all())
        moved, kept, rows, frames = [], [], [], {}
        for kind, prefix in (("adversary", ""), ("gaussian", "control_")):
            film = self._filmed(prefix + "h")
            frames[kind] = torch.stack([fitted.xy, *(fitted.place(h) for h in film[1:])])
            for e, h in enumerate(film):
                if self.progress is not None:
                    self.progress("measuring", len(rows), 2 * len(self.eps))
                near = neighbours(h, clean) if e else self._near
                away = 1 - F.cosine_similarity(h, clean, dim=1) if e else torch.zeros(len(h))
                same = shared(self._near, near)
                knn = float((vote(near, self.labels) == self.labels).float().mean()) if labelled else math.nan
                trust = trustworthiness(h, frames[kind][e], bank=clean, bank_xy=fitted.xy)
                z = self._film[prefix + "z"][e]
                row = {"kind": kind, "eps": self.eps[e], "k": round(self.eps[e] * 255, 6), "kept": float(same.mean())}
                row |= {"moved": float(away.mean()), "knn": knn, "loss": float(self._film[prefix + "loss"][e].mean())}
                row |= {"trustworthiness": trust, "alignment": float(alignment(self._filmed("reference"), z))}
                rows.append(row | {"uniformity": float(uniformity(z[:UNIFORM]))})
                if kind == "adversary":
                    moved.append(away)
                    kept.append(same)
        vendor = self.split.extra.get("vendor")
        return Atlas(
            eps=self.eps,
            attack=self.attack,
            method=method,
            xy=frames["adversary"],
            xy_control=frames["gaussian"],
            index=self.index,
            labels=self.labels,
            moved=torch.stack(moved),
            kept=torch.stack(kept),
            loss=self._film["loss"],
            right=self._right(),
            figures=pd.DataFrame(rows),
            classes=self.classes,
            vendor=None if vendor is None else vendor.cpu(),
            vendors=tuple(self.split.extra_names.get("vendor", ())),
            provenance={**self.provenance, "map": fitted.params, "images": len(self)},
        )

    @torch.no_grad()
    def _right(self) -> Tensor:
        """(E, n) 1 where the probe is right, 0 where not; NaN without a probe or a label."""
        found = torch.full((len(self.eps), len(self)), math.nan)
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
    """A run's study on its own data set, with its temperature, views and batch size, and a probe fitted on the training features."""
    run, where = open_run(run) if isinstance(run, str) else run, resolve_device(device)
    if split not in ("train", "test"):
        raise UserError(f"split is 'train' or 'test', got '{split}'.")
    data = (data or images_of(run.config)[0]).to(where)
    chosen = data.test if split == "test" else (data.labelled or data.train)
    encoder, c, env = run.encoder(where), run.config, environment()
    about = {"run": run.name, "data": data.name, "split": split, "config": c.with_(data_dir=None).to_dict()}
    about |= {key: env[key] for key in ("time", "machine", "commit", "versions")}
    usual: dict[str, Any] = {"temperature": c.temperature, "loss": c.loss, "views": make_views(c, data)}
    usual |= {"batch_size": c.batch_size, "classes": data.classes, "provenance": about}
    study = AtlasStudy(encoder, chosen, progress=progress, **{**usual, **options})
    if probe and data.labelled is not None:
        h, y = embed(encoder, data.labelled, cache=study.keep, progress=progress)
        study.probe = Probe().fit(h, y, classes=data.classes)
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
    turn = turn_onto(first.xy[0], second.xy[0])
    each = overlap(a.features, b.features)
    from dataclasses import replace

    turned = replace(second, xy=turn(second.xy), xy_control=turn(second.xy_control))
    figures = {"residual": turn.residual, "shared_neighbours": float(each.mean()), "each": each}
    return first, turned, figures | {"chance": NEAREST / (len(a) - 1)}
