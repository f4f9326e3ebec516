"""Checks of what users pass in: images, labels, features, numbers, networks and losses.

Every public function calls these once, where it is entered, and nothing calls them within a step
of a training. What has one obvious meaning is converted; all else is a UserError that says what
was expected, what came, and what to do.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UserError, nearest

ROUNDING = 1e-4  # by which pixels may leave their range: arithmetic in half precision
SIDES = 8  # pixels a side from which (n, h, w, 3) is told from (n, 3, h, w)
SLIGHT = 0.3  # an excess that a resize with a bicubic filter makes; a normalised image's is larger


def images(x: Any, what: str = "Images", bounds: tuple[float, float] | None = (0.0, 1.0)) -> Tensor:
    """x itself if it is float (n, c, h, w), finite and within `bounds` (None: any)."""
    image_shape(x, what)
    low, high = torch.stack(x.detach().aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        broken = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise UserError(
            f"{what} must be finite; {broken} of {len(x)} hold NaN or infinity; look at where they are read."
        )
    if bounds is not None and not (bounds[0] - ROUNDING <= low and high <= bounds[1] + ROUNDING):
        raise UserError(f"{what} have pixels in [{bounds[0]:g}, {bounds[1]:g}], {_range_guess(low, high)}.")
    return x


def image_shape(x: Any, what: str = "Images") -> None:
    """UserError unless x is float (n, c, h, w) with an image in it; its numbers are not read."""
    rule = f"{what} are a float tensor (n, channels, height, width) with pixels in [0, 1]"
    if isinstance(x, np.ndarray):
        raise UserError(f"{rule}, got a NumPy array of shape {x.shape}; pass torch.from_numpy(x).")
    if not isinstance(x, Tensor):
        raise UserError(f"{rule}, got {_kind(x)}; take them from a data set, as in x, y = data.test[:8].")
    if not x.is_floating_point():
        whole = "; divide: x.float() / 255" if x.dtype == torch.uint8 else "; convert them: x.float()"
        raise UserError(f"{rule}, got {x.dtype} of shape {tuple(x.shape)}{whole}.")
    if x.dim() != 4:
        more = "; add a batch axis: x[None]" if x.dim() == 3 else "; give one batch of images"
        raise UserError(f"{rule}, got the shape {tuple(x.shape)}{more}.")
    if not x.numel():
        raise UserError(f"{rule}, got the shape {tuple(x.shape)}: the batch is empty; give one image or more.")
    n, c, h, w = x.shape
    if w in (1, 3, 4) and c not in (1, 3) and min(c, h) >= SIDES:
        raise UserError(f"{rule}, got the shape {(n, c, h, w)}, channels last; move them: x.permute(0, 3, 1, 2).")


def _range_guess(low: float, high: float) -> str:
    """What pixels from `low` to `high` probably are, and what to do."""
    came = f"got {low:.3g} to {high:.3g}"
    if low >= -ROUNDING and high > 2:
        return f"{came}, as if they were 0 to 255; divide: x / 255"
    if low >= -SLIGHT and high <= 1 + SLIGHT:
        return f"{came}, a little outside; cut them off: x.clamp(0, 1)"
    return f"{came}, as if they were normalised; undo it (x * std + mean), the encoder normalises by itself"


def labels(y: Any, n: int | None = None, classes: Sequence[str] | int | None = None, what: str = "Labels") -> Tensor:
    """Labels as int64 (n,): of a tensor, array or list; whole floats, class names, one-hot rows.

    `classes`: their names, or how many there are; names given as labels are numbered by it, or in
    alphabetical order. `n`: how many labels there must be.
    """
    found = _numbered(y, classes, what)
    if found.dim() == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dim() == 2 and bool(((found == 0) | (found == 1)).all()) and bool((found.sum(1) == 1).all()):
        found = found.to(torch.uint8).argmax(1)  # one-hot
    if found.dim() != 1:
        raise UserError(
            f"{what} are one class an image, got the shape {tuple(found.shape)}; pass y.argmax(1) of scores."
        )
    if n is not None and len(found) != n:
        raise UserError(f"{what} are one class an image: expected {n} labels, one label a row, got {len(found)}.")
    if found.is_floating_point():
        odd = found != found.round()
        if bool((odd | ~torch.isfinite(found)).any()):
            came = found[odd | ~torch.isfinite(found)][0]
            raise UserError(f"{what} are whole numbers from 0, got {came:g}; leave out images that have no class.")
    found = found.long()
    if len(found) and int(found.min()) < 0:
        count = int((found < 0).sum())
        raise UserError(f"{count} of {len(found)} images have no label (a negative one); leave them out.")
    most = classes if isinstance(classes, int) or classes is None else len(classes)
    if most is not None and len(found) and int(found.max()) >= most:
        raise UserError(
            f"There is a label {int(found.max())}, and the classes are 0 to {most - 1}; give all their names, or other labels."
        )
    return found


def labels_or_none(y: Any, n: int) -> Tensor:
    """Labels (n,), where -1 stands for an image without a class."""
    found = _numbered(y, None, "Labels")
    known = found.long() if found.dim() == 1 and not found.is_floating_point() else labels(y, n)
    if len(known) != n:
        raise UserError(f"Labels are one class an image: expected {n} labels, got {len(known)}.")
    return known


def class_names(*many: Any) -> list[str] | None:
    """The class names in labels, in alphabetical order; None where labels are numbers."""
    found: set[str] = set()
    for y in many:
        if not isinstance(y, Tensor) and not isinstance(y, str) and hasattr(y, "__len__"):
            found |= {str(name) for name in np.asarray(y, dtype=object).ravel() if isinstance(name, str)}
    return sorted(found) or None


def _numbered(y: Any, classes: Sequence[str] | int | None, what: str) -> Tensor:
    """Labels of any kind as a tensor of numbers."""
    if isinstance(y, Tensor):
        if y.is_complex():
            raise UserError(f"{what} are whole numbers from 0, got {y.dtype}; pass the number of each image's class.")
        return y.detach()
    if isinstance(y, str | bytes | dict | set) or not hasattr(y, "__len__"):
        raise UserError(f"{what} are one class an image, in a list or a tensor, got {_kind(y)}.")
    if isinstance(y, list | tuple) and y and all(isinstance(one, Tensor) for one in y):
        y = [one.tolist() for one in y]
    try:
        found = np.asarray(y)
    except ValueError:  # rows of different lengths
        raise UserError(
            f"{what} are one class an image, got rows of different lengths; give one number each."
        ) from None
    if not found.size:
        return torch.zeros(0, dtype=torch.int64)
    if found.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(found))
    if not all(isinstance(name, str) for name in found.ravel()):
        kinds = sorted({type(one).__name__ for one in found.ravel()})
        raise UserError(f"{what} are whole numbers or class names, got {' and '.join(kinds)}; give one class an image.")
    if found.ndim != 1:
        raise UserError(f"{what} are one class name an image, got the shape {found.shape}; give a list of names.")
    if isinstance(classes, int):
        raise UserError(f"{what} are numbers 0 to {classes - 1} here, got names like '{found[0]}'; number the classes.")
    names = list(classes) if classes is not None else class_names(y) or []
    for name in found:
        if name not in names:
            raise UserError(
                f"There is no class '{name}'; the classes are {', '.join(names[:9])}.{nearest(name, names)}"
            )
    return torch.tensor([names.index(name) for name in found])


def features(h: Any, what: str = "Features", *, dim: int | None = None) -> Tensor:
    """Features as a float tensor (n, D), finite, one row or more; arrays are converted."""
    h = torch.from_numpy(np.ascontiguousarray(h)) if isinstance(h, np.ndarray) and h.dtype.kind in "biuf" else h
    if not isinstance(h, Tensor) or h.is_complex():
        came = f"{h.dtype}" if isinstance(h, Tensor) else _kind(h)
        raise UserError(f"{what} are a float tensor (n, D), got {came}; ex.embed(encoder, split) makes them.")
    if h.dim() != 2:
        raise UserError(
            f"{what} are a float tensor (n, D), one row an image, got the shape {tuple(h.shape)}; flatten it."
        )
    if not h.numel():
        raise UserError(f"{what} need one image and one number or more, got none: the shape is {tuple(h.shape)}.")
    h = h if h.is_floating_point() else h.float()
    if not bool(torch.isfinite(h).all()):
        broken = int((~torch.isfinite(h)).any(1).sum())
        raise UserError(
            f"{what} must be finite; {broken} of {len(h)} rows hold NaN or infinity; look at the run's loss for the step it broke."
        )
    if dim is not None and h.shape[1] != dim:
        raise UserError(
            f"{what} have {dim} numbers an image, got {h.shape[1]}; embed all with the same encoder and layer."
        )
    return h


def whole(value: Any, what: str, low: int = 1, high: int | None = None) -> int:
    """A whole number in low .. high; 8.0 is taken as 8."""
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.dim() == 0)
    number: Any = value.item() if single else value
    if isinstance(number, Real) and not isinstance(number, bool | Integral):
        real = float(number)
        number = int(real) if math.isfinite(real) and real == int(real) else number
    if not isinstance(number, Integral) or isinstance(number, bool):
        raise UserError(f"{what} is a whole number, got {_shown(value)}.")
    number = int(number)
    if number < low or (high is not None and number > high):
        span = f"{low} to {high}" if high is not None else f"{low} or more"
        raise UserError(f"{what} is {span}, got {_shown(value)}.")
    return number


def number(value: Any, what: str, low: float = 0.0, high: float = math.inf, *, open_low: bool = False) -> float:
    """A number in low .. high; `open_low`: above low. Infinity is taken where high is infinite."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"{what} must be a number, got {_shown(value)}.")
    real = float(value)
    if not low <= real <= high or (open_low and real == low):
        span = f"above {low:g}" if open_low else f"{low:g} or more"
        raise UserError(
            f"{what} must be {span}{'' if math.isinf(high) else f' and up to {high:g}'}, got {_shown(value)}."
        )
    return real


def listed(many: Any, what: str) -> None:
    """UserError unless it is a list, a tuple or the like."""
    if isinstance(many, str | bytes) or not hasattr(many, "__len__") or not isinstance(many, Iterable):
        raise UserError(f"{what} are given in a list, got {_shown(many)}; write [{_shown(many)}].")


def rows(chosen: Any, n: int, what: str = "rows") -> list[int]:
    """Indices of some of n images, one or more; None chooses all."""
    if chosen is None:
        return list(range(n))
    many = [chosen] if isinstance(chosen, Real) else chosen
    if isinstance(many, str) or not isinstance(many, Iterable):
        raise UserError(f"{what} are indices of images, like [0, 3], got {_shown(chosen)}.")
    found = [whole(one, f"An index of {what}", -n, n - 1) for one in many]
    if not found:
        raise UserError(f"{what} are indices of images, like [0, 3], got none; leave them away for all {n}.")
    return [one % n for one in found]


def network(encoder: Any, what: str = "An encoder") -> nn.Module:
    """The network, if it is one."""
    if isinstance(encoder, nn.Module):
        return encoder
    if isinstance(encoder, tuple) and encoder and isinstance(encoder[0], nn.Module):
        raise UserError(
            f"{what} is a torch.nn.Module, got a pair as ex.open_encoder returns it; unpack: encoder, about = ..."
        )
    hint = "; write encoder, about = ex.open_encoder(...) to open one"
    raise UserError(f"{what} is a torch.nn.Module, got {_kind(encoder)}{hint}.")


def function(given: Any, what: str, how: str) -> Callable:
    """A function, if it is one."""
    if not callable(given) or isinstance(given, type):
        raise UserError(f"{what} is a function: {how}; got {_kind(given)}.")
    return given


def losses(loss: Any, n: int, what: str = "An objective") -> Tensor:
    """What an objective returned for n images, if it is one real number each with a gradient."""
    if not isinstance(loss, Tensor) or loss.shape != (n,):
        came = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        per = "loss" if what == "An objective" else "number"
        raise UserError(f"{what} must return one {per} an image, shape ({n},), got {came}.")
    if loss.is_complex():
        raise UserError(f"{what} must return real numbers, got {loss.dtype}; take .real or .abs() of them.")
    if not loss.requires_grad:
        raise UserError(f"{what}'s result does not depend on its images; compute it from the argument, with gradient.")
    return loss


def finite(loss: Tensor, grad: Tensor | None = None, what: str = "An objective") -> None:
    """UserError where a loss or its gradient is not finite: there is no direction to follow."""
    if not bool(torch.isfinite(loss).all()):
        broken = int((~torch.isfinite(loss)).sum())
        raise UserError(
            f"{what} must return finite numbers, got NaN or infinite ones for {broken} of {len(loss)} images; look for a division "
            "by 0, a logarithm of 0, or an encoder with broken weights."
        )
    # a sum is finite if all is (but for numbers that overflow it), and ten times as fast as looking at each
    if grad is not None and not math.isfinite(float(grad.sum())) and not bool(torch.isfinite(grad).all()):
        raise UserError(
            f"{what} has a gradient of NaN or infinity, though its loss is finite; look for a root, a norm or a division at 0."
        )


@contextmanager
def raised(what: str) -> Iterator[None]:
    """Around a user's function: an error of Python's or torch's becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if type(error).__module__ != "builtins":  # to stop, or too little memory
            raise
        first = " ".join(str(error).split("\n")[0].split())[:200]
        raise UserError(
            f"{what} raised a {type(error).__name__} ({first}); it is called with images (n, c, h, w) and returns one number each."
        ) from error


def generator(given: Any) -> None:
    """UserError unless it is a torch.Generator or None."""
    if given is not None and not isinstance(given, torch.Generator):
        raise UserError(f"generator is a torch.Generator, got {_shown(given)}; write ex.seeded({given!r:.20}).")


def choice(value: Any, what: str, choices: Iterable[str]) -> Any:
    """One of some names."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{what} must be one of {', '.join(known)}, got {_shown(value)}.{nearest(value, known)}")
    return value


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    """A value as a sentence shows it: short and on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
