"""`attribute`: one function for all methods; it leaves encoder, target and images unchanged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import incoming
from ..attacks import modules_of
from ..errors import UserError, nearest
from ..objectives import contrast
from ..random import untouched
from ..results import Attribution
from ..types import Images
from .layers import layer_named, name_of
from .maps import integrated, occluded, sloped
from .targets import BATCH, Alone, Target, own_loss

STEPS = 1000  # of integrated gradients: the line is refined where they are too few
METHODS = ("integrated_gradients", "saliency", "occlusion", "gradcam")
BASELINES = ("black", "mean", "blur")


def attribute(
    encoder: nn.Module,
    x: Tensor,
    target: Target,
    method: str = "integrated_gradients",
    *,
    layer: str | None = None,
    baseline: str | Tensor = "black",
    steps: int = 32,
    tolerance: float | None = 0.01,
    window: int | None = None,
    rows: Sequence[int] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Attribution:
    """Signed maps of how much every pixel contributes to the target's number.

    `method`:
    - 'integrated_gradients' (Sundararajan et al. 2017, arXiv:1703.01365): `steps` points from
      `baseline` to x; the line is refined until the completeness delta is below `tolerance`
      (None: no refinement);
    - 'saliency': the gradient (Simonyan et al. 2013, arXiv:1312.6034);
    - 'occlusion' (Zeiler & Fergus 2013, arXiv:1311.2901): the drop when a square of `window` pixels
      (default an eighth of the side) shows the baseline;
    - 'gradcam' (Selvaraju et al. 2016, arXiv:1610.02391) on `layer`, by name, without the ReLU.

    `baseline`: 'black', 'mean' (the image's mean colour), 'blur', or images (n, c, h, w). `rows`:
    only these images of the batch. The network runs in eval mode. In a target of your own, number i
    must depend on image i alone; an `ex.contrast` is evaluated for each image with the others fixed
    (`own_loss`).

    >>> encoder, _ = ex.open_encoder("demo/clae")
    >>> x = ex.load("fashion").test[:2][0]
    >>> found = ex.attribute(encoder, x, ex.similarity(encoder, x.flip(3)), method="saliency")
    >>> found.maps.shape
    torch.Size([2, 32, 32])
    """
    encoder = incoming.network(encoder)
    incoming.choice(method, "method", METHODS)
    if layer is not None and method != "gradcam":
        raise UserError(f"Only method='gradcam' looks at a layer, and '{method}' was asked with layer={layer!r:.60}.")
    incoming.images(x, "Images to explain")
    incoming.function(target, "A target", "images (n, c, h, w) -> one number an image (n,)")
    steps = incoming.whole(steps, "Integrated gradients' steps", 1, STEPS)
    window = None if window is None else incoming.whole(window, "window, the side in pixels of the hidden square,")
    if tolerance is not None:
        incoming.number(tolerance, "tolerance, a share of the change,", open_low=True)
    chosen = incoming.rows(rows, len(x))
    nets = dict.fromkeys([encoder, *modules_of(target)])
    with untouched(*nets):
        for net in nets:
            net.eval()
        x = x.detach()
        named = own_loss(target, x) if isinstance(target, contrast) else target
        value = _value(named, x)
        whole = named if hasattr(named, "take") else Alone(named, x)
        module = layer_named(encoder, layer, x, whole) if method == "gradcam" else None
        asked = torch.tensor(chosen, device=x.device)
        how = {"steps": steps, "tolerance": tolerance, "window": window, "module": module}
        channels, ends = _explained(whole, x, baseline_of(x, baseline), value, asked, method, how)
    value = value[asked].cpu()
    complete = method == "integrated_gradients"
    return Attribution(
        x=x[asked].cpu(),
        channels=channels,
        value=value,
        at_baseline=ends,
        delta=(channels.flatten(1).sum(1) - (value - ends)) if complete else None,
        method=method,
        target=str(getattr(whole, "name", getattr(target, "__name__", type(target).__name__))),
        layer=name_of(encoder, module) if module is not None else "",
        baseline=("images" if isinstance(baseline, Tensor) else baseline) if method in _NEED_BASELINE else "",
        provenance={"torch": torch.__version__, "device": str(x.device), **(provenance or {})},
    )


def _explained(
    target: Any, x: Tensor, start: Tensor, value: Tensor, asked: Tensor, method: str, how: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Maps (m, c, h, w) of the images `asked`, the target (m,) at their baseline; on the CPU."""
    found, ends = [], []
    for part in asked.split(BATCH):
        own = target.take(part)
        with torch.no_grad():
            ends.append(own(start[part]))
        if method == "integrated_gradients":
            change = value[part] - ends[-1]
            found.append(integrated(own, x[part], start[part], change, how["steps"], how["tolerance"]))
        elif method == "occlusion":
            found.append(occluded(own, x[part], start[part], how["window"]))
        else:
            found.append(sloped(own, x[part].clone(), how["module"]))
    return torch.cat(found).detach().cpu(), torch.cat(ends).cpu()


_NEED_BASELINE = ("integrated_gradients", "occlusion")


def baseline_of(x: Images, baseline: str | Tensor) -> Images:
    """Baseline images of x's shape: 'black', 'mean', 'blur' (sigma side / 8), or given."""
    if isinstance(baseline, Tensor):
        if baseline.shape != x.shape:
            raise UserError(
                f"The baseline has the shape {tuple(baseline.shape)} and the images {tuple(x.shape)}; give one of equal shape."
            )
        return incoming.images(baseline, "Baseline images").detach().to(x)
    if not isinstance(baseline, str) or baseline not in BASELINES:
        raise UserError(
            f"baseline is {', '.join(BASELINES)} or images, got '{baseline}'.{nearest(str(baseline), BASELINES)}"
        )
    if baseline == "black":
        return torch.zeros_like(x)
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x).contiguous()
    from torchvision.transforms.functional import gaussian_blur

    side = min(x.shape[-2:])
    return gaussian_blur(x, [side // 2 * 2 - 1] * 2, [max(side / 8, 0.1)] * 2)


def _value(target: Target, x: Tensor) -> Tensor:
    """The target at x (n,), checked: finite, differentiable, one number per image."""
    start = x.clone().requires_grad_()
    with torch.enable_grad():
        with incoming.raised("The target"):
            value = incoming.losses(target(start), len(x), "A target")
        slope = torch.autograd.grad(value.sum(), start, allow_unused=True)[0]
    if slope is None:
        raise UserError("A target's result does not depend on its images; compute it from the argument, with gradient.")
    value = value.detach()
    incoming.finite(value, slope, "A target")
    if len(x) > 1 and not hasattr(target, "take"):
        with torch.no_grad():
            alone = target(torch.cat([x[:1], 1 - x[1:]]))[0]
        if not torch.isclose(alone, value[0], rtol=1e-3, atol=1e-4):
            raise UserError(
                "The target's number for an image changes when the other images do, so a map would mix them; give ex.contrast itself, "
                "or one image at a time."
            )
    return value
