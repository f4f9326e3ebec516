"""Fit a map, cache it on disk, and place other features in it."""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import paths
from ..errors import UserError, extra
from ..serialization import keep, load_tensors, save_tensors

METHODS = ("pca", "umap")
AXES = 50  # of the PCA before UMAP
BLEND = 5  # fitted points whose positions are averaged
SCHEMA = 1  # raise it when the same parameters give another map than before
KEPT = 200_000_000  # bytes of maps on disk (one of 2,000 images: 0.5 MB); beyond it the longest unused are dropped
CHUNK = 1024  # rows at a time against all
Progress = Callable[[str, int, int], None]  # (what, done, total); may raise to stop


@dataclass(frozen=True, eq=False)
class Projection:
    """A fitted map, reproducible for equal features, parameters and versions. CPU tensors."""

    method: str  # 'pca' or 'umap'
    params: dict[str, Any]  # parameters, seed, versions, and the share of the variance that the axes hold
    xy: Tensor  # (n, 2) float32: the points it was fitted on
    mean: Tensor  # (D,) float64: of the unit features
    axes: Tensor  # (a, D) float64: PCA's, the longest first
    low: Tensor  # (n, a) float32: the fitted points on these axes

    def place(self, h: Tensor) -> Tensor:
        """Features (m, D) -> positions (m, 2), continuous in h; fitted points stay."""
        if h.dim() != 2 or h.shape[1] != len(self.mean):
            raise UserError(
                f"This map was fitted on features of {len(self.mean)} numbers, got a tensor of shape {tuple(h.shape)}; place "
                "features of the same encoder, (m, D)."
            )
        _check_finite(h)
        low = _project(h, self.mean, self.axes)
        return low[:, :2].contiguous() if self.method == "pca" else _blend(low, self.low, self.xy)

    def save(self, path: str | Path) -> None:
        """Write the map as one safetensors file."""
        tensors = {name: getattr(self, name) for name in ("xy", "mean", "axes", "low")}
        save_tensors(path, tensors, {"method": self.method, "params": json.dumps(self.params)})

    @classmethod
    def load(cls, path: str | Path) -> "Projection":
        """Read what `save` wrote."""
        tensors, about = load_tensors(path)
        try:
            return cls(about["method"], json.loads(about["params"]), **tensors)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is no saved map; give a file that Projection.save wrote.") from error


def fit_map(
    h: Tensor,
    *,
    method: str = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Projection:
    """A map of features h (n, D): 'pca' or 'umap' (n_neighbors, min_dist and seed are UMAP's)."""
    params = _params(h, method, n_neighbors, min_dist, seed)
    tell = progress or (lambda *_: None)
    tell("pca", 0, 1)
    mean, axes, share = _pca(h)
    low = _project(h, mean, axes)
    params |= {"axes": len(axes), "variance": share[: 2 if method == "pca" else None].sum().item()}
    if method == "pca":
        return Projection(method, params, low[:, :2].contiguous(), mean, axes, low)
    xy = _umap(low, n_neighbors, min_dist, seed, tell)
    return Projection(method, params, _together(low, xy), mean, axes, low)


def kept_map(
    h: Tensor, out: str | Path | None = None, *, progress: Progress | None = None, **params: Any
) -> Projection:
    """`fit_map` with a cache on disk, keyed by a hash of h and all parameters.

    `out`: the folder, `paths.cache()`/maps by default. PCA is faster than reading, so not cached.
    """
    full: dict[str, Any] = {"method": "umap", "n_neighbors": 15, "min_dist": 0.1, "seed": 0, **params}
    if full["method"] == "pca":
        return fit_map(h, progress=progress, **full)
    digest = hashlib.sha256(json.dumps([SCHEMA, list(h.shape), _params(h, **full)], sort_keys=True).encode())
    digest.update(h.detach().float().cpu().contiguous().numpy().data)
    path = Path(out or paths.cache() / "maps") / f"{digest.hexdigest()[:32]}.safetensors"
    if os.path.isfile(path):  # also where the folder is closed to us
        with contextlib.suppress(UserError):  # a file cut off is made again
            found = Projection.load(path)
            with contextlib.suppress(OSError):  # another user's
                path.touch()
            return found
    found = fit_map(h, progress=progress, **full)
    keep(path, found.save, KEPT)
    return found


def _params(h: Tensor, method: str, n_neighbors: int, min_dist: float, seed: int) -> dict[str, Any]:
    """Parameters that determine a map, validated."""
    if method not in METHODS:
        raise UserError(f"map is 'pca' or 'umap', got '{method}'.")
    if h.dim() != 2 or not h.is_floating_point():
        raise UserError(f"A map needs features (n, D) of floats, got {h.dtype} of shape {tuple(h.shape)}.")
    _check_finite(h)
    if len(h) < 3 or h.shape[1] < 2:
        raise UserError(f"A map needs 3 points of 2 numbers or more, got {tuple(h.shape)}; take more images.")
    unit = F.normalize(h.detach().float(), dim=1)
    if float((unit - unit[0]).abs().max()) < 1e-6:
        raise UserError(
            f"All {len(h)} embeddings are one point, so there is no map of them: this encoder maps every image to one point; look at its "
            "loss and its kNN accuracy, or choose another."
        )
    params: dict[str, Any] = {"method": method, "seed": seed, "axes": AXES}
    libraries = ["scipy"]
    if method == "umap":
        if not 2 <= n_neighbors < len(h):
            raise UserError(
                f"UMAP with n_neighbors={n_neighbors} needs {n_neighbors + 1} points or more and 2 neighbours or more, got {len(h)} "
                "points; take more images or fewer neighbours."
            )
        if not 0 <= min_dist <= 1:
            raise UserError(f"min_dist lies in 0 to 1, the spread of UMAP's points, got {min_dist:g}.")
        params |= {"n_neighbors": n_neighbors, "min_dist": min_dist, "metric": "euclidean"}
        libraries += ["umap-learn"]
    with extra("UMAP"):
        return params | {"versions": {name: metadata.version(name) for name in libraries}}


def _check_finite(h: Tensor) -> None:
    broken = int((~torch.isfinite(h).all(1)).sum())
    if broken:
        raise UserError(
            f"{broken} of {len(h)} embeddings hold NaN or infinity, so they have no place in a map; look at the run's loss for the "
            "step it broke."
        )


def _pca(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), axes (a, D) by variance, and their variance ratios (a,) of unit features, float64.

    From the covariance: importing scikit-learn takes longer than the whole map. Each axis' largest
    entry is positive.
    """
    from scipy.linalg import eigh

    unit = F.normalize(h.detach().cpu().double(), dim=1)
    mean, (n, d) = unit.mean(0), unit.shape
    unit -= mean
    covariance = (unit.T @ unit / (n - 1)).numpy()
    count = min(AXES, n - 1, d)
    values, vectors = (torch.from_numpy(each.copy()) for each in eigh(covariance, subset_by_index=[d - count, d - 1]))
    axes = vectors.T.flip(0)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return mean, axes.contiguous(), values.flip(0) / covariance.trace()


def _project(h: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """(m, a) float32, computed in float64, so that a row's result is independent of the others."""
    h = h.detach().cpu()
    return torch.cat([((F.normalize(part.double(), dim=1) - mean) @ axes.T).float() for part in h.split(4096)])


def _nearest(low: Tensor, bank: Tensor, k: int, own: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and rows (m, k) of the nearest; with `own`, row i itself comes first."""
    distances, indices = [], []
    for rows in torch.arange(len(low)).split(CHUNK):
        rough = torch.cdist(low[rows], bank)  # by a matrix product: close points need a second look
        if own:
            rough[torch.arange(len(rows)), rows] = -1
        found = rough.topk(min(k + 8, len(bank)), dim=1, largest=False).indices
        exact = (low[rows, None].double() - bank[found].double()).norm(dim=2)
        if own:
            exact = torch.where(found == rows[:, None], -1, exact)
        order = exact.argsort(dim=1, stable=True)[:, :k]
        distances.append(exact.gather(1, order).clamp_min(0))
        indices.append(found.gather(1, order))
    return torch.cat(distances), torch.cat(indices)


def _blend(low: Tensor, bank: Tensor, xy: Tensor) -> Tensor:
    """Positions (m, 2) interpolated between fitted points; see the module's docstring."""
    if not len(low):
        return xy.new_empty(0, 2)
    d, near = _nearest(low, bank, min(BLEND + 1, len(bank)))
    reach, d, near = d[:, -1:], d[:, :-1], near[:, :-1]
    weight = ((reach - d) / (reach * d).clamp_min(1e-30)).square()
    same = d <= 1e-5 * reach  # nearer than float32 can tell: that point itself
    weight = torch.where(same.any(1, keepdim=True), same.double(), weight)
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1.0)  # all at one distance
    weight = weight / weight.sum(1, keepdim=True)
    return (weight[:, :, None] * xy[near].double()).sum(1).float()


def _together(low: Tensor, xy: Tensor) -> Tensor:
    """Give points with equal features one position, their mean."""
    _, group, count = torch.unique(low, dim=0, return_inverse=True, return_counts=True)
    if len(count) == len(low):
        return xy
    sums = torch.zeros(len(count), 2, dtype=torch.float64).index_add_(0, group, xy.double())
    return torch.where(count[group, None] > 1, (sums / count[:, None])[group].float(), xy)


def _umap(low: Tensor, n_neighbors: int, min_dist: float, seed: int, tell: Progress) -> Tensor:
    """UMAP's layout (n, 2), from exact neighbours.

    UMAP's functions are called instead of its class: given neighbours, the class warns that it
    cannot transform, which is not needed here; `random_state` means one thread in any case.
    """
    tell("neighbours", 0, 1)
    distances, indices = _nearest(low, low, n_neighbors, own=True)
    tell("compiling umap", 0, 1)
    with (
        extra("UMAP"),
        warnings.catch_warnings(),
    ):  # at import, about a part of umap that needs TensorFlow and that is not used here
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding
    x, random = np.ascontiguousarray(low.numpy()), np.random.RandomState(seed)
    near = {"knn_indices": indices.int().numpy(), "knn_dists": distances.float().numpy()}
    graph, _, _ = fuzzy_simplicial_set(x, n_neighbors, random, "euclidean", **near)
    tell("umap", 0, 1)
    a, b = find_ab_params(1.0, min_dist)
    settings = (2, 1.0, a, b, 1.0, 5, None, "spectral")
    xy, _ = simplicial_set_embedding(x, graph, *settings, random, "euclidean", {}, False, {}, False)
    tell("umap", 1, 1)
    return torch.from_numpy(np.ascontiguousarray(xy, dtype=np.float32))
