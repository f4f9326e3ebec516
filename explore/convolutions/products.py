"""Convolutions with few pixels as matrix products: 1x1 and 3x3 with stride 2, 3x3 on maps of 2x2, gradients of small maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .shared import as_its, once, torchs


class EveryOther(torch.autograd.Function):
    """1x1 convolution with stride 2: products of every other pixel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        low = once(Tensor.to, weight, x.dtype).flatten(1)
        picked = x.permute(0, 2, 3, 1)[:, ::2, ::2]
        rows = picked.reshape(-1, low.shape[1])
        ctx.save_for_backward(x, weight, low, rows)
        return (rows @ low.t()).view(*picked.shape[:3], -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight, low, rows = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torchs(ctx, grad, x, weight, 2)
        (n, c, h, w), (to_x, to_weight) = x.shape, ctx.needs_input_grad
        of_rows, of_x = grad.permute(0, 2, 3, 1).reshape(-1, len(low)), None
        if to_x:
            of_x = grad.new_zeros(n, h, w, c)
            of_x[:, ::2, ::2] = (of_rows @ low).view(n, *grad.shape[2:], c)
            of_x = of_x.permute(0, 3, 1, 2)
        return of_x, as_its(weight, (of_rows.t() @ rows).view_as(weight)) if to_weight else None


class Conv3x3(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 or 2, as torch's, with ways of its own where outputs have few pixels.

    The weights' gradient is then the product of all patches with all outputs' gradients. With stride 2 the output may be that of
    patches and weights, and the input's gradient that of outputs and weights, laid over one another; that in an input of
    few channels (of 17 to 32 on small maps alone) is a dense 2x2 convolution that gives four pixels each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        low, patches = once(Tensor.to, weight, x.dtype), None
        if stride == 2 and _few(x, 16 if x.shape[1] < 256 else 64) and x.shape[1] >= 64:
            patches = _patches(x, stride)
            rows = patches @ _rows(low).t()
            y = rows.view(len(x), *((side + 1) // 2 for side in x.shape[2:]), len(low)).permute(0, 3, 1, 2)
        else:
            y = F.conv2d(x, low, None, stride, 1)
        ctx.save_for_backward(x, weight, low, patches if ctx.needs_input_grad[1] else None)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight, low, patches), stride = ctx.saved_tensors, ctx.stride
        if torch.is_grad_enabled():
            return *torchs(ctx, grad, x, weight, stride), None
        to_x, to_weight = ctx.needs_input_grad[:2]
        by_patches = to_weight and _few(grad, 64 if stride == 2 else 16)
        by_fours = to_x and stride == 2 and (x.shape[1] <= 16 or (x.shape[1] <= 32 and _few(grad, 16)))
        by_laying = to_x and stride == 2 and not by_fours and _few(grad, 4)
        sides = [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        mask = [to_x and not by_fours and not by_laying, to_weight and not by_patches, False]
        of_x, of_weight = None, None
        if any(mask):
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(grad, x, low, None, *sides, mask)
        if by_fours:
            of_x = _by_fours(grad, once(_in_fours, weight, x.dtype))[..., : x.shape[2], : x.shape[3]]
        if by_laying:
            of_x = _laid(grad, low, x.shape)
        if by_patches:
            of_weight = _by_patches(grad, _patches(x, stride) if patches is None else patches)
        return of_x, as_its(weight, of_weight) if of_weight is not None else None, None


def _few(x: Tensor, pixels: int) -> bool:
    return x.shape[2] * x.shape[3] <= pixels


def _rows(weight: Tensor) -> Tensor:
    """Weights (out, c, 3, 3) as (out, 9 c): rows, columns, channels."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _by_patches(grad: Tensor, patches: Tensor) -> Tensor:
    """The weights' gradient (out, c, 3, 3) from that of the outputs (n, out, h, w)."""
    rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
    wide = rows.shape[1] >= 128  # the product is faster with more rows than columns, and its transpose slower to copy
    product = rows.t() @ patches if wide else (patches.t() @ rows).t()
    return product.view(rows.shape[1], 3, 3, -1).permute(0, 3, 1, 2)


def _patches(x: Tensor, stride: int) -> Tensor:
    """What each output of a 3x3 convolution with padding 1 sees of x (n, c, h, w): (outputs, 9 c), rows, columns, channels."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, stride).unfold(2, 3, stride)  # (n, rows, columns, c, 3, 3)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[1])


def _laid(grad: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """The input's gradient of shape (n, c, h, w) for stride 2: what each output (n, out, h', w') gives to its patch, added up."""
    (n, c, h, w), (_, out, *lines) = shape, grad.shape
    rows = grad.permute(0, 2, 3, 1).reshape(-1, out) @ _rows(weight)
    patches, x = rows.view(n, *lines, 3, 3, c), rows.new_zeros(n, h, w, c)
    for i in range(lines[0]):
        for j in range(lines[1]):
            top, left, down, right = max(2 * i - 1, 0), max(2 * j - 1, 0), min(2 * i + 2, h), min(2 * j + 2, w)
            part = patches[:, i, j, top - 2 * i + 1 : down - 2 * i + 1, left - 2 * j + 1 : right - 2 * j + 1]
            x[:, top:down, left:right].add_(part)
    return x.permute(0, 3, 1, 2)


def _by_fours(grad: Tensor, kernel: Tensor) -> Tensor:
    """The input's gradient (n, c, 2 h, 2 w) for stride 2 from that of the outputs (n, out, h, w), with weights `_in_fours`.

    An even row was seen by one tap of one output, an odd one by taps of two neighbours; so with columns.
    """
    (n, _, h, w), c = grad.shape, len(kernel) // 4
    fours = F.conv2d(F.pad(grad, (0, 1, 0, 1)), kernel)
    pixels = fours.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c).transpose(2, 3)
    return pixels.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _in_fours(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (out, c, 3, 3) as those (4 c, out, 2, 2) with which 2x2 outputs reach 2x2 pixels."""
    out, c = weight.shape[:2]
    taps = F.pad(weight.to(dtype).permute(2, 3, 1, 0).reshape(9, c, out), (0, 0, 0, 0, 0, 1)).index_select(0, _FOURS)
    kernel = taps.view(2, 2, 2, 2, c, out).permute(0, 1, 4, 5, 2, 3).reshape(4 * c, out, 2, 2)
    return kernel.contiguous(memory_format=torch.channels_last)


# the tap of a 3x3 kernel with stride 2 by which an even or an odd line of the input is seen by the output at its place and by the next
# one (9: by none), and from it that of 2 x 2 pixels (y, x) by 2 x 2 outputs (i, j)
_LINES = ((1, 9), (2, 0))
_FOURS = torch.tensor(
    [min(9, 3 * _LINES[y][i] + _LINES[x][j]) for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)],
    device="cpu",  # as all tensors of these modules: they may be imported where another device is the default
)


class On2x2(torch.autograd.Function):
    """`on_2x2` with its matrix made once a step, and the gradients of a matrix product."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        matrix, rows = once(_between_pixels, weight, x.dtype), x.permute(0, 2, 3, 1).reshape(len(x), -1)
        ctx.save_for_backward(x, weight, matrix, rows)
        return (rows @ matrix.t()).view(len(x), 2, 2, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight, matrix, rows), (to_x, to_weight) = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():
            return torchs(ctx, grad, x, weight, 1)
        (n, out), c = grad.shape[:2], x.shape[1]
        of_rows, of_weight = grad.permute(0, 2, 3, 1).reshape(n, -1), None
        if to_weight:
            pairs = (of_rows.t() @ rows).view(4, out, 4, c).transpose(1, 2).reshape(16, -1)
            of_weight = as_its(weight, (_OF_TAP.to(x.dtype) @ pairs).view(3, 3, out, c).permute(2, 3, 0, 1))
        return (of_rows @ matrix).view(n, 2, 2, c).permute(0, 3, 1, 2) if to_x else None, of_weight


def on_2x2(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with padding 1 of x (n, c, 2, 2): one matrix product, in which every pixel reaches every pixel."""
    rows = F.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1), _between_pixels(weight, weight.dtype))
    return rows.view(len(x), 2, 2, len(weight)).permute(0, 3, 1, 2)


def _between_pixels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (out, c, 3, 3) as a matrix (4 out, 4 c) between the pixels of 2x2 maps."""
    out, c = weight.shape[:2]
    taps = weight.to(dtype).permute(2, 3, 0, 1).reshape(9, out, c).index_select(0, _TAPS)
    return taps.view(4, 4, out, c).transpose(1, 2).reshape(4 * out, 4 * c)


# the tap that leads to pixel (y, x) of a 2x2 map from its pixel (i, j), for all 16 pairs
_TAPS = torch.tensor(
    [3 * (i - y + 1) + j - x + 1 for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)], device="cpu"
)
_OF_TAP = (torch.arange(9, device="cpu")[:, None] == _TAPS).float()  # (9, 16): the pairs of each tap
