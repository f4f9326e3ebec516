"""`attribute`: one function for all methods; it leaves encoder, target and images unchanged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import modules_of
from ..errors import UserError, nearest
from ..objectives import contrast
from ..random import untouched
from ..results import Attribution
from ..types import Images
from .layers import layer_named, name_of
from .maps import integrated, occluded, sloped
from .targets import BATCH, Alone, Target, own_loss

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
    _check(x, method, steps)
    nets = dict.fromkeys([encoder, *modules_of(target)])
    with untouched(*nets):
        for net in nets:
            net.eval()
        x = x.detach()
        named = own_loss(target, x) if isinstance(target, contrast) else target
        value = _value(named, x)
        whole = named if hasattr(named, "take") else Alone(named, x)
        module = layer_named(encoder, layer, x, whole) if method == "gradcam" else None
        asked = torch.arange(len(x), device=x.device)[None if rows is None else list(rows)].view(-1)
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
        return baseline.detach().to(x)
    if baseline not in BASELINES:
        raise UserError(
            f"baseline is {', '.join(BASELINES)} or images, got '{baseline}'.{nearest(baseline, BASELINES)}"
        )
    if baseline == "black":
        return torch.zeros_like(x)
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x).contiguous()
    from torchvision.transforms.functional import gaussian_blur

    side = min(x.shape[-2:])
    return gaussian_blur(x, [side // 2 * 2 - 1] * 2, [max(side / 8, 0.1)] * 2)


def _check(x: Tensor, method: str, steps: int) -> None:
    if method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got '{method}'.{nearest(method, METHODS)}")
    if steps < 1:
        raise UserError(f"Integrated gradients take 1 step or more, got steps={steps}; 32 is the default.")
    if x.dim() != 4 or not x.is_floating_point():
        raise UserError(f"Images are float (n, c, h, w) in [0, 1], got {x.dtype} of shape {tuple(x.shape)}.")
    if not len(x):
        raise UserError("There is no image to explain: the batch is empty.")
    broken = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if broken:
        raise UserError(f"Images must be finite; {broken} of {len(x)} hold NaN or infinity.")


def _value(target: Target, x: Tensor) -> Tensor:
    """The target at x (n,), checked: finite, differentiable, one number per image."""
    with torch.enable_grad():
        value = target(x.clone().requires_grad_())
    if not isinstance(value, Tensor) or value.shape != (len(x),):
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"A target must return one number an image, shape ({len(x)},), got {came}.")
    if not value.requires_grad:
        raise UserError("The target does not depend on its images; compute it from the argument, with gradient.")
    value = value.detach()
    if not torch.isfinite(value).all():
        broken = int((~torch.isfinite(value)).sum())
        raise UserError(
            f"The target is NaN or infinite for {broken} of {len(x)} images; look at the encoder's weights."
        )
    if len(x) > 1 and not hasattr(target, "take"):
        with torch.no_grad():
            alone = target(torch.cat([x[:1], 1 - x[1:]]))[0]
        if not torch.isclose(alone, value[0], rtol=1e-3, atol=1e-4):
            raise UserError(
                "The target's number for an image changes when the other images do, so a map would mix them; give ex.contrast itself, "
                "or one image at a time."
            )
    return value
