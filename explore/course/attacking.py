"""Attacks: FGSM, the projection, PGD, and noise of a perturbation's length."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attacks import Attack, gradient, match, norms
from .exercise import Exercise, Mistake

Objective = Callable[[Tensor], Tensor]


# The model answers are shown in the instructor's copy as they stand here.
def fgsm(x, objective, eps):
    """Images (n, c, h, w) one step of size eps uphill; objective: images -> one loss an image."""
    pixels = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(pixels).sum(), pixels)
    return (x + eps * slope.sign()).clamp(0, 1)


def project(x_adv, x, eps):
    """The point nearest to x_adv that is within eps of x in every pixel, and in [0, 1]."""
    return (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1)


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


def hills(weight: Tensor, top: Tensor) -> Objective:
    """Images -> losses (n,): every pixel has its top, where its part of the loss is highest.

    The slope is `weight` everywhere but at the top, so no sign depends on rounding.
    """
    return lambda images: -(weight * (images - top).abs()).flatten(1).sum(1)


def _near_edges(x: Tensor, eps: float) -> Tensor:
    """x with its first row near 0 and its second near 1: there the pixel range matters."""
    x = x.clone()
    x[:, :, 0], x[:, :, 1] = 0.2 * eps, 1 - 0.2 * eps
    return x


def _size(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))


def _draw_fgsm(generator: torch.Generator) -> tuple:
    eps, shape = _size(generator, 6 / 255, 14 / 255), (4, 3, 6, 6)
    x = _near_edges(torch.rand(shape, generator=generator), eps)
    side = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    top = x + side * (0.2 + 0.3 * torch.rand(shape, generator=generator))
    return x, hills(0.5 + torch.rand(shape, generator=generator), top), eps


def _draw_project(generator: torch.Generator) -> tuple:
    eps, shape = _size(generator, 6 / 255, 14 / 255), (4, 3, 6, 6)
    x = _near_edges(torch.rand(shape, generator=generator), eps)
    return x + 3 * eps * (2 * torch.rand(shape, generator=generator) - 1), x, eps


def _draw_pgd(generator: torch.Generator) -> tuple:
    """Tops half-way between two steps, so that signs turn and none of them depends on rounding."""
    step, shape = _size(generator, 2 / 255, 4 / 255), (4, 3, 6, 6)
    eps = 4.3 * step
    x = _near_edges(0.25 + 0.5 * torch.rand(shape, generator=generator), eps)
    top = x + (torch.randint(-8, 8, shape, generator=generator) + 0.5) * step
    top[:, :, 0], top[:, :, 1] = -1, 2
    return x, hills(0.5 + torch.rand(shape, generator=generator), top), eps, step, 8


def _draw_match(generator: torch.Generator) -> tuple:
    shape = (5, 3, 4, 4)
    sizes = 0.02 + 0.2 * torch.rand(2, shape[0], 1, 1, 1, generator=generator)
    noise, delta = torch.randn(2, *shape, generator=generator) * sizes
    return noise, delta


def _fgsm(x: Tensor, objective: Objective, eps: float) -> Tensor:
    return Attack.fgsm(eps)(x, objective)


def _step(change: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[[Tensor, Objective, float], Tensor]:
    """A wrong FGSM from (x, gradient, eps)."""
    return lambda x, objective, eps: change(x, gradient(objective, x), eps)


def _unit(grad: Tensor) -> Tensor:
    return grad / grad.flatten(1).norm(dim=1)[:, None, None, None]


def _one_image(x: Tensor, objective: Objective, eps: float) -> Tensor:
    own = (torch.arange(len(x)) == 0).double()
    return (x + eps * gradient(lambda images: objective(images) * own, x).sign()).clamp(0, 1)


FGSM_MISTAKES = (
    Mistake(
        "wrong sign",
        "an attack makes the loss larger: add the step, do not subtract it.",
        _step(lambda x, g, eps: (x - eps * g.sign()).clamp(0, 1)),
    ),
    Mistake(
        "no clamp",
        "pixels leave [0, 1]; end with clamp(0, 1).",
        _step(lambda x, g, eps: x + eps * g.sign()),
    ),
    Mistake(
        "eps in 0..255",
        "eps is in pixel units already (8/255, not 8); do not divide by 255.",
        _step(lambda x, g, eps: (x + eps / 255 * g.sign()).clamp(0, 1)),
    ),
    Mistake(
        "eps times 255",
        "images are in [0, 1] and eps is in the same units; do not multiply by 255.",
        _step(lambda x, g, eps: (x + eps * 255 * g.sign()).clamp(0, 1)),
    ),
    Mistake(
        "no sign",
        "every pixel moves by eps whatever the size of its slope: take the sign of the gradient.",
        _step(lambda x, g, eps: (x + eps * g).clamp(0, 1)),
    ),
    Mistake(
        "scaled in L2",
        "this step has L2 length eps; FGSM's is eps in every pixel, by the sign.",
        _step(lambda x, g, eps: (x + eps * _unit(g)).clamp(0, 1)),
    ),
    Mistake(
        "clamp to [-1, 1]",
        "images here are in [0, 1], not in [-1, 1].",
        _step(lambda x, g, eps: (x + eps * g.sign()).clamp(-1, 1)),
    ),
    Mistake(
        "returns the perturbation",
        "return the changed images, x plus the perturbation.",
        _step(lambda x, g, eps: eps * g.sign()),
    ),
    Mistake(
        "returns the clean image",
        "the images come back unchanged; is the step added?",
        lambda x, objective, eps: x,
    ),
    Mistake(
        "returns the gradient",
        "return the changed images: x plus eps times the gradient's sign.",
        _step(lambda x, g, eps: g),
    ),
    Mistake(
        "two steps",
        "every pixel moves by eps, here it moves by twice as much.",
        _step(lambda x, g, eps: (x + 2 * eps * g.sign()).clamp(0, 1)),
    ),
    Mistake(
        "gradient of one image's loss",
        "sum the losses of all images before you differentiate.",
        _one_image,
    ),
    Mistake(
        "upward steps only",
        "a pixel with a negative slope goes down by eps.",
        _step(lambda x, g, eps: (x + eps * (g > 0)).clamp(0, 1)),
    ),
)


def _scaled(x_adv: Tensor, x: Tensor, eps: float, length: Callable[[Tensor], Tensor]) -> Tensor:
    delta = x_adv - x
    return (x + delta * (eps / length(delta)).clamp_max(1)[:, None, None, None]).clamp(0, 1)


PROJECT_MISTAKES = (
    Mistake(
        "no clamp to the pixel range",
        "pixels leave [0, 1]; end with clamp(0, 1).",
        lambda x_adv, x, eps: x + (x_adv - x).clamp(-eps, eps),
    ),
    Mistake(
        "no ball",
        "a pixel may differ from x by eps at most: clamp x_adv - x to [-eps, eps].",
        lambda x_adv, x, eps: x_adv.clamp(0, 1),
    ),
    Mistake(
        "unchanged",
        "x_adv comes back as it was; clamp it to the ball around x, and to [0, 1].",
        lambda x_adv, x, eps: x_adv,
    ),
    Mistake(
        "eps in 0..255",
        "eps is in pixel units already (8/255, not 8); do not divide by 255.",
        lambda x_adv, x, eps: project(x_adv, x, eps / 255),
    ),
    Mistake(
        "ball around 0",
        "clamp the difference x_adv - x to [-eps, eps], then add x; not the image itself.",
        lambda x_adv, x, eps: x_adv.clamp(-eps, eps),
    ),
    Mistake(
        "ball around 0, then [0, 1]",
        "clamp the difference x_adv - x to [-eps, eps], then add x; not the image itself.",
        lambda x_adv, x, eps: x_adv.clamp(-eps, eps).clamp(0, 1),
    ),
    Mistake(
        "returns the perturbation",
        "return the image: x plus the clamped difference.",
        lambda x_adv, x, eps: (x_adv - x).clamp(-eps, eps),
    ),
    Mistake(
        "one side only",
        "a pixel may not be more than eps below x either.",
        lambda x_adv, x, eps: torch.minimum(x_adv, x + eps).clamp(0, 1),
    ),
    Mistake(
        "other side only",
        "a pixel may not be more than eps above x either.",
        lambda x_adv, x, eps: torch.maximum(x_adv, x - eps).clamp(0, 1),
    ),
    Mistake(
        "x and x_adv exchanged",
        "the ball is around x, the first argument is what is projected.",
        lambda x_adv, x, eps: project(x, x_adv, eps),
    ),
    Mistake(
        "clamp to [-1, 1]",
        "images here are in [0, 1], not in [-1, 1].",
        lambda x_adv, x, eps: (x + (x_adv - x).clamp(-eps, eps)).clamp(-1, 1),
    ),
    Mistake(
        "wrong norm",
        "this scales the difference to L2 length eps; here every pixel is clamped by itself.",
        lambda x_adv, x, eps: _scaled(x_adv, x, eps, lambda d: d.flatten(1).norm(dim=1)),
    ),
    Mistake(
        "scaled, not clamped",
        "scaling the whole difference moves pixels that were inside already; clamp each pixel.",
        lambda x_adv, x, eps: _scaled(x_adv, x, eps, lambda d: d.flatten(1).abs().amax(1)),
    ),
    Mistake(
        "half the ball",
        "eps is the radius: from x - eps to x + eps.",
        lambda x_adv, x, eps: project(x_adv, x, eps / 2),
    ),
    Mistake(
        "sign step",
        "a pixel that is inside the ball stays where it is; only those outside go to its edge.",
        lambda x_adv, x, eps: (x + eps * (x_adv - x).sign()).clamp(0, 1),
    ),
)


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
        name="fgsm",
        title="Write FGSM, the one-step attack",
        lesson="02",
        minutes=10,
        difficulty="easy",
        returns="images of x's shape",
        expect="Three lines: a copy that requires a gradient, torch.autograd.grad of the summed loss, the step with its clamp.",
        solution=fgsm,
        reference=_fgsm,
        draw=_draw_fgsm,
        mistakes=FGSM_MISTAKES,
        margin=1e-5,
    ),
    Exercise(
        name="project",
        title="Project an image to the L-infinity ball and the pixel range",
        lesson="02",
        minutes=5,
        difficulty="easy",
        returns="images of x's shape",
        expect="One line with two clamps, or minimum and maximum; in either order, since x lies in [0, 1].",
        solution=project,
        reference=project,
        draw=_draw_project,
        mistakes=PROJECT_MISTAKES,
        margin=1e-5,
    ),
    Exercise(
        name="match_l2",
        title="Give noise the L2 length of a perturbation, image by image",
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
