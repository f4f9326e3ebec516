"""SimCLR's augmentations for a whole batch, with separate parameters for every image.

`sample(n, generator)` draws the parameters, `apply(x, params)` is a pure function of them,
differentiable in x. Draws are made on the generator's device (usually the CPU), so that one seed
gives the same views on every device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from . import incoming
from .errors import UserError
from .random import draw
from .types import Images

CROPS = ("torchvision", "fitted")
TRIES = 10  # shapes drawn for one crop, as torchvision.transforms.RandomResizedCrop does (0.29, get_params)
SIGMA = (0.1, 2.0)  # the blur's standard deviation in pixels (Chen et al. 2020, appendix A)
CHUNK = 256  # images a CPU's cache holds while their colours change; the result does not depend on it


@dataclass(frozen=True)
class ViewParams:
    """Parameters drawn by `Views.sample`: one row per image."""

    box: Tensor  # (n, 4) crop as fractions of the image: top, left, height, width
    flip: Tensor  # (n,) bool
    jitter: Tensor  # (n,) bool: colours change at all
    order: Tensor  # (n, 4) order of 0 brightness, 1 contrast, 2 saturation, 3 hue
    factors: Tensor  # (n, 4) the four factors; hue as a shift in turns
    gray: Tensor  # (n,) bool
    blur: Tensor  # (n,) the blur's standard deviation in pixels, 0 without blur

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, rows: slice) -> "ViewParams":
        return ViewParams(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Views:
    """Random resized crop, flip, colour jitter, gray, blur (Chen et al. 2020, appendix A).

    `scale`: range of the crop's area; `jitter`: strengths of brightness, contrast, saturation and
    hue. The defaults are those of the authors' CIFAR code, which does not blur; SimCLR's `blur_p`
    for larger images is 0.5, with a kernel of 10 % of the size. Output is (n, 3, size, size) in
    [0, 1].

    `crop="torchvision"` draws and resizes as torchvision's RandomResizedCrop: a shape that does not
    fit into the image is drawn again, and an image made smaller is antialiased. `crop="fitted"`,
    with which the shipped encoders were trained, draws only shapes that fit, which makes crops
    larger (LOG.md), and does not antialias.

    >>> views = ex.Views(size=32, scale=(0.2, 1.0))
    >>> views(torch.rand(4, 3, 48, 48), ex.seeded(0)).shape
    torch.Size([4, 3, 32, 32])
    """

    size: int = 32
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    gray_p: float = 0.2
    crop: str = "torchvision"
    blur_p: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "size", incoming.whole(self.size, "A view's size, in pixels,"))
        for name, count in {"scale": 2, "ratio": 2, "jitter": 4}.items():
            incoming.listed(getattr(self, name), f"A view's {name}")
            if len(getattr(self, name)) != count:
                raise UserError(f"A view's {name} holds {count} numbers, got {len(getattr(self, name))}.")
            for each in getattr(self, name):
                incoming.number(each, f"A view's {name}")
        for name in ("flip", "jitter_p", "gray_p"):
            incoming.number(getattr(self, name), f"{name}, a share of the views,", 0.0, 1.0)
        if self.crop not in CROPS:
            raise UserError(f"A view's crop is one of {', '.join(CROPS)}, got {self.crop!r}.")
        if not 0 <= self.blur_p <= 1:
            raise UserError(f"blur_p is the share of views that are blurred, in 0 to 1, got {self.blur_p}.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"A view's crop scale is a range of area shares within 0 to 1, got {self.scale}.")
        if not 0 <= self.jitter[3] <= 0.5:
            raise UserError(f"The hue strength lies in 0 to 0.5 turns, got {self.jitter[3]}.")

    def for_gray(self) -> "Views":
        """The same views without saturation, hue and gray, which cannot change a gray image."""
        return replace(self, jitter=(*self.jitter[:2], 0.0, 0.0), gray_p=0.0)

    def sample(
        self, n: int, generator: torch.Generator | None = None, source: tuple[int, int] | None = None
    ) -> ViewParams:
        """Draw parameters for n images; rows are independent.

        `source`: height and width of the images, since torchvision draws crops in whole pixels;
        None: those of the views.
        """
        device = generator.device if generator is not None else None
        u = draw(torch.rand, (n, 12), generator, device=device)
        order = draw(torch.rand, (n, 4), generator, device=device).argsort(dim=1)
        if self.crop == "fitted":
            box = self._fitted(u)
        else:
            tries = draw(torch.rand, (n, 2 * TRIES), generator, device=device)
            box = self._tried(u, tries, *(source or (self.size, self.size)))
        strength = torch.tensor(self.jitter, device=u.device)
        least = torch.cat([(1 - strength[:3]).clamp_min(0), -strength[3:]])
        most = torch.cat([1 + strength[:3], strength[3:]])
        factors = least + u[:, 4:8] * (most - least)
        blur = u.new_zeros(n)
        if self.blur_p:
            blurred, sigma = draw(torch.rand, (n, 2), generator, device=device).unbind(1)
            blur = (SIGMA[0] + sigma * (SIGMA[1] - SIGMA[0])) * (blurred < self.blur_p)
        gray = u[:, 10] < self.gray_p
        return ViewParams(box, u[:, 8] < self.flip, u[:, 9] < self.jitter_p, order, factors, gray, blur)

    def _fitted(self, u: Tensor) -> Tensor:
        """Boxes of shapes that fit: the sides stay within the image, the area is kept exactly."""
        area = self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])
        low, high = area.clamp_min(self.ratio[0]).log(), (1 / area).clamp_max(self.ratio[1]).log()
        ratio = (low + u[:, 1] * (high - low)).exp()
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        return torch.stack([u[:, 2] * (1 - height), u[:, 3] * (1 - width), height, width], dim=1)

    def _tried(self, u: Tensor, tries: Tensor, h: int, w: int) -> Tensor:
        """Boxes with torchvision's distribution: the first of `TRIES` shapes that fits.

        Sides and corners are whole pixels of an image of h x w. Where no shape fits, it is the
        largest centred crop whose ratio is allowed.
        """
        least, most = map(math.log, self.ratio)
        area = (self.scale[0] + tries[:, :TRIES] * (self.scale[1] - self.scale[0])) * (h * w)
        ratio = (least + tries[:, TRIES:] * (most - least)).exp()
        width, height = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()
        fits = (width > 0) & (width <= w) & (height > 0) & (height <= h)
        first, found = fits.to(torch.uint8).argmax(1, keepdim=True), fits.any(1)  # argmax: the first of equal values
        rest_h, rest_w = min(h, round(w / self.ratio[0])), min(w, round(h * self.ratio[1]))
        height = height.gather(1, first)[:, 0].where(found, rest_h)
        width = width.gather(1, first)[:, 0].where(found, rest_w)
        top = (u[:, 2] * (h - height + 1)).floor().where(found, (h - rest_h) // 2)
        left = (u[:, 3] * (w - width + 1)).floor().where(found, (w - rest_w) // 2)
        return torch.stack([top / h, left / w, height / h, width / w], dim=1)

    def apply(self, x: Images, params: ViewParams) -> Images:
        """Views of x (n, 3, h, w) in [0, 1] -> (n, 3, size, size), image i by row i of `params`."""
        if len(params) != len(x):
            raise UserError(
                f"There are {len(x)} images and parameters for {len(params)}; sample as many as there are images."
            )
        if x.device.type == "cpu" and len(x) > CHUNK:
            starts = range(0, len(x), CHUNK)
            return torch.cat([self.apply(x[i : i + CHUNK], params[i : i + CHUNK]) for i in starts])
        x = _colour(_crop(x, params, self.size, self.crop == "torchvision"), params, self.jitter)
        return _blur(x, params.blur) if self.blur_p else x

    def __call__(self, x: Images, generator: torch.Generator | None = None) -> Images:
        """One random view of every image."""
        _checked(x, generator)
        return self.apply(x, self.sample(len(x), generator, (x.shape[-2], x.shape[-1])))


def _crop(x: Tensor, params: ViewParams, size: int, antialias: bool) -> Tensor:
    """Crop, resize and flip as two small matrix products per image (bilinear)."""
    n, c, h, w = x.shape
    top, left, height, width = _sent(params.box, x).unbind(1)
    rows = _bilinear((top * h).round(), (height * h).round().clamp_min(1), h, size, antialias)
    columns = _bilinear((left * w).round(), (width * w).round().clamp_min(1), w, size, antialias)
    columns = torch.where(_sent(params.flip, x, bool=True)[:, None, None], columns.flip(1), columns)
    across = (x.reshape(n, c * h, w) @ columns.transpose(1, 2)).view(n, c, h, size)
    return rows[:, None] @ across


def _bilinear(start: Tensor, length: Tensor, source: int, size: int, antialias: bool) -> Tensor:
    """Weights (n, size, source) that resize pixels start .. start + length to `size`.

    With `antialias` the triangle is as wide as the reduction asks for, as in torchvision's resize.
    """
    start, step = torch.minimum(start, source - length), length[:, None] / size
    pixels = torch.arange(source, device=start.device)
    at = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) * step - 0.5
    if not antialias or source <= size:
        at = torch.minimum(at.clamp_min(0), length[:, None] - 1) + start[:, None]
        return (at[:, :, None] - pixels).abs_().neg_().add_(1).clamp_min_(0)
    distance = (at + start[:, None])[:, :, None] - pixels
    weights = distance.abs_().div_(step.clamp_min(1)[:, :, None]).neg_().add_(1).clamp_min_(0)
    inside = (pixels >= start[:, None]) & (pixels < (start + length)[:, None])
    weights *= inside[:, None]
    return weights.div_(weights.sum(2, keepdim=True))


def _colour(x: Tensor, params: ViewParams, strengths: tuple[float, ...]) -> Tensor:
    """Colour jitter in every image's own order, then gray. x may be overwritten.

    Brightness, contrast and saturation are blends with black, the mean gray and the image's own
    gray. Images are sorted by how many of their blends come before the hue shift, so that each
    blend, and the hue shift, is one call. The order is computed on the CPU; nothing waits for the
    device.
    """
    if any(strengths):
        order = params.order.cpu()
        before = torch.where(params.jitter.cpu(), (order == 3).int().argmax(1) if strengths[3] else 3, -1)
        sorting = before.argsort(descending=True)
        blends, factors = order[order != 3].view(-1, 3)[sorting], params.factors.cpu()[sorting]
        keep = factors.gather(1, blends)  # share of the image itself; the rest is its base
        shares = _sent(torch.stack([keep, (1 - keep) * (blends == 1), (1 - keep) * (blends == 2)]), x)
        jittered, *ends = (before[:, None] >= torch.arange(4)).sum(0).tolist()
        x = x.index_select(0, sorting.to(x.device, non_blocking=True))
        for blend, end in enumerate(ends):
            _blend(x[:end], *shares[:, :end, blend])
        if strengths[3]:
            _shift_hue(x[:jittered], factors[:jittered, 3])
        for blend, end in enumerate(ends):
            _blend(x[end:jittered], *shares[:, end:jittered, blend])
        x = x.index_select(0, sorting.argsort().to(x.device, non_blocking=True))
    gray = params.gray.cpu().nonzero()[:, 0].to(x.device, non_blocking=True)
    return x.index_copy_(0, gray, _luma(x.index_select(0, gray)).expand(-1, 3, -1, -1))


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """SimCLR's blur, as two products with a matrix per blurred image. x may be overwritten.

    The kernel has 10 % of the size, made odd as in SimCLR's code; borders are mirrored as in
    torchvision's gaussian_blur.
    """
    size, sigma = x.shape[-1], sigma.cpu()
    chosen = sigma.nonzero()[:, 0]
    offsets = torch.arange(size // 20 + 1)
    bell = (-0.5 * (offsets / sigma[chosen, None]) ** 2).exp()
    bell = _sent(bell / (2 * bell.sum(1, keepdim=True) - 1), x)  # (n, radius + 1): half of a symmetric kernel
    at, last = torch.arange(size, device=x.device), size - 1
    far = 2 * size  # farther than the kernel reaches
    direct = (at[:, None] - at).abs()  # distance of every source pixel from every target, ...
    before = torch.where(at > 0, at[:, None] + at, far)  # ... of its mirror image beyond the first border,
    beyond = torch.where(at < last, 2 * last - at[:, None] - at, far)  # ... and beyond the last
    offset = torch.arange(size // 20 + 1, device=x.device)[:, None, None]
    taps = (direct == offset).to(x.dtype) + (before == offset) + (beyond == offset)
    matrix = (bell @ taps.flatten(1)).view(len(chosen), 1, size, size)
    chosen = chosen.to(x.device, non_blocking=True)
    return x.index_copy_(0, chosen, matrix @ x.index_select(0, chosen) @ matrix.transpose(2, 3))


def _sent(values: Tensor, x: Tensor, bool: bool = False) -> Tensor:
    """Small values on x's device, in its dtype or as bool, without synchronisation."""
    return values.to(x.device, values.dtype if bool else x.dtype, non_blocking=True)


def _blend(x: Tensor, keep: Tensor, mean: Tensor, own: Tensor) -> None:
    """In place: keep * x + mean * (mean gray) + own * (gray), clipped; shares (n,)."""
    keep, mean, own = (share.view(-1, 1, 1, 1) for share in (keep, mean, own))
    luma = _luma(x)
    mean = mean * luma.mean((2, 3), keepdim=True)
    base = luma.mul_(own).add_(mean)
    _write(x, base, x, keep)
    x.clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    weights = _LUMA.to(x.device, x.dtype, non_blocking=True)
    return (weights @ x.flatten(2)).view(len(x), 1, *x.shape[2:])


_LUMA = torch.tensor([0.2989, 0.587, 0.114], device="cpu")  # ITU-R 601-2, as torchvision and Pillow


def _shift_hue(x: Tensor, turns: Tensor) -> None:
    """In place: shift the hue of every image by its fraction of the colour circle, branch-free.

    In sixths of a turn from red, hue is 0 to 3 on green's side and 0 to -3 on blue's; there (high -
    2 low - r + g + b) / (high - low) is its size in all three sextants. A channel is low within one
    sixth of its opposite, high beyond two, and linear between.
    """
    r, g, b = (x.clone() if x.requires_grad else x).unbind(1)
    high = torch.maximum(r, torch.maximum(g, b))
    low = torch.minimum(r, torch.minimum(g, b))
    span = high - low
    hue = (g + b).sub_(r).add_(high).sub_(low, alpha=2).div_(span.clamp_min(1e-12)).copysign_(g - b)
    shift = 6 * turns[:, None] + torch.tensor([0.0, -2.0, 2.0])  # a channel's own hue comes to 0
    shift = _sent(shift - 6 * (shift / 6).round(), x)[..., None, None]
    far = (hue[:, None] + shift).abs_().sub_(3).abs_().clamp_(1, 2)  # from -6 .. 6 to the distance from the far side
    _write(x, (high - 2 * span)[:, None], far, span[:, None])


def _write(x: Tensor, base: Tensor, a: Tensor, b: Tensor) -> None:
    """In place: base + a * b, straight into x where no gradient is asked for."""
    if x.requires_grad:
        x.copy_(torch.addcmul(base, a, b))
    else:
        torch.addcmul(base, a, b, out=x)


def two_views(views: Views, x: Images, generator: torch.Generator | None = None) -> tuple[Images, Images]:
    """Two independent views of every image, equal to two calls of `views`, computed in one.

    >>> v1, v2 = ex.two_views(ex.Views(), torch.rand(4, 3, 32, 32), ex.seeded(0))
    >>> v1.shape == v2.shape and not v1.equal(v2)
    True
    """
    _checked(x, generator)
    return two_views_each(views, [x], [generator])[0]


def _checked(x: Images, generator: torch.Generator | None) -> None:
    """UserError unless images are floats in [0, 1]; on a GPU, which would wait, by their shape."""
    (incoming.images if isinstance(x, Tensor) and x.device.type == "cpu" else incoming.image_shape)(x)
    if x.shape[1] != 3:
        raise UserError(f"Views are made of images (n, 3, height, width), got {tuple(x.shape)}; repeat a gray channel.")
    incoming.generator(generator)


def two_views_each(
    views: Views, batches: Sequence[Images], generators: Sequence[torch.Generator | None]
) -> list[tuple[Images, Images]]:
    """`two_views` of each of several batches, drawn by each one's own generator, in one call."""
    params = [
        views.sample(len(x), generator, (x.shape[-2], x.shape[-1]))
        for x, generator in zip(batches, generators, strict=True)
        for _ in range(2)
    ]
    all_of_them = ViewParams(*(torch.cat([getattr(p, f.name) for p in params]) for f in fields(ViewParams)))
    found = views.apply(torch.cat([x for x in batches for _ in range(2)]), all_of_them)
    parts = found.split([len(p) for p in params])
    return list(zip(parts[::2], parts[1::2], strict=True))
