"""Encoders without learning: whitened patches of the training images as filters, no gradient at all.

What every learned encoder should be seen beside. Coates, Lee & Ng (2011), "An analysis of
single-layer networks in unsupervised feature learning", AISTATS: patches, brought to one contrast
and whitened, k-means as the dictionary, an activation that lets the nearest half through, averages
over the image's quadrants. Thiry, Arbel, Belilovsky & Oyallon (2021), "The unreasonable
effectiveness of patches in deep convolutional kernels methods", ICLR, arXiv:2101.07528: whitened
patches drawn at random are dictionary enough, and which of them are nearest the feature. Here each
random patch and its negative answer beyond a threshold of their own, so that gradients exist.
"""

import json
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import incoming
from .datasets import Split
from .errors import UserError
from .nets import TorchEncoder
from .random import seeded
from .serialization import load_tensors, save_tensors
from .types import Branch, Embeddings, Images

KINDS = {"kmeans": "k-means patches", "random": "random whitened patches"}
FORMAT = "clae-explorer patches"  # in the header of a saved encoder
FLAT = 10 / 255**2  # added to a patch's variance: Coates, Lee & Ng's 10, for pixels up to 1
SOFT = 0.1  # added to the eigenvalues of the patches' covariance: theirs
NEAR = 0.4  # share of the training patches that a random patch answers to, and that its negative does
MAPS = 2**25  # numbers in the maps that are made at once: 128 MB in float32 ...
CHUNK = 2**22  # ... and where more are needed, so many at a time, which stay in a CPU's cache


class PatchMaps(nn.Module):
    """Maps (n, K, h, w) of how far every patch of images lies on the near side of each filter.

    relu((filter . patch) / s - bias), s the patch's standard deviation: contrast normalisation and
    whitening are folded into filters that sum to 0.
    """

    def __init__(self, filters: Tensor, bias: Tensor, stride: int = 1):
        super().__init__()
        self.filters = nn.Parameter(filters, requires_grad=False)  # weights, which the attribution's check destroys
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride: Tensor
        self.register_buffer("stride", torch.tensor(stride))
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        side, c = self.filters.shape[-1], x.shape[1]
        mean = F.avg_pool2d(x.mean(1, keepdim=True), side, self._stride)
        power = F.avg_pool2d(x.square().mean(1, keepdim=True), side, self._stride)
        pixels = c * side * side
        variance = (power - mean.square()).clamp_min(0) * (pixels / (pixels - 1))
        scale, bias = (variance + FLAT).rsqrt(), self.bias[:, None, None]
        last = torch.channels_last  # three times as fast on a CPU
        answers = F.conv2d(
            x.contiguous(memory_format=last), self.filters.contiguous(memory_format=last), stride=self._stride
        )
        if answers.requires_grad:
            return (answers * scale - bias).relu()
        return answers.mul_(scale).sub_(bias).relu_()


class _Pooled(nn.Module):
    """Maps averaged over a grid of `grid` x `grid` parts of the image, a few images at a time."""

    def __init__(self, maps: PatchMaps, grid: int = 2):
        super().__init__()
        self.maps = maps
        self.grid: Tensor
        self.register_buffer("grid", torch.tensor(grid))
        self._grid = grid

    def forward(self, x: Tensor) -> Tensor:
        side, stride = self.maps.filters.shape[-1], self.maps._stride
        places = ((x.shape[2] - side) // stride + 1) * ((x.shape[3] - side) // stride + 1)
        each = places * len(self.maps.filters)
        if torch.compiler.is_compiling() or len(x) * each <= MAPS:
            return self._chunk(x)
        few = max(1, (CHUNK if x.device.type == "cpu" else MAPS) // each)
        again = torch.is_grad_enabled() and x.requires_grad  # maps are computed again instead of kept
        parts = [checkpoint(self._chunk, p, use_reentrant=False) if again else self._chunk(p) for p in x.split(few)]
        return torch.cat(parts)

    def _chunk(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.maps(x), self._grid).flatten(1)


class PatchEncoder(TorchEncoder):
    """Whitened patches as an encoder: `features(x)` (n, grid² K), differentiable in x; `patch_encoder` fits one.

    Images of any size from a patch's on. There is no projector: `encoder(x)` is h at unit length.

    >>> encoder = ex.patch_encoder(ex.load("fashion").train.take(200), "random", patches=16)
    >>> encoder.features(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """

    def __init__(self, filters: Tensor, bias: Tensor, *, stride: int = 1, grid: int = 2, kind: str = "kmeans"):
        super().__init__(_Pooled(PatchMaps(filters, bias, stride), grid))
        self.kind, self.feature_dim, self._side = kind, grid * grid * len(filters), filters.shape[-1]

    def features(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features (n, grid² K) of images in [0, 1]; both branches are the same."""
        if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[2:]) < self._side:
            raise UserError(
                f"This encoder reads images of shape (n, 3, height, width) with {self._side} pixels a side or more, got "
                f"{tuple(x.shape)}; repeat a gray channel three times, add a batch axis to a single image."
            )
        return super().features(x, branch)

    def save(self, path: str | Path) -> None:
        """Write the encoder as one safetensors file, which `open_encoder` opens."""
        save_tensors(path, self.state_dict(), {"format": FORMAT, "patches": json.dumps({"kind": self.kind})})

    @classmethod
    def open(cls, path: str | Path) -> "PatchEncoder":
        """Read a file that `save` wrote."""
        tensors, meta = load_tensors(path)
        if meta.get("format") != FORMAT:
            raise UserError(f"{path} holds no patches but another network; open it with explore.open_encoder.")
        encoder = cls(
            tensors["network.maps.filters"],
            tensors["network.maps.bias"],
            stride=int(tensors["network.maps.stride"]),
            grid=int(tensors["network.grid"]),
            kind=json.loads(meta["patches"])["kind"],
        )
        encoder.load_state_dict(tensors)
        return encoder


@torch.no_grad()
def patch_encoder(
    images: Split | Images,
    kind: str = "kmeans",
    *,
    patches: int = 400,
    size: int = 6,
    stride: int = 1,
    grid: int = 2,
    sample: int = 100_000,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> PatchEncoder:
    """A `PatchEncoder` of training images, on the CPU; labels are not read.

    `patches` filters of `size` x `size` pixels: centres of k-means, started from random patches
    ("kmeans"), or random patches and their negatives, half of each ("random"). `sample` patches are
    drawn, of as many images as there are up to 20,000; k-means sees them `iterations` times.

    >>> ex.patch_encoder(ex.load("fashion").train.take(200), patches=16).feature_dim
    64
    """
    incoming.choice(kind, "kind", KINDS)
    if patches < 2 or patches % 2:
        raise UserError(f"patches is an even number of filters, 2 or more, got {patches}.")
    if size < 2 or stride < 1 or grid < 1 or iterations < 1:
        raise UserError(
            f"size is 2 pixels or more, stride, grid and iterations are 1 or more, got {size}, {stride}, {grid} and {iterations}."
        )
    draws = generator or seeded(0)
    if not hasattr(images, "batches"):
        incoming.images(images, "Images to take patches from")
    drawn = _drawn(images, size, max(sample, 2 * patches), draws)
    mean, whiten, white = _whitened(drawn)
    start = white[torch.randperm(len(white), generator=draws)[: patches if kind == "kmeans" else patches // 2]]
    if kind == "kmeans":
        words = _kmeans(white, start, iterations)
        # half the mean squared distance to all centres minus half that to one: the mean folds in
        filters, bias = words, words.square().sum(1) / 2
        filters, bias = filters - filters.mean(0), bias - bias.mean()
    else:
        words = F.normalize(start, dim=1)
        filters = torch.cat([words, -words])
        answers = filters @ white[:: max(1, len(white) // 20_000)].T
        bias = answers.kthvalue(max(1, round((1 - NEAR) * answers.shape[1])), dim=1).values
    filters = filters @ whiten
    bias = bias + filters @ mean
    filters = filters - filters.mean(1, keepdim=True)  # takes a patch's own mean away
    return PatchEncoder(filters.view(-1, 3, size, size), bias, stride=stride, grid=grid, kind=kind)


def _drawn(images: Split | Tensor, size: int, count: int, draws: torch.Generator) -> Tensor:
    """About `count` random patches (m, 3 * size²) of random images, each brought to mean 0 and one contrast."""
    some = min(len(images), 20_000)
    if not some:
        raise UserError("There are no images to take patches from; give one image or more.")
    chosen = torch.randperm(len(images), generator=draws)[:some]
    each, found = -(-count // some), []
    for part in chosen.split(1000):
        x = (images[part] if isinstance(images, Tensor) else images[part][0]).detach().cpu().float()
        if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[2:]) < size:
            raise UserError(
                f"Patches of {size} x {size} pixels need images of shape (n, 3, height, width) at least as large, got "
                f"{tuple(x.shape)}; choose a smaller size."
            )
        row = torch.randint(x.shape[2] - size + 1, (len(x), each), generator=draws)
        column = torch.randint(x.shape[3] - size + 1, (len(x), each), generator=draws)
        windows = x.unfold(2, size, 1).unfold(3, size, 1)
        found.append(windows[torch.arange(len(x))[:, None], :, row, column].flatten(2).flatten(0, 1))
    patches = torch.cat(found)[:count]
    patches = patches - patches.mean(1, keepdim=True)
    return patches * (patches.var(1, keepdim=True) + FLAT).rsqrt()


def _whitened(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,) and ZCA matrix (d, d) of patches (m, d), and the patches whitened."""
    mean = patches.mean(0)
    centred = patches - mean
    values, basis = torch.linalg.eigh((centred.T @ centred).double() / len(patches))
    whiten = ((basis * (values.clamp_min(0) + SOFT).rsqrt()) @ basis.T).to(patches)
    return mean, whiten, centred @ whiten


def _kmeans(points: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Centres (K, d) of Lloyd's algorithm; a centre that no point is nearest to stays where it is."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(points.numpy(), start.numpy(), iter=iterations, minit="matrix")
    return torch.from_numpy(centres)
