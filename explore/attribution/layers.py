"""Layers by name: which GradCAM can use, and why not the others."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..nets import as_encoder
from ..random import untouched
from ..types import Images
from .targets import Target

COARSEST = 4  # the side in pixels that GradCAM's default layer has at least


def feature_layers(encoder: nn.Module, x: Images, target: Target | None = None) -> dict[str, tuple[int, ...]]:
    """Layers with feature maps once per pass, which GradCAM can use: name -> shape (c, h, w)."""
    run = target or as_encoder(encoder).features
    with untouched(encoder):
        encoder.eval()
        return {name: shapes[0][1:] for name, shapes in _shapes(encoder, x, run).items() if _suits(shapes)}


def _shapes(encoder: nn.Module, x: Tensor, run: Target) -> dict[str, list[tuple[int, ...]]]:
    """Output shape of every named layer per call in one pass; () for outputs that are no tensor."""
    seen: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str) -> Callable:
        return lambda _m, _in, out: seen.setdefault(name, []).append(
            tuple(out.shape) if isinstance(out, Tensor) else ()
        )

    hooks = [m.register_forward_hook(note(name)) for name, m in encoder.named_modules() if name]
    try:
        with torch.no_grad():
            run(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _suits(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][-2:]) > 1


def layer_named(encoder: nn.Module, name: str | None, x: Tensor, run: Target) -> nn.Module:
    """The layer of this name; None: the last whose maps have at least 4 x 4 pixels."""
    known, seen = dict(encoder.named_modules()), _shapes(encoder, x, run)
    if not seen:
        raise UserError(
            "GradCAM looks into the encoder that its target runs, and this target runs another one; "
            "open one encoder and give it to both, as in ex.attribute(encoder, x, ex.similarity(encoder, reference), 'gradcam')."
        )
    suited = {n: shapes[0] for n, shapes in seen.items() if _suits(shapes)}
    if name is None:
        fine = [n for n, shape in suited.items() if min(shape[-2:]) >= COARSEST and n.count(".") <= 1] or list(suited)
        if not fine:
            raise UserError("GradCAM needs a layer with feature maps (n, c, h, w), and this encoder has none.")
        return known[fine[-1]]
    if not isinstance(name, str) or not name or name not in known:
        whole = [n for n in suited if n.count(".") <= 1] or list(suited)
        raise UserError(
            f"This encoder has no layer '{name}'; GradCAM can look at {', '.join(whole[:12])}.{nearest(name, suited)}"
        )
    if name not in suited:
        shapes = seen.get(name, [])
        came = f"runs {len(shapes)} times in a pass" if len(shapes) != 1 else f"gives {shapes[0] or 'no tensor'}"
        raise UserError(f"GradCAM needs a layer that gives feature maps (n, c, h, w) once; '{name}' {came}.")
    return known[name]


def name_of(encoder: nn.Module, module: nn.Module) -> str:
    return next(name for name, m in encoder.named_modules() if m is module)
