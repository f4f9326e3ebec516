"""Encoders: torchvision's ResNets with two sets of batch-norm statistics, and a projector."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from .errors import UserError, nearest
from .shapes import Branch, Embeddings, Images

ARCHS = {  # name: block, blocks in each of the four stages
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
STEMS = {  # what stands before the first stage: kernel, stride, max-pool
    "cifar": (3, 1, False),
    "small": (3, 2, False),  # half the resolution: a quarter of the work, for laptops
    "imagenet": (7, 2, True),
}


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm; `over`, where set, normalises in train mode in its place, over more images than these (ranks.py)."""

    over: Callable[[nn.BatchNorm2d, Tensor], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        return self.over(self, input) if self.over is not None and self.training else super().forward(input)


class DualBatchNorm2d(BatchNorm2d):
    """Batch norm with its own statistics and affine weights for adversarial images (AdvProp, arXiv:1911.09665).

    The module itself is the clean norm, so torchvision's weights fit; `.adv` is the other. Which one a forward pass
    uses is `branch`, set for a whole encoder by `Encoder.forward(x, branch=...)`: blocks never see it.
    """

    def __init__(self, num_features: int, adv_momentum: float = 0.1):
        super().__init__(num_features)
        self.adv = BatchNorm2d(num_features, momentum=adv_momentum)
        self.branch: Branch = "clean"

    def forward(self, input: Tensor) -> Tensor:
        return self.adv(input) if self.branch == "adv" else super().forward(input)


class Conv2d(nn.Conv2d):
    """torch's convolution; on a CPU two shapes whose kernels are slow are put otherwise, as the same function.

    1x1 with stride 2 is a dense 1x1 on every other pixel (picked by a pooling, whose gradient keeps the memory layout). 3x3 on
    maps of 2x2 is one matrix between all pixels, worth its making from as many images as channels on.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or self.bias is not None or self.groups != 1:
            return super().forward(input)
        shape = self.kernel_size, self.stride, self.padding
        if shape == ((1, 1), (2, 2), (0, 0)):
            return F.conv2d(F.avg_pool2d(input, 1, 2), self.weight)
        small = input.shape[2:] == (2, 2) and len(input) >= self.in_channels
        if small and shape == ((3, 3), (1, 1), (1, 1)) and self.dilation == (1, 1):
            return _on_2x2(input, self.weight)
        return super().forward(input)


def _on_2x2(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with padding 1 of x (n, c, 2, 2): one matrix product, in which every pixel reaches every pixel."""
    n, (out, c) = len(x), weight.shape[:2]
    taps = weight.permute(2, 3, 0, 1).reshape(9, out, c).index_select(0, _TAPS)
    matrix = taps.view(4, 4, out, c).transpose(1, 2).reshape(4 * out, 4 * c)
    return F.linear(x.permute(0, 2, 3, 1).reshape(n, 4 * c), matrix).view(n, 2, 2, out).permute(0, 3, 1, 2)


# the tap that leads to pixel (y, x) of a 2x2 map from its pixel (i, j), for all 16 pairs
_TAPS = torch.tensor([3 * (i - y + 1) + j - x + 1 for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)])


class _Trunk(ResNet):
    """torchvision's ResNet with every width scaled and the stem of our choice; returns pooled features."""

    def __init__(self, arch: str, width: int, stem: str, norm_layer):
        block, blocks = ARCHS[arch]
        self._width = width
        super().__init__(block, list(blocks), norm_layer=norm_layer)
        kernel, stride, pool = STEMS[stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = norm_layer(width)
        if not pool:
            self.maxpool = nn.Identity()  # type: ignore[assignment]
        self.out_features = 512 * block.expansion * width // 64
        self.fc = nn.Identity()  # type: ignore[assignment]
        for part in self.modules():
            if type(part) is nn.Conv2d:
                part.__class__ = Conv2d

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:  # the first stage starts from the stem's width
            self.inplanes = self._width
        return super()._make_layer(block, planes * self._width // 64, blocks, stride, dilate)


class Encoder(nn.Module):
    """ResNet + two-layer projector; normalises its input itself, so images stay in [0, 1] everywhere else.

    `encoder(x)` gives unit projections z (n, proj_dim); `encoder.features(x)` the features h (n, feature_dim) that
    probes and kNN read. `branch="adv"` uses the adversarial batch-norm statistics where `dual_bn` is on.
    """

    def __init__(
        self,
        arch: str = "resnet18",
        *,
        width: int = 64,
        stem: str = "cifar",
        proj_dim: int = 64,
        dual_bn: bool = True,
        bn_adv_momentum: float = 0.1,
        mean: Iterable[float] = (0.5, 0.5, 0.5),
        std: Iterable[float] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        if arch not in ARCHS:
            raise UserError(f"arch must be one of {', '.join(ARCHS)}, got '{arch}'.{nearest(arch, ARCHS)}")
        if stem not in STEMS:
            raise UserError(f"stem must be one of {', '.join(STEMS)}, got '{stem}'.{nearest(stem, STEMS)}")
        if width < 1:
            raise UserError(f"width is the channels of the first stage, 1 or more (64 is the full net), got {width}.")

        def norm(channels: int) -> nn.Module:
            return DualBatchNorm2d(channels, bn_adv_momentum) if dual_bn else BatchNorm2d(channels)

        self.trunk = _Trunk(arch, width, stem, norm)
        self.feature_dim, self.proj_dim = self.trunk.out_features, proj_dim
        self.projector = nn.Sequential(
            nn.Linear(self.feature_dim, self.feature_dim, bias=False),
            nn.ReLU(),
            nn.Linear(self.feature_dim, proj_dim, bias=False),
        )
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1))
        self._duals = [m for m in self.modules() if isinstance(m, DualBatchNorm2d)]

    def features(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features h (n, feature_dim) of images in [0, 1], before the projector."""
        if x.dim() != 4 or x.shape[1] != 3:
            raise UserError(
                f"An encoder reads images of shape (n, 3, height, width) in [0, 1], got {tuple(x.shape)}; "
                "repeat a gray channel three times, add a batch axis to a single image."
            )
        with self._using(branch):
            return self.trunk((x - self.mean) / self.std)

    def forward(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Unit-length projections z (n, proj_dim): what the contrastive loss compares."""
        return self.project(self.features(x, branch))

    def project(self, h: Embeddings) -> Embeddings:
        """Features h (n, feature_dim) to unit-length projections z (n, proj_dim)."""
        return F.normalize(self.projector(h), dim=1)

    @contextlib.contextmanager
    def _using(self, branch: Branch) -> Iterator[None]:
        if branch not in ("clean", "adv"):
            raise UserError(f"branch must be 'clean' or 'adv', got '{branch}'.")
        for bn in self._duals:
            bn.branch = branch
        try:
            yield
        finally:
            for bn in self._duals:
                bn.branch = "clean"


class Foreign(nn.Module):
    """Anybody's network from images to features (n, D), called as an `Encoder` is: `.features(x)`, unit `forward(x)`.

    `mean` and `std` normalise images in [0, 1] first, where the network does not do so itself.
    """

    def __init__(self, network: nn.Module, *, mean: Iterable[float] | None = None, std: Iterable[float] | None = None):
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean or (0.0,) * 3)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std or (1.0,) * 3)).view(1, 3, 1, 1))

    def features(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features (n, D) of images in [0, 1]."""
        h = self.network((x - self.mean) / self.std)
        if not isinstance(h, Tensor) or h.dim() != 2:
            came = f"a tensor of shape {tuple(h.shape)}" if isinstance(h, Tensor) else f"a {type(h).__name__}"
            raise UserError(
                f"An encoder must return features of shape (n, D), this one returned {came}; wrap it in a module whose "
                "forward picks the features and flattens them."
            )
        return h

    def forward(self, x: Images, branch: Branch = "clean") -> Embeddings:
        """Features (n, D) scaled to unit length: such a network has no projector."""
        return F.normalize(self.features(x), dim=1)


def as_encoder(network: nn.Module) -> "Encoder | Foreign":
    """An `Encoder` itself, any other network as a `Foreign` one."""
    return network if isinstance(network, Encoder | Foreign) else Foreign(network)
