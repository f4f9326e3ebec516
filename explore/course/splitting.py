"""The two parts of the contrastive loss's gradient."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import losses
from ..attacks import gradient
from .contrastive import diagonal
from .exercise import Exercise, Mistake

ex = losses  # the model answer uses the library as a lesson does: ex.nt_xent


# The model answer is shown in the instructor's copy as it stands here.
def split_gradient(embed, x, z, temperature):
    """The positive and the negative part of NT-Xent's gradient in the pixels x, against z."""
    x = x.detach().clone().requires_grad_()
    toward = -(embed(x) * z).sum(1) / temperature
    (positive,) = torch.autograd.grad(toward.sum(), x)
    (whole,) = torch.autograd.grad(ex.nt_xent(z, embed(x), temperature).sum(), x)
    return positive, whole - positive


def _embedding(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A small fixed network, images (n, 3, 4, 4) -> unit rows (n, 6), in the images' precision."""
    first = torch.randn(48, 16, generator=generator) / 4
    second = torch.randn(16, 6, generator=generator) / 4

    def embed(images: Tensor) -> Tensor:
        hidden = torch.tanh((images.flatten(1) - 0.5) @ first.to(images.dtype) * 2)
        return F.normalize(hidden @ second.to(images.dtype), dim=1)

    return embed


def _draw_images(generator: torch.Generator) -> tuple:
    embed = _embedding(generator)
    x = torch.rand(5, 3, 4, 4, generator=generator)
    other = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    temperature = round(0.15 + 0.35 * float(torch.rand(1, generator=generator)), 3)
    return embed, x, embed(other), temperature


Split = Callable[[Callable, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def _split_by(loss: Callable[[Tensor, Tensor, float], Tensor]) -> Split:
    """The split with another loss in place of NT-Xent."""

    def split(embed: Callable, x: Tensor, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        positive = gradient(lambda images: -(embed(images) * z).sum(1) / temperature, x)
        return positive, gradient(lambda images: loss(z, embed(images), temperature), x) - positive

    return split


SPLIT: Split = _split_by(losses.nt_xent)


def _changed(change: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> Split:
    """The right two parts, changed."""
    return lambda embed, x, z, temperature: change(*SPLIT(embed, x, z, temperature), temperature)


def _own_embedding(embed: Callable, x: Tensor, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return SPLIT(embed, x, embed(x), temperature)


def _through_both(embed: Callable, x: Tensor, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    whole = gradient(lambda images: losses.nt_xent(embed(images), embed(images), temperature), x)
    positive = gradient(lambda images: -(embed(images) * z).sum(1) / temperature, x)
    return positive, whole - positive


def _first_image(embed: Callable, x: Tensor, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    own = torch.arange(len(x)) == 0
    positive = gradient(lambda images: -(embed(images) * z).sum(1) / temperature * own, x)
    return positive, gradient(lambda images: losses.nt_xent(z, embed(images), temperature) * own, x) - positive


SPLIT_MISTAKES = (
    Mistake("parts exchanged", "return the positive part first.", _changed(lambda p, n, t: (n, p))),
    Mistake(
        "whole gradient as negative part",
        "the negative part is what is left of the whole gradient without the positive part.",
        _changed(lambda p, n, t: (p, p + n)),
    ),
    Mistake(
        "whole gradient as positive part",
        "the positive part is the gradient of -cosine / temperature alone.",
        _changed(lambda p, n, t: (p + n, n)),
    ),
    Mistake(
        "wrong sign",
        "both parts are gradients of the loss, which an attack goes up: that of -cosine / temperature, and the rest.",
        _changed(lambda p, n, t: (-p, -n)),
    ),
    Mistake(
        "wrong sign of the positive part",
        "the loss has -cosine / temperature; mind the minus.",
        _changed(lambda p, n, t: (-p, n)),
    ),
    Mistake(
        "wrong sign from the start",
        "the loss has -cosine / temperature; with +cosine the rest comes out wrong as well.",
        _changed(lambda p, n, t: (-p, n + 2 * p)),
    ),
    Mistake(
        "wrong sign of the negative part",
        "it is the whole gradient minus the positive part, not the other way round.",
        _changed(lambda p, n, t: (p, -n)),
    ),
    Mistake(
        "missing temperature",
        "the positive part of the loss is -cosine / temperature.",
        _changed(lambda p, n, t: (p * t, n + p - p * t)),
    ),
    Mistake(
        "gradient of the mean",
        "take the sum of the images' losses; the mean makes every gradient n times smaller.",
        lambda embed, x, z, t: tuple(part / len(x) for part in SPLIT(embed, x, z, t)),
    ),
    Mistake(
        "gradient of one image's loss",
        "sum the losses of all images before you differentiate.",
        _first_image,
    ),
    Mistake(
        "its own embedding as reference",
        "the partner of x[i] is z[i]; against its own embedding the positive part is 0.",
        _own_embedding,
    ),
    Mistake(
        "gradient through the anchor",
        "the reference z is given and held constant; only embed(x) depends on the pixels.",
        _through_both,
    ),
    Mistake(
        "itself among the candidates",
        "the loss leaves each anchor out of its own candidates; use NT-Xent as it is.",
        _split_by(diagonal(None)),
    ),
    Mistake(
        "negatives of one view only",
        "NT-Xent has two anchors a pair and 2n - 1 candidates each; use ex.nt_xent.",
        _split_by(losses.softmax_one_way),
    ),
    Mistake(
        "absolute values",
        "return the gradients themselves; lengths come later.",
        _changed(lambda p, n, t: (p.abs(), n.abs())),
    ),
)

EXERCISES = (
    Exercise(
        name="split_gradient",
        title="Split the loss's gradient into its two parts",
        lesson="02",
        minutes=20,
        difficulty="hard",
        returns="two gradients of x's shape, the positive part first",
        expect="Two calls of torch.autograd.grad: one of -cosine / temperature, one of the whole loss; the rest is a difference.",
        solution=split_gradient,
        reference=SPLIT,
        draw=_draw_images,
        mistakes=SPLIT_MISTAKES,
    ),
)
