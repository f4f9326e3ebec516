"""torchvision's ResNets as an encoder's trunk: other widths and stems."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from .convolutions import Conv2d

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


class _Pool(nn.AdaptiveAvgPool2d):
    """Global average pooling whose gradient keeps the channels_last layout."""

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        return input.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]


class Trunk(ResNet):
    """torchvision's ResNet with scaled widths and a choice of stem; returns pooled features."""

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
        self.avgpool = _Pool(1)
        self.fc = nn.Identity()  # type: ignore[assignment]
        for part in self.modules():
            if type(part) is nn.Conv2d:
                part.__class__ = Conv2d

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:  # the first stage starts from the stem's width
            self.inplanes = self._width
        return super()._make_layer(block, planes * self._width // 64, blocks, stride, dilate)
