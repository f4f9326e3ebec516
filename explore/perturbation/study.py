"""What do an adversary and equally long noise do to a batch?"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import incoming
from ..attack_table import TABLE
from ..attacks import ATTACKS, attack_named, gradient
from ..config import check_eps
from ..errors import UserError
from ..nets import as_encoder
from ..objectives import contrast
from ..results import KINDS, Perturbation
from ..views import Views
from .checks import NetworkState, raised_loss, small_change, valid_pixels
from .engine import Batch, Watch, other_view

GRID = tuple(range(17))  # eps in k/255


def perturb(encoder: nn.Module, x: Tensor, eps: float, **settings: Any) -> Perturbation:
    """What an adversary and three noises of equal length do to images x at one eps (pixel units); see `PerturbationStudy`."""
    return PerturbationStudy(encoder, x, **settings).at(check_eps(eps) * 255)


class PerturbationStudy:
    """One batch under one attack, at any eps: everything that does not depend on eps is computed once.

    `reference`: 'view' (another random view of every image, Algorithm 1), 'self' (the image's own embedding, the
    authors' code) or images; `loss`: the contrastive loss, of `losses.LOSSES`, with its `loss_options`. `match`: the
    length, after clipping, that noises share with the adversary: 'linf' or 'l2'. `pool`: features h (m, D) to look for
    neighbours in; `pool_index`: the batch's own places in it, where it has one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        x: Tensor,
        *,
        attack: str = "fgsm",
        steps: int = 5,
        seed: int = 0,
        reference: str | Tensor = "view",
        match: str = "linf",
        temperature: float = 0.5,
        loss: str = "nt_xent",
        loss_options: Mapping[str, float] | None = None,
        views: Views | None = None,
        pool: Tensor | None = None,
        pool_index: Tensor | None = None,
        index: Tensor | None = None,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
        provenance: dict[str, Any] | None = None,
    ):
        encoder = as_encoder(encoder)
        incoming.images(x, "Images to perturb")
        incoming.choice(attack, "attack", ATTACKS)
        steps, seed = incoming.whole(steps, "steps"), incoming.whole(seed, "seed", 0)
        labels = None if labels is None else incoming.labels_or_none(labels, len(x))
        if match not in ("linf", "l2"):
            raise UserError(f"match is 'linf' or 'l2', the length that noises share with the adversary, got '{match}'.")
        self.encoder, self.x, self.attack, self.steps, self.seed = encoder, x.detach(), attack, steps, seed
        self._net: Any = encoder
        self.match, self.temperature, self.loss, self.classes = match, temperature, loss, tuple(classes)
        self.index = torch.arange(len(x)) if index is None else index.cpu()
        self.labels = torch.full((len(x),), -1) if labels is None else labels.cpu()
        self.set_pool(pool, pool_index)
        self._before = NetworkState(encoder)
        self.reference = other_view(self.x, reference, views=views, seed=seed)
        self.objective = contrast(
            encoder, self.reference, temperature=temperature, loss=loss, loss_options=loss_options
        )
        about = {
            "study": "perturb",
            "attack": attack,
            "steps": TABLE[attack].gradients(steps),
            "seed": seed,
            "match": match,
        }
        about |= {"reference": reference if isinstance(reference, str) else "images", "temperature": temperature}
        about |= {"loss": loss, "device": str(x.device), "torch": torch.__version__}
        about |= {"loss_options": dict(loss_options)} if loss_options else {}
        self.provenance = about | (provenance or {})
        self.single_step = attack_named(attack, 0.0).single_step
        self._batch = Batch(self.x, self.objective, match=match, guide=attack, steps=steps, seed=seed)
        # (3, n, ...) the noises' directions, in steps of 1/32767 so that the browser can hold the very same numbers
        self.codes = torch.stack([_codes(self._batch.direction(kind)) for kind in KINDS[1:]])
        self._batch.codes = dict(zip(KINDS[1:], self.codes, strict=True))
        self._adversaries: dict[float, Tensor] = {}
        self._measured: dict[tuple[str, float], tuple[Tensor, Tensor, Tensor]] = {}
        self._share: Tensor | None = None

    def set_pool(self, pool: Tensor | None, pool_index: Tensor | None = None) -> None:
        """Give or replace the features (m, D) that neighbours are looked for in."""
        self.pool = None if pool is None else F.normalize(pool, dim=1)
        self.pool_index = pool_index

    @property
    def sign(self) -> Tensor:
        """Direction of a single step: the gradient's sign at x, of x's shape; equal channels where x is gray."""
        return self._batch.sign

    def adversary(self, k: float, watch: Watch | None = None) -> Tensor:
        """Adversarial images at eps = k/255; computed once. `watch` is called before every gradient."""
        if k not in self._adversaries:
            self._adversaries[k] = self._batch.at(self.attack, [k / 255], watch)[0]
        return self._adversaries[k]

    def scales(self, *ks: float) -> Tensor:
        """(len(ks), 3, n): factors s that make a noise's clip(x + s direction) - x as long as the adversary's delta."""
        for k in ks:
            self.adversary(k)
        return torch.stack([self._batch.scales(kind, [k / 255 for k in ks]) for kind in KINDS[1:]], dim=1)

    def images(self, kind: str, k: float) -> Tensor:
        """Images of a kind at eps = k/255: clip(x + s direction), in float32, as the browser computes them."""
        self.adversary(k)
        return self._adversaries[k] if kind == "adversary" else self._batch.at(kind, [k / 255])[0]

    @torch.no_grad()
    def measure(self, kind: str, k: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (n,), cosine of h to clean (n,), neighbours (n, 5) of a kind ('clean' too); computed once."""
        key = (kind, 0.0 if kind == "clean" else k)
        if key not in self._measured:
            h = self._net.features(self.x if kind == "clean" else self.images(kind, k))
            loss = self.objective.losses(self._net.project(h))
            h = F.normalize(h, dim=1)
            if kind == "clean":
                self._h = h
            else:
                self.measure("clean", 0.0)
            cosine = (h * self._h).sum(1).clamp(-1, 1)
            self._measured[key] = (loss.cpu(), cosine.cpu(), self._nearest(h).cpu())
        return self._measured[key]

    def known(self, kind: str, k: float) -> bool:
        """True where `measure` would answer at once."""
        return (kind, k) in self._measured

    def losses(self) -> np.ndarray:
        """All losses measured so far, in no order."""
        return np.concatenate([loss.numpy() for loss, _, _ in self._measured.values()])

    def rises(self, ks: Iterable[float]) -> np.ndarray:
        """(len(ks), n) how much the adversary raises each loss, nats; NaN where it is not measured yet."""
        clean = self.measure("clean", 0.0)[0].numpy()
        unknown = np.full_like(clean, np.nan)
        found = (self._measured.get(("adversary", k)) for k in ks)
        return np.stack([unknown if row is None else row[0].numpy() - clean for row in found])

    def share(self) -> Tensor:
        """(n,) the positive pair's share of the gradient's L2 norm at x: |positive| / (|positive| + |negative|).

        The loss is -cos/temperature + log-sum-exp: the first term's gradient is the positive part, the rest the
        negative. UEL holds the target side constant, so only half of its first term depends on x.
        """
        if self._share is None:
            scale = self.temperature * (2 if self.loss == "uel" else 1)
            positive = gradient(lambda x: -(self.encoder(x) * self.objective.z).sum(1) / scale, self.x)
            negative = self._batch.gradient - positive
            towards, away = positive.flatten(1).norm(dim=1), negative.flatten(1).norm(dim=1)
            self._share = (towards / (towards + away).clamp_min(1e-30)).cpu()
        return self._share

    def at(self, k: float, watch: Watch | None = None) -> Perturbation:
        """Everything at eps = k/255."""
        delta = self.adversary(k, watch) - self.x
        direction = self.sign if self.single_step else delta * (255 / max(k, 1e-9))
        measured = [self.measure("clean", 0.0), *(self.measure(kind, k) for kind in KINDS)]
        loss, cosine, neighbours = (torch.stack(rows) for rows in zip(*measured, strict=True))
        perturbed = {kind: self.images(kind, k).cpu() for kind in KINDS}
        low, high = min(float(p.min()) for p in perturbed.values()), max(float(p.max()) for p in perturbed.values())
        changed = small_change(float(delta.abs().max()), k / 255)
        return Perturbation(
            x=self.x.cpu(),
            perturbed=perturbed,
            eps=k / 255,
            attack=self.attack,
            match=self.match,
            direction=direction.cpu(),
            share=self.share(),
            loss=loss,
            cosine=cosine,
            neighbours=neighbours,
            index=self.index,
            labels=self.labels,
            classes=self.classes,
            checks=(changed, valid_pixels(low, high), *self._before.checks(), raised_loss(loss[0], loss[1], k)),
            provenance={**self.provenance, "eps": k / 255},
        )

    def _nearest(self, h: Tensor) -> Tensor:
        if self.pool is None:
            return torch.zeros(len(h), 0, dtype=torch.long)
        similar = h @ self.pool.T
        if self.pool_index is not None:
            own = self.pool_index.to(h.device)
            rows = torch.where((own >= 0) & (own < len(self.pool)))[0]
            similar[rows, own[rows]] = -torch.inf
        return similar.topk(5, dim=1).indices


def _codes(draw: Tensor) -> Tensor:
    """A draw as int16, its largest entry of every image +-32767."""
    largest = draw.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return (draw / largest * 32767).round().to(torch.int16).cpu()
