"""Nearest neighbours, and two maps of the same points."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..maps import aligned
from .exercise import Exercise, Mistake


# The model answers are shown in the instructor's copy as they stand here.
def knn(features, labels, query, k):
    """Labels (m,) of query (m, d): the most frequent one of the k features nearest by cosine."""
    features = features / features.norm(dim=1, keepdim=True)
    query = query / query.norm(dim=1, keepdim=True)
    nearest = (query @ features.T).topk(k, dim=1).indices
    return labels[nearest].mode(dim=1).values


def procrustes(a, b):
    """Points b (n, d) turned, mirrored, scaled and shifted onto a (n, d), by least squares."""
    a_mean, b_mean = a.mean(0), b.mean(0)
    u, s, vt = torch.linalg.svd((b - b_mean).T @ (a - a_mean))
    scale = s.sum() / (b - b_mean).square().sum()
    return scale * (b - b_mean) @ (u @ vt) + a_mean


def _draw_knn(generator: torch.Generator) -> tuple:
    """Rows of very different lengths; queries without ties, on which weighted votes agree too."""
    k, centres = 5, torch.randn(4, 6, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    features = centres[labels] + 1.2 * torch.randn(60, 6, generator=generator)
    features = features * torch.exp(1.5 * torch.randn(60, 1, generator=generator))
    query = torch.randn(400, 6, generator=generator) * torch.exp(torch.randn(400, 1, generator=generator))
    similar = F.normalize(query.double(), dim=1) @ F.normalize(features.double(), dim=1).T
    near = similar.topk(k + 1, dim=1)
    votes = F.one_hot(labels[near.indices[:, :k]], 4).double()
    weighted = (votes * (near.values[:, :k, None] / 0.1).exp()).sum(1)
    first, second = votes.sum(1).topk(2, dim=1).values.T
    clear = (near.values[:, k - 1] - near.values[:, k] > 1e-3) & (first > second)
    clear &= weighted.argmax(1) == votes.sum(1).argmax(1)
    return features, labels, query[clear][:100], k


def _knn_by(similar: Callable[[Tensor, Tensor], Tensor], *, more: int = 0, smallest: bool = False) -> Callable:
    def answer(features: Tensor, labels: Tensor, query: Tensor, k: int) -> Tensor:
        near = similar(query, features).topk(k + more, dim=1, largest=not smallest).indices
        return labels[near].mode(dim=1).values

    return answer


def _cosine(query: Tensor, features: Tensor) -> Tensor:
    return F.normalize(query, dim=1) @ F.normalize(features, dim=1).T


def _near(features: Tensor, query: Tensor, k: int) -> Tensor:
    return _cosine(query, features).topk(k, dim=1).indices


KNN_MISTAKES = (
    Mistake(
        "forgot normalisation",
        "a dot product grows with the rows' lengths; scale features and queries to length 1.",
        _knn_by(lambda q, f: q @ f.T),
    ),
    Mistake(
        "distance of raw features",
        "compare directions, not places: cosine, or distances of rows of length 1.",
        _knn_by(lambda q, f: -torch.cdist(q, f)),
    ),
    Mistake(
        "farthest instead of nearest",
        "the nearest have the largest cosine (or the smallest distance).",
        _knn_by(_cosine, smallest=True),
    ),
    Mistake("one neighbour only", "all k neighbours vote, not the nearest alone.", _knn_by(_cosine, more=-4)),
    Mistake("k - 1 neighbours", "k neighbours vote, here one fewer.", _knn_by(_cosine, more=-1)),
    Mistake(
        "nearest left out",
        "a query is none of the features, so its nearest feature counts.",
        lambda f, y, q, k: y[_near(f, q, k + 1)[:, 1:]].mode(dim=1).values,
    ),
    Mistake(
        "mean of labels",
        "labels are names, not sizes: count votes, do not average.",
        lambda f, y, q, k: y[_near(f, q, k)].double().mean(1).round(),
    ),
    Mistake(
        "median of labels",
        "labels are names, not sizes: count votes, do not sort them.",
        lambda f, y, q, k: y[_near(f, q, k)].median(dim=1).values,
    ),
    Mistake(
        "returns row numbers",
        "return labels of the neighbours, not their rows.",
        lambda f, y, q, k: _near(f, q, 1)[:, 0],
    ),
    Mistake(
        "normalised over the wrong axis",
        "every row (dim=1) is to have length 1, not every column.",
        _knn_by(lambda q, f: F.normalize(q, dim=0) @ F.normalize(f, dim=0).T),
    ),
    Mistake(
        "only features normalised to their largest",
        "divide every row by its L2 norm, not by its largest entry.",
        _knn_by(lambda q, f: (q / q.abs().amax(1, keepdim=True)) @ (f / f.abs().amax(1, keepdim=True)).T),
    ),
    Mistake(
        "always the most frequent label",
        "count the labels of each query's own neighbours, not of all features.",
        lambda f, y, q, k: y.mode().values.expand(len(q)),
    ),
    Mistake(
        "number of votes",
        "return the label with the most votes, not how many it has.",
        lambda f, y, q, k: F.one_hot(y[_near(f, q, k)], 4).sum(1).amax(1),
    ),
    Mistake(
        "labels of the neighbours",
        "return one label a query: the most frequent of these k.",
        lambda f, y, q, k: y[_near(f, q, k)],
    ),
    Mistake("labels from 1", "return the labels as they are given.", lambda f, y, q, k: knn(f, y, q, k) + 1),
)


def _draw_maps(generator: torch.Generator) -> tuple:
    """Two maps of 12 points in three dimensions: turned and mirrored, so that no shortcut fits."""
    a = torch.randn(12, 3, generator=generator) * torch.tensor([1.5, 1.0, 0.6]) + 2
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    turn[:, 0] *= -torch.linalg.det(turn).sign()
    scale = 2 + float(torch.rand(1, generator=generator))
    noise = 0.25 * torch.randn(12, 3, generator=generator)
    return a, scale * (a + noise) @ turn - 3


def _onto(a: Tensor, b: Tensor, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """`change` of (b centred, rotation, scale), shifted to a's mean."""
    a0, b0 = a - a.mean(0), b - b.mean(0)
    u, s, vt = torch.linalg.svd(b0.T @ a0)
    return change(b0, u @ vt, s.sum() / b0.square().sum()) + a.mean(0)


def _proper(a: Tensor, b: Tensor) -> Tensor:
    a0, b0 = a - a.mean(0), b - b.mean(0)
    u, s, vt = torch.linalg.svd(b0.T @ a0)
    flip = torch.ones(3, dtype=a.dtype)
    flip[-1] = torch.linalg.det(u @ vt).sign()
    return (s * flip).sum() / b0.square().sum() * b0 @ (u * flip @ vt) + a.mean(0)


def _uncentred(a: Tensor, b: Tensor) -> Tensor:
    u, s, vt = torch.linalg.svd(b.T @ a)
    return s.sum() / b.square().sum() * b @ u @ vt


def _affine(a: Tensor, b: Tensor) -> Tensor:
    b0 = b - b.mean(0)
    return b0 @ torch.linalg.lstsq(b0, a - a.mean(0)).solution + a.mean(0)


def _spread(x: Tensor) -> Tensor:
    return (x - x.mean(0)).norm()


PROCRUSTES_MISTAKES = (
    Mistake("not centred", "take both means away before you look for the rotation, add a's at the end.", _uncentred),
    Mistake(
        "no scale",
        "b is larger than a: scale it, by the sum of singular values over b's sum of squares.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: b0 @ turn),
    ),
    Mistake(
        "scale by size alone",
        "making both equally large is not least squares where the points do not fit exactly.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: b0 @ turn * (_spread(a) / _spread(b))),
    ),
    Mistake("no mirror image", "a mirror image is allowed here; do not force a determinant of +1.", _proper),
    Mistake(
        "rotation transposed",
        "the rotation turns a's points onto b's this way; transpose it.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: scale * b0 @ turn.T),
    ),
    Mistake("maps exchanged", "move b onto a, not a onto b.", lambda a, b: aligned(b, a)[0].to(a)),
    Mistake(
        "shift forgotten",
        "add a's mean at the end.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: scale * b0 @ turn) - a.mean(0),
    ),
    Mistake(
        "shifted to b's mean",
        "the result lies on a: add a's mean, not b's.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: scale * b0 @ turn) - a.mean(0) + b.mean(0),
    ),
    Mistake("any linear map", "only turns, mirrors and one scale are allowed: take u @ vt of the SVD.", _affine),
    Mistake(
        "no rotation",
        "b is shifted and scaled; it must be turned as well.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: b0 * (_spread(a) / _spread(b))),
    ),
    Mistake(
        "shift only",
        "b is shifted; it must be turned and scaled as well.",
        lambda a, b: _onto(a, b, lambda b0, turn, scale: b0),
    ),
    Mistake("unchanged", "b comes back as it was.", lambda a, b: b),
    Mistake("returns a", "return b's points, moved; not a's.", lambda a, b: a),
    Mistake(
        "mean over the wrong axis",
        "a map's centre is the mean over its points, mean(0).",
        lambda a, b: _uncentred(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)) + a.mean(1, keepdim=True),
    ),
)

EXERCISES = (
    Exercise(
        name="knn",
        title="Classify by the k nearest neighbours",
        lesson="05",
        minutes=10,
        difficulty="easy",
        returns="a label for every query",
        expect="Unit rows, one matrix product, topk, mode. Votes weighted by similarity pass as well.",
        solution=knn,
        reference=knn,
        draw=_draw_knn,
        mistakes=KNN_MISTAKES,
        labels=True,
        margin=0.0,
    ),
    Exercise(
        name="procrustes",
        title="Turn one map onto another (Procrustes)",
        lesson="05",
        minutes=20,
        difficulty="hard",
        returns="points of b's shape",
        expect="Two means, one SVD of b^T a, the scale from its singular values.",
        solution=procrustes,
        reference=lambda a, b: aligned(a, b)[0],
        draw=_draw_maps,
        mistakes=PROCRUSTES_MISTAKES,
    ),
)
