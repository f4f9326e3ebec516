"""Exercises of the lessons on one's own training and one's own pictures: RankMe, and pixels as
floats in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import rankme as effective_rank
from .exercise import Exercise, Mistake


def rankme(h):
    """Effective rank of features h (n, D): e to the entropy of the normalised singular values."""
    values = torch.linalg.svdvals(h)
    share = values / values.sum()
    return (-(share * share.log()).sum()).exp()


def to_unit_range(pixels):
    """uint8 pixels, 0 to 255, (n, 3, h, w), as float images in [0, 1]."""
    return pixels.float() / 255


def _features(generator: torch.Generator) -> tuple:
    """Features (64, 12) of unlike directions, away from 0."""
    return (torch.randn(64, 12, generator=generator) * torch.linspace(0.1, 2, 12) + 0.7,)


def _pixels(generator: torch.Generator) -> tuple:
    """uint8 pixels (4, 3, 8, 8) of unlike brightness, none near 255: the largest is no scale."""
    light = torch.rand(4, 1, 1, 1, generator=generator) * 0.6 + 0.1
    return ((2 + 250 * light * torch.rand(4, 3, 8, 8, generator=generator)).byte(),)


def _entropy(share: Tensor) -> Tensor:
    return torch.special.entr(share).sum()


def _of(share: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """RankMe with another share made of the singular values."""
    return lambda h: _entropy(share(torch.linalg.svdvals(h))).exp()


def _shares(h: Tensor) -> Tensor:
    values = torch.linalg.svdvals(h)
    return values / values.sum()


RANKME = (
    Mistake("squared singular values", "these are variances; take the singular values as they are.", _of(lambda s: s**2 / (s**2).sum())),
    Mistake("no exponential", "this is the entropy; RankMe is e to it.", lambda h: _entropy(_shares(h))),
    Mistake("wrong sign", "the entropy is minus the sum of p ln p.", lambda h: (-_entropy(_shares(h))).exp()),
    Mistake("log2", "with log2 the base is 2, not e.", lambda h: (_entropy(_shares(h)) / 0.6931472).exp()),
    Mistake("2 to the entropy", "the entropy is in nats, so the base is e.", lambda h: 2 ** _entropy(_shares(h))),
    Mistake("not normalised", "divide the singular values by their sum.", _of(lambda s: s)),
    Mistake("divided by the largest", "divide the singular values by their sum.", _of(lambda s: s / s.max())),
    Mistake("divided by their norm", "divide by the sum, not by the root of the sum of squares.", _of(lambda s: s / s.norm())),
    Mistake("softmax", "a plain division by the sum, no softmax.", _of(lambda s: s.softmax(0))),
    Mistake("plain rank", "this counts directions; RankMe weighs them.", lambda h: torch.linalg.matrix_rank(h).to(h.dtype)),
    Mistake("participation ratio", "this is another effective rank; RankMe takes the entropy.", lambda h: 1 / _shares(h).square().sum()),
    Mistake("features centred", "take the features as they are, without subtracting their mean.", lambda h: effective_rank(h - h.mean(0))),
    Mistake("rows of unit length", "take the features h as they are, not normalised.", lambda h: effective_rank(F.normalize(h, dim=1))),
)  # fmt: skip

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
TO_UNIT_RANGE = (
    Mistake("not scaled", "divide by 255.", lambda x: x.float()),
    Mistake("divided by the largest", "a dark picture stays dark: divide by 255, not by its largest pixel.", lambda x: x / x.max()),
    Mistake("each image by its largest", "a dark picture stays dark: divide by 255, not by its largest pixel.", lambda x: x / x.amax((1, 2, 3), keepdim=True)),
    Mistake("divided by 256", "the largest pixel is 255, and is to become 1.", lambda x: x / 256),
    Mistake("range -1 to 1", "images are in [0, 1]; the encoder normalises them itself.", lambda x: x / 127.5 - 1),
    Mistake("ImageNet's normalisation", "images are in [0, 1]; the encoder normalises them itself.", lambda x: (x / 255 - MEAN) / STD),
    Mistake("clamped", "this makes nearly every pixel white; divide by 255.", lambda x: x.float().clamp(0, 1)),
    Mistake("whole-number division", "// drops what is left over; divide by /.", lambda x: (x // 255).float()),
    Mistake("divided twice", "once is enough.", lambda x: x / 255 / 255),
    Mistake("stretched", "the darkest pixel is not to become 0: divide by 255.", lambda x: (x - x.min()) / (x.max() - x.min())),
    Mistake("inverted", "0 is black.", lambda x: 1 - x / 255),
)  # fmt: skip

EXERCISES = (
    Exercise(
        name="rankme",
        title="Write RankMe, the effective rank",
        lesson="08",
        minutes=15,
        difficulty="medium",
        returns="one number",
        expect="svdvals, a division by the sum, the entropy by log or by torch.special.entr, exp.",
        solution=rankme,
        reference=effective_rank,
        draw=_features,
        mistakes=RANKME,
    ),
    Exercise(
        name="to_unit_range",
        title="Scale pixels to [0, 1]",
        lesson="12",
        minutes=5,
        difficulty="easy",
        returns="float images of the pixels' shape",
        expect="A division by 255. A rule that looks at the pixels (divide by the largest) brightens dark pictures.",
        solution=to_unit_range,
        reference=lambda pixels: pixels.double() / 255,
        draw=_pixels,
        mistakes=TO_UNIT_RANGE,
    ),
)
