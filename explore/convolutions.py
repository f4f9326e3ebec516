"""Convolutions of a ResNet as training meets them on a CPU: torch's, and the same function put otherwise where that is faster."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MADE: ContextVar[dict | None] = ContextVar("made", default=None)


@contextlib.contextmanager
def weights_fixed() -> Iterator[None]:
    """Within it no weight changes: what convolutions make of their weights for a pass is made once, as in a training step."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def _once(make: Callable[[Tensor, torch.dtype], Tensor], weight: Tensor, dtype: torch.dtype) -> Tensor:
    made = _MADE.get()
    if made is None:
        return make(weight, dtype)
    key = make, id(weight), dtype  # the weight is kept beside it, so its id stays its own
    if key not in made:
        made[key] = make(weight, dtype), weight
    return made[key][0]


class Conv2d(nn.Conv2d):
    """torch's convolution; on a CPU some shapes whose kernels are slow are put otherwise, as the same function.

    1x1 with stride 2 is a dense 1x1 on every other pixel (picked by a pooling, whose gradient keeps the memory layout). 3x3 on
    maps of 2x2 is one matrix between all pixels, worth its making from as many images as channels on. Other 3x3 in
    bfloat16 go by tiles where many channels meet few pixels, and have gradients of their own where these are faster.
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
                if stride == (1, 1) and _pays_by_tiles(input, self.weight):
                    return _ByTiles.apply(input.to(dtype), self.weight)
                return _Conv3x3.apply(input.to(dtype), self.weight, stride[0])
        return super().forward(input)


class _Conv3x3(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 or 2, as torch's, with two gradients of its own.

    That in the weights is the product of all patches with all outputs' gradients where outputs have few pixels; that in an input of
    few channels is, for stride 2, a dense 2x2 convolution that gives four pixels each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        low = _once(Tensor.to, weight, x.dtype)
        ctx.save_for_backward(x, weight, low)
        ctx.stride = stride
        if stride == 2 and x.shape[1] >= 256 and x.shape[2] * x.shape[3] <= 64:
            return _by_product(x, low, stride)
        return F.conv2d(x, low, None, stride, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight, low), stride = ctx.saved_tensors, ctx.stride
        if torch.is_grad_enabled():  # a gradient that is differentiated again
            low = weight.to(x.dtype)
        to_x, to_weight = ctx.needs_input_grad[:2]
        few_pixels = grad.shape[2] * grad.shape[3] <= (64 if stride == 2 else 16)
        by_patches, by_fours = to_weight and few_pixels, to_x and stride == 2 and x.shape[1] <= 16
        where = [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        mask = [to_x and not by_fours, to_weight and not by_patches, False]
        grads = torch.ops.aten.convolution_backward(grad, x, low, None, *where, mask) if any(mask) else (None, None)
        of_weight = _by_patches(grad, x, stride) if by_patches else grads[1]
        return (
            _by_fours(grad, low)[..., : x.shape[2], : x.shape[3]] if by_fours else grads[0],
            of_weight.to(weight.dtype) if of_weight is not None else None,
            None,
        )


def _by_product(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The convolution of x (n, c, h, w) as one product of all patches and weights (out, c, 3, 3): (n, out, h', w'), channels last."""
    out, lines = len(weight), [(side - 1) // stride + 1 for side in x.shape[2:]]
    rows = _patches(x, stride) @ weight.permute(0, 2, 3, 1).reshape(out, -1).t()
    return rows.view(len(x), *lines, out).permute(0, 3, 1, 2)


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


def _pays_by_tiles(x: Tensor, weight: Tensor) -> bool:
    """Where transforms cost less than the products they save; compiled code is left to the compiler."""
    (n, _, h, w), narrow = x.shape, min(weight.shape[:2])
    if torch.compiler.is_compiling():
        return False
    return narrow >= 256 and h % 2 == w % 2 == 0 and h * w <= 64 and n * h * w >= 512


class _ByTiles(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 of maps with even sides by Winograd's F(2x2, 3x3).

    Every 2x2 pixels of the output come from a 4x4 tile of x (n, c, h, w) by 16 products for each pair of channels instead of 36:
    tile and kernel are transformed, multiplied place by place, and the 16 products transformed to the 4 pixels (Lavin and Gray,
    arXiv:1509.09308). Both gradients are products of the same kind. A transform is one matrix product for a band of two rows.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        kernel = _once(_by_place, weight, x.dtype)
        y, tiles = _by_tiles(x, kernel.transpose(1, 2))
        ctx.save_for_backward(x, weight, kernel, tiles if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight, kernel, tiles), (to_x, to_weight) = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient that is differentiated again
            where = [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [to_x, to_weight, False]
            return torch.ops.aten.convolution_backward(grad, x, weight.to(x.dtype), None, *where)[:2]
        # that of x is the same convolution with turned kernels, whose places are those of `kernel` in another order
        of_x = _by_tiles(grad, kernel, turned=True)[0] if to_x else None
        return of_x, _of_kernels(grad, tiles).to(weight.dtype) if to_weight else None


def _by_tiles(x: Tensor, kernel: Tensor, turned: bool = False) -> tuple[Tensor, Tensor]:
    """Convolution of x (n, c, h, w) with transformed kernels (16, c, out): pixels, and the transformed tiles (16, n h w / 4, c)."""
    (n, c, h, w), out = x.shape, kernel.shape[2]
    to_tiles, to_pixels = _transforms(w, x.dtype, turned)
    rows = F.pad(x.permute(0, 2, 3, 1).reshape(n, h, w * c), (0, 0, 1, 1)).view(n, h + 2, w, c)
    bands = rows.unfold(1, 4, 2).permute(4, 2, 0, 1, 3)  # the four rows that each two see
    tiles = (to_tiles @ bands.reshape(4 * w, -1)).view(16, -1, c)
    pixels = (to_pixels @ torch.bmm(tiles, kernel).view(8 * w, -1)).view(2 * w, -1, out)
    return pixels.transpose(0, 1).reshape(n, h, w, out).permute(0, 3, 1, 2), tiles


def _of_kernels(grad: Tensor, tiles: Tensor) -> Tensor:
    """The weights' gradient (out, c, 3, 3) from that of the outputs (n, out, h, w) and the transformed tiles of the inputs."""
    (_, out, _, w), c = grad.shape, tiles.shape[2]
    bands = grad.permute(0, 2, 3, 1).reshape(-1, 2 * w, out).transpose(0, 1).reshape(2 * w, -1)
    places = (_transforms(w, grad.dtype)[1].t() @ bands).view(16, -1, out)
    products = torch.bmm(places.transpose(1, 2), tiles).view(16, -1)
    return (_KERNEL.to(grad.dtype).t() @ products).view(3, 3, out, c).permute(2, 3, 0, 1)


def _by_place(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Kernels (out, c, 3, 3) transformed: (16, out, c)."""
    taps = weight.to(dtype).permute(2, 3, 0, 1).reshape(9, -1)
    return (_KERNEL.to(dtype) @ taps).view(16, *weight.shape[:2])


# Winograd's F(2, 3) of one line: 4 places of a tile from 4 pixels, of a kernel from 3 taps, and 2 pixels from 4 products; of 2x2
# pixels in both directions
_TILE = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_TAPS_OF_LINE = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_PIXEL = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
_KERNEL = torch.kron(_TAPS_OF_LINE, _TAPS_OF_LINE)  # (16, 9)


@functools.cache
def _transforms(w: int, dtype: torch.dtype, turned: bool = False) -> tuple[Tensor, Tensor]:
    """For maps of width w: (16 w / 2, 4 w) from 4 rows to their tiles' places, (2 w, 16 w / 2) from products to 2 rows.

    `turned`: in the order of places that kernels turned by 180 degrees have.
    """
    tile, pixel = _TILE, _PIXEL
    if turned:
        tile, pixel = tile[[3, 1, 2, 0]], pixel[:, [3, 1, 2, 0]]
    line, back = torch.zeros(4, w // 2, w + 2), torch.zeros(w, 4, w // 2)
    for i in range(w // 2):
        line[:, i, 2 * i : 2 * i + 4] = tile
        back[2 * i : 2 * i + 2, :, i] = pixel
    to_tiles = torch.einsum("ar,bjv->abjrv", tile, line[:, :, 1:-1]).reshape(8 * w, 4 * w)
    to_pixels = torch.einsum("pa,vbj->pvabj", pixel, back).reshape(2 * w, 8 * w)
    return to_tiles.to(dtype), to_pixels.to(dtype)


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
