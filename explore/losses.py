"""Contrastive losses, and three numbers that describe an embedding."""

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import incoming
from .errors import UserError, nearest
from .types import Embeddings, PerImage, Scalar

# Every loss takes two (n, d) batches of paired rows and returns one number per pair, in nats; the mean over the batch
# is the loss that papers print. Rows are scaled to unit length first. `rows` selects pairs whose losses, against the
# whole batch, are computed: large batches go block by block, or are shared by several processes.

ALL = slice(None)


# by name, for trainings: without a look at every number, for which a GPU would wait
LOSSES: dict[str, Callable[..., PerImage]] = {}


def _public(name: str) -> Callable[[Callable[..., PerImage]], Callable[..., PerImage]]:
    """Enter a loss into `LOSSES`, for trainings; for users it is checked, and NaN is refused."""

    def door(loss: Callable[..., PerImage]) -> Callable[..., PerImage]:
        @wraps(loss)
        def checked(z1: Any, z2: Any, *settings: Any, **options: Any) -> Any:
            for z in (z1, z2):
                if isinstance(z, Tensor) and not z.is_floating_point():
                    raise UserError(
                        f"A contrastive loss takes float embeddings, got {z.dtype}; convert them: z.float()."
                    )
            _check(z1, z2, *settings[:1])
            if z1.device.type == "cpu":  # a GPU would wait
                incoming.features(z1, "Embeddings")
                incoming.features(z2, "Embeddings")
            return loss(z1, z2, *settings, **options)

        LOSSES[name] = loss
        return checked

    return door


@_public("nt_xent")
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


@_public("softmax")
def softmax_one_way(z1: Embeddings, z2: Embeddings, temperature: float = 0.1, rows: slice = ALL) -> PerImage:
    """One direction, n candidates: row i of z1 has to find row i of z2. Per pair (n,), nats.

    The 'Plain' baseline of CLAE (Ho & Vasconcelos 2020), temperature 0.1 in the authors' code. Its
    chance level is ln(n).
    """
    _check(z1, z2, temperature)
    logits = F.normalize(z1[rows], dim=1) @ F.normalize(z2, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(z1), device=z1.device)[rows], reduction="none")


@_public("uel")
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


@_public("ifm")
def ifm(z1: Embeddings, z2: Embeddings, temperature: float = 0.5, rows: slice = ALL, *, eps: float = 0.1) -> PerImage:
    """Implicit feature modification: the mean of NT-Xent and NT-Xent with attacked embeddings.

    Per pair (n,), nats. For an anchor with unit embedding v, the worst change of length eps (L2)
    moves its partner by -eps v and every negative by +eps v: the partner's similarity falls by eps
    and theirs rise by eps, logits by eps / temperature, without any gradient (Robinson et al. 2021,
    arXiv:2106.11230; their code, too, changes similarities before it divides by the temperature).
    With P the partner's logit and A the log-sum-exp of the negatives',

        (ln(1 + e^(A - P)) + ln(1 + e^(A - P + 2 eps / temperature))) / 2

    >>> z = torch.eye(4)
    >>> bool((ex.ifm(z, z, eps=0.1) > ex.nt_xent(z, z)).all())
    True
    """
    _check(z1, z2, temperature)
    _check_option("ifm's eps, the length of the change on unit embeddings,", eps)
    partner, negatives = _apart(z1, z2, temperature, rows)
    gap = negatives.logsumexp(dim=1) - partner
    return ((_log1p_exp(gap) + _log1p_exp(gap + 2 * eps / temperature)) / 2).view(2, -1).mean(0)


@_public("hcl")
def hcl(
    z1: Embeddings,
    z2: Embeddings,
    temperature: float = 0.5,
    rows: slice = ALL,
    *,
    beta: float = 1.0,
    tau_plus: float = 0.0,
) -> PerImage:
    """NT-Xent with hard negatives: a negative counts the more, the more similar it is.

    Per pair (n,), nats. An anchor's N = 2n - 2 negatives have logits l_k = cosine / temperature and
    its partner has P. Negative k counts w_k = e^(beta l_k) / mean of e^(beta l) times, and
    the loss is

        ln(1 + G e^-P),  G = sum_k w_k e^(l_k)

    (Robinson et al. 2021, arXiv:2010.04592). At `beta` 0 it is NT-Xent. As in the authors' code,
    beta multiplies logits, not cosines, and the gradient flows through the weights. `tau_plus`
    above 0 is their correction for negatives of the anchor's own class (0.1 in their code): G
    becomes (G - tau_plus N e^P) / (1 - tau_plus), and at least N e^(-1 / temperature).

    >>> z = torch.eye(4)[[0, 0, 1, 2]]  # the first two images are hard to tell apart
    >>> (ex.hcl(z, z, beta=1.0) - ex.hcl(z, z, beta=0.0)).round(decimals=2)
    tensor([0.5100, 0.5100, 0.0000, 0.0000])
    """
    _check(z1, z2, temperature)
    _check_option("hcl's beta, by which harder negatives count more,", beta)
    if not isinstance(tau_plus, int | float) or not 0 <= tau_plus < 1:
        raise UserError(f"tau_plus is the share of the anchor's own class, 0 or more and below 1, got {tau_plus}.")
    n = len(z1)
    partner, negatives = _apart(z1, z2, temperature, rows)
    if n == 1:
        return 0 * partner.view(2, -1).mean(0)
    count = math.log(2 * n - 2)
    if beta == 0:
        mass = negatives.logsumexp(dim=1)  # ln G
    else:  # the weighted mean of e^l, relative to the largest; one exponential where beta is 1
        top = negatives.detach().amax(dim=1, keepdim=True)
        e = (negatives - top).exp_()
        if beta == 1:
            mean = e.norm(dim=1).square() / e.sum(dim=1)
        else:
            mean = torch.linalg.vecdot((beta * negatives).softmax(dim=1), e)
        mass = count + top[:, 0] + mean.log()
    if tau_plus:
        rest = 1 - tau_plus * (count + partner - mass).clamp_max(50).exp()
        mass = mass + rest.clamp_min(torch.finfo(rest.dtype).tiny).log() - math.log1p(-tau_plus)
        mass = mass.clamp_min(count - 1 / temperature)
    return _log1p_exp(mass - partner).view(2, -1).mean(0)


def loss_named(name: str, **options: float) -> Callable[..., PerImage]:
    """The loss of that name, a function of (z1, z2, temperature, rows).

    `options`: `ifm`'s eps, `hcl`'s beta; `TrainConfig.loss_options` has those of a run.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise UserError(f"loss is one of {', '.join(LOSSES)}, got '{name}'.{nearest(str(name), LOSSES)}")
    known = {"ifm": ["eps"], "hcl": ["beta", "tau_plus"]}.get(name, [])
    if unknown := [option for option in options if option not in known]:
        has = f"the options {' and '.join(known)}" if known else "no options"
        raise UserError(f"The loss '{name}' has {has}, got '{unknown[0]}'.{nearest(unknown[0], known)}")
    for option, value in options.items():
        _check_option(f"{name}'s {option}", value)
    return partial(LOSSES[name], **options) if options else LOSSES[name]


def chance(n: int, loss: str = "nt_xent", temperature: float = 0.5, *, eps: float = 0.1, beta: float = 1.0) -> float:
    """Loss of an encoder that cannot tell images apart, in nats, for n pairs.

    ln(2n - 1) for NT-Xent, ln(n) for softmax; for 'uel' every embedding is recognised with
    probability 1 / (2n - 1). With equal logits 'hcl' has equal weights, so ln(2n - 1) whatever its
    beta is; 'ifm' has the mean of ln(2n - 1) and ln(1 + (2n - 2) e^(2 eps / temperature)), the only
    level that depends on temperature and eps.

    >>> round(ex.chance(32), 2)  # ln 63
    4.14
    """
    n = incoming.whole(n, "n, the number of pairs,")
    incoming.choice(loss, "loss", LOSSES)
    incoming.number(temperature, "temperature", open_low=True)
    incoming.number(eps, "eps")
    incoming.number(beta, "beta")
    m = 2 * n - 1
    if loss == "ifm" and m > 1:
        raised = math.log(m - 1) + 2 * eps / temperature
        return (math.log(m) + raised + math.log1p(math.exp(-raised))) / 2
    if loss == "uel":
        return math.log(m) - (m - 1) * math.log1p(-1 / m) if m > 1 else 0.0
    return math.log(n if loss == "softmax" else m)


def chance_words(n: int, loss: str = "nt_xent") -> str:
    """What figures write at `chance`: 'chance, ln 63'; 'chance' where it is no one logarithm."""
    ln = {"nt_xent": 2 * n - 1, "hcl": 2 * n - 1, "softmax": n}.get(loss)
    return f"chance, ln {ln}" if ln else "chance"


def alignment(z1: Embeddings, z2: Embeddings) -> Scalar:
    """Mean squared distance of paired unit embeddings, 0 (equal) to 4 (opposite).

    Wang & Isola 2020, arXiv:2005.10242.

    >>> ex.alignment(torch.eye(2), -torch.eye(2)).item()
    4.0
    """
    _check(z1, z2)
    return (F.normalize(z1, dim=1) - F.normalize(z2, dim=1)).pow(2).sum(dim=1).mean()


def uniformity(z: Embeddings, t: float = 2.0) -> Scalar:
    """Log of the mean Gaussian potential over all pairs, at most 0; lower is more uniform.

    Wang & Isola 2020, arXiv:2005.10242.

    >>> round(ex.uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 3)
    -8.0
    """
    if not isinstance(z, Tensor) or z.dim() != 2 or len(z) < 2:
        came = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise UserError(f"Uniformity takes embeddings (n, d) of two images or more, got {came}.")
    incoming.number(t, "t", open_low=True)
    return torch.pdist(F.normalize(z, dim=1)).pow(2).mul(-t).exp().mean().log()


def rankme(features: Embeddings) -> Scalar:
    """Effective rank of features (n, D): 1, all on one line, to min(n, D), all directions alike.

    RankMe: e to the entropy of the singular values divided by their sum (Garrido et al. 2023,
    arXiv:2210.02885, equation 1). It needs no labels, and falls where an embedding collapses to
    few directions. Features that are all zero have the value 1.

    >>> round(ex.rankme(torch.eye(8)).item(), 3), round(ex.rankme(torch.ones(8, 4)).item(), 3)
    (8.0, 1.0)
    """
    values = torch.linalg.svdvals(incoming.features(features).float())
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp()


def _anchors(n: int, rows: slice, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the chosen pairs' embeddings (m,), mask of self (m, 2n), partners (m,)."""
    first = torch.arange(n, device=device)[rows]
    anchors = torch.cat([first, first + n])
    itself = anchors[:, None] == torch.arange(2 * n, device=device)
    return anchors, itself, torch.cat([first + n, first])


def _apart(z1: Embeddings, z2: Embeddings, temperature: float, rows: slice) -> tuple[Tensor, Tensor]:
    """Logits of chosen pairs: with partners (2m,), with negatives (2m, 2n), all others -inf."""
    a, b, n = F.normalize(z1, dim=1), F.normalize(z2, dim=1), len(z1)
    z, first = torch.cat([a, b]), torch.arange(n, device=z1.device)[rows]
    anchors, partners = torch.cat([first, first + n]), torch.cat([first + n, first])
    chosen = (z[anchors] if len(anchors) < 2 * n else z) / temperature
    logits = (chosen @ z.T).scatter(1, torch.stack([anchors, partners], dim=1), -math.inf)
    return ((a[rows] * b[rows]).sum(dim=1) / temperature).repeat(2), logits


def _log1p_exp(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=50)  # beyond that x itself, in float64 too


def _check_option(what: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{what} must be 0 or more, got {value}; 0 gives NT-Xent.")


def _check(z1: Embeddings, z2: Embeddings, temperature: float = 0.5) -> None:
    for z in (z1, z2):
        if not isinstance(z, Tensor) or z.dim() != 2:
            came = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise UserError(f"A contrastive loss takes embeddings (n, d), one row an image, got {came}.")
    if z1.shape != z2.shape:
        raise UserError(
            f"A contrastive loss needs two batches of paired rows of one shape, got {tuple(z1.shape)} and "
            f"{tuple(z2.shape)}; embed both views with the same encoder."
        )
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise UserError(f"temperature must be above 0, got {temperature!r:.60}; 0.5 is SimCLR's value for CIFAR.")
