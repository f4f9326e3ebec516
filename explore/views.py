"""SimCLR's augmentations for a whole batch at once, with a draw of its own for every image, on the images' device.

Drawing is apart from applying: `sample(n, generator)` gives parameters one can look at and keep, `apply(x, params)` is a
pure function, differentiable in x. Draws are made on the generator's device (CPU as a rule), so that one seed gives one
set of views on every device.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .errors import UserError
from .shapes import Images
from .state import draw

CHUNK = 128  # images a CPU's cache holds while their colours change; the result does not depend on it


@dataclass(frozen=True)
class ViewParams:
    """What `Views.sample` drew: one row an image."""

    box: Tensor  # (n, 4) crop as fractions of the image: top, left, height, width
    flip: Tensor  # (n,) bool
    jitter: Tensor  # (n,) bool: colours change at all
    order: Tensor  # (n, 4) order of 0 brightness, 1 contrast, 2 saturation, 3 hue
    factors: Tensor  # (n, 4) the four factors; hue as a shift in turns
    gray: Tensor  # (n,) bool

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, rows: slice) -> "ViewParams":
        return ViewParams(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Views:
    """Random resized crop, flip, colour jitter, gray: SimCLR's views (Chen et al. 2020, appendix A), without blur.

    `scale`: range of the crop's area; `jitter`: strengths of brightness, contrast, saturation, hue. The values are the
    ones of the authors' CIFAR code. Output is (n, 3, size, size) in [0, 1].
    """

    size: int = 32
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    gray_p: float = 0.2

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"A view's crop scale is a range of area shares within 0 to 1, got {self.scale}.")
        if not 0 <= self.jitter[3] <= 0.5:
            raise UserError(f"The hue strength lies in 0 to 0.5 turns, got {self.jitter[3]}.")

    def for_gray(self) -> "Views":
        """The same views without what cannot change a gray image: saturation, hue, gray."""
        return replace(self, jitter=(*self.jitter[:2], 0.0, 0.0), gray_p=0.0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> ViewParams:
        """Draw parameters for n images; rows are independent."""
        device = generator.device if generator is not None else None
        u = draw(torch.rand, (n, 12), generator, device=device)
        order = draw(torch.rand, (n, 4), generator, device=device).argsort(dim=1)
        area = self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])
        # only shapes that fit: the sides stay within the image, the area is kept exactly
        low, high = area.clamp_min(self.ratio[0]).log(), (1 / area).clamp_max(self.ratio[1]).log()
        ratio = (low + u[:, 1] * (high - low)).exp()
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        box = torch.stack([u[:, 2] * (1 - height), u[:, 3] * (1 - width), height, width], dim=1)
        strength = torch.tensor(self.jitter, device=u.device)
        least = torch.cat([(1 - strength[:3]).clamp_min(0), -strength[3:]])
        most = torch.cat([1 + strength[:3], strength[3:]])
        factors = least + u[:, 4:8] * (most - least)
        return ViewParams(box, u[:, 8] < self.flip, u[:, 9] < self.jitter_p, order, factors, u[:, 10] < self.gray_p)

    def apply(self, x: Images, params: ViewParams) -> Images:
        """Views of x (n, 3, h, w) in [0, 1] -> (n, 3, size, size), image i by row i of `params`."""
        if len(params) != len(x):
            raise UserError(
                f"There are {len(x)} images and parameters for {len(params)}; sample as many as there are images."
            )
        if x.device.type == "cpu" and len(x) > CHUNK:
            starts = range(0, len(x), CHUNK)
            return torch.cat([self.apply(x[i : i + CHUNK], params[i : i + CHUNK]) for i in starts])
        return _colour(_crop(x, params, self.size), params, self.jitter)

    def __call__(self, x: Images, generator: torch.Generator | None = None) -> Images:
        """One random view of every image."""
        return self.apply(x, self.sample(len(x), generator))


def _crop(x: Tensor, params: ViewParams, size: int) -> Tensor:
    """Crop, resize and flip as two small matrix products an image: bilinear weights for rows and for columns."""
    h, w = x.shape[-2:]
    top, left, height, width = params.box.to(x.dtype).unbind(1)
    rows = _bilinear((top * h).round(), (height * h).round().clamp_min(1), h, size)
    columns = _bilinear((left * w).round(), (width * w).round().clamp_min(1), w, size)
    columns = torch.where(params.flip[:, None, None], columns.flip(1), columns)
    rows, columns = rows.to(x.device, non_blocking=True), columns.to(x.device, non_blocking=True)
    return rows[:, None] @ x @ columns[:, None].transpose(-1, -2)


def _bilinear(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """Weights (n, size, source) that resize pixels start .. start + length of a line to `size`, edges repeated."""
    start = torch.minimum(start, source - length)
    at = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) * (length[:, None] / size) - 0.5
    at = torch.minimum(at.clamp_min(0), length[:, None] - 1) + start[:, None]
    return (1 - (at[:, :, None] - torch.arange(source, device=start.device)).abs()).clamp_min(0)


def _colour(x: Tensor, params: ViewParams, strengths: tuple[float, ...]) -> Tensor:
    """Colour jitter in every image's own order, then gray; images without jitter pass unchanged.

    Brightness, contrast and saturation are one formula with three bases (black, mean gray, own gray), so each of the four
    turns is one blend for the whole batch.
    """
    base_ops = torch.tensor([s > 0 for s in strengths])
    if base_ops.any():
        on = params.jitter.cpu()[:, None] & base_ops[params.order.cpu()]  # (n, 4) this turn does something
        for turn in range(4):
            op = params.order[:, turn].cpu()
            factor = params.factors.cpu().gather(1, op[:, None])[:, 0]
            blends, hues = on[:, turn] & (op < 3), on[:, turn] & (op == 3)
            if blends.any():
                x = _blend(x, torch.where(blends, op, 0), torch.where(blends, factor, 1.0))
            if hues.any():
                which = hues.nonzero()[:, 0]
                moved = _shift_hue(x[which.to(x.device)], factor[which].to(x))
                x = x.index_copy(0, which.to(x.device), moved)
    if params.gray.any():
        x = torch.where(params.gray.to(x.device).view(-1, 1, 1, 1), _luma(x).expand_as(x), x)
    return x


def _blend(x: Tensor, op: Tensor, factor: Tensor) -> Tensor:
    luma = _luma(x)
    mean = luma.mean((2, 3), keepdim=True)
    op, factor = op.to(x.device).view(-1, 1, 1, 1), factor.to(x).view(-1, 1, 1, 1)
    base = torch.where(op == 2, luma, torch.where(op == 1, mean, 0))
    return torch.lerp(base.expand_as(x), x, factor).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]  # ITU-R 601-2, as torchvision and Pillow


def _shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of every image by its own share of the colour circle, through HSV."""
    value, low = x.amax(1), x.amin(1)
    span = value - low
    safe = torch.where(span > 0, span, 1)
    r, g, b = x.unbind(1)
    hue = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )  # in sixths of a turn
    hue = torch.remainder(hue + 6 * turns.view(-1, 1, 1), 6)
    # red, green and blue of a hue: value minus the span times a triangle wave, shifted by a third of a turn each
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    k = torch.remainder(offsets + hue[:, None], 6)
    wave = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] - span[:, None] * wave


def two_views(views: Views, x: Images, generator: torch.Generator | None = None) -> tuple[Images, Images]:
    """Two independent views of every image."""
    return views(x, generator), views(x, generator)
