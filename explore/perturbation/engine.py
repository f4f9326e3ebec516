"""One batch under every kind of perturbation at every eps, with all that does not depend on eps computed once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import incoming
from ..attack_table import TABLE
from ..attacks import ATTACKS, NOISES, Attack, attack_named, gradient, norms
from ..config import check_eps
from ..errors import UserError, nearest
from ..objectives import Objective, classify, contrast
from ..random import constant, seeded, untouched
from ..views import Views

TEST_KINDS = (*ATTACKS, *NOISES, "gaussian-variance")
PIXELS_AT_ONCE = {
    "cpu": 2**17,
    "cuda": 2**24,
}  # 128 images of 32 x 32 fit a CPU core's cache; a GPU is faster with more
Watch = Callable[[int], None]  # called with the number of gradients taken so far; may raise to stop an attack


class Batch:
    """Images x (n, c, h, w) under any kind of perturbation at any eps, away from an objective on the same images.

    `match`: 'plain', noise as drawn, or the length ('linf', 'l2', after clipping) that it shares, image by image, with the
    attack `guide`; without a guide that of a full sign step, eps or eps * sqrt(pixels). `steps`: of PGD. `seed`: of noise and
    of random starts, one draw for all eps; a generator is drawn from as it stands, for one kind at one eps.
    Networks come back with the statistics and modes they had.
    """

    def __init__(
        self,
        x: Tensor,
        objective: contrast | classify,
        *,
        match: str = "linf",
        guide: str | None = "fgsm",
        steps: int = 5,
        seed: int | torch.Generator = 0,
    ):
        self.x, self.objective, self.match, self.guide, self.steps, self.seed = x, objective, match, guide, steps, seed
        self.codes: dict[str, Tensor] = {}  # int16 noises to use instead of drawn ones, 32767 standing for 1
        self._lengths = {0.0: x.new_zeros(len(x))}
        self._drawn: tuple[str, Tensor] | None = None  # the noise in use
        self._scales: dict[tuple[str, float], Tensor] = {}

    @cached_property
    def gradient(self) -> Tensor:
        """Pixel gradient at x, of x's shape: the direction of a single-step attack at every eps."""
        with untouched(*self.objective.modules), constant(*self.objective.modules):
            return gradient(self.objective, self.x)

    @property
    def sign(self) -> Tensor:
        """The gradient's sign at x, of x's shape; equal channels where x is gray."""
        return (Attack.fgsm(1.0, clamp=None).move(self.x, self.x, self.gradient) - self.x).round()

    def all(self, kinds: Iterable[str], grid: Sequence[float]) -> Iterator[tuple[str, list[float], Tensor]]:
        """(kind, some eps, their images (eps, n, c, h, w)) until every kind had every eps above 0; for eps 0 once ('clean', [0], x).

        As many eps at a time as is good for the device's memory (a CPU's cache).
        """
        if 0.0 in grid:
            yield "clean", [0.0], self.x[None]
        pixels = len(self.x) * self.x.shape[2] * self.x.shape[3]
        at_once = max(1, PIXELS_AT_ONCE.get(self.x.device.type, 2**24) // pixels)
        above = [e for e in grid if e > 0]
        ordered = sorted(kinds, key=lambda kind: kind != self.guide)  # matched noise needs the guide's lengths
        for kind in ordered:
            if kind not in ATTACKS and above:
                self.scales(kind, above)
            for begin in range(0, len(above), at_once):
                some = above[begin : begin + at_once]
                yield kind, some, self.at(kind, some)

    def at(self, kind: str, eps: Sequence[float], watch: Watch | None = None) -> Tensor:
        """Images of a kind at every eps, (len(eps), n, c, h, w); x itself where eps is 0.

        All eps share each gradient of a multi-step attack; `watch` is called before each.
        """
        above = [e for e in map(check_eps, eps) if e > 0]
        if not above:
            return self.x[None].expand(len(eps), *self.x.shape)
        if kind in ATTACKS:
            moved = self._attacked(kind, above, watch)
            if kind == self.guide and self.match != "plain":
                self._lengths |= {e: norms(m - self.x)[self.match] for e, m in zip(above, moved, strict=True)}
        else:
            scale = self.scales(kind, above).view(len(above), -1, 1, 1, 1)
            moved = (self.x + scale * self.direction(kind)).clamp(0, 1)
        if len(above) == len(eps):
            return moved
        rows = iter(moved)
        return torch.stack([next(rows) if e > 0 else self.x for e in eps])

    def scales(self, kind: str, eps: Sequence[float]) -> Tensor:
        """(len(eps), n): factors s that make clip(x + s noise) - x as long as `match` says."""
        missing = [e for e in eps if (kind, e) not in self._scales]
        if missing:
            self._scales |= {(kind, e): row for e, row in zip(missing, self._solved(kind, missing), strict=True)}
        return torch.stack([self._scales[kind, e] for e in eps])

    def _solved(self, kind: str, eps: list[float]) -> Tensor:
        sizes = self.x.new_tensor([e**0.5 if kind.endswith("-variance") else e for e in eps])
        if self.match == "plain":
            return sizes[:, None].expand(-1, len(self.x))
        if self.guide is None:
            full = 1.0 if self.match == "linf" else self.x[0].numel() ** 0.5
            lengths = (sizes * full)[:, None].expand(-1, len(self.x))
        else:
            if unknown := [e for e in eps if e not in self._lengths]:
                self.at(self.guide, unknown)
            lengths = torch.stack([self._lengths[e] for e in eps])
        return (scale_linf if self.match == "linf" else scale_l2)(self.direction(kind), self.x, lengths)

    def direction(self, kind: str) -> Tensor:
        """The noise at eps = 1 before clipping, of x's shape, equal channels where x is gray; one draw for all eps."""
        if kind in self.codes:
            return self.codes[kind].to(self.x.device).float() / 32767
        if self._drawn is None or self._drawn[0] != kind:
            noise: Any = attack_named(kind.removesuffix("-variance"), 1.0, clamp=None)
            self._drawn = kind, noise(self.x, generator=self._draws()) - self.x
        return self._drawn[1]

    def _draws(self) -> torch.Generator:
        return self.seed if isinstance(self.seed, torch.Generator) else seeded(self.seed)

    def _attacked(self, kind: str, eps: Sequence[float], watch: Watch | None) -> Tensor:
        """Attacks that differ in eps alone: one gradient a step for all of them, for all steps where there is but one."""
        attacks = [_attack(kind, e, self.steps) for e in eps]
        if attacks[0].single_step:
            moved = [a.move(self.x, self.x, self.gradient) for a in attacks]
        else:
            together = _together(self.objective, len(eps))
            moved = [a._begin(self.x, self._draws()) for a in attacks]
            with untouched(*self.objective.modules), constant(*self.objective.modules):
                for step in range(attacks[0].steps):
                    if watch is not None:
                        watch(step)
                    grads = gradient(together, torch.cat(moved)).split(len(self.x))
                    moved = [a.move(self.x, m, g) for a, m, g in zip(attacks, moved, grads, strict=True)]
        return torch.stack(moved) if len(moved) > 1 else moved[0][None]  # nothing is copied for one eps


def other_view(x: Tensor, reference: str | Tensor = "view", *, views: Views | None = None, seed: int = 0) -> Tensor:
    """What a contrastive loss compares images x with: 'view', another random view of each (Algorithm 1), 'self', x (the
    authors' code), or the images given. `views`: by default SimCLR's, without colour where all of x is gray."""
    if isinstance(reference, Tensor):
        return reference.to(x.device)
    if not isinstance(reference, str) or reference not in ("view", "self"):
        raise UserError(f"reference is 'view', 'self' or a batch of images, got '{reference!r:.60}'.")
    if reference == "self":
        return x
    if views is None:
        views = Views(size=x.shape[-1])
        views = views.for_gray() if bool((x == x[:, :1]).all()) else views
    return views(x, seeded(seed))


def contrast_with(
    encoder: nn.Module,
    x: Tensor,
    reference: str | Tensor = "view",
    *,
    views: Views | None = None,
    seed: int = 0,
    **settings: Any,
) -> contrast:
    """The contrastive loss of images x against `other_view`; `training.contrast_settings` has a run's views, temperature, loss."""
    return contrast(encoder, other_view(x, reference, views=views, seed=seed), **settings)


def check_grid(kinds: Sequence[str], eps: Sequence[float], match: str) -> tuple[list[str], list[float]]:
    """Kinds without repetition and eps in ascending order, after the checks that they make sense."""
    incoming.listed(kinds, "kinds")
    incoming.listed(eps, "eps")
    for kind in kinds:
        if kind not in TEST_KINDS:
            raise UserError(f"kinds are {', '.join(TEST_KINDS)}, got '{kind}'.{nearest(str(kind), TEST_KINDS)}")
    if match not in ("plain", "linf", "l2"):
        raise UserError(f"match is 'plain', 'linf' or 'l2', the length noise shares with the adversary, got '{match}'.")
    if match != "plain" and "gaussian-variance" in kinds:
        raise UserError(
            f"With match='{match}' Gaussian noise has the adversary's length, so eps is neither its std nor its variance; "
            "leave 'gaussian-variance' out, or use match='plain'."
        )
    if not kinds or not len(eps):
        raise UserError("A sweep needs one kind and one eps or more.")
    return list(dict.fromkeys(kinds)), sorted({float(check_eps(e)) for e in eps})


def guide_of(kinds: Sequence[str]) -> str:
    """The attack whose length matched noise takes: the first of the kinds, FGSM where there is none."""
    return next((kind for kind in kinds if kind in ATTACKS), "fgsm")


def passes(kinds: Sequence[str], eps: Sequence[float], match: str, steps: int = 5) -> dict[str, int]:
    """Forward passes an image (a backward through pixels is one more) of `loss_vs_eps`, and of the loop that shares nothing.

    The loop, for every kind and eps: embed the reference, make the attack (for noise, the one whose length it is to have),
    embed what came out.
    """
    guide, above = guide_of(kinds), sum(e > 0 for e in eps)
    attacks = {kind: _attack(kind, 0.0, steps) for kind in ATTACKS}
    needed = {kind for kind in kinds if kind in ATTACKS}
    if match != "plain" and needed != set(kinds):
        needed.add(guide)
    made = sum(2 * attacks[kind].steps * (1 if attacks[kind].single_step else above) for kind in needed)
    noise = 0 if match == "plain" else 2 * attacks[guide].steps
    naive = sum(len(eps) * (2 + (2 * attacks[kind].steps if kind in ATTACKS else noise)) for kind in kinds)
    shared = 1 + (above < len(eps)) + (made if above else 0) + above * len(kinds)
    return {"shared": shared, "naive": naive}


def _attack(kind: str, eps: float, steps: int) -> Any:
    """The attack of that name; `steps` is PGD's."""
    return attack_named(kind, eps, **TABLE[kind].options(steps))


def _together(objective: contrast | classify, copies: int) -> Objective:
    """The objective for `copies` batches behind one another, each against the same partners and labels."""
    if copies == 1:
        return objective
    if isinstance(objective, classify):
        return classify(objective.encoder, objective.head, objective.y.repeat(copies), branch=objective.branch)

    def losses(x: Tensor) -> Tensor:
        z = objective.encoder(x, branch=objective.branch).split(len(x) // copies)
        return torch.cat([objective.losses(each) for each in z])

    return losses


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
