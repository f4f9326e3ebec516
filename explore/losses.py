"""Contrastive losses, and two numbers that describe an embedding."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UserError
from .types import Embeddings, PerImage, Scalar

# Every loss takes two (n, d) batches of paired rows and returns one number per pair, in nats; the mean over the batch
# is the loss that papers print. Rows are scaled to unit length first. `rows` selects pairs whose losses, against the
# whole batch, are computed: large batches go block by block, or are shared by several processes.

ALL = slice(None)


def nt_xent(z1: Embeddings, z2: Embeddings, temperature: float = 0.5, rows: slice = ALL) -> PerImage:
    """NT-Xent, per pair (n,) in nats: each of 2n embeddings finds its partner.

    Row i is the mean over the two anchors of pair i, so `nt_xent(z1, z2).mean()` is equation 1 of
    SimCLR (Chen et al. 2020, arXiv:2002.05709). Its chance level is `chance(n)` = ln(2n - 1).

    >>> z1 = z2 = torch.eye(4)  # pairs are equal, different images orthogonal
    >>> ex.nt_xent(z1, z2, temperature=0.1).mean().item() < 0.001 < ex.chance(4)
    True
    """
    _check(z1, z2, temperature)
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    anchors, itself, partner = _anchors(n, rows, z.device)
    chosen = z[anchors] if len(anchors) < 2 * n else z
    logits = (chosen @ z.T / temperature).masked_fill(itself, -math.inf)
    return F.cross_entropy(logits, partner, reduction="none").view(2, -1).mean(0)


def softmax_one_way(z1: Embeddings, z2: Embeddings, temperature: float = 0.1, rows: slice = ALL) -> PerImage:
    """One direction, n candidates: row i of z1 has to find row i of z2. Per pair (n,), nats.

    The 'Plain' baseline of CLAE (Ho & Vasconcelos 2020), temperature 0.1 in the authors' code. Its
    chance level is ln(n).
    """
    _check(z1, z2, temperature)
    logits = F.normalize(z1[rows], dim=1) @ F.normalize(z2, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(z1), device=z1.device)[rows], reduction="none")


def uel(z1: Embeddings, z2: Embeddings, temperature: float = 0.1, rows: slice = ALL) -> PerImage:
    """Batch loss of unsupervised embedding learning: 'the partner is me' and 'nobody else is me'.

    -log P(i | partner of i) - sum over j != i of log(1 - P(i | j)), for all 2n embeddings; the
    target side is held constant as in the public code (Ye et al. 2019, arXiv:1904.03436, equations
    3 to 6). Row i is the mean of the two embeddings of pair i.
    """
    _check(z1, z2, temperature)
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    anchors, itself, partner = _anchors(n, rows, z.device)
    # p[i, k]: probability that anchor i is recognised as target k, among all targets but itself
    p = (z[anchors] @ z.detach().T / temperature).masked_fill(itself, -math.inf).softmax(dim=1)
    positive = -p.gather(1, partner[:, None])[:, 0].clamp_min(torch.finfo(p.dtype).tiny).log()
    strangers = p.masked_fill(itself, 0).scatter(1, partner[:, None], 0)
    return (positive - torch.log1p(-strangers.clamp_max(1 - 1e-6)).sum(dim=1)).view(2, -1).mean(0)


LOSSES = {"nt_xent": nt_xent, "softmax": softmax_one_way, "uel": uel}


def chance(n: int, loss: str = "nt_xent") -> float:
    """Loss of an encoder that cannot tell images apart, in nats, for n pairs.

    ln(2n - 1) for NT-Xent, ln(n) for softmax; for 'uel' every embedding is recognised with
    probability 1 / (2n - 1).

    >>> round(ex.chance(32), 2)  # ln 63
    4.14
    """
    m = 2 * n - 1
    if loss == "uel":
        return math.log(m) - (m - 1) * math.log1p(-1 / m) if m > 1 else 0.0
    return math.log(n if loss == "softmax" else m)


def alignment(z1: Embeddings, z2: Embeddings) -> Scalar:
    """Mean squared distance of paired unit embeddings, 0 (equal) to 4 (opposite).

    Wang & Isola 2020, arXiv:2005.10242.

    >>> ex.alignment(torch.eye(2), -torch.eye(2)).item()
    4.0
    """
    return (F.normalize(z1, dim=1) - F.normalize(z2, dim=1)).pow(2).sum(dim=1).mean()


def uniformity(z: Embeddings, t: float = 2.0) -> Scalar:
    """Log of the mean Gaussian potential over all pairs, at most 0; lower is more uniform.

    Wang & Isola 2020, arXiv:2005.10242.

    >>> round(ex.uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 3)
    -8.0
    """
    return torch.pdist(F.normalize(z, dim=1)).pow(2).mul(-t).exp().mean().log()


def _anchors(n: int, rows: slice, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the chosen pairs' embeddings (m,), mask of self (m, 2n), partners (m,)."""
    first = torch.arange(n, device=device)[rows]
    anchors = torch.cat([first, first + n])
    itself = anchors[:, None] == torch.arange(2 * n, device=device)
    return anchors, itself, torch.cat([first + n, first])


def _check(z1: Embeddings, z2: Embeddings, temperature: float) -> None:
    if z1.shape != z2.shape:
        raise UserError(
            f"A contrastive loss needs two batches of paired rows of one shape, got {tuple(z1.shape)} and "
            f"{tuple(z2.shape)}; embed both views with the same encoder."
        )
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, got {temperature}; 0.5 is SimCLR's value for CIFAR.")
