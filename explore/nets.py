"""Encoders: torchvision's ResNets with two sets of batch-norm statistics, and a projector."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import incoming
from .errors import UserError
from .random import alone
from .types import Branch, Embeddings, Images

ARCHS = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101")
STEMS = ("cifar", "small", "imagenet")


class Use:
    """How all batch norms of one encoder normalise in a forward pass."""

    branch: Branch = "clean"
    views: int = 1


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm; in train mode, each of `use.views` sub-batches separately.

    `over`, if set, replaces it in train mode: statistics over several processes (distributed.py).
    """

    over: Callable[[nn.BatchNorm2d, Tensor], Tensor] | None = None

    def __init__(self, num_features: int, momentum: float = 0.1):
        super().__init__(num_features, momentum=momentum)
        self.use = Use()

    def forward(self, input: Tensor) -> Tensor:
        norm = nn.BatchNorm2d.forward if self.over is None or not self.training else self.over
        if self.use.views == 1 or not self.training:
            return norm(self, input)
        return torch.cat([norm(self, view) for view in input.chunk(self.use.views)])


class DualBatchNorm2d(BatchNorm2d):
    """Batch norm with separate statistics and affine weights for adversarial images.

    AdvProp, arXiv:1911.09665. The module itself is the clean norm, so torchvision's weights fit;
    `.adv` is the other. `use.branch` chooses; `Encoder.forward(x, branch=...)` sets it for all
    layers.

    >>> norm = ex.DualBatchNorm2d(3).train()
    >>> norm.use.branch = "adv"
    >>> _ = norm(torch.rand(2, 3, 4, 4))
    >>> norm.num_batches_tracked.item(), norm.adv.num_batches_tracked.item()
    (0, 1)
    """

    def __init__(self, num_features: int, adv_momentum: float = 0.1):
        super().__init__(num_features)
        self.adv = BatchNorm2d(num_features, momentum=adv_momentum)

    def forward(self, input: Tensor) -> Tensor:
        return self.adv(input) if self.use.branch == "adv" else super().forward(input)


class Encoder(nn.Module):
    """ResNet with a two-layer projector; it normalises its input, images in [0, 1].

    `encoder(x)` returns unit projections z (n, proj_dim), `encoder.features(x)` the features h
    (n, feature_dim) that probes and kNN use. `branch="adv"` uses the batch-norm statistics for
    adversarial images, if `dual_bn` is on.

    >>> encoder = ex.Encoder("resnet10", width=8, stem="small", proj_dim=16)
    >>> encoder(torch.rand(2, 3, 32, 32)).shape, encoder.features(torch.rand(2, 3, 32, 32)).shape
    (torch.Size([2, 16]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        arch: str = "resnet18",
        *,
        width: int = 64,
        stem: str = "cifar",
        proj_dim: int = 64,
        proj_hidden: int | None = None,
        dual_bn: bool = True,
        bn_adv_momentum: float = 0.1,
        mean: Iterable[float] = (0.5, 0.5, 0.5),
        std: Iterable[float] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        incoming.choice(arch, "arch", ARCHS)
        incoming.choice(stem, "stem", STEMS)
        width = incoming.whole(width, "width, the channels of the first stage (64 is the full net),")
        proj_dim = incoming.whole(proj_dim, "proj_dim, the numbers of a projection,")
        proj_hidden = None if proj_hidden is None else incoming.whole(proj_hidden, "proj_hidden")
        incoming.number(bn_adv_momentum, "bn_adv_momentum", 0.0, 1.0)
        mean, std = _three(mean, "mean"), _three(std, "std")

        def norm(channels: int) -> nn.Module:
            return DualBatchNorm2d(channels, bn_adv_momentum) if dual_bn else BatchNorm2d(channels)

        from .trunk import Trunk  # torchvision takes seconds to import, and commands that list runs need no network

        self.trunk = Trunk(arch, width, stem, norm)
        self.feature_dim, self.proj_dim = self.trunk.out_features, proj_dim
        hidden = self.feature_dim if proj_hidden is None else proj_hidden
        self.projector = nn.Sequential(
            nn.Linear(self.feature_dim, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, proj_dim, bias=False),
        )
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1))
        self._use = Use()
        for part in self.modules():
            if isinstance(part, BatchNorm2d):
                part.use = self._use

    def features(self, x: Images, branch: Branch = "clean", views: int = 1) -> Embeddings:
        """Features h (n, feature_dim) of images in [0, 1]; `views` as in `forward`."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
            incoming.image_shape(x, "An encoder's images")
        if x.dim() != 4 or x.shape[1] != 3:
            raise UserError(
                f"An encoder reads images of shape (n, 3, height, width) in [0, 1], got {tuple(x.shape)}; "
                "repeat a gray channel three times, add a batch axis to a single image."
            )
        if not isinstance(views, int) or views < 1 or len(x) % views:
            raise UserError(
                f"views is how many views of one size follow each other in the {len(x)} images, got {views}."
            )
        with self._using(branch, views):
            return self.trunk((x - self.mean) / self.std)

    def forward(self, x: Images, branch: Branch = "clean", views: int = 1) -> Embeddings:
        """Unit-length projections z (n, proj_dim): what the contrastive loss compares.

        x may hold several `views` of the same size, one after the other; in train mode batch norms
        normalise each separately.
        """
        return self.project(self.features(x, branch, views))

    def project(self, h: Embeddings) -> Embeddings:
        """Features h (n, feature_dim) to unit-length projections z (n, proj_dim)."""
        return F.normalize(self.projector(h), dim=1)

    def behind_stem(self, x: Images) -> int:
        """Number of activations after the stem for images x (n, 3, height, width)."""
        halved = self.trunk.conv1.stride[0] * (1 if isinstance(self.trunk.maxpool, nn.Identity) else 2)
        return len(x) * self.trunk.conv1.out_channels * (x.shape[2] // halved) * (x.shape[3] // halved)

    @contextlib.contextmanager
    def _using(self, branch: Branch, views: int) -> Iterator[None]:
        if branch not in ("clean", "adv"):
            raise UserError(f"branch must be 'clean' or 'adv', got '{branch}'.")
        with alone(self):  # the batch norms read both from one place
            self._use.branch, self._use.views = branch, views
            try:
                yield
            finally:
                self._use.branch, self._use.views = "clean", 1


def _three(values: Iterable[float], what: str) -> tuple[float, ...]:
    """Three numbers, one a colour; those of `std` are above 0."""
    found = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)
    if len(found) != 3:
        raise UserError(f"{what} holds three numbers, one a colour, got {len(found)}; repeat it for gray images.")
    return tuple(
        incoming.number(v, f"A colour's {what}", 0.0 if what == "std" else -math.inf, open_low=what == "std")
        for v in found
    )


class TorchEncoder(nn.Module):
    """Any network from images to features (n, D), with an `Encoder`'s methods.

    `mean` and `std` normalise images in [0, 1], for networks that do not do so themselves. Where
    the network returns something else than (n, D), `pick_features` picks; after a pass `taken` says
    what was picked.
    """

    taken = "not run yet"

    def __init__(self, network: nn.Module, *, mean: Iterable[float] | None = None, std: Iterable[float] | None = None):
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer(
            "mean", torch.tensor(_three((0.0,) * 3 if mean is None else mean, "mean")).view(1, 3, 1, 1)
        )
        self.register_buffer("std", torch.tensor(_three((1.0,) * 3 if std is None else std, "std")).view(1, 3, 1, 1))

    def features(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features (n, D) of images in [0, 1]."""
        if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
            incoming.image_shape(x, "An encoder's images")
        h, self.taken = pick_features(self.network((x - self.mean) / self.std), x.shape[0])
        return h

    def forward(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features (n, D) scaled to unit length: there is no projector."""
        return self.project(self.features(x, branch))

    def project(self, h: Embeddings) -> Embeddings:
        """Features h (n, D) scaled to unit length, in place of an `Encoder`'s projections."""
        return F.normalize(h, dim=1)


# names of features in what networks return as a dict or with attributes, the best first
NAMED = (
    *(
        "features",
        "pooler_output",
        "x_norm_clstoken",
        "embeddings",
        "embedding",
        "image_embeds",
        "h",
        "feat",
        "feats",
    ),
    *("last_hidden_state", "avgpool", "out"),
)


def pick_features(out: Any, n: int | torch.SymInt) -> tuple[Tensor, str]:
    """Features (n, D) in what a network returned for n images, and in words where they were.

    Maps (n, C, h, w) are averaged over their places; of tokens (n, T, D) the first is taken, the
    class token; of a tuple the first; of a dict what is named like features, or all there is.
    """
    if isinstance(out, Tensor) and len(out.shape) and out.shape[0] == n and out.is_floating_point():
        if out.dim() == 2:
            return out, "the output"
        if out.dim() == 4:
            places = out.mean((2, 3))
            return places, f"maps of {out.shape[2]} x {out.shape[3]} places, averaged" if out[
                0, 0
            ].numel() > 1 else "pooled maps"
        if out.dim() == 3:
            return out[:, 0], f"the first of {out.shape[1]} tokens"
    if isinstance(out, tuple | list) and out:
        h, words = pick_features(out[0], n)
        return h, f"the first of {len(out)} outputs: {words}"
    if isinstance(out, Mapping):
        tensors = [name for name in out if isinstance(out[name], Tensor)]
        name = next((name for name in NAMED if name in tensors), tensors[0] if len(tensors) == 1 else None)
        if name is not None:
            h, words = pick_features(out[name], n)
            return h, f"'{name}': {words}"
    came = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    if isinstance(out, Mapping):
        came += f" of {', '.join(map(repr, list(out)[:6]))}"
    raise UserError(
        f"An encoder must return features of shape (n, D), this one returned {came}; wrap it in a module whose "
        "forward picks the features and flattens them."
    )


def as_encoder(network: nn.Module) -> "Encoder | TorchEncoder":
    """The network itself if it is an `Encoder`, otherwise wrapped in a `TorchEncoder`."""
    return network if isinstance(network, Encoder | TorchEncoder) else TorchEncoder(incoming.network(network))
