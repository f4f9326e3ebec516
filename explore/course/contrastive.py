"""The contrastive loss NT-Xent."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import losses
from .exercise import Exercise, Mistake


# The model answer is shown in the instructor's copy as it stands here.
def nt_xent(z1, z2, temperature):
    """NT-Xent loss of every pair, (n,): z1[i] and z2[i] (n, d) are two views of one image."""
    z = torch.cat([z1, z2])
    z = z / z.norm(dim=1, keepdim=True)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(-torch.inf)  # an anchor is no candidate for itself
    partner = torch.arange(len(z)).roll(len(z1))
    loss = logits.logsumexp(dim=1) - logits.gather(1, partner[:, None])[:, 0]
    return loss.view(2, -1).mean(0)  # the pair's two anchors


def _parts(z1: Tensor, z2: Tensor, temperature: float, unit: Callable | None = None) -> tuple[Tensor, Tensor]:
    """Logits (2n, 2n) with -inf on the diagonal, and each anchor's partner (2n,)."""
    z = (unit or (lambda z: F.normalize(z, dim=1)))(torch.cat([z1, z2]))
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return logits, torch.arange(len(z)).roll(len(z1))


def _loss(logits: Tensor, partner: Tensor) -> Tensor:
    return F.cross_entropy(logits, partner, reduction="none").view(2, -1).mean(0)


def diagonal(value: float | None) -> Callable[[Tensor, Tensor, float], Tensor]:
    def loss(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
        logits, partner = _parts(z1, z2, temperature)
        return _loss(logits.fill_diagonal_(1 / temperature if value is None else value), partner)

    return loss


def _of_unit(unit: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda z1, z2, temperature: _loss(*_parts(z1, z2, temperature, unit))


def _anchors(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    logits, partner = _parts(z1, z2, temperature)
    return F.cross_entropy(logits, partner, reduction="none")


def _without_partner(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    logits, partner = _parts(z1, z2, temperature)
    positive = logits.gather(1, partner[:, None])[:, 0]
    rest = logits.scatter(1, partner[:, None], -math.inf)
    return (rest.logsumexp(1) - positive).view(2, -1).mean(0)


def _probability(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    logits, partner = _parts(z1, z2, temperature)
    return logits.softmax(1).gather(1, partner[:, None]).view(2, -1).mean(0)


def _neighbour(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    logits, _ = _parts(z1, z2, temperature)
    return _loss(logits, torch.arange(len(logits)) ^ 1)


def _distances(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    _, partner = _parts(z1, z2, temperature)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    return _loss((torch.cdist(z, z) / temperature).fill_diagonal_(-math.inf), partner)


def _both_ways(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    one = losses.softmax_one_way
    return (one(z1, z2, temperature) + one(z2, z1, temperature)) / 2


NT_XENT_MISTAKES = (
    Mistake(
        "wrong sign",
        "the loss is minus the logarithm of the partner's probability, so it is never below 0.",
        lambda z1, z2, t: -losses.nt_xent(z1, z2, t),
    ),
    Mistake(
        "itself among the candidates",
        "an anchor's cosine with itself is 1; take it out of the sum, by -inf on the diagonal of the logits.",
        diagonal(None),
    ),
    Mistake(
        "diagonal set to 0",
        "exp(0) = 1 still counts in the sum; set the diagonal of the logits to -inf.",
        diagonal(0.0),
    ),
    Mistake(
        "partner left out of the sum",
        "the sum runs over the partner and all negatives: over everyone but the anchor itself.",
        _without_partner,
    ),
    Mistake(
        "missing temperature",
        "divide the cosines by the temperature before the exponential.",
        lambda z1, z2, t: losses.nt_xent(z1, z2, 1.0),
    ),
    Mistake(
        "multiplied by the temperature",
        "divide the cosines by the temperature; a small temperature sharpens.",
        lambda z1, z2, t: losses.nt_xent(z1, z2, 1 / t),
    ),
    Mistake(
        "forgot normalisation",
        "scale every row of z1 and z2 to length 1 first; the loss compares cosines.",
        _of_unit(lambda z: z),
    ),
    Mistake(
        "normalised over the wrong axis",
        "every row (dim=1) is to have length 1, not every column.",
        _of_unit(lambda z: F.normalize(z, dim=0)),
    ),
    Mistake(
        "normalised as one block",
        "every row has a length of its own; use dim=1 in the norm.",
        _of_unit(lambda z: z / z.norm()),
    ),
    Mistake(
        "mean over the wrong axis",
        "anchors i and i + n belong to pair i: after cat, view(2, n).mean(0), not view(n, 2).mean(1).",
        lambda z1, z2, t: _anchors(z1, z2, t).view(-1, 2).mean(1),
    ),
    Mistake(
        "one number an anchor",
        "a pair's loss is the mean of its two anchors' losses, so there are n numbers, not 2n.",
        _anchors,
    ),
    Mistake(
        "sum instead of mean",
        "a pair's loss is the mean of its two anchors' losses, not their sum.",
        lambda z1, z2, t: 2 * losses.nt_xent(z1, z2, t),
    ),
    Mistake(
        "negatives of one view only",
        "an anchor's candidates are all 2n - 1 other embeddings, those of its own view too.",
        losses.softmax_one_way,
    ),
    Mistake(
        "negatives of the other view only",
        "an anchor's candidates are all 2n - 1 other embeddings, those of its own view too.",
        _both_ways,
    ),
    Mistake(
        "anchors of one view only",
        "z2's rows are anchors as well; average the losses of z1[i] and z2[i].",
        lambda z1, z2, t: _anchors(z1, z2, t)[: len(z1)],
    ),
    Mistake(
        "no logarithm",
        "this is the partner's probability; the loss is minus its logarithm.",
        _probability,
    ),
    Mistake(
        "wrong partner",
        "after cat([z1, z2]) the partner of row i is row i + n, not its neighbour.",
        _neighbour,
    ),
    Mistake(
        "distance instead of cosine",
        "compare by the dot product of unit rows; a distance is small where two views are alike.",
        _distances,
    ),
    Mistake(
        "another logarithm",
        "the loss is in nats: the natural logarithm, not that of base 2.",
        lambda z1, z2, t: losses.nt_xent(z1, z2, t) / math.log(2),
    ),
)


def _draw_pairs(generator: torch.Generator) -> tuple:
    n, d = 6, 8
    z1 = torch.randn(n, d, generator=generator)
    z2 = z1 + torch.randn(n, d, generator=generator)
    lengths = 0.5 + 2.5 * torch.rand(2, n, 1, generator=generator)
    temperature = round(0.15 + 0.35 * float(torch.rand(1, generator=generator)), 3)
    return z1 * lengths[0], z2 * lengths[1], temperature


def _carries_gradient(answer: Callable, z1: Tensor, z2: Tensor, temperature: float) -> Any:
    """A loss trains only if it carries the gradient, to both views."""

    def slopes(loss: Callable) -> tuple[Tensor | None, ...]:
        views = [z.double().requires_grad_() for z in (z1, z2)]
        value = torch.as_tensor(loss(*views, temperature))
        if not value.requires_grad:
            raise ValueError("no gradient")
        return torch.autograd.grad(value.mean(), views, allow_unused=True)

    wanted = slopes(losses.nt_xent)
    try:
        got = slopes(answer)
    except Exception:  # numpy, or lists of numbers: the values are right
        return "It carries no gradient, so nothing could be trained with it; torch's own operations keep it."
    for have, want in zip(got, wanted, strict=True):
        assert want is not None
        if have is None or bool(((have - want).abs() > 1e-3 * want.abs().max()).any()):
            return "gradient cut off", "the values are right, but a gradient must flow to z1 and to z2: no detach()."
    return None


EXERCISES = (
    Exercise(
        name="nt_xent",
        title="Write the contrastive loss NT-Xent",
        lesson="01",
        minutes=25,
        difficulty="medium",
        returns="one loss a pair, or their mean",
        expect="About three lines beside the normalisation. A loop over anchors is as right as a matrix; both pass.",
        solution=nt_xent,
        reference=losses.nt_xent,
        draw=_draw_pairs,
        mistakes=NT_XENT_MISTAKES,
        either=lambda expected: (expected, expected.mean()),
        also=_carries_gradient,
    ),
)
