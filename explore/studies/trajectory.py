"""Images at every eps of an attack, embedded; shot once, part by part."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import incoming
from ..attack_table import TABLE
from ..attacks import ATTACKS, Attack, attack_named
from ..config import check_eps
from ..datasets import Split
from ..errors import UserError
from ..evaluate import embed
from ..nets import as_encoder
from ..perturbation.engine import Batch, contrast_with
from ..random import seeded, untouched
from ..training import describe_device
from ..views import Views
from .sweep import TEST_EPS, _mix

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much; may raise to stop
KINDS = {"adversary": "", "gaussian": "control_"}  # of a film, and what its parts are called by


class Trajectory:
    """Some images of a split at every eps of one attack, and under Gaussian noise of the same eps; features are computed when asked for.

    `images`: how many, the classes in turn. `reference`: what the attack's contrastive loss compares with, 'view' (another random
    view of every image, Algorithm 1), 'self' (the image's own embedding, the authors' code) or images, one each. Every batch of
    `batch_size` gives its own negatives. eps is in pixel units; 0 is always among them. `keep`: clean features stay on disk,
    named by content.
    """

    def __init__(
        self,
        encoder: nn.Module,
        split: Split,
        *,
        images: int = 2000,
        attack: str = "fgsm",
        eps: Sequence[float] = TEST_EPS,
        seed: int = 0,
        reference: str | Tensor = "view",
        temperature: float = 0.5,
        loss: str = "nt_xent",
        loss_options: Mapping[str, float] | None = None,
        steps: int = 5,
        batch_size: int = 256,
        views: Views | None = None,
        keep: bool = True,
        progress: Progress | None = None,
    ):
        incoming.choice(attack, "attack", ATTACKS)
        images, steps = incoming.whole(images, "images"), incoming.whole(steps, "steps")
        batch_size, seed = incoming.whole(batch_size, "batch_size"), incoming.whole(seed, "seed", 0)
        incoming.number(temperature, "temperature", open_low=True)
        incoming.listed(eps, "eps")
        if not hasattr(split, "batches"):
            raise UserError(f"An atlas takes a split of a data set, like data.test, got a {type(split).__name__}.")
        self.encoder: Any = as_encoder(encoder)
        self.attack, self.seed, self.steps, self.temperature, self.loss = attack, seed, steps, temperature, loss
        self.loss_options = dict(loss_options or {})
        self.eps = tuple(sorted({0.0, *(float(check_eps(e)) for e in eps)}))
        self.keep, self.progress = keep, progress
        self.index = split._chosen(min(images, len(split)), seeded(0)).cpu()
        self.split = split.select(self.index)
        self.labels = self.split.labels.cpu()
        self.parts = torch.arange(len(self.index)).tensor_split(max(1, math.ceil(len(self.index) / batch_size)))
        self.reference, self._views = self._checked(reference), views
        self._film: dict[str, Tensor] = {}
        about = {"attack": attack, "steps": TABLE[attack].gradients(steps), "seed": seed, "loss": loss}
        about |= {"reference": reference if isinstance(reference, str) else "images", "temperature": temperature}
        about |= {"batch": len(self.parts[0]), "device": describe_device(self.split.device), "torch": torch.__version__}
        self.provenance: dict[str, Any] = about | ({"loss_options": self.loss_options} if loss_options else {})

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
        return attack_named(self.attack, 0.0).single_step

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

    def _frame(self, k: float) -> int:
        """The frame nearest to eps = k/255."""
        return min(range(len(self.eps)), key=lambda e: abs(self.eps[e] * 255 - k))

    def _batch(self, j: int) -> Batch:
        """One batch with its objective, as drawn."""
        x, seed = self.split[self.parts[j]][0], _mix(self.seed, j)
        reference = self.reference
        if isinstance(reference, Tensor):
            reference = reference[self.parts[j].to(reference.device)]
        settings: dict[str, Any] = {"views": self._views, "temperature": self.temperature, "loss": self.loss}
        settings["loss_options"] = self.loss_options
        objective = contrast_with(self.encoder, x, reference, seed=seed, **settings)
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
        losses = torch.stack([batch.objective.losses(each) for each in z])  # type: ignore[union-attr]
        found = {"h": h, "z": z, "loss": losses}
        if first:
            found["reference"] = reference
            if self._single_step:
                found["sign"] = batch.sign.to(torch.int8)
        return {name: tensor.cpu() for name, tensor in found.items()}

    def _projected(self, h: Tensor) -> Tensor:
        project = getattr(self.encoder, "project", None)
        return F.normalize(h, dim=1) if project is None else project(h)
