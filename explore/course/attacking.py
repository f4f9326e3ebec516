"""FGSM and the projection."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attacks import Attack, gradient
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


def hills(weight: Tensor, top: Tensor) -> Objective:
    """Images -> losses (n,): every pixel has its top, where its part of the loss is highest.

    The slope is `weight` everywhere but at the top, so no sign depends on rounding.
    """
    return lambda images: -(weight * (images - top).abs()).flatten(1).sum(1)


def near_edges(x: Tensor, eps: float) -> Tensor:
    """x with its first row near 0 and its second near 1: there the pixel range matters."""
    x = x.clone()
    x[:, :, 0], x[:, :, 1] = 0.2 * eps, 1 - 0.2 * eps
    return x


def size(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))


def _draw_fgsm(generator: torch.Generator) -> tuple:
    eps, shape = size(generator, 6 / 255, 14 / 255), (4, 3, 6, 6)
    x = near_edges(torch.rand(shape, generator=generator), eps)
    side = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    top = x + side * (0.2 + 0.3 * torch.rand(shape, generator=generator))
    return x, hills(0.5 + torch.rand(shape, generator=generator), top), eps


def _draw_project(generator: torch.Generator) -> tuple:
    eps, shape = size(generator, 6 / 255, 14 / 255), (4, 3, 6, 6)
    x = near_edges(torch.rand(shape, generator=generator), eps)
    return x + 3 * eps * (2 * torch.rand(shape, generator=generator) - 1), x, eps


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
        "wrong sign and no clamp",
        "an attack makes the loss larger: add the step, and end with clamp(0, 1).",
        _step(lambda x, g, eps: x - eps * g.sign()),
    ),
    Mistake(
        "no sign and no clamp",
        "the step is eps times the gradient's sign; end with clamp(0, 1).",
        _step(lambda x, g, eps: x + eps * g),
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
        title="Project to the ball and to the pixel range",
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
)
