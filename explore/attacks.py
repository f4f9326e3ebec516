"""Adversarial attacks and noises: `attack(x, objective, generator=...) -> x_adv`.

Images are float in [0, 1] and eps is in the same units (8/255). All attacks share one loop; they
differ in start, step size, number of steps and norm. Noise has the same signature and ignores the
objective.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import incoming
from .attack_table import TABLE
from .config import check_eps
from .errors import UserError
from .random import constant, draw, untouched
from .types import Images, PerImage

Norm = Literal["linf", "l2"]
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attack:
    """Gradient ascent on a loss within a ball of radius eps around x, clipped to the pixel range.

    `norm="linf"`: sign steps, no pixel changes by more than eps. `norm="l2"`: normalised gradient
    steps; the radius is eps * sqrt(pixels), the L2 length of a full sign step, so that both norms
    are comparable at one eps. `gray`: keep the channels equal; None does so for gray images.
    `clamp=None` does not clip (as the authors' code). Presets: `Attack.fgsm(eps)`, `.rfgsm`,
    `.ffgsm`, `.pgd`.

    >>> x = torch.full((1, 3, 2, 2), 0.5)
    >>> x_adv = ex.Attack.fgsm(8 / 255)(x, lambda images: images.sum((1, 2, 3)))
    >>> f"{255 * (x_adv - x).max():.0f}/255"
    '8/255'
    """

    name: str
    eps: float
    step: float
    steps: int = 1
    start: Literal["none", "uniform", "sign"] = "none"
    start_size: float = 0.0
    norm: Norm = "linf"
    clamp: tuple[float, float] | None = (0.0, 1.0)
    gray: bool | None = None

    def __post_init__(self):
        check_eps(self.eps)
        if isinstance(self.steps, int) and self.steps < 1:
            raise UserError(f"An attack takes 1 step or more, got steps={self.steps}; use eps=0 for no attack.")
        object.__setattr__(self, "steps", incoming.whole(self.steps, "An attack's steps"))
        _check_setting(self.norm, self.clamp)
        incoming.number(self.step, "An attack's step, in pixel units,")
        incoming.number(self.start_size, "An attack's start, in pixel units,")

    @classmethod
    def fgsm(cls, eps: float, **options: Any) -> "Attack":
        """One full sign step (Goodfellow et al. 2015, arXiv:1412.6572); CLAE's default."""
        return cls("fgsm", eps, step=eps, **options)

    @classmethod
    def rfgsm(cls, eps: float, *, alpha: float | None = None, **options: Any) -> "Attack":
        """A random sign step of alpha, one of eps - alpha (Tramer et al. 2018, arXiv:1705.07204).

        `alpha` defaults to eps / 2.
        """
        alpha = check_eps(eps) / 2 if alpha is None else incoming.number(alpha, "R-FGSM's alpha", 0.0, eps)
        return cls("rfgsm", eps, step=eps - alpha, start="sign", start_size=alpha, **options)

    @classmethod
    def ffgsm(cls, eps: float, *, alpha: float | None = None, **options: Any) -> "Attack":
        """A uniform start, one projected step of alpha (Wong et al. 2020, arXiv:2001.03994).

        `alpha` defaults to 1.25 eps.
        """
        return cls(
            "ffgsm",
            eps,
            step=1.25 * check_eps(eps) if alpha is None else alpha,
            start="uniform",
            start_size=eps,
            **options,
        )

    @classmethod
    def pgd(cls, eps: float, *, steps: int = 10, step: float | None = None, random_start: bool = True, **options: Any):
        """Projected sign steps from a uniform start (Madry et al. 2018, arXiv:1706.06083).

        `step` defaults to 2.5 eps / steps.
        """
        steps = incoming.whole(steps, "PGD's steps", low=0)
        size = 2.5 * check_eps(eps) / max(steps, 1) if step is None else step
        start: Literal["uniform", "none"] = "uniform" if random_start else "none"
        return cls("pgd", eps, step=size, steps=steps, start=start, start_size=eps, **options)

    @property
    def single_step(self) -> bool:
        """True if the direction does not depend on eps: one step, starting at x."""
        return self.steps == 1 and self.start == "none"

    def at(self, eps: float) -> "Attack":
        """The same attack at another radius; step and start are scaled with it."""
        k = check_eps(eps) / self.eps if self.eps else 0.0
        if not self.eps and eps:
            raise UserError("An attack made with eps=0 has no step to scale; make it with the eps you want.")
        return replace(self, eps=eps, step=self.step * k, start_size=self.start_size * k)

    def __call__(self, x: Images, objective: Objective, *, generator: torch.Generator | None = None) -> Images:
        """Adversarial images of x's shape; x, weights, `.grad`, BN statistics, modes are unchanged.

        `objective` maps images (n, c, h, w) to one loss per image (n,); the sum is maximised. The
        state of the networks it uses is restored even if it raises. UserError for images that are
        not float in the range of `clamp`, for an objective that raises, and for a loss or a
        gradient that is not finite.
        """
        incoming.images(x, "An attack's images", self.clamp)
        incoming.generator(generator)
        incoming.function(objective, "An objective", "images (n, c, h, w) -> one loss an image (n,)")
        return self.perturbed(x, _checked(objective), generator, checked=True)

    def perturbed(
        self, x: Images, objective: Objective, generator: torch.Generator | None = None, checked: bool = False
    ) -> Images:
        """The call without its checks, which a training step does without."""
        networks = modules_of(objective)
        with untouched(*networks), constant(*networks):
            x_adv = self._begin(x, generator)
            for _ in range(self.steps):
                x_adv = self.move(x, x_adv, gradient(objective, x_adv, checked))
        return x_adv

    def move(self, x: Images, x_adv: Images, grad: Images) -> Images:
        """One step from x_adv along `grad`, projected to the ball around x and the pixel range."""
        grad = _keep_gray(grad, x, self.gray)
        if self.norm == "l2":
            radius = self.eps * x[0].numel() ** 0.5
            delta = x_adv - x + self.step * x[0].numel() ** 0.5 * grad / _per_image(_l2(grad)).clamp_min(1e-30)
            delta = delta * (radius / _per_image(_l2(delta)).clamp_min(1e-30)).clamp_max(1)
        else:
            delta = (x_adv - x + self.step * grad.sign()).clamp_(-self.eps, self.eps)
        return _clamp(x + delta, self.clamp)

    def _begin(self, x: Images, generator: torch.Generator | None) -> Images:
        x = x.detach()
        if self.start == "none" or self.start_size == 0:
            return x.clone()
        noise = _draw(self.start, x, generator) * self.start_size
        return _clamp(x + _keep_gray(noise, x, self.gray, first=True), self.clamp)


@dataclass(frozen=True)
class Noise:
    """Random noise with the signature of an attack; the objective is ignored.

    `norm=None` adds the plain draw. `norm="linf"` scales each image's draw so that its largest
    change is exactly eps, `norm="l2"` so that its L2 length is eps * sqrt(pixels), as that of a
    full sign step; both are measured after clipping to the pixel range.

    >>> x = torch.full((1, 3, 2, 2), 0.5)
    >>> noisy = ex.Noise.sign(8 / 255)(x, generator=ex.seeded(0))
    >>> f"{255 * (noisy - x).abs().min():.0f}/255"
    '8/255'
    """

    name: str
    kind: Literal["gaussian", "uniform", "sign"]
    eps: float
    scale: float
    norm: Norm | None = None
    clamp: tuple[float, float] | None = (0.0, 1.0)
    gray: bool | None = None

    def __post_init__(self):
        check_eps(self.eps)
        _check_setting(self.norm, self.clamp, (None, "linf", "l2"))

    @classmethod
    def gaussian(cls, eps: float, *, by: Literal["std", "variance"] = "std", **options: Any) -> "Noise":
        """N(0, eps); eps is the std or the variance, which the rebuttal does not say."""
        if by not in ("std", "variance"):
            raise UserError(f"Gaussian noise takes eps by 'std' or by 'variance', got '{by}'.")
        return cls("gaussian", "gaussian", check_eps(eps), scale=eps if by == "std" else eps**0.5, **options)

    @classmethod
    def uniform(cls, eps: float, **options: Any) -> "Noise":
        """U(-eps, eps) at every pixel, the control of the submission's figure 3."""
        return cls("uniform", "uniform", eps, scale=eps, **options)

    @classmethod
    def sign(cls, eps: float, **options: Any) -> "Noise":
        """+eps or -eps at every pixel: before clipping, FGSM's L2 and L-infinity length."""
        return cls("sign", "sign", eps, scale=eps, **options)

    single_step = True

    def __call__(
        self, x: Images, objective: Objective | None = None, *, generator: torch.Generator | None = None
    ) -> Images:
        """Noisy images of x's shape; x is unchanged. UserError unless x is float in [0, 1]."""
        incoming.images(x, "Images for noise", self.clamp)
        incoming.generator(generator)
        return self.perturbed(x, generator)

    def perturbed(self, x: Images, generator: torch.Generator | None = None) -> Images:
        """The call without its checks, which a training step does without."""
        x = x.detach()
        delta = _keep_gray(_draw(self.kind, x, generator) * self.scale, x, self.gray, first=True)
        if self.norm == "linf":
            delta = match(delta, x, linf=self.eps, clamp=self.clamp)
        elif self.norm == "l2":
            delta = match(delta, x, l2=self.eps * x[0].numel() ** 0.5, clamp=self.clamp)
        return _clamp(x + delta, self.clamp)


ATTACKS: dict[str, Callable[..., Attack]] = {n: getattr(Attack, n) for n, row in TABLE.items() if row.role == "attack"}
NOISES: dict[str, Callable[..., Noise]] = {n: getattr(Noise, n) for n, row in TABLE.items() if row.role == "noise"}


def attack_named(name: str, eps: float, **options: Any) -> Attack | Noise:
    """The attack or noise of this name, one of `attack_table.TABLE`.

    >>> ex.attack_named("pgd", 8 / 255, steps=5).steps
    5
    """
    incoming.choice(name, "attack", TABLE)
    return (ATTACKS[name] if name in ATTACKS else NOISES[name])(eps, **options)


def gradient(objective: Objective, x: Images, checked: bool = True) -> Images:
    """Gradient of the summed loss at x, of x's shape; no weight's `.grad` is changed.

    `checked`: loss and gradient must be finite; NaN has the sign 0, so an attack would do nothing.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = incoming.losses(objective(x), len(x))
        found = torch.autograd.grad(loss.sum(), x, allow_unused=True)[0]
    if found is None:
        raise UserError(
            "The objective's result does not depend on its images; compute it from the argument, with gradient."
        )
    if checked:
        incoming.finite(loss, found)
    return found


def _checked(objective: Objective) -> Objective:
    """The objective; what it raises becomes a UserError that says so."""

    def losses(x: Tensor) -> Tensor:
        with incoming.raised("The objective"):
            return objective(x)

    losses.modules = modules_of(objective)  # type: ignore[attr-defined]
    return losses


def _check_setting(norm: Any, clamp: Any, norms: tuple[str | None, ...] = ("linf", "l2")) -> None:
    if norm not in norms:
        raise UserError(f"norm is 'linf' or 'l2', got {norm!r}.")
    if clamp is not None and not (isinstance(clamp, tuple) and len(clamp) == 2 and clamp[0] < clamp[1]):
        raise UserError(f"clamp is the range of a pixel, (0, 1), or None, got {clamp!r}.")


def modules_of(objective: Objective | None) -> tuple[nn.Module, ...]:
    """The networks an objective uses.

    Its `.modules`, itself if it is a module, or those that a function refers to as closure or
    global.
    """
    if isinstance(objective, nn.Module):
        return (objective,)
    named = getattr(objective, "modules", None)
    if named is not None and not callable(named):
        return tuple(named)
    if not inspect.isfunction(objective):
        return ()
    seen = inspect.getclosurevars(objective)
    values = [*seen.nonlocals.values(), *seen.globals.values()]
    return tuple(v for v in values if isinstance(v, nn.Module))


def norms(delta: Images) -> dict[str, PerImage]:
    """Size of every image's perturbation: 'linf' (largest pixel change) and 'l2', each (n,).

    >>> {name: value.tolist() for name, value in ex.norms(torch.full((1, 1, 2, 2), -0.5)).items()}
    {'linf': [0.5], 'l2': [1.0]}
    """
    if not isinstance(delta, Tensor) or delta.dim() < 2:
        came = tuple(delta.shape) if isinstance(delta, Tensor) else type(delta).__name__
        raise UserError(f"norms() takes a perturbation (n, c, h, w), x_adv - x, got {came}.")
    return {"linf": delta.flatten(1).abs().amax(1), "l2": _l2(delta)}


def match(
    delta: Images,
    x: Images,
    *,
    linf: float | Tensor | None = None,
    l2: float | Tensor | None = None,
    clamp: tuple[float, float] | None = (0.0, 1.0),
) -> Images:
    """Scale each image's delta so that, after clipping x + delta, it has exactly the given length.

    `linf`, `l2`: one number or one per image (n,). If clipping makes a length unreachable, the
    longest reachable one is used. Returns the scaled delta, before clipping.

    >>> x, delta = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.1)
    >>> round(ex.match(delta, x, linf=0.25).max().item(), 4)
    0.25
    """
    if (linf is None) == (l2 is None):
        raise UserError("match() takes one of linf=... or l2=...: the length that the perturbation is to have.")
    incoming.images(x, "Images to match on", clamp)
    if not isinstance(delta, Tensor) or delta.shape != x.shape or not bool(torch.isfinite(delta).all()):
        came = f"one of shape {tuple(delta.shape)}" if isinstance(delta, Tensor) else f"a {type(delta).__name__}"
        raise UserError(f"match() takes a finite perturbation of the images' shape {tuple(x.shape)}, got {came}.")
    _check_length(l2 if linf is None else linf, len(x))
    measure = (lambda d: norms(d)["linf"]) if l2 is None else _l2
    target = torch.as_tensor(l2 if linf is None else linf, dtype=x.dtype, device=x.device).expand(len(x))
    low = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    high = target / measure(delta).clamp_min(1e-12)
    if clamp is None:
        return delta * _per_image(high)

    def length(scale: Tensor) -> Tensor:
        return measure(_clamp(x + delta * _per_image(scale), clamp) - x)

    for _ in range(12):  # at most 4096 times the unclipped scale
        high = torch.where(length(high) < target, high * 2, high)
    for _ in range(40):
        middle = (low + high) / 2
        short = length(middle) < target
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return delta * _per_image(high)


def _check_length(length: Any, n: int) -> None:
    if not isinstance(length, Tensor):
        incoming.number(length, "A perturbation's length")
    elif length.numel() not in (1, n) or not bool((length >= 0).all()):
        raise UserError(
            f"A perturbation's length is a number of 0 or more, or one an image ({n}), got {length.numel()}."
        )


def _draw(kind: str, x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else x.device
    if kind == "uniform":
        drawn = draw(torch.rand, x.shape, generator, device=device, dtype=x.dtype) * 2 - 1
    else:
        drawn = draw(torch.randn, x.shape, generator, device=device, dtype=x.dtype)
        if kind == "sign":
            drawn = torch.where(drawn < 0, -1.0, 1.0).to(x.dtype)
    return drawn.to(x.device, non_blocking=True)


def _keep_gray(change: Tensor, x: Tensor, gray: bool | None, first: bool = False) -> Tensor:
    """Equal channels for gray images: a gradient's sum (chain rule), a draw's first channel."""
    if gray is False or x.shape[1] == 1:
        return change
    one = (change[:, :1] if first else change.sum(1, keepdim=True)).expand_as(change)
    if gray:
        return one
    is_gray = (x == x[:, :1]).flatten(1).all(1)
    return torch.where(_per_image(is_gray), one, change)


def _clamp(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


def _l2(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
