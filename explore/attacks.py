"""Adversaries and noises: `attack(x, objective, generator=...) -> x_adv`, all in pixel units.

Images are float in [0, 1] and eps is in those units (8/255). One loop serves every attack: only start, step size, number
of steps and norm differ. Noise has the same call and ignores the objective, so 'noise or adversary' is one line twice.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .attack_table import TABLE
from .config import check_eps
from .errors import UserError, nearest
from .random import constant, draw, untouched
from .types import Images, PerImage

Norm = Literal["linf", "l2"]
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attack:
    """Gradient ascent on a loss inside a ball of radius eps around x, in the images' pixel range.

    `norm="linf"`: sign steps, every pixel moves by eps at most. `norm="l2"`: normalised gradient steps; the radius is
    eps * sqrt(pixels), the L2 length of a full sign step, so that the two are comparable at one eps.
    `gray`: keep the channels equal; None does so for every image that came gray. `clamp=None` leaves the pixel range
    open (the authors' code does). Use the presets: `Attack.fgsm(eps)`, `.rfgsm`, `.ffgsm`, `.pgd`.
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
        if self.steps < 1:
            raise UserError(f"An attack takes 1 step or more, got steps={self.steps}; use eps=0 for no attack.")

    @classmethod
    def fgsm(cls, eps: float, **options: Any) -> "Attack":
        """One full sign step (Goodfellow et al. 2015, arXiv:1412.6572); the attack of all of CLAE's experiments."""
        return cls("fgsm", eps, step=eps, **options)

    @classmethod
    def rfgsm(cls, eps: float, *, alpha: float | None = None, **options: Any) -> "Attack":
        """A random sign step of alpha (eps/2), then a sign step of eps - alpha (Tramer et al. 2018, arXiv:1705.07204)."""
        alpha = eps / 2 if alpha is None else alpha
        return cls("rfgsm", eps, step=eps - alpha, start="sign", start_size=alpha, **options)

    @classmethod
    def ffgsm(cls, eps: float, *, alpha: float | None = None, **options: Any) -> "Attack":
        """Uniform start in the ball, one step of alpha (1.25 eps), projected (Wong et al. 2020, arXiv:2001.03994)."""
        return cls(
            "ffgsm", eps, step=1.25 * eps if alpha is None else alpha, start="uniform", start_size=eps, **options
        )

    @classmethod
    def pgd(cls, eps: float, *, steps: int = 10, step: float | None = None, random_start: bool = True, **options: Any):
        """`steps` projected sign steps of 2.5 eps / steps from a uniform start (Madry et al. 2018, arXiv:1706.06083)."""
        size = 2.5 * eps / max(steps, 1) if step is None else step
        start: Literal["uniform", "none"] = "uniform" if random_start else "none"
        return cls("pgd", eps, step=size, steps=steps, start=start, start_size=eps, **options)

    @property
    def single_step(self) -> bool:
        """True where the direction does not depend on eps: one step, from x itself."""
        return self.steps == 1 and self.start == "none"

    def at(self, eps: float) -> "Attack":
        """The same attack at another radius, its step and start scaled along."""
        k = eps / self.eps if self.eps else 0.0
        if not self.eps and eps:
            raise UserError("An attack made with eps=0 has no step to scale; make it with the eps you want.")
        return replace(self, eps=eps, step=self.step * k, start_size=self.start_size * k)

    def __call__(self, x: Images, objective: Objective, *, generator: torch.Generator | None = None) -> Images:
        """Adversarial images of x's shape; nothing but the returned tensor changes.

        `objective` maps images (n, c, h, w) to a loss per image (n,); its sum is pushed up. The BN statistics and modes of
        the networks it runs are put back, also when it raises; no `.grad` is touched.
        """
        networks = modules_of(objective)
        with untouched(*networks), constant(*networks):
            x_adv = self._begin(x, generator)
            for _ in range(self.steps):
                x_adv = self.move(x, x_adv, gradient(objective, x_adv))
        return x_adv

    def move(self, x: Images, x_adv: Images, grad: Images) -> Images:
        """One step from x_adv along `grad`, projected to the ball around x and to the pixel range."""
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
    """Random noise with an attack's call; the objective is ignored.

    `norm=None` adds the plain draw. `norm="linf"`: each image's draw is scaled so that its largest change is eps exactly,
    `norm="l2"`: so that its L2 length is eps * sqrt(pixels), a full sign step's; both as measured after clipping to the pixel range.
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

    @classmethod
    def gaussian(cls, eps: float, *, by: Literal["std", "variance"] = "std", **options: Any) -> "Noise":
        """N(0, eps): the rebuttal leaves open whether eps is the std or the variance, so say which."""
        if by not in ("std", "variance"):
            raise UserError(f"Gaussian noise takes eps by 'std' or by 'variance', got '{by}'.")
        return cls("gaussian", "gaussian", eps, scale=eps if by == "std" else eps**0.5, **options)

    @classmethod
    def uniform(cls, eps: float, **options: Any) -> "Noise":
        """U(-eps, eps) at every pixel, the control of the submission's figure 3."""
        return cls("uniform", "uniform", eps, scale=eps, **options)

    @classmethod
    def sign(cls, eps: float, **options: Any) -> "Noise":
        """+eps or -eps at every pixel: before clipping, exactly FGSM's L2 and L-infinity length without its aim."""
        return cls("sign", "sign", eps, scale=eps, **options)

    single_step = True

    def __call__(
        self, x: Images, objective: Objective | None = None, *, generator: torch.Generator | None = None
    ) -> Images:
        """Noisy images of x's shape; x stays as it is."""
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
    """The attack or noise of that name, one of `attack_table.TABLE`."""
    if name not in TABLE:
        raise UserError(f"attack must be one of {', '.join(TABLE)}, got '{name}'.{nearest(name, TABLE)}")
    return (ATTACKS[name] if name in ATTACKS else NOISES[name])(eps, **options)


def gradient(objective: Objective, x: Images) -> Images:
    """Gradient of the summed loss at x, of x's shape; no weight's `.grad` is touched."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = objective(x)
        if not isinstance(loss, Tensor) or loss.shape != (len(x),):
            came = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(f"An objective must return one loss an image, shape ({len(x)},), got {came}.")
        if not loss.requires_grad:
            raise UserError(
                "The objective's loss does not depend on its images; compute it from the argument, with gradient."
            )
        return torch.autograd.grad(loss.sum(), x)[0]


def modules_of(objective: Objective | None) -> tuple[nn.Module, ...]:
    """The networks an objective runs: its `.modules`, itself, or what a function closes over or reads as a global."""
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
    """Length of every image's perturbation: {'linf': largest pixel change, 'l2': Euclidean}, each (n,)."""
    return {"linf": delta.flatten(1).abs().amax(1), "l2": _l2(delta)}


def match(
    delta: Images,
    x: Images,
    *,
    linf: float | Tensor | None = None,
    l2: float | Tensor | None = None,
    clamp: tuple[float, float] | None = (0.0, 1.0),
) -> Images:
    """Scale every image's delta so that what is left of it after clipping x + delta has exactly the length asked for.

    Lengths are one number or one an image (n,). Where clipping makes a length unreachable, the longest reachable is
    given. Returns the scaled delta, before clipping.
    """
    if (linf is None) == (l2 is None):
        raise UserError("match() takes one of linf=... or l2=...: the length that the perturbation is to have.")
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
    """Equal channels for gray images: the sum of a gradient (the chain rule's), the first channel of a draw."""
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
