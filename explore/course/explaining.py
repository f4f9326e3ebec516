"""Exercises of the lesson on attribution: integrated gradients and occlusion."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attacks import gradient
from .exercise import Exercise, Mistake

Number = Callable[[Tensor], Tensor]  # images (n, c, h, w) -> one number an image (n,)


# The model answers are shown in the instructor's copy as they stand here.
def integrated_gradients(number, x, baseline, steps):
    """Maps of x's shape (n, c, h, w): a pixel's share of number(x) - number(baseline)."""
    total = torch.zeros_like(x)
    for i in range(steps):
        point = baseline + (i + 0.5) / steps * (x - baseline)
        point = point.detach().requires_grad_()
        total += torch.autograd.grad(number(point).sum(), point)[0]
    return (x - baseline) * total / steps


def occlusion(number, x, side):
    """Maps (n, h / side, w / side): how far the number falls when one square of x is black."""
    n, _, h, w = x.shape
    drop = x.new_zeros(n, h // side, w // side)
    for i in range(h // side):
        for j in range(w // side):
            hidden = x.clone()
            hidden[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side] = 0
            drop[:, i, j] = number(x) - number(hidden)
    return drop


def _number(generator: torch.Generator, pixels: int) -> Number:
    """A small fixed network that bends, images -> one number each, in the images' precision."""
    first = torch.randn(pixels, 12, generator=generator) * (3 / pixels**0.5)
    last = 1 + torch.rand(12, generator=generator)

    def number(images: Tensor) -> Tensor:
        hidden = (images.flatten(1) @ first.to(images.dtype)).tanh()
        return (hidden + 0.7 * hidden.square()) @ last.to(images.dtype)

    return number


def _draw_line(generator: torch.Generator) -> tuple:
    """Images, and baselines of which none is black: a path from 0 is another one."""
    x, baseline = 0.5 + 0.5 * torch.rand(3, 2, 5, 5, generator=generator), torch.rand(3, 2, 5, 5, generator=generator)
    return _number(generator, 50), x, 0.2 + 0.5 * baseline, 100


def _draw_squares(generator: torch.Generator) -> tuple:
    """Images that are neither as high as wide nor as many as their squares."""
    return _number(generator, 192), 0.2 + 0.8 * torch.rand(5, 2, 8, 12, generator=generator), 4


def _along(start: float, end: float) -> Callable[[Number, Tensor, Tensor, int], Tensor]:
    """The mean gradient at points of the line from `start` to `end` (0: baseline, 1: x)."""

    def mean(number: Number, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
        places = (start + (end - start) * (torch.arange(steps) + 0.5) / steps).view(-1, 1, 1, 1, 1)
        points = (baseline + places * (x - baseline)).flatten(0, 1)
        return gradient(number, points).view(steps, *x.shape).mean(0)

    return mean


_mean = _along(0, 1)


def _whole(number: Number, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (x - baseline) * _mean(number, x, baseline, steps)


INTEGRATED = (
    Mistake("gradient only", "multiply the mean gradient by x - baseline.", _mean),
    Mistake("multiplied by the image", "multiply by x - baseline, not by x.", lambda f, x, b, n: x * _mean(f, x, b, n)),
    Mistake("wrong sign", "the path goes from the baseline to x: multiply by x - baseline.", lambda f, x, b, n: -_whole(f, x, b, n)),
    Mistake("sum instead of mean", "divide the sum of the gradients by the number of steps.", lambda f, x, b, n: n * _whole(f, x, b, n)),
    Mistake("divided twice", "divide by the number of steps once.", lambda f, x, b, n: _whole(f, x, b, n) / n),
    Mistake("gradient at the image", "take the gradient at points along the path, not at x alone.", lambda f, x, b, n: (x - b) * gradient(f, x)),
    Mistake("gradient at the baseline", "the points go from the baseline to x; here all are at the baseline.", lambda f, x, b, n: (x - b) * gradient(f, b)),
    Mistake("image times gradient", "take the mean gradient along the path, times x - baseline.", lambda f, x, b, n: x * gradient(f, x)),
    Mistake("path from black", "the path starts at the baseline: baseline + t (x - baseline).", lambda f, x, b, n: (x - b) * _mean(f, x, 0 * b, n)),
    Mistake("baseline ignored", "the baseline is given: start there, and multiply by x - baseline.", lambda f, x, b, n: _whole(f, x, 0 * b, n)),
    Mistake("half of the path", "t goes from 0 to 1.", lambda f, x, b, n: (x - b) * _along(0, 0.5)(f, x, b, n)),
    Mistake("ends only", "two points are too few: take all `steps`.", lambda f, x, b, n: (x - b) * (gradient(f, x) + gradient(f, b)) / 2),
    Mistake("path beyond the image", "the points are baseline + t (x - baseline); x + t (x - baseline) is past x.", lambda f, x, b, n: (x - b) * _along(1, 2)(f, x, b, n)),
    Mistake("gradient of the mean", "sum the numbers of all images before you differentiate.", lambda f, x, b, n: _whole(f, x, b, n) / len(x)),
    Mistake("absolute values", "the shares have signs; without them they do not add up.", lambda f, x, b, n: _whole(f, x, b, n).abs()),
    Mistake("summed over channels", "return a share for each channel's pixel, x's shape.", lambda f, x, b, n: _whole(f, x, b, n).sum(1)),
)  # fmt: skip


def _complete(answer: Callable, number: Number, x: Tensor, baseline: Tensor, steps: int) -> str:
    """The completeness check as a note on a right answer."""
    shares = torch.as_tensor(answer(number, x, baseline, steps)).detach().double().flatten(1).sum(1)
    change = (number(x) - number(baseline)).double()
    return (
        f"Completeness: the shares add up to the change but for {100 * ((shares - change) / change).abs().max():.1g} %."
    )


def _hidden(keep: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Number, Tensor, int], Tensor]:
    """The number of every picture `keep(x, square)`, (n, h / side, w / side); square: a mask."""

    def numbers(number: Number, x: Tensor, side: int) -> Tensor:
        rows, columns = x.shape[2] // side, x.shape[3] // side
        found = x.new_zeros(len(x), rows, columns)
        for i in range(rows):
            for j in range(columns):
                square = torch.zeros_like(x, dtype=torch.bool)
                square[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side] = True
                found[:, i, j] = number(keep(x, square))
        return found

    return numbers


def _fall(keep: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Number, Tensor, int], Tensor]:
    return lambda number, x, side: number(x)[:, None, None] - _hidden(keep)(number, x, side)


def _black(x: Tensor, square: Tensor) -> Tensor:
    return x.masked_fill(square, 0)


def _until(x: Tensor, square: Tensor) -> Tensor:
    """Black in this square and in all before it, row by row of squares."""
    rows, columns = square[0, 0].any(1).nonzero().flatten(), square[0, 0].any(0).nonzero().flatten()
    x = x.clone()
    x[:, :, : rows[0]] = 0
    x[:, :, rows[0] : rows[-1] + 1, : columns[-1] + 1] = 0
    return x


_drop = _fall(_black)
CHANNEL = torch.tensor([True, False]).view(1, 2, 1, 1)
OCCLUSION = (
    Mistake("wrong sign", "a square that helps has a positive drop: number(x) minus the number without it.", lambda f, x, s: -_drop(f, x, s)),
    Mistake("number of the hidden picture", "return by how much the number falls: number(x) minus this.", _hidden(_black)),
    Mistake("squares stay black", "hide one square at a time: begin with a new copy of x for each.", _fall(_until)),
    Mistake("all but the square is black", "hide the square and keep the rest.", _fall(lambda x, m: x.masked_fill(~m, 0))),
    Mistake("white squares", "hide by 0, which is black.", _fall(lambda x, m: x.masked_fill(m, 1))),
    Mistake("grey squares", "hide by 0, which is black, not by the mean.", _fall(lambda x, m: torch.where(m, x.mean((2, 3), keepdim=True), x))),
    Mistake("grey squares of 0.5", "hide by 0, which is black.", _fall(lambda x, m: x.masked_fill(m, 0.5))),
    Mistake("one channel only", "a square is black in all channels.", _fall(lambda x, m: x.masked_fill(m & CHANNEL, 0))),
    Mistake("rows and columns exchanged", "the map's first axis goes down, as the image's does.", lambda f, x, s: _drop(f, x, s).transpose(1, 2)),
    Mistake("one pixel at a time", "hide squares of side x side pixels.", lambda f, x, s: _drop(f, x, 1)),
    Mistake("a pixel of each square", "hide the whole square, side x side pixels.", lambda f, x, s: _drop(f, x, 1)[:, ::s, ::s]),
    Mistake("relative drop", "return the difference, not its share of number(x).", lambda f, x, s: _drop(f, x, s) / f(x)[:, None, None]),
    Mistake("drop per pixel", "do not divide by the size of the square.", lambda f, x, s: _drop(f, x, s) / s**2),
    Mistake("mean over the images", "every image has a map of its own.", lambda f, x, s: _drop(f, x, s).mean(0)),
    Mistake("mean over the images", "every image has a map of its own.", lambda f, x, s: _drop(f, x, s).mean(0).expand(len(x), -1, -1)),
    Mistake("absolute values", "keep the sign: a square may lower the number.", lambda f, x, s: _drop(f, x, s).abs()),
    Mistake("gradient times input", "hide squares and compare; no gradient is needed.", lambda f, x, s: torch.nn.functional.avg_pool2d((x * gradient(f, x)).sum(1), s) * s**2),
)  # fmt: skip

EXERCISES = (
    Exercise(
        name="integrated_gradients",
        title="Write integrated gradients",
        lesson="07",
        minutes=15,
        difficulty="medium",
        returns="maps of x's shape",
        expect="A loop over points of the line, or one batch of all points. Any rule of integration passes.",
        solution=integrated_gradients,
        reference=_whole,
        draw=_draw_line,
        mistakes=INTEGRATED,
        also=_complete,
        margin=0.03,  # left or right ends of 100 steps miss up to 2 %
    ),
    Exercise(
        name="occlusion",
        title="Write occlusion, a map without gradients",
        lesson="07",
        minutes=10,
        difficulty="easy",
        returns="a drop for every image and square, (n, h / side, w / side)",
        expect="Two loops over squares, each on a new copy of x; or all hidden pictures as one batch.",
        solution=occlusion,
        reference=_drop,
        draw=_draw_squares,
        mistakes=OCCLUSION,
    ),
)
