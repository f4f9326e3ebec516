"""What the convolutions' own ways share: what is made of weights once a step, and gradients as autograd wants them."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

_MADE: ContextVar[dict | None] = ContextVar("made", default=None)


@contextlib.contextmanager
def weights_fixed() -> Iterator[None]:
    """Within it no weight changes: what convolutions make of their weights for a pass is made once, as in a training step."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def once(make: Callable[[Tensor, torch.dtype], Tensor], weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`make(weight, dtype)`, without a gradient; within `weights_fixed` the same tensor each time."""
    made = _MADE.get()
    if made is None:
        return make(weight, dtype)
    key = make, id(weight), dtype  # the weight is kept beside it, so its id stays its own
    if key not in made:
        made[key] = make(weight, dtype), weight
    return made[key][0]


def torchs(ctx, grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor | None, Tensor | None]:
    """torch's gradients in x and weight, which can be differentiated again."""
    sides = [stride] * 2, [weight.shape[2] // 2] * 2, [1, 1], False, [0, 0], 1
    mask = [*ctx.needs_input_grad[:2], False]
    return torch.ops.aten.convolution_backward(grad, x, weight.to(x.dtype), None, *sides, mask)[:2]


def as_its(weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient in the weight's type and memory layout, as which autograd keeps it without another copy."""
    return torch.empty_like(weight).copy_(grad)
