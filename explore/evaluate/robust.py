"""Accuracy of a probe over a frozen encoder under attack, beside equal noise, with checks that the attack is not fooled."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attack_table import TABLE
from ..attacks import ATTACKS, NOISES, Attack, Noise, gradient
from ..config import check_eps
from ..datasets import Split
from ..errors import UserError, nearest
from ..nets import Encoder, TorchEncoder, as_encoder
from ..objectives import classify, contrast
from ..random import seeded, untouched
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
    known = [*ATTACKS, UNLABELLED, *NOISES]
    for name in attacks:
        if name not in known:
            raise UserError(f"attacks are {', '.join(known)}, got '{name}'.{nearest(name, known)}")
    if not attacks or not len(eps):
        raise UserError("robust_accuracy needs one attack and one eps or more.")
    if steps < 1 or restarts < 1:
        raise UserError(f"steps and restarts are 1 or more, got {steps} and {restarts}.")
    grid = tuple(sorted({check_eps(float(e)) for e in eps}))
    net = as_encoder(encoder)
    under = _Under(net, probe, steps=steps, restarts=restarts, temperature=temperature, seed=seed)
    right, loss, done, total = [], [], 0, len(images) * len(attacks) * len(grid)
    with untouched(net):
        net.eval()
        for b, (x, y) in enumerate(images.batches(batch_size)):
            rows = []
            for name in attacks:
                rows.append(under.curve(name, grid, x, y, b))
                done += len(y) * len(grid)
                if progress is not None:
                    progress(f"attacking with {name}", done, total)
            right.append(torch.stack([r for r, _ in rows]).cpu())
            loss.append(torch.stack([v for _, v in rows]).cpu())
        checks = _checks(under, images, tuple(attacks), grid, torch.cat(right, 2), torch.cat(loss, 2)) if check else ()
    about = {"steps": steps, "restarts": restarts, "seed": seed, "temperature": temperature, "torch": torch.__version__}
    return Robustness(
        attacks=tuple(attacks),
        eps=grid,
        right=torch.cat(right, 2),
        loss=torch.cat(loss, 2),
        index=torch.arange(len(images)),
        checks=checks,
        provenance={"study": "robust", "device": str(images.device), **about, **(provenance or {})},
    )


class _Under:
    """Right or wrong, and the loss, of one batch under one attack."""

    def __init__(
        self,
        net: Encoder | TorchEncoder,
        probe: Callable[[Tensor], Tensor],
        *,
        steps: int,
        restarts: int,
        temperature: float,
        seed: int,
    ):
        self.net, self.probe, self.steps, self.restarts = net, probe, steps, restarts
        self.temperature, self.seed = temperature, seed

    def curve(self, name: str, grid: Sequence[float], x: Tensor, y: Tensor, batch: int = 0) -> tuple[Tensor, Tensor]:
        """(E, n) right and (E, n) loss of a batch over the eps of `grid`."""
        towards = contrast(self.net, x, temperature=self.temperature) if name == UNLABELLED else self.objective(y)
        direction = gradient(towards, x) if name == "fgsm" else None  # one for all eps
        rows = [self.at(name, eps, x, y, batch, towards, direction) for eps in grid]
        return torch.stack([r for r, _ in rows]), torch.stack([v for _, v in rows])

    def objective(self, y: Tensor) -> classify:
        """What an attack with labels pushes up."""
        return classify(self.net, self.probe, y)

    def at(
        self, name: str, eps: float, x: Tensor, y: Tensor, batch: int, towards: Any, direction: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n,) right after every restart, and (n,) the largest loss of them."""
        right, worst = torch.ones_like(y, dtype=torch.bool), torch.full(y.shape, -torch.inf, device=x.device)
        attack = self.preset(name, eps)
        again = self.restarts if isinstance(attack, Attack) and attack.start != "none" and eps > 0 else 1
        for restart in range(again):
            if eps == 0:
                moved = x
            elif direction is not None and isinstance(attack, Attack):
                moved = attack.move(x, x, direction)
            else:
                moved = attack(x, towards, generator=seeded(hash((self.seed, batch, restart)) % 2**31))
            with torch.no_grad():
                logits = self.probe(self.net.features(moved))
            right &= logits.argmax(1) == y
            worst = torch.maximum(worst, F.cross_entropy(logits, y, reduction="none"))
        return right, worst

    def preset(self, name: str, eps: float) -> Attack | Noise:
        if name in NOISES:
            return NOISES[name](eps, norm="linf")
        if name == UNLABELLED:
            return Attack.pgd(eps, steps=self.steps)
        return ATTACKS[name](eps, **TABLE[name].options(self.steps))


def _checks(
    under: _Under, images: Split, attacks: tuple[str, ...], grid: tuple[float, ...], right: Tensor, loss: Tensor
) -> tuple[Check, ...]:
    """Signs that would tell a masked gradient from a robust encoder."""
    x, y = images[:PROBED]
    mid = max(e for e in grid if e <= 8 / 255) or grid[-1] or 8 / 255
    losses = []
    for steps in (1, 5, under.steps * 2):
        few = _Under(under.net, under.probe, steps=steps, restarts=1, temperature=under.temperature, seed=under.seed)
        losses.append(float(few.at("pgd", mid, x, y, 0, under.objective(y))[1].mean()))
    huge = float(under.at("pgd", HUGE, x, y, 0, under.objective(y))[0].double().mean())
    k = f"{mid * 255:g}/255"
    steps_text = " → ".join(f"{v:.2f}" for v in losses)
    found = [
        Check(f"more PGD steps raise the loss at {k}", _rising(losses), f"1, 5, {under.steps * 2} steps: {steps_text}"),
        Check("PGD at ε = 0.5 leaves next to nothing right", huge <= 0.02, f"{100 * huge:.0f} % of {len(y)} are right"),
    ]
    shares, means = right.double().mean(2), loss.double().mean(2)
    for name in attacks:
        if name in NOISES:
            continue
        row = [float(v) for v in means[attacks.index(name)]]
        if len(row) > 1 and name != UNLABELLED:
            found.append(
                Check(f"a larger ε raises the loss under {name}", _rising(row), " → ".join(f"{v:.2f}" for v in row))
            )
    if "pgd" in attacks and "fgsm" in attacks:
        over = float((shares[attacks.index("pgd")] - shares[attacks.index("fgsm")]).max())
        found.append(Check("PGD is at least as strong as FGSM", over <= 0.005, f"at most {100 * over:+.1f} points"))
    return tuple(found)


def _rising(values: Sequence[float]) -> bool:
    return all(b >= a - 0.01 * abs(a) for a, b in itertools.pairwise(values))
