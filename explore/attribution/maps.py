"""captum's methods, applied to targets that can select rows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, extra
from .targets import BATCH, copies_of

HALVINGS, PIECES = 10, 32  # of the line that gradients are integrated along; pieces an image at once


def integrated(own: Any, x: Tensor, start: Tensor, rise: Tensor, steps: int, tolerance: float | None) -> Tensor:
    """Integrated gradients along the line from start to x, refined where too coarse.

    Every segment has its own completeness delta. While an image's deltas add up to more than
    `tolerance` of its rise, its worst segments are halved, at most `HALVINGS` times. (A loss that
    holds one side constant, such as 'uel', has no gradient to integrate; its delta stays large and
    is reported.)
    """
    per_image = torch.zeros_like(rise).index_add
    total, kept, kept_size = torch.zeros_like(x), torch.zeros_like(rise), torch.zeros_like(rise)  # of pieces that stay
    rows = torch.arange(len(x), device=x.device)
    low, high = torch.zeros_like(rise), torch.ones_like(rise)
    for halving in range(HALVINGS + 1):
        maps, delta = _pieces(own, x, start, rows, low, high, steps)
        wanted = (tolerance or 0) * rise.abs()
        open_ = (kept + per_image(0, rows, delta)).abs() > wanted
        allowed = (wanted - kept_size).clamp_min(0) / per_image(0, rows, torch.ones_like(delta)) / 2
        rough = open_[rows] & (delta.abs() > allowed[rows])
        if tolerance is None or halving == HALVINGS or len(rows) > PIECES * len(x):
            rough.fill_(False)
        stay = ~rough
        total = total.index_add(0, rows[stay], maps[stay])
        if stay.all():
            break
        kept, kept_size = (k.index_add(0, rows[stay], d[stay]) for k, d in ((kept, delta), (kept_size, delta.abs())))
        rows, low, high, middle = rows[rough], low[rough], high[rough], (low + high)[rough] / 2
        rows, low, high = rows.repeat(2), torch.cat([low, middle]), torch.cat([middle, high])
    return total


def _pieces(
    own: Any, x: Tensor, start: Tensor, rows: Tensor, low: Tensor, high: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """captum's integrated gradients of segments low[p] to high[p] of rows[p]: maps and deltas."""
    with extra("Attribution"):
        from captum.attr import IntegratedGradients

    maps, deltas = [], []
    for part in torch.arange(len(rows), device=x.device).split(BATCH):
        here = rows[part]
        line = x[here] - start[here]
        ends = [start[here] + t[part].view(-1, 1, 1, 1) * line for t in (low, high)]
        ends[1] = torch.where(high[part].view(-1, 1, 1, 1) == 1, x[here], ends[1])
        line_end = ends[1].clone().requires_grad_()  # captum would set it, with a warning
        quadrature = IntegratedGradients(copies_of(own, here))
        found = quadrature.attribute(
            line_end, baselines=ends[0], n_steps=steps, internal_batch_size=max(len(part), BATCH)
        ).detach()
        with torch.no_grad():
            rise = own.take(here)(ends[1]) - own.take(here)(ends[0])
        maps.append(found)
        deltas.append(found.flatten(1).sum(1) - rise)
    return torch.cat(maps), torch.cat(deltas)


def sloped(own: Any, x: Tensor, module: nn.Module | None) -> Tensor:
    """The gradient (n, c, h, w), or GradCAM's map of a layer (n, 1, h, w), scaled to the image."""
    with extra("Attribution"):
        from captum.attr import LayerGradCam, Saliency

    copies = copies_of(own, torch.arange(len(x), device=x.device))
    x = x.requires_grad_()
    if module is None:
        return Saliency(copies).attribute(x, abs=False)
    coarse = LayerGradCam(copies, module).attribute(x, relu_attributions=False)
    return F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)


def occluded(own: Any, x: Tensor, start: Tensor, window: int | None) -> Tensor:
    """Drop of the number when a square shows the baseline, (n, 1, h, w), averaged over squares."""
    with extra("Attribution"):
        from captum.attr import Occlusion

    side = min(x.shape[-2:])
    window = max(1, side // 8) if window is None else window
    if not 1 <= window <= side:
        raise UserError(f"window is the side in pixels of the square that is hidden, 1 to {side} here, got {window}.")
    stride, c = max(1, window // 2), x.shape[1]
    with torch.no_grad():
        return Occlusion(copies_of(own, torch.arange(len(x), device=x.device))).attribute(
            x,
            sliding_window_shapes=(c, window, window),
            strides=(c, stride, stride),
            baselines=start,
            perturbations_per_eval=max(1, BATCH // len(x)),
        )[:, :1]
