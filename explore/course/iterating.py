"""PGD, and noise of a perturbation's length."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attacks import Attack, gradient, match, norms
from .attacking import Objective, hills, near_edges, project, size
from .exercise import Exercise, Mistake


# The model answers are shown in the instructor's copy as they stand here.
def pgd(x, objective, eps, step_size, steps):
    """Images after `steps` sign steps uphill from x, each projected to the ball and to [0, 1]."""
    x_adv = x.clone()
    for _ in range(steps):
        pixels = x_adv.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective(pixels).sum(), pixels)
        x_adv = x + (x_adv + step_size * slope.sign() - x).clamp(-eps, eps)
        x_adv = x_adv.clamp(0, 1)
    return x_adv


def match_l2(noise, delta):
    """Noise (n, c, h, w), each image's scaled to the L2 length of the same image's delta."""
    wanted, own = (part.flatten(1).norm(dim=1) for part in (delta, noise))
    return noise * (wanted / own)[:, None, None, None]


def _draw_pgd(generator: torch.Generator) -> tuple:
    """Tops half-way between two steps, so that signs turn and none of them depends on rounding."""
    step, shape = size(generator, 2 / 255, 4 / 255), (4, 3, 6, 6)
    eps = 4.3 * step
    x = near_edges(0.25 + 0.5 * torch.rand(shape, generator=generator), eps)
    top = x + (torch.randint(-8, 8, shape, generator=generator) + 0.5) * step
    top[:, :, 0], top[:, :, 1] = -1, 2
    return x, hills(0.5 + torch.rand(shape, generator=generator), top), eps, step, 8


def _draw_match(generator: torch.Generator) -> tuple:
    shape = (5, 3, 4, 4)
    sizes = 0.02 + 0.2 * torch.rand(2, shape[0], 1, 1, 1, generator=generator)
    noise, delta = torch.randn(2, *shape, generator=generator) * sizes
    return noise, delta


def _pgd(x: Tensor, objective: Objective, eps: float, step_size: float, steps: int) -> Tensor:
    return Attack("pgd", eps, step=step_size, steps=steps)(x, objective)


Move = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]  # x, iterate, gradient, eps, step -> next iterate


def _loop(move: Move, *, more: int = 0, fresh: bool = True) -> Callable[..., Tensor]:
    """A wrong PGD: its steps by `move`, `more` of them; `fresh=False` keeps the first gradient."""

    def attack(x: Tensor, objective: Objective, eps: float, step_size: float, steps: int) -> Tensor:
        x_adv, first = x, gradient(objective, x)
        for _ in range(steps + more):
            grad = gradient(objective, x_adv) if fresh else first
            x_adv = move(x, x_adv, grad, eps, step_size)
        return x_adv

    return attack


def _plain(x: Tensor, x_adv: Tensor, grad: Tensor, eps: float, step: float) -> Tensor:
    return project(x_adv + step * grad.sign(), x, eps)


PGD_MISTAKES = (
    Mistake(
        "wrong sign",
        "an attack makes the loss larger: add the step, do not subtract it.",
        _loop(lambda x, x_adv, g, eps, step: project(x_adv - step * g.sign(), x, eps)),
    ),
    Mistake(
        "no projection",
        "after every step clamp x_adv - x to [-eps, eps]; the ball is around x, not around the last step.",
        _loop(lambda x, x_adv, g, eps, step: (x_adv + step * g.sign()).clamp(0, 1)),
    ),
    Mistake(
        "no clamp",
        "pixels leave [0, 1]; clamp every step to the pixel range as well.",
        _loop(lambda x, x_adv, g, eps, step: x + (x_adv + step * g.sign() - x).clamp(-eps, eps)),
    ),
    Mistake(
        "neither projection nor clamp",
        "after every step clamp x_adv - x to [-eps, eps], and the image to [0, 1].",
        _loop(lambda x, x_adv, g, eps, step: x_adv + step * g.sign()),
    ),
    Mistake(
        "gradient at the clean image",
        "every step takes the gradient at the present x_adv, not at x.",
        _loop(_plain, fresh=False),
    ),
    Mistake("wrong number of steps", "it takes `steps` gradients; look at the range.", _loop(_plain, more=-1)),
    Mistake("wrong number of steps", "it takes `steps` gradients; look at the range.", _loop(_plain, more=1)),
    Mistake(
        "one step only",
        "the loop has to go on from its own result: x_adv = ... in every round.",
        lambda x, objective, eps, step, steps: _pgd(x, objective, eps, step, 1),
    ),
    Mistake(
        "steps of eps",
        "a step is step_size long; eps is the radius of the ball.",
        lambda x, objective, eps, step, steps: _pgd(x, objective, eps, eps, steps),
    ),
    Mistake(
        "eps and step_size exchanged",
        "the ball has radius eps, a step is step_size long.",
        lambda x, objective, eps, step, steps: _pgd(x, objective, step, eps, steps),
    ),
    Mistake(
        "no sign",
        "every pixel moves by step_size: take the sign of the gradient.",
        _loop(lambda x, x_adv, g, eps, step: project(x_adv + step * g, x, eps)),
    ),
    Mistake(
        "eps in 0..255",
        "eps and step_size are in pixel units already; do not divide by 255.",
        lambda x, objective, eps, step, steps: _pgd(x, objective, eps / 255, step / 255, steps),
    ),
    Mistake(
        "clamp to [-1, 1]",
        "images here are in [0, 1], not in [-1, 1].",
        _loop(lambda x, x_adv, g, eps, step: (x + (x_adv + step * g.sign() - x).clamp(-eps, eps)).clamp(-1, 1)),
    ),
    Mistake(
        "returns the perturbation",
        "return the changed images, not their difference to x.",
        lambda x, objective, eps, step, steps: _pgd(x, objective, eps, step, steps) - x,
    ),
    Mistake(
        "projected once, at the end",
        "project after every step; at the end alone, the gradients are taken outside the ball.",
        lambda x, objective, eps, step, steps: project(
            _loop(lambda x, x_adv, g, eps, step: x_adv + step * g.sign())(x, objective, eps, step, steps), x, eps
        ),
    ),
)


def _match(noise: Tensor, delta: Tensor) -> Tensor:
    return match(noise, torch.zeros_like(noise), l2=norms(delta)["l2"], clamp=None)


def _by(length: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Noise scaled by another length than each image's L2; `length` returns one that broadcasts."""
    return lambda noise, delta: noise * (length(delta) / length(noise))


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


MATCH_MISTAKES = (
    Mistake(
        "whole batch",
        "every image has a length of its own; take the norm of each, not of the batch.",
        _by(lambda d: d.norm()),
    ),
    Mistake(
        "wrong norm: L-infinity",
        "match the L2 length, the root of the sum of squares, not the largest pixel.",
        _by(lambda d: _each(d.flatten(1).abs().amax(1))),
    ),
    Mistake(
        "wrong norm: L1",
        "match the L2 length, the root of the sum of squares, not the sum of absolute values.",
        _by(lambda d: _each(d.flatten(1).abs().sum(1))),
    ),
    Mistake(
        "no square root",
        "the ratio of sums of squares is the square of the ratio of lengths.",
        _by(lambda d: _each(d.flatten(1).square().sum(1))),
    ),
    Mistake(
        "inverse ratio",
        "multiply by the wanted length and divide by the noise's own.",
        lambda noise, delta: noise * _each(noise.flatten(1).norm(dim=1) / delta.flatten(1).norm(dim=1)),
    ),
    Mistake(
        "own length not divided out",
        "divide the noise by its own length first.",
        lambda noise, delta: noise * _each(delta.flatten(1).norm(dim=1)),
    ),
    Mistake(
        "unit length",
        "the noise has length 1 now; multiply by the perturbation's length.",
        lambda noise, delta: noise / _each(noise.flatten(1).norm(dim=1)),
    ),
    Mistake(
        "other one scaled",
        "scale the noise to the perturbation's length, not the perturbation to the noise's.",
        lambda noise, delta: _match(delta, noise),
    ),
    Mistake(
        "by channel",
        "one length an image, over all its channels and pixels.",
        _by(lambda d: d.flatten(2).norm(dim=2)[..., None, None]),
    ),
    Mistake(
        "over the wrong axis",
        "the length is over an image's channels and pixels (flatten(1)), not over one axis.",
        _by(lambda d: d.norm(dim=1, keepdim=True)),
    ),
    Mistake(
        "across images",
        "the length is an image's own, not that of one pixel over the batch.",
        _by(lambda d: d.norm(dim=0)),
    ),
    Mistake("unchanged", "the noise comes back as it was; scale every image.", lambda noise, delta: noise),
    Mistake("returns the perturbation", "return the noise, scaled; not delta.", lambda noise, delta: delta),
    Mistake(
        "sum of both",
        "return the scaled noise alone, not added to the perturbation.",
        lambda noise, delta: delta + _match(noise, delta),
    ),
    Mistake(
        "standard deviation instead of length",
        "the standard deviation takes the mean away first; use the norm.",
        _by(lambda d: _each(d.flatten(1).std(dim=1))),
    ),
)

EXERCISES = (
    Exercise(
        name="match_l2",
        title="Match noise to a perturbation's L2 length",
        lesson="03",
        minutes=10,
        difficulty="easy",
        returns="noise of its own shape",
        expect="A ratio of two norms an image, broadcast over channels and pixels.",
        solution=match_l2,
        reference=_match,
        draw=_draw_match,
        mistakes=MATCH_MISTAKES,
    ),
    Exercise(
        name="pgd",
        title="Write the loop of PGD",
        lesson="04",
        minutes=15,
        difficulty="medium",
        returns="images of x's shape",
        expect="FGSM's step in a loop, the gradient taken at the present point, each step projected; start at x.",
        solution=pgd,
        reference=_pgd,
        draw=_draw_pgd,
        mistakes=PGD_MISTAKES,
        margin=1e-5,
    ),
)
