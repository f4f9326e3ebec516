"""How faithful a map is: neighbours in the embedding, their agreement, trustworthiness."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

NEAREST = 10  # neighbours in every honest figure
CHUNK = 1024  # rows at a time against all


def neighbours(h: Tensor, bank: Tensor | None = None, k: int = NEAREST) -> Tensor:
    """Indices (n, k) of the nearest rows of `bank` (default h) by cosine, without self.

    Row i of h and row i of the bank are the same image.
    """
    if len(h) <= k:
        raise UserError(
            f"{k} neighbours need {k + 1} points or more, got {len(h)}; take more images or fewer neighbours."
        )
    return torch.cat([similar.topk(k, dim=1).indices for _, similar in _similar(h, h if bank is None else bank)])


def shared(a: Tensor, b: Tensor) -> Tensor:
    """Fraction (n,) of the neighbours a (n, k) that are among b (n, k)."""
    return (a[:, :, None] == b[:, None, :]).any(2).float().mean(1)


def overlap(h_a: Tensor, h_b: Tensor, k: int = NEAREST) -> Tensor:
    """Fraction (n,) of each image's k nearest shared by two encoders; k / (n - 1) by chance."""
    if len(h_a) != len(h_b):
        raise UserError(f"Two encoders are compared on the same images, got {len(h_a)} and {len(h_b)} embeddings.")
    return shared(neighbours(h_a, k=k), neighbours(h_b, k=k))


def vote(near: Tensor, labels: Tensor) -> Tensor:
    """Majority class (n,) of the neighbours (n, k); ties go to the nearest."""
    classes = int(labels.max()) + 1
    weight = 1 - torch.arange(near.shape[1]) * (0.5 / near.shape[1] ** 2)  # breaks ties only
    votes = torch.zeros(len(near), classes).scatter_add_(1, labels[near], weight.expand(near.shape))
    return votes.argmax(1)


def trustworthiness(
    h: Tensor, xy: Tensor, k: int = NEAREST, *, bank: Tensor | None = None, bank_xy: Tensor | None = None
) -> float:
    """How far a map's neighbours are neighbours in h: 1 all, about 0.5 for a random map.

    Venna & Kaski 2001; scikit-learn's `trustworthiness` on unit h, in chunks. With `bank` and
    `bank_xy` the neighbours of row i are looked up among the bank's rows other than i.
    """
    n = len(h)
    if not 0 < k < n / 2:
        raise UserError(f"Trustworthiness takes k from 1 to below half the {n} points, got {k}.")
    bank_xy = xy if bank_xy is None else bank_xy
    penalty = 0
    for rows, similar in _similar(h, h if bank is None else bank):
        apart = torch.cdist(xy[rows], bank_xy, compute_mode="donot_use_mm_for_euclid_dist")
        apart[torch.arange(len(apart)), rows] = torch.inf
        near = apart.topk(k, dim=1, largest=False).indices
        for j in near.T:  # its rank in h: how many are nearer
            nearer = (similar > similar.gather(1, j[:, None])).numpy().sum(1, dtype=np.int32)
            penalty += int(np.maximum(nearer + 1 - k, 0).sum())
    return 1 - penalty * 2 / (n * k * (2 * n - 3 * k - 1))


def _similar(h: Tensor, bank: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of (rows, cosine to every bank row (r, n), -inf to themselves), in chunks."""
    if len(h) != len(bank):
        raise UserError(
            f"Every row is looked up among the others of the same images, got {len(h)} and {len(bank)} rows."
        )
    h, bank = F.normalize(h.detach().float().cpu(), dim=1), F.normalize(bank.detach().float().cpu(), dim=1)
    for rows in torch.arange(len(h)).split(CHUNK):
        similar = h[rows] @ bank.T
        similar[torch.arange(len(rows)), rows] = -torch.inf
        yield rows, similar
