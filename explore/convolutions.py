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

    1x1 with stride 2 is a dense 1x1 on every other pixel (in fp32 picked by a pooling, whose gradient keeps the memory layout). 3x3
    on maps of 2x2 is one matrix between all pixels, worth its making from as many images as channels on. Other 3x3 in
    bfloat16 go by tiles where many channels meet few pixels, and have gradients of their own where these are faster.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or self.bias is not None or self.groups != 1:
            return super().forward(input)
        shape, stride = (self.kernel_size, self.padding, self.dilation), self.stride
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        training = dtype == torch.bfloat16 and torch.is_grad_enabled()
        if shape == ((1, 1), (0, 0), (1, 1)) and stride == (2, 2):
            if training:
                return _EveryOther.apply(input.to(dtype), self.weight)
            return F.conv2d(F.avg_pool2d(input, 1, 2), self.weight)
        if shape == ((3, 3), (1, 1), (1, 1)) and stride in ((1, 1), (2, 2)):
            if stride == (1, 1) and input.shape[2:] == (2, 2) and len(input) >= self.in_channels:
                return _On2x2.apply(input.to(dtype), self.weight) if training else _on_2x2(input, self.weight)
            if training:
                if stride == (1, 1) and _pays_by_tiles(input, self.weight):
                    return _ByTiles.apply(input.to(dtype), self.weight)
                return _Conv3x3.apply(input.to(dtype), self.weight, stride[0])
        return super().forward(input)


def _torchs(ctx, grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor | None, Tensor | None]:
    """torch's gradients in x and weight, which can be differentiated again."""
    sides = [stride] * 2, [weight.shape[2] // 2] * 2, [1, 1], False, [0, 0], 1
    mask = [*ctx.needs_input_grad[:2], False]
    return torch.ops.aten.convolution_backward(grad, x, weight.to(x.dtype), None, *sides, mask)[:2]


def _as(weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient in the weight's type and memory layout, as which autograd keeps it without another copy."""
    return torch.empty_like(weight).copy_(grad)


class _EveryOther(torch.autograd.Function):
    """1x1 convolution with stride 2: products of every other pixel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        low = _once(Tensor.to, weight, x.dtype).flatten(1)
        picked = x.permute(0, 2, 3, 1)[:, ::2, ::2]
        rows = picked.reshape(-1, low.shape[1])
        ctx.save_for_backward(x, weight, low, rows)
        return (rows @ low.t()).view(*picked.shape[:3], -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight, low, rows = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _torchs(ctx, grad, x, weight, 2)
        (n, c, h, w), (to_x, to_weight) = x.shape, ctx.needs_input_grad
        of_rows, of_x = grad.permute(0, 2, 3, 1).reshape(-1, len(low)), None
        if to_x:
            of_x = grad.new_zeros(n, h, w, c)
            of_x[:, ::2, ::2] = (of_rows @ low).view(n, *grad.shape[2:], c)
            of_x = of_x.permute(0, 3, 1, 2)
        return of_x, _as(weight, (of_rows.t() @ rows).view_as(weight)) if to_weight else None


class _Conv3x3(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 or 2, as torch's, with ways of its own where outputs have few pixels.

    The weights' gradient is then the product of all patches with all outputs' gradients. With stride 2 the output may be that of
    patches and weights, and the input's gradient that of outputs and weights, laid over one another; that in an input of
    few channels is a dense 2x2 convolution that gives four pixels each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        low, patches = _once(Tensor.to, weight, x.dtype), None
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
            return *_torchs(ctx, grad, x, weight, stride), None
        to_x, to_weight = ctx.needs_input_grad[:2]
        by_patches = to_weight and _few(grad, 64 if stride == 2 else 16)
        by_fours = to_x and stride == 2 and x.shape[1] <= 32
        by_laying = to_x and stride == 2 and not by_fours and _few(grad, 4)
        sides = [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        mask = [to_x and not by_fours and not by_laying, to_weight and not by_patches, False]
        of_x, of_weight = None, None
        if any(mask):
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(grad, x, low, None, *sides, mask)
        if by_fours:
            of_x = _by_fours(grad, _once(_in_fours, weight, x.dtype))[..., : x.shape[2], : x.shape[3]]
        if by_laying:
            of_x = _laid(grad, low, x.shape)
        if by_patches:
            of_weight = _by_patches(grad, _patches(x, stride) if patches is None else patches)
        return of_x, _as(weight, of_weight) if of_weight is not None else None, None


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
        if torch.is_grad_enabled():
            return _torchs(ctx, grad, x, weight, 1)
        # that of x is the same convolution with turned kernels, whose places are those of `kernel` in another order
        of_x = _by_tiles(grad, kernel, turned=True)[0] if to_x else None
        return of_x, _as(weight, _of_kernels(grad, tiles)) if to_weight else None


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


class _On2x2(torch.autograd.Function):
    """`_on_2x2` with its matrix made once a step, and the gradients of a matrix product."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        matrix, rows = _once(_between_pixels, weight, x.dtype), x.permute(0, 2, 3, 1).reshape(len(x), -1)
        ctx.save_for_backward(x, weight, matrix, rows)
        return (rows @ matrix.t()).view(len(x), 2, 2, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight, matrix, rows), (to_x, to_weight) = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _torchs(ctx, grad, x, weight, 1)
        (n, out), c = grad.shape[:2], x.shape[1]
        of_rows, of_weight = grad.permute(0, 2, 3, 1).reshape(n, -1), None
        if to_weight:
            pairs = (of_rows.t() @ rows).view(4, out, 4, c).transpose(1, 2).reshape(16, -1)
            of_weight = _as(weight, (_OF_TAP.to(x.dtype) @ pairs).view(3, 3, out, c).permute(2, 3, 0, 1))
        return (of_rows @ matrix).view(n, 2, 2, c).permute(0, 3, 1, 2) if to_x else None, of_weight


def _on_2x2(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with padding 1 of x (n, c, 2, 2): one matrix product, in which every pixel reaches every pixel."""
    rows = F.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1), _between_pixels(weight, weight.dtype))
    return rows.view(len(x), 2, 2, len(weight)).permute(0, 3, 1, 2)


def _between_pixels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (out, c, 3, 3) as a matrix (4 out, 4 c) between the pixels of 2x2 maps."""
    out, c = weight.shape[:2]
    taps = weight.to(dtype).permute(2, 3, 0, 1).reshape(9, out, c).index_select(0, _TAPS)
    return taps.view(4, 4, out, c).transpose(1, 2).reshape(4 * out, 4 * c)


# the tap that leads to pixel (y, x) of a 2x2 map from its pixel (i, j), for all 16 pairs
_TAPS = torch.tensor([3 * (i - y + 1) + j - x + 1 for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)])
_OF_TAP = (torch.arange(9)[:, None] == _TAPS).float()  # (9, 16): the pairs of each tap


# the tap of a 3x3 kernel with stride 2 by which an even or an odd line of the input is seen by the output at its place and by the next
# one (9: by none), and from it that of 2 x 2 pixels (y, x) by 2 x 2 outputs (i, j)
_LINES = ((1, 9), (2, 0))
_FOURS = torch.tensor(
    [min(9, 3 * _LINES[y][i] + _LINES[x][j]) for y in (0, 1) for x in (0, 1) for i in (0, 1) for j in (0, 1)]
)
