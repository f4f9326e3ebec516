"""Answers as students write them: right ones in several ways, wrong ones with the kind of their mistake."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats as scipy_stats
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from explore import Probe, nt_xent

# --- NT-Xent


def loop_over_anchors(z1, z2, temperature):
    rows = [row / row.norm() for row in torch.cat([z1, z2])]
    n, losses = len(z1), []
    for i, row in enumerate(rows):
        others = [torch.exp(row @ other / temperature) for j, other in enumerate(rows) if j != i]
        partner = rows[(i + n) % (2 * n)]
        losses.append(-torch.log(torch.exp(row @ partner / temperature) / sum(others)))
    return torch.stack([(losses[i] + losses[i + n]) / 2 for i in range(n)])


def loss_in_numpy(z1, z2, temperature):
    z = np.concatenate([z1.detach().numpy(), z2.detach().numpy()]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    e = np.exp(z @ z.T / temperature)
    np.fill_diagonal(e, 0)
    n = len(z1)
    return np.mean([-np.log(e[i, (i + n) % (2 * n)] / e[i].sum()) for i in range(2 * n)])


def mean_by_cross_entropy(z1, z2, temperature):
    z = F.normalize(torch.cat([z1, z2]).double(), dim=-1)
    sim = F.cosine_similarity(z[:, None], z[None], dim=2) / temperature
    sim = sim.masked_fill(torch.eye(len(z), dtype=torch.bool), -1e9)
    target = torch.cat([torch.arange(len(z1)) + len(z1), torch.arange(len(z1))])
    return F.cross_entropy(sim, target)


def similarities(z1, z2, temperature, *, unit=True, itself=-math.inf):
    z = torch.cat([z1, z2])
    z = z / z.norm(dim=1, keepdim=True) if unit else z
    return (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), itself)


def partners(n):
    return torch.cat([torch.arange(n, 2 * n), torch.arange(n)])


def mean_loss(sim):
    return F.cross_entropy(sim, partners(len(sim) // 2))


def detached(z1, z2, temperature):
    return nt_xent(z1.detach(), z2, temperature)


def clip_like(z1, z2, temperature):
    sim = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature
    target = torch.arange(len(z1))
    return (F.cross_entropy(sim, target) + F.cross_entropy(sim.T, target)) / 2


def decoupled(z1, z2, temperature):
    sim = similarities(z1, z2, temperature)
    rows, target = torch.arange(len(sim)), partners(len(z1))
    positive = sim[rows, target]
    return (torch.log(sim.exp().sum(1) - positive.exp()) - positive).mean()


# --- attacks


def by_backward(x, objective, eps):
    images = torch.tensor(x.numpy(), requires_grad=True)
    objective(images).mean().backward()
    return torch.clip(images.detach() + eps * torch.sign(images.grad), 0, 1)


def image_by_image(x, objective, eps):
    moved = x.clone()
    for i in range(len(x)):
        pixels = x.clone().requires_grad_(True)
        objective(pixels)[i].backward()
        moved[i] = (x[i] + eps * pixels.grad[i].sign()).clamp(0, 1)
    return moved


def in_float64(x, objective, eps):
    pixels = x.double().requires_grad_()
    slope = torch.autograd.grad(objective(pixels).sum(), pixels)[0]
    return torch.minimum(torch.maximum(pixels + eps * torch.sgn(slope), torch.tensor(0.0)), torch.tensor(1.0))


def slope(x, objective):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(objective(x).sum(), x)[0]


def descend(x, objective, eps):
    return torch.clip(x - eps * slope(x, objective).sign(), 0, 1)


def step_in_place(x, objective, eps):
    x += eps * slope(x, objective).sign()
    return x.clamp(0, 1)


def pixel_loop(x_adv, x, eps):
    out = x_adv.clone().flatten()
    for i, (a, b) in enumerate(zip(x_adv.flatten().tolist(), x.flatten().tolist(), strict=True)):
        out[i] = min(max(a, b - eps, 0.0), b + eps, 1.0)
    return out.view_as(x)


def pgd_by_backward(x, objective, eps, step_size, steps):
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_(True)
        objective(x + delta).sum().backward()
        delta = (delta.detach() + step_size * delta.grad.sign()).clamp(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
    return x + delta


def pgd_min_max(x, objective, eps, step_size, steps):
    low, high = (x.double() - eps).clamp_min(0), (x.double() + eps).clamp_max(1)
    moved = x.double()
    for _ in range(steps):
        moved = torch.max(torch.min(moved + step_size * slope(moved, objective).sign(), high), low)
    return moved.tolist()


def pgd_loop(x, objective, eps, step_size, steps, keep=lambda moved, x, eps: moved, at=None):
    moved = x.clone()
    for _ in range(steps):
        moved = keep(moved + step_size * slope(moved if at is None else x, objective).sign(), x, eps)
    return moved


def within(moved, x, eps):
    return torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)


def random_start(x, objective, eps, step_size, steps):
    start = x + eps * (2 * torch.rand_like(x) - 1)
    for _ in range(steps):
        start = within(start + step_size * slope(start, objective).sign(), x, eps)
    return start


def forgets_its_result(x, objective, eps, step_size, steps):
    for _ in range(steps):
        moved = within(x + step_size * slope(x, objective).sign(), x, eps)
    return moved


# --- batch norm


class Dictionary(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(channels) for name in ("clean", "adv")})

    def forward(self, x, branch="clean"):
        return self.norms[branch](x)


class Subclass(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.other = nn.BatchNorm2d(channels)

    def forward(self, x, branch="clean"):
        return super().forward(x) if branch == "clean" else self.other(x)


class ByHand(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, channels))
        self.bias = nn.Parameter(torch.zeros(2, channels))
        self.register_buffer("mean", torch.zeros(2, channels))
        self.register_buffer("var", torch.ones(2, channels))

    def forward(self, x, branch="clean"):
        i = ["clean", "adv"].index(branch)
        mean, var = self.mean[i], self.var[i]
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            self.mean[i] += 0.1 * (mean.detach() - self.mean[i])
            self.var[i] += 0.1 * (x.detach().var((0, 2, 3)) - self.var[i])
        shape = (None, slice(None), None, None)
        return (x - mean[shape]) / (var[shape] + 1e-5).sqrt() * self.weight[i][shape] + self.bias[i][shape]


class WithoutStatistics(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, track_running_stats=False) for _ in range(2))

    def forward(self, x, branch="clean"):
        return self.norms[branch == "adv"](x)


class Plain(nn.BatchNorm2d):
    def forward(self, x, branch="clean"):
        return super().forward(x)


class NoAffine(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in range(2))

    def forward(self, x, branch="clean"):
        return self.norms[branch == "adv"](x)


class OneWeight(NoAffine):
    def __init__(self, channels):
        super().__init__(channels)
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x, branch="clean"):
        return super().forward(x, branch) * self.weight + self.bias


class Instance(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleList(nn.InstanceNorm2d(channels, affine=True) for _ in range(2))

    def forward(self, x, branch="clean"):
        return self.norms[branch == "adv"](x)


class NotWritten(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x, branch="clean"):
        raise NotImplementedError


class NoArgument(nn.Module):
    def __init__(self):
        super().__init__()


# --- gradients, features, maps


def split_by_backward(embed, x, z, temperature):
    pixels = x.clone().requires_grad_(True)
    cosine = F.cosine_similarity(embed(pixels), z)
    (-cosine / temperature).sum().backward()
    positive = pixels.grad.clone()
    pixels.grad = None
    nt_xent(z, embed(pixels), temperature).sum().backward()
    return [positive, pixels.grad - positive]


def split_by_candidates(embed, x, z, temperature):
    pixels = x.clone().requires_grad_(True)
    both = torch.cat([z, embed(pixels)])
    sim = similarities(z, embed(pixels), temperature)
    negative = torch.logsumexp(sim, 1).view(2, -1).mean(0).sum()
    toward = -(both[: len(x)] * both[len(x) :]).sum() / temperature
    return tuple(torch.autograd.grad(part, pixels, retain_graph=True)[0] for part in (toward, negative))


def split_in_float64(embed, x, z, temperature):
    return split_by_candidates(embed, x.double(), z.double(), temperature)


def split_as(order):
    def answer(embed, x, z, temperature):
        positive, negative = split_by_backward(embed, x, z, temperature)
        return order(positive, negative, temperature)

    return answer


def adam_probe(h, y, h_test):
    x = (h - h.mean(0)) / h.std(0)
    layer = nn.Linear(h.shape[1], 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(layer(x), y).backward()
        optimizer.step()
    return layer((h_test - h.mean(0)) / h.std(0)).argmax(1).tolist()


def newton_like_probe(h, y, h_test):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(h.numpy(), y.numpy()).predict(h_test.numpy())


def library_probe(h, y, h_test):
    return Probe().fit(h.double(), y).predict(h_test.double())


def logits(h, y, h_test, bias=True):
    x, scale = (h - h.mean(0)) / h.std(0) if bias else h / h.std(0), h.std(0)
    weight, offset = torch.zeros(4, 3, requires_grad=True), torch.zeros(3, requires_grad=bias)
    optimizer = torch.optim.LBFGS([weight, offset] if bias else [weight], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + offset, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return ((h_test - (h.mean(0) if bias else 0)) / scale @ weight + offset).detach()


def vote_loop(features, labels, query, k):
    found = []
    for q in query:
        similar = [(float(q @ f / q.norm() / f.norm()), int(y)) for f, y in zip(features, labels, strict=True)]
        votes = [y for _, y in sorted(similar, reverse=True)[:k]]
        found.append(max(set(votes), key=votes.count))
    return found


def by_unit_distance(features, labels, query, k):
    distance = torch.cdist(F.normalize(query.double()), F.normalize(features.double()))
    near = distance.argsort(1)[:, :k]
    return torch.stack([torch.bincount(labels[row], minlength=4).argmax() for row in near])


def weighted_vote(features, labels, query, k):
    near = (F.normalize(query) @ F.normalize(features).T).topk(k)
    votes = torch.zeros(len(query), 4).scatter_add_(1, labels[near.indices], (near.values / 0.1).exp())
    return votes.argmax(1).numpy()


def neighbours(features, query, k, unit=True):
    if unit:
        features, query = F.normalize(features), F.normalize(query)
    return (query @ features.T).topk(k).indices


def scipy_procrustes(a, b):
    from scipy.linalg import orthogonal_procrustes

    a0, b0 = (m.double().numpy() - m.double().numpy().mean(0) for m in (a, b))
    turn, strength = orthogonal_procrustes(b0, a0)
    return b0 @ turn * strength / (b0**2).sum() + a.double().numpy().mean(0)


def trace_procrustes(a, b):
    ones = torch.ones(len(a), 1) / len(a)
    a0, b0 = a - ones @ ones.T @ a * len(a), b - ones @ ones.T @ b * len(a)
    u, _, v = torch.svd(a0.T @ b0)
    turned = b0 @ v @ u.T
    return turned * torch.trace(turned.T @ a0) / torch.trace(b0.T @ b0) + a.mean(0)


def iterated_procrustes(a, b):
    """The polar factor by Newton's iteration, without an SVD."""
    a0, b0 = (a - a.mean(0)).double(), (b - b.mean(0)).double()
    turn = b0.T @ a0
    for _ in range(60):
        turn = (turn + torch.linalg.inv(turn).T) / 2
    return (b0 @ turn * ((b0 @ turn) * a0).sum() / b0.square().sum() + a.mean(0)).float()


def turned(a, b, *, centre=True, transpose=False, proper=False, scale="trace"):
    a0, b0 = (a - a.mean(0), b - b.mean(0)) if centre else (a, b)
    u, s, vt = np.linalg.svd((b0.T @ a0).numpy())
    if proper and np.linalg.det(u @ vt) < 0:
        u[:, -1], s[-1] = -u[:, -1], -s[-1]
    turn = torch.from_numpy(u @ vt)
    size = {"trace": s.sum() / b0.square().sum(), "size": a0.norm() / b0.norm(), "none": 1.0}[scale]
    return size * b0 @ (turn.T if transpose else turn) + (a.mean(0) if centre else 0)


def size(images):
    return images.square().sum((1, 2, 3), keepdim=True).sqrt()


def times(length):
    return lambda noise, delta: noise * length(delta) / length(noise)


def parts(h):
    return torch.linalg.svdvals(h) / torch.linalg.svdvals(h).sum()


def rank_of(values):
    p = values / values.sum()
    return torch.exp(-sum(v * torch.log(v) for v in p))


def scipy_entropy(values):
    return scipy_stats.entropy(values)


def largest(h):
    p = torch.linalg.svdvals(h) / torch.linalg.svdvals(h)[0]
    return torch.exp(-(p * p.log()).sum())


def imagenet_normalised(x):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (x.float() / 255 - mean) / std


# --- attribution


def path_as_a_batch(number, x, baseline, steps):
    t = torch.linspace(0, 1, steps).view(-1, 1, 1, 1, 1)
    points = (baseline + t * (x - baseline)).flatten(0, 1).requires_grad_()
    number(points).sum().backward()
    return (x - baseline) * torch.trapezoid(points.grad.view(steps, *x.shape), t.flatten(), dim=0)


def path(number, x, baseline, steps, start=0.0, end=1.0):
    total = 0
    for t in np.linspace(start, end, steps + 1)[1:]:
        total = total + slope((baseline + t * (x - baseline)).float(), number)
    return total / steps


def captum_gradients(number, x, baseline, steps):
    from captum.attr import IntegratedGradients

    return IntegratedGradients(number).attribute(x, baseline, n_steps=steps).numpy()


def masked(number, x, side, change=None):
    """The number of each picture that a mask of one square changes, with `repeat_interleave` for squares."""
    rows, columns = x.shape[2] // side, x.shape[3] // side
    cells = torch.eye(rows * columns).view(-1, rows, columns)
    masks = cells.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
    change = change or (lambda x, mask: x * (1 - mask))
    return torch.stack([number(change(x, mask)) for mask in masks], 1).view(-1, rows, columns)


def drop(number, x, side, change=None):
    return number(x).view(-1, 1, 1) - masked(number, x, side, change)


def one_batch_of_squares(number, x, side):
    n, c, h, w = x.shape
    cut = x.unfold(2, side, side).unfold(3, side, side)
    pictures = cut[:, :, None, None].repeat(1, 1, h // side, w // side, 1, 1, 1, 1)
    for i in range(h // side):
        for j in range(w // side):
            pictures[:, :, i, j, i, j] = 0
    whole = pictures.permute(0, 2, 3, 1, 4, 6, 5, 7).reshape(-1, c, h, w)
    return (number(x)[:, None] - number(whole).view(n, -1)).view(n, h // side, w // side).tolist()


def captum_squares(number, x, side):
    from captum.attr import Occlusion

    square = (x.shape[1], side, side)
    found = Occlusion(number).attribute(x, sliding_window_shapes=square, strides=square)
    return found[:, 0, ::side, ::side]


def never_restored(number, x, side):
    hidden, found = x.clone(), []
    for i in range(0, x.shape[2], side):
        for j in range(0, x.shape[3], side):
            hidden[:, :, i : i + side, j : j + side] = 0
            found.append(number(x) - number(hidden))
    return torch.stack(found, 1).view(len(x), x.shape[2] // side, -1)


# --- numbers that judge


def share_and_error(p, y):
    a = float((p == y).sum()) / len(y)
    return a, math.sqrt(a * (1 - a) / len(y))


def accuracy_by(change):
    return lambda p, y: change(*share_and_error(p, y), len(y))


def t_interval(a, b):
    found = scipy_stats.ttest_rel(b, a).confidence_interval()
    return found.low, found.high


def around(d, half):
    return d.mean() - half, d.mean() + half


def half_of(d, quantile=0.975, freedom=None, ddof=1, times=1.0):
    freedom = len(d) - 1 if freedom is None else freedom
    return times * scipy_stats.t.ppf(quantile, freedom) * np.std(d.numpy(), ddof=ddof) / len(d) ** 0.5


def holm_by_loop(p):
    found, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: float(p[i]))):
        least = max(least, min(1.0, (len(p) - rank) * float(p[i])))
        found[i] = least
    return found


def holm_by_pairs(p):
    """For each p-value the largest that a smaller or equal one was raised to."""
    raised = torch.stack([q * (p >= q).sum() for q in p])
    return torch.stack([raised[p <= q].max() for q in p]).clamp(max=1)


def holm_in_numpy(p):
    values = p.numpy()
    order = np.argsort(values)
    raised = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return raised[np.argsort(order)]


def ranked(change):
    """Changed p-values, from the smallest to the largest, back in the order given."""

    def answer(p):
        order, found = np.argsort(p.numpy()), np.empty(len(p))
        found[order] = change(p.numpy()[order], np.arange(len(p), 0, -1))
        return found

    return answer


RIGHT = {
    "nt_xent": [loop_over_anchors, loss_in_numpy, mean_by_cross_entropy, nt_xent],
    "split_gradient": [split_by_backward, split_by_candidates, split_in_float64],
    "fgsm": [by_backward, image_by_image, in_float64],
    "project": [
        pixel_loop,
        lambda x_adv, x, eps: torch.max(torch.min(x_adv, x + eps), x - eps).clamp(0, 1),
        lambda x_adv, x, eps: np.clip(x_adv.numpy(), np.maximum(x.numpy() - eps, 0), np.minimum(x.numpy() + eps, 1)),
        lambda x_adv, x, eps: x + (x_adv.clamp(0, 1) - x).clamp(-eps, eps),
    ],
    "pgd": [pgd_by_backward, pgd_min_max, lambda *a: pgd_loop(*a, keep=within)],
    "dual_batch_norm": [
        Dictionary,
        Subclass,
        ByHand,
        Dictionary(4),
        lambda x, branch, clean, adv: {"clean": clean, "adv": adv}[branch](x),
    ],
    "match_l2": [
        lambda noise, delta: torch.stack([n * (d.norm() / n.norm()) for n, d in zip(noise, delta, strict=True)]),
        times(lambda d: d.double().square().sum((1, 2, 3), keepdim=True).sqrt()),
        lambda noise, delta: np.einsum(
            "nchw,n->nchw", noise, np.linalg.norm(delta.flatten(1), axis=1) / np.linalg.norm(noise.flatten(1), axis=1)
        ),
    ],
    "linear_probe": [adam_probe, newton_like_probe, library_probe],
    "knn": [vote_loop, by_unit_distance, weighted_vote],
    "procrustes": [scipy_procrustes, trace_procrustes, iterated_procrustes],
    "rankme": [
        lambda h: np.exp(scipy_entropy(np.linalg.svd(h.double().numpy(), compute_uv=False))),
        lambda h: rank_of(torch.linalg.eigvalsh(h.double().T @ h.double()).sqrt()),
        lambda h: torch.distributions.Categorical(probs=torch.linalg.svd(h).S).entropy().exp(),
    ],
    "to_unit_range": [
        lambda x: x / 255,
        lambda x: x.double().mul(1 / 255),
        lambda x: torch.from_numpy(x.numpy().astype(np.float32) / 255),
    ],
    "integrated_gradients": [path_as_a_batch, lambda *a: (a[1] - a[2]) * path(*a), captum_gradients],
    "occlusion": [drop, one_batch_of_squares, captum_squares],
    "standardise": [
        lambda h, t: [torch.stack([(row - h.mean(0)) / h.var(0).sqrt() for row in rows]) for rows in (h, t)],
        lambda h, t: tuple(StandardScaler().fit(h.numpy()).transform(rows.numpy()) for rows in (h, t)),
        lambda h, t: (h.sub(h.mean(0)).div(h.std(0)), t / h.std(0) - h.mean(0) / h.std(0)),
    ],
    "accuracy": [
        share_and_error,
        lambda p, y: ((p == y).float().mean(), scipy_stats.sem((p == y).numpy())),
        lambda p, y: (np.mean(p.numpy() == y.numpy()), np.std(p.numpy() == y.numpy()) / np.sqrt(len(y))),
    ],
    "paired_interval": [
        t_interval,
        lambda a, b: around(b - a, half_of(b - a)),
        lambda a, b: scipy_stats.t.interval(0.95, 5, (b - a).mean(), scipy_stats.sem(b - a)),
    ],
    "holm": [holm_by_loop, holm_by_pairs, holm_in_numpy],
}

WRONG = {  # name -> (kind of mistake, answer)
    "nt_xent": [
        ("wrong sign", lambda *a: -mean_by_cross_entropy(*a)),
        ("itself among the candidates", lambda a, b, t: mean_loss(similarities(a, b, t, itself=1 / t))),
        ("diagonal set to 0", lambda a, b, t: mean_loss(similarities(a, b, t, itself=0))),
        ("partner left out of the sum", decoupled),
        ("missing temperature", lambda a, b, t: mean_loss(similarities(a, b, 1))),
        ("multiplied by the temperature", lambda a, b, t: mean_loss(similarities(a, b, 1) * t)),
        ("forgot normalisation", lambda a, b, t: mean_loss(similarities(a, b, t, unit=False))),
        (
            "normalised over the wrong axis",
            lambda a, b, t: mean_loss(
                similarities(*(torch.cat([a, b]) / torch.cat([a, b]).norm(dim=0)).chunk(2), t, unit=False)
            ),
        ),
        (
            "mean over the wrong axis",
            lambda a, b, t: (
                F.cross_entropy(similarities(a, b, t), partners(len(a)), reduction="none").reshape(len(a), 2).mean(1)
            ),
        ),
        (
            "one number an anchor",
            lambda a, b, t: F.cross_entropy(similarities(a, b, t), partners(len(a)), reduction="none"),
        ),
        ("sum instead of mean", lambda *a: 2 * loop_over_anchors(*a)),
        ("negatives of the other view only", clip_like),
        (
            "negatives of one view only",
            lambda a, b, t: F.cross_entropy(F.normalize(a) @ F.normalize(b).T / t, torch.arange(len(a))),
        ),
        ("wrong partner", lambda a, b, t: F.cross_entropy(similarities(a, b, t), torch.arange(2 * len(a)) ^ 1)),
        (
            "no logarithm",
            lambda *a: (
                loop_over_anchors(*a) * 0
                + torch.exp(-F.cross_entropy(similarities(*a), partners(len(a[0])), reduction="none"))
                .view(2, -1)
                .mean(0)
            ),
        ),
        ("gradient cut off", detached),
        ("not finite", lambda a, b, t: torch.log(a.sum(1) * 0 - 1)),
    ],
    "split_gradient": [
        ("parts exchanged", split_as(lambda p, n, t: (n, p))),
        ("whole gradient as negative part", split_as(lambda p, n, t: (p, n + p))),
        ("whole gradient as positive part", split_as(lambda p, n, t: (p + n, n))),
        ("wrong sign", split_as(lambda p, n, t: (-p, -n))),
        ("wrong sign of the positive part", split_as(lambda p, n, t: (-p, n))),
        ("wrong sign of the negative part", split_as(lambda p, n, t: (p, -n))),
        ("missing temperature", split_as(lambda p, n, t: (t * p, p + n - t * p))),
        ("gradient of the mean", split_as(lambda p, n, t: (p / len(p), n / len(p)))),
        ("its own embedding as reference", lambda embed, x, z, t: split_by_backward(embed, x, embed(x).detach(), t)),
        ("absolute values", split_as(lambda p, n, t: (abs(p), abs(n)))),
        ("wrong number of results", split_as(lambda p, n, t: (p, n, p + n))),
    ],
    "fgsm": [
        ("wrong sign", descend),
        ("no clamp", lambda x, o, eps: x + slope(x, o).sign() * eps),
        ("wrong sign and no clamp", lambda x, o, eps: x - slope(x, o).sign() * eps),
        ("no sign and no clamp", lambda x, o, eps: x + slope(x, o) * eps),
        ("eps in 0..255", lambda x, o, eps: by_backward(x, o, eps / 255)),
        ("eps times 255", lambda x, o, eps: by_backward(x, o, eps * 255)),
        ("no sign", lambda x, o, eps: (x + eps * slope(x, o)).clamp(0, 1)),
        ("scaled in L2", lambda x, o, eps: (x + eps * F.normalize(slope(x, o).flatten(1)).view_as(x)).clamp(0, 1)),
        ("clamp to [-1, 1]", lambda x, o, eps: torch.clip(x + eps * slope(x, o).sign(), -1, 1)),
        ("returns the perturbation", lambda x, o, eps: eps * slope(x, o).sign()),
        ("returns the clean image", lambda x, o, eps: x.clone()),
        ("returns the gradient", lambda x, o, eps: slope(x, o)),
        ("two steps", lambda x, o, eps: by_backward(x, o, 2 * eps)),
        ("changes its input", step_in_place),
        ("random", lambda x, o, eps: (x + eps * torch.randn_like(x).sign()).clamp(0, 1)),
    ],
    "project": [
        ("no clamp to the pixel range", lambda a, x, eps: torch.min(torch.max(a, x - eps), x + eps)),
        ("no ball", lambda a, x, eps: torch.clip(a, 0, 1)),
        ("unchanged", lambda a, x, eps: a),
        ("eps in 0..255", lambda a, x, eps: within(a, x, eps / 255)),
        ("ball around 0", lambda a, x, eps: torch.clip(a, -eps, eps)),
        ("returns the perturbation", lambda a, x, eps: torch.clip(a - x, -eps, eps)),
        ("one side only", lambda a, x, eps: torch.min(a, x + eps).clip(0, 1)),
        ("x and x_adv exchanged", lambda a, x, eps: within(x, a, eps)),
        ("clamp to [-1, 1]", lambda a, x, eps: torch.min(torch.max(a, x - eps), x + eps).clip(-1, 1)),
        (
            "wrong norm",
            lambda a, x, eps: torch.stack(
                [u + (v - u) * min(1, eps / (v - u).norm()) for v, u in zip(a, x, strict=True)]
            ).clip(0, 1),
        ),
        ("half the ball", lambda a, x, eps: within(a, x, eps / 2)),
        ("sign step", lambda a, x, eps: (x + torch.where(a > x, eps, -eps)).clip(0, 1)),
        ("changes its input", lambda a, x, eps: a.sub_(x).clamp_(-eps, eps).add_(x).clamp_(0, 1)),
    ],
    "pgd": [
        ("wrong sign", lambda x, o, e, s, n: pgd_loop(x, o, e, -s, n, keep=within)),
        ("no projection", lambda *a: pgd_loop(*a, keep=lambda m, x, eps: m.clamp(0, 1))),
        ("no projection", lambda *a: pgd_loop(*a, keep=lambda m, x, eps: within(m, m.detach(), eps))),
        ("no clamp", lambda *a: pgd_loop(*a, keep=lambda m, x, eps: x + (m - x).clamp(-eps, eps))),
        ("neither projection nor clamp", lambda *a: pgd_loop(*a)),
        ("projected once, at the end", lambda x, o, eps, *a: within(pgd_loop(x, o, eps, *a), x, eps)),
        ("gradient at the clean image", lambda *a: pgd_loop(*a, keep=within, at="x")),
        ("wrong number of steps", lambda x, o, e, s, n: pgd_min_max(x, o, e, s, n - 1)),
        ("wrong number of steps", lambda x, o, e, s, n: pgd_min_max(x, o, e, s, n + 1)),
        ("one step only", forgets_its_result),
        ("steps of eps", lambda x, o, e, s, n: pgd_min_max(x, o, e, e, n)),
        ("eps and step_size exchanged", lambda x, o, e, s, n: pgd_min_max(x, o, s, e, n)),
        ("eps in 0..255", lambda x, o, e, s, n: pgd_min_max(x, o, e / 255, s / 255, n)),
        ("returns the perturbation", lambda x, *a: pgd_by_backward(x, *a) - x),
        ("random", random_start),
    ],
    "dual_batch_norm": [
        ("one norm for both", Plain),
        ("one norm for both", lambda x, branch, clean, adv: clean(x)),
        ("adversaries not normalised", lambda x, branch, clean, adv: x if branch == "adv" else clean(x)),
        ("shared weights", OneWeight),
        ("shared statistics", lambda x, branch, clean, adv: (clean(x), adv(x))[branch == "adv"]),
        ("no running statistics", WithoutStatistics),
        ("weights not trained", NoAffine),
        ("mean of both", lambda x, branch, clean, adv: clean(x) / 2 + adv(x) / 2),
        ("one norm after the other", lambda x, branch, clean, adv: adv(clean(x)) if branch == "adv" else clean(x)),
        ("branch by mode", lambda x, branch, clean, adv: adv(x) if adv.training else clean(x)),
        (
            "branch ignored in eval mode",
            lambda x, branch, clean, adv: adv(x) if branch == "adv" and adv.training else clean(x),
        ),
        ("over the wrong axes", Instance),
        ("not written", NotWritten),
        ("raised an exception", NoArgument),
    ],
    "match_l2": [
        ("whole batch", times(torch.norm)),
        ("wrong norm: L-infinity", times(lambda d: d.abs().amax((1, 2, 3), keepdim=True))),
        ("wrong norm: L1", times(lambda d: d.abs().mean((1, 2, 3), keepdim=True))),
        ("no square root", times(lambda d: (d**2).sum((1, 2, 3), keepdim=True))),
        ("inverse ratio", lambda n, d: n * size(n) / size(d)),
        ("own length not divided out", lambda n, d: n * size(d)),
        ("unit length", lambda n, d: n / size(n)),
        ("other one scaled", lambda n, d: times(size)(d, n)),
        ("by channel", times(lambda d: d.norm(dim=(2, 3), keepdim=True))),
        ("over the wrong axis", times(lambda d: d.norm(dim=1, keepdim=True))),
        ("unchanged", lambda n, d: n.clone()),
        ("returns the perturbation", lambda n, d: d + 0),
        ("standard deviation instead of length", times(lambda d: d.std((1, 2, 3), keepdim=True))),
    ],
    "linear_probe": [
        ("always one class", lambda h, y, t: logits(h, y, (t + h.mean(0)) * h.std(0)).argmax(1)),
        ("no bias", lambda *a: logits(*a, bias=False).argmax(1)),
        ("one nearest neighbour", lambda h, y, t: y[(t[:, None] - h).norm(dim=2).argmin(1)]),
        (
            "nearest class mean",
            lambda h, y, t: torch.stack([(t - h[y == c].mean(0)).square().sum(1) for c in range(3)], 1).argmin(1),
        ),
        (
            "test rows scaled by their own statistics",
            lambda h, y, t: logits(h, y, (t - t.mean(0)) / t.std(0) * h.std(0) + h.mean(0)).argmax(1),
        ),
        ("a class is missing", lambda *a: logits(*a)[:, :2].argmax(1)),
        ("always one class", lambda h, y, t: torch.zeros(len(t), dtype=torch.long)),
        ("labels from 1", lambda *a: logits(*a).argmax(1) + 1),
        ("labels in another order", lambda h, y, t: logits(h, y.flip(0), t).argmax(1)),
        ("scores instead of labels", lambda *a: logits(*a).softmax(1)),
        ("wrong shape", lambda *a: logits(*a).argmax(0)),
    ],
    "knn": [
        ("forgot normalisation", lambda f, y, q, k: y[neighbours(f, q, k, unit=False)].mode().values),
        ("distance of raw features", lambda f, y, q, k: y[torch.cdist(q, f).argsort(1)[:, :k]].mode().values),
        ("farthest instead of nearest", lambda f, y, q, k: y[neighbours(f, -q, k)].mode().values),
        ("one neighbour only", lambda f, y, q, k: y[neighbours(f, q, 1)[:, 0]]),
        ("k - 1 neighbours", lambda f, y, q, k: y[neighbours(f, q, k)[:, : k - 1]].mode().values),
        ("nearest left out", lambda f, y, q, k: y[neighbours(f, q, k + 1)[:, 1:]].mode().values),
        ("mean of labels", lambda f, y, q, k: y[neighbours(f, q, k)].float().mean(1).round()),
        ("median of labels", lambda f, y, q, k: y[neighbours(f, q, k)].sort().values[:, k // 2]),
        ("returns row numbers", lambda f, y, q, k: neighbours(f, q, k)[:, 0]),
        (
            "normalised over the wrong axis",
            lambda f, y, q, k: y[neighbours(f / f.norm(dim=0), q / q.norm(dim=0), k, unit=False)].mode().values,
        ),
        ("always the most frequent label", lambda f, y, q, k: torch.full((len(q),), int(y.bincount().argmax()))),
        ("labels of the neighbours", lambda f, y, q, k: y[neighbours(f, q, k)]),
        ("labels from 1", lambda f, y, q, k: by_unit_distance(f, y, q, k) + 1),
    ],
    "procrustes": [
        ("not centred", lambda a, b: turned(a, b, centre=False)),
        ("no scale", lambda a, b: turned(a, b, scale="none")),
        ("scale by size alone", lambda a, b: turned(a, b, scale="size")),
        ("no mirror image", lambda a, b: turned(a, b, proper=True)),
        ("rotation transposed", lambda a, b: turned(a, b, transpose=True)),
        ("maps exchanged", lambda a, b: turned(b, a)),
        ("shift forgotten", lambda a, b: turned(a, b) - a.mean(0)),
        ("shifted to b's mean", lambda a, b: turned(a, b) - a.mean(0) + b.mean(0)),
        (
            "any linear map",
            lambda a, b: (b - b.mean(0)) @ torch.linalg.pinv(b - b.mean(0)) @ (a - a.mean(0)) + a.mean(0),
        ),
        ("shift only", lambda a, b: b - b.mean(0) + a.mean(0)),
        ("unchanged", lambda a, b: b * 1),
        ("returns a", lambda a, b: a * 1),
    ],
    "rankme": [
        ("squared singular values", lambda h: rank_of(torch.linalg.svdvals(h) ** 2)),
        ("no exponential", lambda h: rank_of(torch.linalg.svdvals(h)).log()),
        ("wrong sign", lambda h: 1 / rank_of(torch.linalg.svdvals(h))),
        ("log2", lambda h: (-parts(h) @ parts(h).log2()).exp()),
        ("2 to the entropy", lambda h: 2 ** rank_of(torch.linalg.svdvals(h)).log()),
        ("divided by the largest", lambda h: largest(h)),
        ("softmax", lambda h: rank_of(torch.linalg.svdvals(h).softmax(0))),
        ("plain rank", lambda h: torch.tensor(float(min(h.shape)))),
        ("participation ratio", lambda h: torch.linalg.svdvals(h).sum() ** 2 / h.square().sum()),
        ("features centred", lambda h: rank_of(torch.linalg.svdvals(h - h.mean(0, keepdim=True)))),
        ("rows of unit length", lambda h: rank_of(torch.linalg.svdvals(h / h.norm(dim=1)[:, None]))),
        ("not finite", lambda h: h.sum() * torch.nan),
    ],
    "to_unit_range": [
        ("not scaled", lambda x: x * 1.0),
        ("divided by the largest", lambda x: x.float() / int(x.max())),
        ("each image by its largest", lambda x: torch.stack([image / image.max() for image in x])),
        ("divided by 256", lambda x: x.float() / 2**8),
        ("range -1 to 1", lambda x: (x.float() / 255 - 0.5) / 0.5),
        ("ImageNet's normalisation", imagenet_normalised),
        ("clamped", lambda x: (x > 0).float()),
        ("whole-number division", lambda x: torch.zeros(x.shape)),
        ("divided twice", lambda x: x / 255**2),
        ("stretched", lambda x: (x - x.min()).float() / (int(x.max()) - int(x.min()))),
        ("inverted", lambda x: (255 - x.float()) / 255),
        ("wrong dtype", lambda x: x),
        ("wrong shape", lambda x: (x / 255).permute(0, 2, 3, 1)),
    ],
    "integrated_gradients": [
        ("gradient only", path),
        ("multiplied by the image", lambda f, x, b, n: x * path(f, x, b, n)),
        ("wrong sign", lambda f, x, b, n: (b - x) * path(f, x, b, n)),
        ("sum instead of mean", lambda f, x, b, n: n * captum_gradients(f, x, b, n)),
        ("divided twice", lambda f, x, b, n: path_as_a_batch(f, x, b, n) / n),
        ("gradient at the image", lambda f, x, b, n: (x - b) * slope(x, f)),
        ("gradient at the baseline", lambda f, x, b, n: (x - b) * slope(b, f)),
        ("image times gradient", lambda f, x, b, n: x * slope(x, f)),
        ("path from black", lambda f, x, b, n: (x - b) * path(f, x, torch.zeros_like(x), n)),
        ("baseline ignored", lambda f, x, b, n: captum_gradients(f, x, torch.zeros_like(x), n)),
        ("half of the path", lambda f, x, b, n: (x - b) * path(f, x, b, n, 0, 0.5)),
        ("ends only", lambda f, x, b, n: (x - b) * (slope(x, f) + slope(b, f)) / 2),
        ("path beyond the image", lambda f, x, b, n: (x - b) * path(f, x, b, n, 1, 2)),
        ("gradient of the mean", lambda f, x, b, n: (x - b) * path(lambda z: f(z) / len(z), x, b, n)),
        ("absolute values", lambda *a: abs(path_as_a_batch(*a))),
        ("summed over channels", lambda *a: path_as_a_batch(*a).sum(1)),
        ("random", lambda f, x, b, n: (x - b) * slope(torch.rand_like(x), f)),
    ],
    "occlusion": [
        ("wrong sign", lambda f, x, s: masked(f, x, s) - f(x).view(-1, 1, 1)),
        ("number of the hidden picture", masked),
        ("squares stay black", never_restored),
        ("all but the square is black", lambda f, x, s: drop(f, x, s, lambda x, m: x * m)),
        ("white squares", lambda f, x, s: drop(f, x, s, lambda x, m: torch.maximum(x, m))),
        ("grey squares", lambda f, x, s: drop(f, x, s, lambda x, m: x * (1 - m) + m * x.mean((2, 3), keepdim=True))),
        ("grey squares of 0.5", lambda f, x, s: drop(f, x, s, lambda x, m: x * (1 - m) + m / 2)),
        ("rows and columns exchanged", lambda *a: drop(*a).mT),
        ("one pixel at a time", lambda f, x, s: drop(f, x, 1)),
        ("a pixel of each square", lambda f, x, s: drop(f, x, 1)[:, ::s, ::s]),
        ("relative drop", lambda f, x, s: 1 - masked(f, x, s) / f(x).view(-1, 1, 1)),
        ("drop per pixel", lambda f, x, s: drop(f, x, s) / (s * s)),
        ("mean over the images", lambda *a: drop(*a).mean(0)),
        ("absolute values", lambda *a: drop(*a).abs()),
        ("not finite", lambda *a: drop(*a) / 0),
    ],
    "standardise": [
        (
            "test rows scaled by their own statistics",
            lambda h, t: [StandardScaler().fit_transform(rows.numpy()) for rows in (h, t)],
        ),
        (
            "statistics of both sets",
            lambda h, t: np.split(StandardScaler().fit_transform(torch.cat([h, t]).numpy()), [len(h)]),
        ),
        ("statistics of the test rows", lambda h, t: [StandardScaler().fit(t).transform(rows) for rows in (h, t)]),
        ("test rows not scaled", lambda h, t: (StandardScaler().fit_transform(h.numpy()), t.clone())),
        ("mean not taken out", lambda h, t: (h / h.std(0), t / h.std(0))),
        ("not divided", lambda h, t: (h - h.mean(0), t - h.mean(0))),
        ("divided by the variance", lambda h, t: ((h - h.mean(0)) / h.std(0) ** 2, (t - h.mean(0)) / h.std(0) ** 2)),
        ("divided first", lambda h, t: (h / h.std(0) - h.mean(0), t / h.std(0) - h.mean(0))),
        ("over the wrong axis", lambda h, t: [F.layer_norm(rows, (6,)) * (5 / 6) ** 0.5 for rows in (h, t)]),
        ("one scale for all features", lambda h, t: ((h - h.mean()) / h.std(), (t - h.mean()) / h.std())),
        ("scaled to [0, 1]", lambda h, t: [MinMaxScaler().fit(h.numpy()).transform(rows.numpy()) for rows in (h, t)]),
        ("rows of unit length", lambda h, t: (h / h.norm(dim=1)[:, None], t / t.norm(dim=1)[:, None])),
        ("sets exchanged", lambda h, t: ((t - h.mean(0)) / h.std(0), (h - h.mean(0)) / h.std(0))),
        ("unchanged", lambda h, t: (h + 0, t + 0)),
        ("wrong number of results", lambda h, t: (h - h.mean(0)) / h.std(0)),
    ],
    "accuracy": [
        ("standard deviation", lambda p, y: ((p == y).float().mean(), (p == y).float().std())),
        ("divided by n", lambda p, y: ((p == y).float().mean(), (p == y).float().std() / len(y))),
        ("no square root", accuracy_by(lambda a, e, n: (a, a * (1 - a) / n))),
        ("variance of one image", accuracy_by(lambda a, e, n: (a, a * (1 - a)))),
        ("half of the interval", accuracy_by(lambda a, e, n: (a, 1.96 * e))),
        ("whole interval", accuracy_by(lambda a, e, n: (a, 2 * 1.96 * e))),
        ("largest standard error", accuracy_by(lambda a, e, n: (a, math.sqrt(0.25 / n)))),
        ("1 - a forgotten", accuracy_by(lambda a, e, n: (a, math.sqrt(a / n)))),
        ("as for counts", accuracy_by(lambda a, e, n: (a, 1 / math.sqrt(n)))),
        ("error rate", lambda p, y: ((p != y).float().mean(), (p != y).float().std() / len(y) ** 0.5)),
        ("in percent", accuracy_by(lambda a, e, n: (100 * a, 100 * e))),
        ("accuracy in percent", accuracy_by(lambda a, e, n: (100 * a, e))),
        ("count instead of share", accuracy_by(lambda a, e, n: (a * n, e))),
        ("numbers exchanged", lambda p, y: share_and_error(p, y)[::-1]),
        (
            "mean over classes",
            lambda p, y: (
                np.mean([float((p[y == c] == c).double().mean()) for c in range(4)]),
                share_and_error(p, y)[1],
            ),
        ),
        ("wrong number of results", lambda p, y: (p == y).float().mean()),
    ],
    "paired_interval": [
        ("not paired", lambda a, b: around(b - a, scipy_stats.t.ppf(0.975, 5) * ((a.var() + b.var()) / 6).sqrt())),
        ("not paired", lambda a, b: tuple(scipy_stats.ttest_ind(b, a).confidence_interval())),
        ("wrong direction", lambda a, b: t_interval(b, a)),
        ("normal instead of t", lambda a, b: around(b - a, 1.96 * scipy_stats.sem(b - a))),
        ("two standard errors", lambda a, b: around(b - a, 2 * scipy_stats.sem(b - a))),
        ("one-sided", lambda a, b: around(b - a, half_of(b - a, 0.95))),
        ("99 % interval", lambda a, b: around(b - a, half_of(b - a, 0.995))),
        ("n degrees of freedom", lambda a, b: around(b - a, half_of(b - a, freedom=6))),
        ("degrees of freedom of two groups", lambda a, b: around(b - a, half_of(b - a, freedom=10))),
        ("divided by n in the variance", lambda a, b: around(b - a, half_of(b - a, ddof=0))),
        ("standard deviation", lambda a, b: around(b - a, half_of(b - a, times=6**0.5))),
        ("divided by n", lambda a, b: around(b - a, half_of(b - a, times=6**-0.5))),
        ("standard error", lambda a, b: around(b - a, scipy_stats.sem(b - a))),
        ("ends exchanged", lambda a, b: around(b - a, -half_of(b - a))),
        ("half-width instead of ends", lambda a, b: ((b - a).mean(), half_of(b - a))),
        ("interval of b alone", lambda a, b: around(b, half_of(b))),
        ("sorted apart", lambda a, b: t_interval(np.sort(a), np.sort(b))),
        ("wrong number of results", lambda a, b: ((b - a).mean(), *t_interval(a, b))),
    ],
    "holm": [
        ("Bonferroni", lambda p: torch.clip(10 * p, max=1)),
        ("Bonferroni without a limit", lambda p: p * 10),
        ("no running maximum", ranked(lambda p, k: np.minimum(p * k, 1))),
        ("no limit at 1", ranked(lambda p, k: np.maximum.accumulate(p * k))),
        ("neither maximum nor limit", ranked(lambda p, k: p * k)),
        ("sorted", lambda p: sorted(holm_by_loop(p))),
        ("ranked in the order given", lambda p: np.minimum(1, np.maximum.accumulate(p.numpy() * np.arange(10, 0, -1)))),
        ("ranked from the largest", ranked(lambda p, k: np.minimum(p * k[::-1], 1))),
        ("Benjamini and Hochberg", lambda p: scipy_stats.false_discovery_control(p.numpy())),
        ("Hochberg", ranked(lambda p, k: np.minimum.accumulate(np.minimum(p * k, 1)[::-1])[::-1])),
        ("factors from m - 1", ranked(lambda p, k: np.minimum(1, np.maximum.accumulate(p * (k - 1))))),
        ("factors from m + 1", ranked(lambda p, k: np.minimum(1, np.maximum.accumulate(p * (k + 1))))),
        ("divided", ranked(lambda p, k: np.maximum.accumulate(p / k))),
        ("Šidák", ranked(lambda p, k: np.maximum.accumulate(1 - (1 - p) ** k))),
        ("verdicts instead of p-values", lambda p: [float(q < 0.05) for q in holm_by_loop(p)]),
        ("unchanged", lambda p: p.clone()),
        ("wrong dtype", lambda p: torch.tensor(holm_by_loop(p)) < 0.05),
    ],
}


def _raises(*arguments):
    raise ZeroDivisionError("division by zero\nand more")


def _not_written(*arguments):
    raise NotImplementedError


ALWAYS = [  # whatever is asked for
    ("not written", _not_written),
    ("raised an exception", _raises),
    ("wrong arguments", lambda: 1),
    ("returns nothing", lambda *arguments: None),
    ("wrong type", lambda *arguments: ["five", object()]),
    ("wrong type", lambda *arguments: {"loss": 1}),
    ("no function", "five"),
    ("no function", None),
]
