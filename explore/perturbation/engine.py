"""One batch under every kind of perturbation at every eps, with all that does not depend on eps computed once."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..attack_table import TABLE
from ..attacks import ATTACKS, NOISES, gradient, norms
from ..config import check_eps
from ..errors import UserError, nearest
from ..objectives import Objective, classify, contrast
from ..random import seeded
from .study import scale_l2, scale_linf

TEST_KINDS = (*ATTACKS, *NOISES, "gaussian-variance")
PIXELS_AT_ONCE = {
    "cpu": 2**17,
    "cuda": 2**24,
}  # 128 images of 32 x 32 fit a CPU core's cache; a GPU is faster with more


class Batch:
    """Images x (n, c, h, w) under any kind at any eps, away from an objective on the same images.

    `match`: 'plain', or the length ('linf', 'l2', after clipping) that noise shares, image by image, with the attack
    `guide`. `steps`: of PGD. `seed`: of noise and of random starts; one draw serves all eps. Networks must be in eval mode.
    """

    def __init__(
        self,
        x: Tensor,
        objective: contrast | classify,
        *,
        match: str = "linf",
        guide: str = "fgsm",
        steps: int = 5,
        seed: int = 0,
    ):
        self.x, self.objective, self.match, self.guide, self.steps, self.seed = x, objective, match, guide, steps, seed
        self._lengths: dict[float, Tensor] = {}
        self._drawn: tuple[str, Tensor] | None = None  # the noise in use
        self._scales: dict[tuple[str, float], Tensor] = {}

    @cached_property
    def gradient(self) -> Tensor:
        """Pixel gradient at x, of x's shape: the direction of a single-step attack at every eps."""
        return gradient(self.objective, self.x)

    def all(self, kinds: Iterable[str], grid: Sequence[float]) -> Iterator[tuple[str, list[float], Tensor]]:
        """(kind, some eps, their images (eps, n, c, h, w)) until every kind had every eps above 0; for eps 0 once ('clean', [0], x).

        As many eps at a time as is good for the device's memory (a CPU's cache).
        """
        if 0.0 in grid:
            yield "clean", [0.0], self.x[None]
        pixels = len(self.x) * self.x.shape[2] * self.x.shape[3]
        at_once = max(1, PIXELS_AT_ONCE[self.x.device.type] // pixels)
        above = [e for e in grid if e > 0]
        for kind in sorted(
            kinds, key=lambda kind: kind != self.guide
        ):  # its lengths are known when noise asks for them
            if kind not in ATTACKS:
                self._solve(kind, above)
            for begin in range(0, len(above), at_once):
                some = above[begin : begin + at_once]
                yield kind, some, self.at(kind, some)

    def at(self, kind: str, eps: list[float]) -> Tensor:
        """Images of a kind at every eps, (len(eps), n, c, h, w)."""
        if kind in ATTACKS:
            moved = self._attacked(kind, eps)
            if kind == self.guide and self.match != "plain":
                self._lengths |= {e: norms(m - self.x)[self.match] for e, m in zip(eps, moved, strict=True)}
            return moved
        self._solve(kind, eps)
        scale = torch.stack([self._scales[kind, e] for e in eps]).view(len(eps), -1, 1, 1, 1)
        return (self.x + scale * self._direction(kind)).clamp(0, 1)

    def _direction(self, kind: str) -> Tensor:
        """The noise at eps = 1, of x's shape; one draw for all eps."""
        if self._drawn is None or self._drawn[0] != kind:
            draw = NOISES[kind.removesuffix("-variance")](1.0, clamp=None)
            self._drawn = kind, draw(self.x, generator=seeded(self.seed)) - self.x
        return self._drawn[1]

    def _solve(self, kind: str, eps: list[float]) -> None:
        """What the noise is to be multiplied with at every eps, one number an image; for all eps in one go."""
        eps = [e for e in eps if (kind, e) not in self._scales]
        if not eps:
            return
        if self.match == "plain":
            sizes = self.x.new_tensor([e**0.5 if kind.endswith("-variance") else e for e in eps])
            scales = sizes[:, None].expand(-1, len(self.x))
        else:
            self.at(self.guide, [e for e in eps if e not in self._lengths])
            solve = scale_linf if self.match == "linf" else scale_l2
            scales = solve(self._direction(kind), self.x, torch.stack([self._lengths[e] for e in eps]))
        self._scales |= {(kind, e): row for e, row in zip(eps, scales, strict=True)}

    def _attacked(self, kind: str, eps: list[float]) -> Tensor:
        """Attacks that differ in eps alone: one gradient a step for all of them, for all steps where there is but one."""
        if not eps:
            return self.x.new_empty(0, *self.x.shape)
        attacks = [ATTACKS[kind](e, **TABLE[kind].options(self.steps)) for e in eps]
        if attacks[0].single_step:
            return torch.stack([a.move(self.x, self.x, self.gradient) for a in attacks])
        together = _together(self.objective, len(eps))
        moved = [a._begin(self.x, seeded(self.seed)) for a in attacks]
        for _ in range(attacks[0].steps):
            grads = gradient(together, torch.cat(moved)).split(len(self.x))
            moved = [a.move(self.x, m, g) for a, m, g in zip(attacks, moved, grads, strict=True)]
        return torch.stack(moved)


def check_grid(kinds: Sequence[str], eps: Sequence[float], match: str) -> tuple[list[str], list[float]]:
    """Kinds without repetition and eps in ascending order, after the checks that they make sense."""
    for kind in kinds:
        if kind not in TEST_KINDS:
            raise UserError(f"kinds are {', '.join(TEST_KINDS)}, got '{kind}'.{nearest(kind, TEST_KINDS)}")
    if match not in ("plain", "linf", "l2"):
        raise UserError(f"match is 'plain', 'linf' or 'l2', the length noise shares with the adversary, got '{match}'.")
    if match != "plain" and "gaussian-variance" in kinds:
        raise UserError(
            f"With match='{match}' Gaussian noise has the adversary's length, so eps is neither its std nor its variance; "
            "leave 'gaussian-variance' out, or use match='plain'."
        )
    if not kinds or not len(eps):
        raise UserError("A sweep needs one kind and one eps or more.")
    return list(dict.fromkeys(kinds)), sorted({check_eps(float(e)) for e in eps})


def guide_of(kinds: Sequence[str]) -> str:
    """The attack whose length matched noise takes: the first of the kinds, FGSM where there is none."""
    return next((kind for kind in kinds if kind in ATTACKS), "fgsm")


def passes(kinds: Sequence[str], eps: Sequence[float], match: str, steps: int = 5) -> dict[str, int]:
    """Forward passes an image (a backward through pixels is one more) of `loss_vs_eps`, and of the loop that shares nothing.

    The loop, for every kind and eps: embed the reference, make the attack (for noise, the one whose length it is to have),
    embed what came out.
    """
    guide, above = guide_of(kinds), sum(e > 0 for e in eps)
    cost = {kind: 2 * TABLE[kind].gradients(steps) for kind in ATTACKS}
    needed = {kind for kind in kinds if kind in ATTACKS}
    if match != "plain" and needed != set(kinds):
        needed.add(guide)
    made = sum(cost[kind] * (1 if ATTACKS[kind](0.0).single_step else above) for kind in needed)
    noise = 0 if match == "plain" else cost[guide]
    naive = sum(len(eps) * (2 + cost.get(kind, noise)) for kind in kinds)
    shared = 1 + (above < len(eps)) + (made if above else 0) + above * len(kinds)
    return {"shared": shared, "naive": naive}


def _together(objective: contrast | classify, copies: int) -> Objective:
    """The objective for `copies` batches behind one another, each against the same partners and labels."""
    if isinstance(objective, classify):
        return classify(objective.encoder, objective.head, objective.y.repeat(copies), branch=objective.branch)

    def losses(x: Tensor) -> Tensor:
        z = objective.encoder(x, branch=objective.branch).split(len(x) // copies)
        return torch.cat([objective._loss(objective.z, each, objective.temperature) for each in z])

    return losses
