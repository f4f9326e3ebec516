"""One training step, from two views to gradients: SimCLR, CLAE, and the authors' own.

F is one forward pass of a view; a backward pass through weights and pixels costs 2F, through pixels
alone 1F. SimCLR takes 6F, CLAE with FGSM 9F, with R-/F-FGSM 11F, with PGD-k (9 + 2k)F, the authors'
step 15F; an attack in eval mode 1F more, FGSM there 12F. With `Stepper.chunk` every forward pass
that is back-propagated runs twice: SimCLR 8F, CLAE with FGSM 12F.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attacks import Attack, Noise
from .convolutions import weights_fixed
from .distributed import ALONE, Ranks
from .losses import loss_named
from .nets import Encoder
from .random import untouched
from .types import Branch, Images

AGAIN: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # networks here draw nothing


@dataclass(frozen=True)
class Step:
    """What a step computed, detached: mean losses in nats, and the adversary (None for SimCLR)."""

    loss: Tensor
    loss_adv: Tensor | None = None
    x_adv: Tensor | None = None


@dataclass(frozen=True)
class Stepper:
    """A training step; called with two views it adds the step's gradients to the encoder's weights.

    `autocast`: precision of the encoder's passes (None: that of its weights); losses use fp32 or
    more. `chunk`: images per forward pass; the loss is still the whole batch's, see `embed`. With
    several `ranks` each is called with its own images; `ranks.average` of the gradients then gives
    the whole batch's.
    """

    encoder: nn.Module
    attack: Attack | Noise | None = None
    loss: str = "nt_xent"
    temperature: float = 0.5
    loss_options: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 1.0
    averaged: bool = False
    reference: str = "other_view"
    attack_branch: Branch = "clean"
    attack_mode: str = "train"
    authors: bool = False
    autocast: torch.dtype | None = None
    chunk: int | None = None
    ranks: Ranks = ALONE

    @weights_fixed()
    def __call__(self, v1: Images, v2: Images, generator: torch.Generator | None = None) -> Step:
        if self.attack is None:
            loss = self.compare(*self._both(v1, v2))
            loss.backward()
            return Step(loss.detach())
        return self._authors(v1, v2) if self.authors else self._clae(v1, v2, generator)

    @property
    def free(self) -> bool:
        """True if the clean pass already yields the attack's gradient."""
        algorithm1 = (self.reference, self.attack_branch, self.attack_mode) == ("other_view", "clean", "train")
        return algorithm1 and isinstance(self.attack, Attack) and self.attack.single_step

    @property
    def share(self) -> float:
        """Weight of the clean loss; the adversarial loss has `alpha` times as much."""
        return 1 / (1 + self.alpha) if self.averaged else 1.0

    def embed(self, x: Images, branch: Branch = "clean") -> Tensor:
        """Unit projections (n, d); chunks by gradient caching (Gao et al. 2021, arXiv:2101.06983).

        Only the embeddings are stored. The backward pass computes the loss's gradient at all
        embeddings, then runs each chunk again and back-propagates its share, so memory is that of
        one chunk. In train mode batch norms see one chunk at a time; running statistics change in
        the first pass only.
        """
        if self.chunk is None or self.chunk >= len(x):
            return self._pass(x, branch)
        parts = x.split(self.chunk)
        return torch.cat([checkpoint(self._pass, part, branch, context_fn=self._replay, **AGAIN) for part in parts])

    def _both(self, v1: Images, v2: Images) -> tuple[Tensor, Tensor]:
        """Embeddings of both views; in one pass for small networks on a CPU."""
        few = isinstance(self.encoder, Encoder) and self.encoder.behind_stem(v1) <= 2**20
        if not few or v1.device.type != "cpu" or self.chunk is not None:
            return self.embed(v1), self.embed(v2)
        z1, z2 = self._pass(torch.cat([v1, v2]), "clean", 2).chunk(2)
        return z1, z2

    def _replay(self) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), untouched(self.encoder)

    def _pass(self, x: Images, branch: Branch, views: int = 1) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            z = self.encoder(x, branch=branch, **({"views": views} if views > 1 else {}))
        return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        return self.each(z1, z2).mean()

    def each(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Losses (n,) against the negatives of all ranks; with `chunk`, block by block of rows."""
        loss, rows = loss_named(self.loss, **self.loss_options), self.ranks.rows(len(z1))
        if self.ranks.world > 1:
            z1, z2 = self.ranks.gather(torch.cat([z1, z2], dim=1)).chunk(2, dim=1)
        if self.chunk is None:
            return loss(z1, z2, self.temperature, rows)
        cuts = range(rows.start, rows.stop, self.chunk)
        blocks = [slice(i, min(i + self.chunk, rows.stop)) for i in cuts]
        return torch.cat([checkpoint(loss, z1, z2, self.temperature, rows, **AGAIN) for rows in blocks])

    def _clae(self, v1: Images, v2: Images, generator: torch.Generator | None) -> Step:
        """Clean loss + alpha * adversarial loss, without redundant passes.

        The anchor's embedding is detached into a leaf that collects the gradients of both losses,
        so that the anchor is back-propagated once. FGSM's direction is the pixel gradient of the
        clean loss.
        """
        anchor = self.embed(v1)
        leaf = anchor.detach().requires_grad_()
        v2 = v2.detach().requires_grad_(self.free)
        clean = self.compare(leaf, self.embed(v2))
        (self.share * clean).backward()
        if isinstance(self.attack, Attack) and v2.grad is not None:
            x_adv = self.attack.move(v2.detach(), v2.detach(), v2.grad)
        else:
            x_adv = self._attack(v1, v2, leaf, generator)
        adv = self.compare(leaf, self.embed(x_adv, "adv"))
        (self.share * self.alpha * adv).backward()
        anchor.backward(leaf.grad)
        return Step(clean.detach(), adv.detach(), x_adv)

    def _attack(self, v1: Images, v2: Images, leaf: Tensor, generator: torch.Generator | None) -> Images:
        """The adversary, by separate passes; reference 'self' attacks the anchor's view itself.

        In eval mode the anchor is embedded again, so that both embeddings use running statistics.
        """
        if isinstance(self.attack, Noise):
            return self.attack.perturbed(v1 if self.reference == "self" else v2, generator)
        assert self.attack is not None
        own, running = self.reference == "self", self.attack_mode == "eval"
        z, branch = leaf.detach(), self.attack_branch if own else "clean"

        def away(x: Images) -> Tensor:
            return self.each(z, self.embed(x, self.attack_branch))

        away.modules = (self.encoder,)  # type: ignore[attr-defined]
        with untouched(self.encoder) if running else contextlib.nullcontext():
            if running:
                self.encoder.eval()
            if running or branch == "adv":
                with torch.no_grad(), untouched(self.encoder):
                    z = self.embed(v1, branch)
            return self.attack.perturbed(v1 if own else v2, away, generator)

    def _authors(self, v1: Images, v2: Images) -> Step:
        """chihhuiho/CLAE, SimCLR/main.py, lines 48 to 90, without the attack's weight gradients.

        Both embeddings of the attack use the adversarial branch in train mode and change its
        statistics.
        """
        grads = [p.grad for p in self.encoder.parameters()]
        x = v1.detach().clone().requires_grad_()
        self.compare(self.embed(v1, "adv"), self.embed(x, "adv")).backward()
        for p, grad in zip(self.encoder.parameters(), grads, strict=True):
            p.grad = grad
        assert isinstance(self.attack, Attack) and x.grad is not None
        x_adv = self.attack.move(v1, v1, x.grad)
        anchor = self.embed(v1)
        clean, adv = self.compare(anchor, self.embed(v2)), self.compare(anchor, self.embed(x_adv, "adv"))
        (self.share * (clean + self.alpha * adv)).backward()
        return Step(clean.detach(), adv.detach(), x_adv)
