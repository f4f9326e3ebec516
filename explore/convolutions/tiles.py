"""Wide 3x3 convolutions on small maps by Winograd's tiles."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from .shared import as_its, once, torchs


def pays_by_tiles(x: Tensor, weight: Tensor) -> bool:
    """Where transforms cost less than the products they save."""
    (n, _, h, w), narrow = x.shape, min(weight.shape[:2])
    return narrow >= 256 and h % 2 == w % 2 == 0 and h * w <= 64 and n * h * w >= 512


class ByTiles(torch.autograd.Function):
    """3x3 convolution with padding 1 and stride 1 of maps with even sides by Winograd's F(2x2, 3x3).

    Every 2x2 pixels of the output come from a 4x4 tile of x (n, c, h, w) by 16 products for each pair of channels instead of 36:
    tile and kernel are transformed, multiplied place by place, and the 16 products transformed to the 4 pixels (Lavin and Gray,
    arXiv:1509.09308). Both gradients are products of the same kind. A transform is one matrix product for a band of two rows.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        kernel = once(_by_place, weight, x.dtype)
        y, tiles = _by_tiles(x, kernel.transpose(1, 2))
        ctx.save_for_backward(x, weight, kernel, tiles if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight, kernel, tiles), (to_x, to_weight) = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():
            return torchs(ctx, grad, x, weight, 1)
        # that of x is the same convolution with turned kernels, whose places are those of `kernel` in another order
        of_x = _by_tiles(grad, kernel, turned=True)[0] if to_x else None
        return of_x, as_its(weight, _of_kernels(grad, tiles)) if to_weight else None


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
_TILE = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], device="cpu")
_TAPS_OF_LINE = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], device="cpu")
_PIXEL = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]], device="cpu")
_KERNEL = torch.kron(_TAPS_OF_LINE, _TAPS_OF_LINE)  # (16, 9)


@functools.cache
def _transforms(w: int, dtype: torch.dtype, turned: bool = False) -> tuple[Tensor, Tensor]:
    """For maps of width w: (16 w / 2, 4 w) from 4 rows to their tiles' places, (2 w, 16 w / 2) from products to 2 rows.

    `turned`: in the order of places that kernels turned by 180 degrees have.
    """
    tile, pixel = _TILE, _PIXEL
    if turned:
        tile, pixel = tile[[3, 1, 2, 0]], pixel[:, [3, 1, 2, 0]]
    line, back = torch.zeros(4, w // 2, w + 2, device="cpu"), torch.zeros(w, 4, w // 2, device="cpu")
    for i in range(w // 2):
        line[:, i, 2 * i : 2 * i + 4] = tile
        back[2 * i : 2 * i + 2, :, i] = pixel
    to_tiles = torch.einsum("ar,bjv->abjrv", tile, line[:, :, 1:-1]).reshape(8 * w, 4 * w)
    to_pixels = torch.einsum("pa,vbj->pvabj", pixel, back).reshape(2 * w, 8 * w)
    return to_tiles.to(dtype), to_pixels.to(dtype)
