"""What an encoder looks at: captum's maps of one number an image, which we name.

A target is a function `images -> one number an image`, as an objective is: `similarity` to a reference view, a head's `logit`, the
contrastive loss (an `ex.contrast`), or your own. The map says how much every pixel of an image adds to that image's number.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attacks import modules_of
from .errors import UserError, nearest
from .nets import as_encoder
from .objectives import contrast
from .results import Attribution
from .shapes import Branch, Images, Labels, PerImage
from .state import untouched

METHODS = ("integrated_gradients", "saliency", "occlusion", "gradcam")
BASELINES = ("black", "mean", "blur")
BATCH = 256  # images in one pass
HALVINGS, PIECES = 10, 32  # of the line that gradients are integrated along; pieces an image at once
COARSEST = 4  # the side in pixels that GradCAM's default layer has at least

Target = Callable[[Tensor], Tensor]


class similarity:
    """Cosine of every image's embedding to its reference's: row i's reference is `reference[i]`.

    `reference`: images (n, c, h, w), embedded once without gradient. `what`: projections 'z', which the contrastive loss compares, or
    features 'h', which probes read.
    """

    def __init__(self, encoder: nn.Module, reference: Images, *, what: str = "z", branch: Branch = "clean"):
        if what not in ("h", "z"):
            raise UserError(f"what is 'z' (projections) or 'h' (features), got '{what}'.")
        self.encoder, self.what, self.branch = as_encoder(encoder), what, branch
        self.modules, self.size = (self.encoder,), tuple(reference.shape[1:])
        self.name = f"cosine of {what} to the reference"
        with torch.no_grad(), untouched(self.encoder):
            self.encoder.eval()
            self.reference = self._embed(reference)

    def _embed(self, x: Tensor) -> Tensor:
        return F.normalize((self.encoder if self.what == "z" else self.encoder.features)(x, branch=self.branch), dim=1)

    def take(self, rows: Tensor) -> "similarity":
        """The target of these rows alone; a row may come several times."""
        part = copy.copy(self)
        part.reference = self.reference[rows]
        return part

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.reference):
            raise UserError(
                f"There are {len(x)} images and {len(self.reference)} references; each image needs its own, so pass the same number."
            )
        if tuple(x.shape[1:]) != self.size:
            raise UserError(
                f"The images have the shape {tuple(x.shape[1:])} and the reference {self.size}; resize one to the other."
            )
        return (self._embed(x) * self.reference).sum(1)


class logit:
    """The number that a head (features h -> logits) gives to class `y[i]` for image i: what a probe adds up for that class."""

    def __init__(self, encoder: nn.Module, head: Callable[[Tensor], Tensor], y: Labels, *, branch: Branch = "clean"):
        self.encoder, self.head, self.y, self.branch = as_encoder(encoder), head, y, branch
        self.modules = (self.encoder, head) if isinstance(head, nn.Module) else (self.encoder,)
        self.name = "logit of the class"

    def take(self, rows: Tensor) -> "logit":
        """The target of these rows alone; a row may come several times."""
        return logit(self.encoder, self.head, self.y[rows], branch=self.branch)

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.y):
            raise UserError(f"There are {len(x)} images and {len(self.y)} labels; pass one label an image.")
        logits = self.head(self.encoder.features(x, branch=self.branch))
        if int(self.y.min()) < 0 or int(self.y.max()) >= logits.shape[1]:
            wrong = int(self.y.min()) if int(self.y.min()) < 0 else int(self.y.max())
            raise UserError(f"Labels must lie in 0 .. {logits.shape[1] - 1} for this head, got {wrong}.")
        return logits.gather(1, self.y[:, None])[:, 0]


class own_loss:
    """The contrastive loss of every image, the other images of its batch held as they are.

    An `ex.contrast` couples its batch: moving one image moves the loss of all. Here image i moves alone, so that its map adds up to its
    own loss: L_i(x_1, .., x'_i, .., x_n) - L_i(x_1, .., baseline, .., x_n).
    """

    def __init__(self, objective: contrast, x: Images):
        self.objective, self.modules, self.name = (
            objective,
            objective.modules,
            "contrastive loss, the others held fixed",
        )
        self.rows = torch.arange(len(x), device=x.device)
        with torch.no_grad(), untouched(*self.modules):
            for net in self.modules:
                net.eval()
            objective(x)  # says what is wrong with the sizes
            self.batch = objective.encoder(x, branch=objective.branch)

    def take(self, rows: Tensor) -> "own_loss":
        """The target of these rows alone; a row may come several times."""
        part = copy.copy(self)
        part.rows = self.rows[rows]
        return part

    def __call__(self, x: Images) -> PerImage:
        o = self.objective
        places = torch.arange(len(self.batch), device=x.device)

        def one(z: Tensor, row: Tensor) -> Tensor:
            here = places == row
            losses = o._loss(o.z, torch.where(here[:, None], z[None], self.batch), o.temperature)
            return (losses * here).sum()

        return torch.vmap(one, chunk_size=BATCH)(o.encoder(x, branch=o.branch), self.rows)


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
    """Signed maps of how much every pixel adds to the target's number; encoder, target and x stay as they are.

    `method`: 'integrated_gradients' (Sundararajan et al. 2017, arXiv:1703.01365; `steps` points from `baseline` to x, and as many in every part
    of that line that is too rough for `tolerance`, the completeness delta allowed; None for one quadrature), 'saliency' (the gradient, Simonyan et al. 2013, arXiv:1312.6034), 'occlusion' (Zeiler & Fergus 2013, arXiv:1311.2901; what is lost when a square of `window` pixels, an eighth
    of the side, shows the baseline), 'gradcam' (Selvaraju et al. 2016, arXiv:1610.02391; on `layer`, by its name, without the ReLU, so signed).
    `baseline`: 'black', 'mean' (one colour, the image's own mean), 'blur', or images (n, c, h, w).
    `rows`: those images of the batch alone. The network runs in eval mode. A target of one's own must give image i a number that
    depends on image i alone; an `ex.contrast` is taken for each image with the others held fixed (`own_loss`).
    """
    if method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got '{method}'.{nearest(method, METHODS)}")
    if steps < 1:
        raise UserError(f"Integrated gradients take 1 step or more, got steps={steps}; 32 is the default.")
    _check(x)
    nets = dict.fromkeys([encoder, *modules_of(target)])
    with untouched(*nets):
        for net in nets:
            net.eval()
        x = x.detach()
        named = own_loss(target, x) if isinstance(target, contrast) else target
        value = _value(named, x)
        whole = named if hasattr(named, "take") else _Alone(named, x)
        module = _layer(encoder, layer, x, whole) if method == "gradcam" else None
        start = baseline_of(x, baseline)
        asked = torch.arange(len(x), device=x.device)[None if rows is None else list(rows)].view(-1)
        found, ends = [], []
        for part in asked.split(BATCH):
            own = whole.take(part)
            with torch.no_grad():
                ends.append(own(start[part]))
            if method == "integrated_gradients":
                found.append(_integrated(own, x[part], start[part], value[part] - ends[-1], steps, tolerance))
            elif method == "occlusion":
                found.append(_occluded(own, x[part], start[part], window))
            else:
                found.append(_sloped(own, x[part].clone(), module))
    channels = torch.cat(found).detach().cpu()
    at_baseline = torch.cat(ends).cpu()
    value = value[asked].cpu()
    complete = method == "integrated_gradients"
    return Attribution(
        x=x[asked].cpu(),
        channels=channels,
        value=value,
        at_baseline=at_baseline,
        delta=(channels.flatten(1).sum(1) - (value - at_baseline)) if complete else None,
        method=method,
        target=str(getattr(whole, "name", getattr(target, "__name__", type(target).__name__))),
        layer=_name_of(encoder, module) if module is not None else "",
        baseline=("images" if isinstance(baseline, Tensor) else baseline) if method in _NEED_BASELINE else "",
        provenance={"torch": torch.__version__, "device": str(x.device), **(provenance or {})},
    )


_NEED_BASELINE = ("integrated_gradients", "occlusion")


def baseline_of(x: Images, baseline: str | Tensor) -> Images:
    """The images that a map starts from, of x's shape: 'black', 'mean', 'blur' (Gaussian, sigma an eighth of the side), or given ones."""
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


def feature_layers(encoder: nn.Module, x: Images, target: Target | None = None) -> dict[str, tuple[int, ...]]:
    """Layers that give feature maps once in a pass, by name, with their shape (c, h, w): those that GradCAM can look at."""
    run = target or as_encoder(encoder).features
    with untouched(encoder):
        encoder.eval()
        return {name: shapes[0][1:] for name, shapes in _shapes(encoder, x, run).items() if _suits(shapes)}


class _Alone:
    """A target of anybody's own, asked for one row of the batch at a time: every image moves in its place among the clean others."""

    def __init__(self, target: Target, x: Tensor, rows: Tensor | None = None):
        self.target, self.x = target, x
        self.rows = torch.arange(len(x), device=x.device) if rows is None else rows

    def take(self, rows: Tensor) -> "_Alone":
        return _Alone(self.target, self.x, self.rows[rows])

    def __call__(self, many: Tensor) -> Tensor:
        copies = (self.rows[:, None] == self.rows).tril(-1).sum(1)  # how often this row has come before
        turns = [torch.where(copies == turn)[0] for turn in range(int(copies.max()) + 1)]
        found = [self.target(self.x.index_copy(0, self.rows[t], many[t]))[self.rows[t]] for t in turns]
        return torch.cat(found)[torch.cat(turns).argsort()]


def _copies(target: Any, rows: Tensor) -> Target:
    """The target on some rows of its batch, for any whole number of copies of them: captum stacks steps and occluded images as copies."""
    return lambda many: target.take(rows.repeat(len(many) // len(rows)))(many)


def _integrated(own: Any, x: Tensor, start: Tensor, rise: Tensor, steps: int, tolerance: float | None) -> Tensor:
    """Integrated gradients along the straight line from start to x, in pieces where one quadrature of it is not enough.

    Every piece of the line has a completeness delta of its own. While an image's deltas add up to more than `tolerance` of its rise, its
    pieces with large ones are halved, `HALVINGS` times at most. (A loss that holds one side constant, as 'uel' does, has no gradient to
    integrate: its delta stays, and says so.)
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
    """captum's integrated gradients of pieces of the lines, piece p from low[p] to high[p] of row rows[p]: maps and completeness deltas."""
    from captum.attr import IntegratedGradients

    maps, deltas = [], []
    for part in torch.arange(len(rows), device=x.device).split(BATCH):
        here = rows[part]
        line = x[here] - start[here]
        ends = [start[here] + t[part].view(-1, 1, 1, 1) * line for t in (low, high)]
        ends[1] = torch.where(high[part].view(-1, 1, 1, 1) == 1, x[here], ends[1])
        line_end = ends[1].clone().requires_grad_()  # captum would set it, with a warning
        quadrature = IntegratedGradients(_copies(own, here))
        found = quadrature.attribute(
            line_end, baselines=ends[0], n_steps=steps, internal_batch_size=max(len(part), BATCH)
        ).detach()
        with torch.no_grad():
            rise = own.take(here)(ends[1]) - own.take(here)(ends[0])
        maps.append(found)
        deltas.append(found.flatten(1).sum(1) - rise)
    return torch.cat(maps), torch.cat(deltas)


def _sloped(own: Any, x: Tensor, module: nn.Module | None) -> Tensor:
    """The gradient (n, c, h, w), or GradCAM's map of a layer (n, 1, h, w), enlarged to the image."""
    from captum.attr import LayerGradCam, Saliency

    copies = _copies(own, torch.arange(len(x), device=x.device))
    x = x.requires_grad_()
    if module is None:
        return Saliency(copies).attribute(x, abs=False)
    coarse = LayerGradCam(copies, module).attribute(x, relu_attributions=False)
    return F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _occluded(own: Any, x: Tensor, start: Tensor, window: int | None) -> Tensor:
    """How much the number falls when a square shows the baseline, (n, 1, h, w): the mean over the squares that cover a pixel."""
    from captum.attr import Occlusion

    side = min(x.shape[-2:])
    window = max(1, side // 8) if window is None else window
    if not 1 <= window <= side:
        raise UserError(f"window is the side in pixels of the square that is hidden, 1 to {side} here, got {window}.")
    stride, c = max(1, window // 2), x.shape[1]
    with torch.no_grad():
        return Occlusion(_copies(own, torch.arange(len(x), device=x.device))).attribute(
            x,
            sliding_window_shapes=(c, window, window),
            strides=(c, stride, stride),
            baselines=start,
            perturbations_per_eval=max(1, BATCH // len(x)),
        )[:, :1]


def _check(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise UserError(f"Images are float (n, c, h, w) in [0, 1], got {x.dtype} of shape {tuple(x.shape)}.")
    if not len(x):
        raise UserError("There is no image to explain: the batch is empty.")
    broken = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if broken:
        raise UserError(f"Images must be finite; {broken} of {len(x)} hold NaN or infinity.")


def _value(target: Target, x: Tensor) -> Tensor:
    """The target's number at x, (n,): one an image, finite, with a gradient, and of that image alone."""
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


def _shapes(encoder: nn.Module, x: Tensor, run: Target) -> dict[str, list[tuple[int, ...]]]:
    """What every named layer gave in one pass: a shape a call, () for what is no tensor."""
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


def _layer(encoder: nn.Module, name: str | None, x: Tensor, run: Target) -> nn.Module:
    """The layer of that name; None is the last whose maps have 4 x 4 pixels or more."""
    known, seen = dict(encoder.named_modules()), _shapes(encoder, x, run)
    suited = {n: shapes[0] for n, shapes in seen.items() if _suits(shapes)}
    if name is None:
        fine = [n for n, shape in suited.items() if min(shape[-2:]) >= COARSEST and n.count(".") <= 1] or list(suited)
        if not fine:
            raise UserError("GradCAM needs a layer with feature maps (n, c, h, w), and this encoder has none.")
        return known[fine[-1]]
    if not name or name not in known:
        raise UserError(
            f"This encoder has no layer '{name}'; GradCAM can look at {', '.join(list(suited)[:40])}.{nearest(name, suited)}"
        )
    if name not in suited:
        shapes = seen.get(name, [])
        came = f"runs {len(shapes)} times in a pass" if len(shapes) != 1 else f"gives {shapes[0] or 'no tensor'}"
        raise UserError(f"GradCAM needs a layer that gives feature maps (n, c, h, w) once; '{name}' {came}.")
    return known[name]


def _name_of(encoder: nn.Module, module: nn.Module) -> str:
    return next(name for name, m in encoder.named_modules() if m is module)
