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
    """torch's convolution; on a CPU some shapes whose kernels are slow are put otherwise, as the same function.

    1x1 with stride 2 is a dense 1x1 on every other pixel (picked by a pooling, whose gradient keeps the memory layout). 3x3 on
    maps of 2x2 is one matrix between all pixels, worth its making from as many images as channels on. Other 3x3 in
    bfloat16 have gradients of their own where these are faster.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or self.bias is not None or self.groups != 1:
            return super().forward(input)
        shape, stride = (self.kernel_size, self.padding, self.dilation), self.stride
        if shape == ((1, 1), (0, 0), (1, 1)) and stride == (2, 2):
            return F.conv2d(F.avg_pool2d(input, 1, 2), self.weight)
        if shape == ((3, 3), (1, 1), (1, 1)) and stride in ((1, 1), (2, 2)):
            if stride == (1, 1) and input.shape[2:] == (2, 2) and len(input) >= self.in_channels:
                return _on_2x2(input, self.weight)
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
            if dtype == torch.bfloat16 and torch.is_grad_enabled():
                return _Conv3x3.apply(input.to(dtype), self.weight.to(dtype), stride[0])
        return super().forward(input)


class _Conv3x3(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 or 2, as torch's, with two gradients of its own.

    That in the weights is the product of all patches with all outputs' gradients where outputs have few pixels; that in an input of
    few channels is, for stride 2, a dense 2x2 convolution that gives four pixels each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), stride = ctx.saved_tensors, ctx.stride
        to_x, to_weight = ctx.needs_input_grad[:2]
        few_pixels = grad.shape[2] * grad.shape[3] <= (64 if stride == 2 else 16)
        by_patches, by_fours = to_weight and few_pixels, to_x and stride == 2 and x.shape[1] <= 16
        where = [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        mask = [to_x and not by_fours, to_weight and not by_patches, False]
        grads = torch.ops.aten.convolution_backward(grad, x, weight, None, *where, mask) if any(mask) else (None, None)
        return (
            _by_fours(grad, weight)[..., : x.shape[2], : x.shape[3]] if by_fours else grads[0],
            _by_patches(grad, x, stride) if by_patches else grads[1],
            None,
        )


def _by_patches(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """The weights' gradient (out, c, 3, 3) from that of the outputs (n, out, h, w)."""
    rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
    return (rows.t() @ _patches(x, stride)).view(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2)


def _patches(x: Tensor, stride: int) -> Tensor:
    """What each output of a 3x3 convolution with padding 1 sees of x (n, c, h, w): (outputs, 9 c), rows, columns, channels."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, stride).unfold(2, 3, stride)  # (n, rows, columns, c, 3, 3)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[1])


def _by_fours(grad: Tensor, weight: Tensor) -> Tensor:
    """The input's gradient (n, c, 2 h, 2 w) for stride 2 from that of the outputs (n, out, h, w).

    An even row was seen by one tap of one output, an odd one by taps of two neighbours; so with columns.
    """
    (n, out, h, w), c = grad.shape, weight.shape[1]
    taps = F.pad(weight.permute(2, 3, 1, 0).reshape(9, c, out), (0, 0, 0, 0, 0, 1)).index_select(0, _FOURS)
    kernel = taps.view(2, 2, 2, 2, c, out).permute(0, 1, 4, 5, 2, 3).reshape(4 * c, out, 2, 2)
    fours = F.conv2d(F.pad(grad, (0, 1, 0, 1)), kernel.contiguous(memory_format=torch.channels_last))
    pixels = fours.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c).transpose(2, 3)
    return pixels.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _on_2x2(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with padding 1 of x (n, c, 2, 2): one matrix product, in which every pixel reaches every pixel."""
    n, (out, c) = len(x), weight.shape[:2]
    taps = weight.permute(2, 3, 0, 1).reshape(9, out, c).index_select(0, _TAPS)
    matrix = taps.view(4, 4, out, c).transpose(1, 2).reshape(4 * out, 4 * c)
    return F.linear(x.permute(0, 2, 3, 1).reshape(n, 4 * c), matrix).view(n, 2, 2, out).permute(0, 3, 1, 2)


# the tap that leads to pixel (y, x) of a 2x2 map from its pixel (i, j), for all 16 pairs
_TAPS = torch.tensor([3 * (i - y + 1) + j - x + 1 for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)])


# the tap of a 3x3 kernel with stride 2 by which an even or an odd line of the input is seen by the output at its place and by the next
# one (9: by none), and from it that of 2 x 2 pixels (y, x) by 2 x 2 outputs (i, j)
_LINES = ((1, 9), (2, 0))
_FOURS = torch.tensor(
    [min(9, 3 * _LINES[y][i] + _LINES[x][j]) for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)]
)


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
