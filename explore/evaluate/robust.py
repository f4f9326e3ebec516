"""Accuracy of a probe over a frozen encoder under attack, beside equal noise, with checks that the attack is not fooled."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import incoming
from ..attacks import ATTACKS, NOISES, attack_named
from ..config import check_eps
from ..datasets import Split
from ..errors import UserError, nearest
from ..nets import Encoder, TorchEncoder, as_encoder
from ..objectives import classify, contrast
from ..perturbation.engine import Batch
from ..random import untouched
from ..results import Check, Robustness
from .features import Progress

EPS = tuple(k / 255 for k in (0, 1, 2, 4, 8, 16))
PROBED = 100  # images that the checks attack with more steps and at a huge eps
HUGE = 0.5  # at which every image can be made gray: only a fooled attack leaves anything right
UNLABELLED = "contrast"  # PGD on the encoder alone: away from the image's own embedding, no label and no probe


def robust_accuracy(
    encoder: nn.Module,
    probe: Callable[[Tensor], Tensor],
    images: Split,
    *,
    eps: Sequence[float] = EPS,
    attacks: Sequence[str] = ("pgd", "fgsm", UNLABELLED, "sign"),
    steps: int = 20,
    restarts: int = 1,
    temperature: float = 0.2,
    seed: int = 0,
    batch_size: int = 250,
    check: bool = True,
    progress: Progress | None = None,
    provenance: dict[str, Any] | None = None,
) -> Robustness:
    """Accuracy over eps under each of `attacks`: fgsm, rfgsm, ffgsm, pgd with `steps` and `restarts`; 'contrast'; or noise.

    All but 'contrast' push up the cross-entropy of probe over encoder, whose weights stay as they are. An image counts
    as right where every restart leaves it right. Noise (gaussian, uniform, sign) gets the largest change eps, as the attacks have.
    One gradient serves all eps of fgsm. The result's `checks` guard against gradient masking (Carlini et al. 2019,
    arXiv:1902.06705): they are measured, on the first images, and shown. Cost a batch and eps: 3 F a step and restart.
    """
    if isinstance(images, tuple | list) or not hasattr(images, "batches"):
        raise UserError(
            f"robust_accuracy takes a split of a data set, like data.test.take(500), got a {type(images).__name__}; "
            "ex.datasets.from_arrays makes one of images and labels."
        )
    incoming.function(probe, "A probe", "features (n, D) -> logits (n, C)")
    incoming.number(temperature, "temperature", open_low=True)
    batch_size = incoming.whole(batch_size, "batch_size")
    grid, net = _checked(attacks, eps, steps, restarts), as_encoder(encoder)
    judge = _Judge(net, probe, steps=steps, restarts=restarts, temperature=temperature, seed=seed)
    right, loss, done, total = [], [], 0, len(images) * len(attacks) * len(grid)
    with untouched(net):
        net.eval()
        for b, (x, y) in enumerate(images.batches(batch_size)):
            rows = []
            for name in attacks:
                rows.append(judge(name, grid, x, y, b))
                done += len(y) * len(grid)
                if progress is not None:
                    progress(f"attacking with {name}", done, total)
            right.append(torch.stack([r for r, _ in rows]).cpu())
            loss.append(torch.stack([v for _, v in rows]).cpu())
        found = {"right": torch.cat(right, 2), "loss": torch.cat(loss, 2)}
        checks = _checks(judge, images, tuple(attacks), grid, **found) if check else ()
    about = {"steps": steps, "restarts": restarts, "seed": seed, "temperature": temperature, "torch": torch.__version__}
    return Robustness(
        attacks=tuple(attacks),
        eps=grid,
        **found,
        index=torch.arange(len(images)),
        checks=checks,
        provenance={"study": "robust", "device": str(images.device), **about, **(provenance or {})},
    )


def _checked(attacks: Sequence[str], eps: Sequence[float], steps: int, restarts: int) -> tuple[float, ...]:
    """eps in ascending order, after the checks that all settings make sense."""
    known = [*ATTACKS, UNLABELLED, *NOISES]
    incoming.listed(attacks, "attacks")
    incoming.listed(eps, "eps")
    for name in attacks:
        if name not in known:
            raise UserError(f"attacks are {', '.join(known)}, got '{name}'.{nearest(str(name), known)}")
    if not attacks or not len(eps):
        raise UserError("robust_accuracy needs one attack and one eps or more.")
    incoming.whole(steps, "steps")
    incoming.whole(restarts, "restarts")
    return tuple(sorted({float(check_eps(e)) for e in eps}))


@dataclass(frozen=True)
class _Judge:
    """A probe over an encoder, and how both are attacked."""

    net: Encoder | TorchEncoder
    probe: Callable[[Tensor], Tensor]
    steps: int
    restarts: int
    temperature: float
    seed: int

    def __call__(
        self, name: str, grid: Sequence[float], x: Tensor, y: Tensor, number: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(E, n) right after every restart, and (E, n) the largest loss of them, of batch `number` under one attack."""
        objective: contrast | classify = classify(self.net, self.probe, y)
        if name == UNLABELLED:
            objective = contrast(self.net, x, temperature=self.temperature)
        kind = "pgd" if name == UNLABELLED else name
        right = torch.ones(len(grid), len(y), dtype=torch.bool, device=x.device)
        worst = torch.full(right.shape, -torch.inf, device=x.device)
        for restart in range(1 if attack_named(kind, 0.0).single_step else self.restarts):
            seed = hash((self.seed, number, restart)) % 2**31
            batch = Batch(x, objective, guide=None, steps=self.steps, seed=seed)
            for e, eps in enumerate(grid):
                if eps > 0 or not restart:
                    with torch.no_grad():
                        logits = self.probe(self.net.features(batch.at(kind, [eps])[0]))
                    right[e] &= logits.argmax(1) == y
                    worst[e] = torch.maximum(worst[e], F.cross_entropy(logits, y, reduction="none"))
        return right, worst


def _checks(
    judge: _Judge, images: Split, attacks: tuple[str, ...], grid: tuple[float, ...], right: Tensor, loss: Tensor
) -> tuple[Check, ...]:
    """Signs that would tell a masked gradient from a robust encoder."""
    x, y = images[:PROBED]
    mid = max((e for e in grid if e <= 8 / 255), default=0.0) or grid[-1] or 8 / 255
    more = (1, 5, 2 * judge.steps)
    losses = [float(replace(judge, steps=steps, restarts=1)("pgd", [mid], x, y)[1].mean()) for steps in more]
    huge = float(judge("pgd", [HUGE], x, y)[0].double().mean())
    k = f"{mid * 255:g}/255"
    steps_text = " → ".join(f"{v:.2f}" for v in losses)
    found = [
        Check(f"more PGD steps raise the loss at {k}", _rising(losses), f"1, 5, {more[-1]} steps: {steps_text}"),
        Check("PGD at ε = 0.5 leaves next to nothing right", huge <= 0.02, f"{100 * huge:.0f} % of {len(y)} are right"),
    ]
    shares, means = right.double().mean(2), loss.double().mean(2)
    for name, row in zip(attacks, means.tolist(), strict=True):
        if name in ATTACKS and len(row) > 1:
            said = " → ".join(f"{v:.2f}" for v in row)
            found.append(Check(f"a larger ε raises the loss under {name}", _rising(row), said))
    if "pgd" in attacks and "fgsm" in attacks:
        over = float((shares[attacks.index("pgd")] - shares[attacks.index("fgsm")]).max())
        found.append(Check("PGD is at least as strong as FGSM", over <= 0.005, f"at most {100 * over:+.1f} points"))
    return tuple(found)


def _rising(values: Sequence[float]) -> bool:
    return all(b >= a - 0.01 * abs(a) for a, b in itertools.pairwise(values))
