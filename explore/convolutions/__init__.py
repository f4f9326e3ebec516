"""Convolutions of a ResNet as training meets them on a CPU: torch's, and the same function put otherwise where that is faster."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import Conv3x3, EveryOther, On2x2, on_2x2
from .shared import weights_fixed
from .tiles import ByTiles, pays_by_tiles

__all__ = ["Conv2d", "weights_fixed"]


class Conv2d(nn.Conv2d):
    """torch's convolution; on a CPU some shapes whose kernels are slow are put otherwise, as the same function.

    1x1 with stride 2 is a dense 1x1 on every other pixel (in fp32 picked by a pooling, whose gradient keeps the memory layout). 3x3
    on maps of 2x2 is one matrix between all pixels, worth its making from as many images as channels on. Other 3x3 in
    bfloat16 go by tiles where many channels meet few pixels, and have gradients of their own where these are faster. Compiled
    code is left to the compiler.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or self.bias is not None or self.groups != 1:
            return super().forward(input)
        shape, stride = (self.kernel_size, self.padding, self.dilation), self.stride
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        training = dtype == torch.bfloat16 and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if shape == ((1, 1), (0, 0), (1, 1)) and stride == (2, 2):
            if training:
                return EveryOther.apply(input.to(dtype), self.weight)
            return F.conv2d(F.avg_pool2d(input, 1, 2), self.weight)
        if shape == ((3, 3), (1, 1), (1, 1)) and stride in ((1, 1), (2, 2)):
            if stride == (1, 1) and input.shape[2:] == (2, 2) and len(input) >= self.in_channels:
                return On2x2.apply(input.to(dtype), self.weight) if training else on_2x2(input, self.weight)
            if training:
                if stride == (1, 1) and pays_by_tiles(input, self.weight):
                    return ByTiles.apply(input.to(dtype), self.weight)
                return Conv3x3.apply(input.to(dtype), self.weight, stride[0])
        return super().forward(input)
