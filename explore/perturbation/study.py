"""What do an adversary and equally long noise do to a batch?"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attack_table import TABLE
from ..attacks import ATTACKS, Attack, Noise, gradient, norms
from ..errors import UserError, nearest
from ..losses import nt_xent
from ..objectives import contrast
from ..random import seeded
from ..results import KINDS, Check, Perturbation
from ..views import Views

GRID = tuple(range(17))  # eps in k/255
Watch = Callable[[int], None]  # called with the number of gradients taken so far; may raise to stop an attack


def perturb(encoder: nn.Module, x: Tensor, eps: float, **settings: Any) -> Perturbation:
    """What an adversary and three noises of equal length do to images x at one eps (pixel units); see `PerturbationStudy`."""
    return PerturbationStudy(encoder, x, **settings).at(eps * 255)


class PerturbationStudy:
    """One batch under one attack, at any eps: everything that does not depend on eps is computed once.

    `reference`: 'view' (another random view of every image, Algorithm 1), 'self' (the image's own embedding, the
    authors' code) or images. `match`: the length, after clipping, that noises share with the adversary:
    'linf' or 'l2'. `pool`: features h (m, D) to look for neighbours in; `pool_index`: the batch's
    own places in it, where it has one.
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
        views: Views | None = None,
        pool: Tensor | None = None,
        pool_index: Tensor | None = None,
        index: Tensor | None = None,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
        provenance: dict[str, Any] | None = None,
    ):
        if attack not in ATTACKS:
            raise UserError(f"attack must be one of {', '.join(ATTACKS)}, got '{attack}'.{nearest(attack, ATTACKS)}")
        if match not in ("linf", "l2"):
            raise UserError(f"match is 'linf' or 'l2', the length that noises share with the adversary, got '{match}'.")
        self.encoder, self.x, self.attack, self.steps, self.seed = encoder, x.detach(), attack, steps, seed
        self._net: Any = encoder
        self.match, self.temperature, self.classes = match, temperature, tuple(classes)
        self.index = torch.arange(len(x)) if index is None else index.cpu()
        self.labels = torch.full((len(x),), -1) if labels is None else labels.cpu()
        self.set_pool(pool, pool_index)
        self._was = _condition(encoder)
        self.reference = _reference(reference, self.x, seed, views)
        self.objective = contrast(encoder, self.reference, temperature=temperature)
        self.provenance = {
            "study": "perturb",
            "attack": attack,
            "steps": TABLE[attack].gradients(steps),
            "seed": seed,
            "match": match,
            "reference": reference if isinstance(reference, str) else "images",
            "temperature": temperature,
            "device": str(x.device),
            "torch": torch.__version__,
            **(provenance or {}),
        }
        self._grad = gradient(self.objective, self.x)
        self.single_step = self._preset(0.0).single_step
        # (3, n, ...) the noises' directions, in steps of 1/32767 so that the browser can hold the very same numbers
        self.codes = torch.stack([_codes(self._draw(kind)) for kind in KINDS[1:]])
        self._adversaries: dict[float, Tensor] = {}
        self._scales: dict[float, Tensor] = {}
        self._measured: dict[tuple[str, float], tuple[Tensor, Tensor, Tensor]] = {}
        self._share: Tensor | None = None

    def set_pool(self, pool: Tensor | None, pool_index: Tensor | None = None) -> None:
        """Give or replace the features (m, D) that neighbours are looked for in."""
        self.pool = None if pool is None else F.normalize(pool, dim=1)
        self.pool_index = pool_index

    @property
    def sign(self) -> Tensor:
        """Direction of a single step: the gradient's sign at x, of x's shape; equal channels where x is gray."""
        return (Attack.fgsm(1.0, clamp=None).move(self.x, self.x, self._grad) - self.x).round()

    def adversary(self, k: float, watch: Watch | None = None) -> Tensor:
        """Adversarial images at eps = k/255; computed once. `watch` is called before every gradient."""
        if k not in self._adversaries:
            if self.single_step:
                moved = self._preset(k / 255).move(self.x, self.x, self._grad)
            else:
                objective = _Watched(self.objective, watch) if watch else self.objective
                moved = self._preset(k / 255)(self.x, objective, generator=seeded(self.seed))
            self._adversaries[k] = moved
        return self._adversaries[k]

    def scales(self, *ks: float) -> Tensor:
        """(len(ks), 3, n): factors s that make a noise's clip(x + s direction) - x as long as the adversary's delta."""
        missing = [k for k in ks if k not in self._scales]
        if missing:
            lengths = torch.stack([norms(self.adversary(k) - self.x)[self.match] for k in missing])
            solve = scale_linf if self.match == "linf" else scale_l2
            rows = torch.stack([solve(self._direction(i), self.x, lengths) for i in range(3)], dim=1)
            self._scales |= dict(zip(missing, rows, strict=True))
        return torch.stack([self._scales[k] for k in ks])

    def images(self, kind: str, k: float) -> Tensor:
        """Images of a kind at eps = k/255: clip(x + s direction), in float32, as the browser computes them."""
        if kind == "adversary":
            return self.adversary(k)
        i = KINDS.index(kind) - 1
        return (self.x + self.scales(k)[0, i].view(-1, 1, 1, 1) * self._direction(i)).clamp(0, 1)

    @torch.no_grad()
    def measure(self, kind: str, k: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (n,), cosine of h to clean (n,), neighbours (n, 5) of a kind ('clean' too); computed once."""
        key = (kind, 0.0 if kind == "clean" else k)
        if key not in self._measured:
            h = self._net.features(self.x if kind == "clean" else self.images(kind, k))
            loss = nt_xent(self.objective.z, self._net.project(h), self.temperature)
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
        negative.
        """
        if self._share is None:
            positive = gradient(lambda x: -(self.encoder(x) * self.objective.z).sum(1) / self.temperature, self.x)
            towards, away = positive.flatten(1).norm(dim=1), (self._grad - positive).flatten(1).norm(dim=1)
            self._share = (towards / (towards + away).clamp_min(1e-30)).cpu()
        return self._share

    def at(self, k: float, watch: Watch | None = None) -> Perturbation:
        """Everything at eps = k/255."""
        self.adversary(k, watch)
        rows = [self.measure("clean", 0.0), *(self.measure(kind, k) for kind in KINDS)]
        perturbed = {kind: self.images(kind, k).cpu() for kind in KINDS}
        x, direction = (
            self.x.cpu(),
            self.sign if self.single_step else (self.adversary(k) - self.x) * (255 / max(k, 1e-9)),
        )
        return Perturbation(
            x=x,
            perturbed=perturbed,
            eps=k / 255,
            attack=self.attack,
            match=self.match,
            direction=direction.cpu(),
            share=self.share(),
            loss=torch.stack([r[0] for r in rows]),
            cosine=torch.stack([r[1] for r in rows]),
            neighbours=torch.stack([r[2] for r in rows]),
            index=self.index,
            labels=self.labels,
            classes=self.classes,
            checks=self._checks(k, perturbed, rows[0][0], rows[1][0]),
            provenance={**self.provenance, "eps": k / 255},
        )

    def _preset(self, eps: float) -> Attack:
        return ATTACKS[self.attack](eps, **TABLE[self.attack].options(self.steps))

    def _draw(self, kind: str) -> Tensor:
        noise = getattr(Noise, kind)(1.0, clamp=None)
        return noise(self.x, generator=seeded(self.seed)) - self.x

    def _direction(self, i: int) -> Tensor:
        return self.codes[i].to(self.x.device).float() / 32767

    def _nearest(self, h: Tensor) -> Tensor:
        if self.pool is None:
            return torch.zeros(len(h), 0, dtype=torch.long)
        similar = h @ self.pool.T
        if self.pool_index is not None:
            own = self.pool_index.to(h.device)
            rows = torch.where((own >= 0) & (own < len(self.pool)))[0]
            similar[rows, own[rows]] = -torch.inf
        return similar.topk(5, dim=1).indices

    def _checks(self, k: float, perturbed: dict[str, Tensor], clean: Tensor, adversarial: Tensor) -> tuple[Check, ...]:
        most = float((perturbed["adversary"] - self.x.cpu()).abs().max()) * 255
        low, high = min(float(p.min()) for p in perturbed.values()), max(float(p.max()) for p in perturbed.values())
        (buffers, modes), fell = _moved(self._was, self.encoder), int((adversarial < clean - 1e-6).sum())
        return (
            Check(f"|δ| ≤ {k:g}/255", most <= k + 1e-4, f"reaches {most:.2f}/255"),
            Check("pixels in [0, 1]", low >= 0 and high <= 1, f"they reach {low:.3f} … {high:.3f}"),
            Check("BN statistics untouched", not buffers, buffers),
            Check("modes restored", not modes, modes),
            Check("loss above clean" if k else "loss as clean", not fell, f"lower in {fell} of {len(clean)} images"),
        )


class _Watched:
    """An objective that reports every call."""

    def __init__(self, objective: contrast, watch: Watch):
        self.objective, self.watch, self.modules, self.calls = objective, watch, objective.modules, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.watch(self.calls)
        self.calls += 1
        return self.objective(x)


def scale_linf(direction: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
    """s (m, n) so that the largest change by clip(x + s direction) is `lengths` (m, n), or as near as clipping allows.

    Only pixels with that much room can reach it; of these the one with the largest direction gets there first.
    """
    size, room = direction.flatten(1).abs(), _room(direction, x)
    lengths = torch.minimum(lengths, room.amax(1))
    able = [torch.where(room >= row[:, None] - 1e-6, size, 0).amax(1) for row in lengths]
    return lengths / torch.stack(able).clamp_min(1e-12)


def scale_l2(direction: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
    """s (m, n) so that clip(x + s direction) - x has the L2 length `lengths` (m, n), or as near as clipping allows.

    Between two pixels' saturation the squared length is (what is saturated) + s^2 (what is not): sort, sum up, solve.
    """
    size, room = direction.flatten(1).abs().double(), _room(direction, x).double()
    at, order = torch.where(size > 0, room / size.clamp_min(1e-12), 0).sort(dim=1)  # s at which a pixel saturates
    full, free = room.gather(1, order).square(), size.gather(1, order).square()
    before = F.pad(full.cumsum(1), (1, -1))  # saturated earlier than this pixel
    after = free.flip(1).cumsum(1).flip(1)  # this pixel and the later ones
    reached = before + at.square() * after  # squared length where this pixel saturates; ascending
    target = torch.minimum(lengths.double().square(), reached[:, -1]).T.contiguous()  # (n, m)
    j = torch.searchsorted(reached.contiguous(), target).clamp_max(at.shape[1] - 1)
    left = (target - before.gather(1, j)).clamp_min(0)
    return (left / after.gather(1, j).clamp_min(1e-24)).sqrt().T.to(x.dtype)


def _room(direction: Tensor, x: Tensor) -> Tensor:
    """How far every pixel can go along its direction before 0 or 1, (n, pixels); none where the direction is 0."""
    room = torch.where(direction > 0, 1 - x, x)
    return torch.where(direction == 0, 0, room).flatten(1)


def _codes(draw: Tensor) -> Tensor:
    """A draw as int16, its largest entry of every image +-32767."""
    largest = draw.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return (draw / largest * 32767).round().to(torch.int16).cpu()


def _reference(reference: str | Tensor, x: Tensor, seed: int, views: Views | None) -> Tensor:
    if isinstance(reference, Tensor):
        return reference
    if reference not in ("view", "self"):
        raise UserError(f"reference is 'view', 'self' or a batch of images, got '{reference}'.")
    gray = bool((x == x[:, :1]).all())
    views = views or Views(size=x.shape[-1])
    return x if reference == "self" else (views.for_gray() if gray else views)(x, seeded(seed))


def _condition(encoder: nn.Module) -> tuple[dict[str, Tensor], dict[str, bool]]:
    buffers = {name: b.detach().clone() for name, b in encoder.named_buffers()}
    return buffers, {name: m.training for name, m in encoder.named_modules()}


def _moved(was: tuple[dict[str, Tensor], dict[str, bool]], encoder: nn.Module) -> tuple[str, str]:
    """What moved since `was`: first buffer and by how much, first module in another mode; '' where none did."""
    buffers, modes = _condition(encoder)
    moved = [
        f"{n}, by {(b.float() - was[0][n].float()).abs().max():.1g}"
        for n, b in buffers.items()
        if not b.equal(was[0][n])
    ]
    other = [f"{n or 'encoder'} in {'training' if on else 'eval'} mode" for n, on in modes.items() if was[1][n] != on]
    return moved[0] if moved else "", other[0] if other else ""
