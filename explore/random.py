"""Random generators, and context managers that restore networks."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from . import incoming


def seeded(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A random generator with this seed; a CPU generator gives the same draws for every device.

    >>> torch.rand(1, generator=ex.seeded(0)).equal(torch.rand(1, generator=ex.seeded(0)))
    True
    """
    return torch.Generator(device).manual_seed(incoming.whole(seed, "A seed", 0, 2**63 - 1))


class Share(torch.Generator):
    """Generator of one of several processes: `draw` returns every world-th row."""

    def __new__(cls, rank: int = 0, world: int = 1):
        return super().__new__(cls)

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world


def draw(sample: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None, **options: Any):
    """`sample(shape)` (torch.rand, torch.randn), one row per image; a `Share`'s rows."""
    if not isinstance(generator, Share):
        return sample(shape, generator=generator, **options)
    whole = (shape[0] * generator.world, *shape[1:])
    return sample(whole, generator=generator, **options)[generator.rank :: generator.world]


_locks: "weakref.WeakKeyDictionary[nn.Module, Any]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


@contextlib.contextmanager
def alone(*modules: nn.Module) -> Iterator[None]:
    """Only one thread at a time is inside with any of these modules: its modes, statistics and
    branch are its own. A thread that is inside may enter again.
    """
    with _making:
        locks = {id(module): _locks.setdefault(module, threading.RLock()) for module in modules}
    with contextlib.ExitStack() as held:
        for key in sorted(locks):  # one order for all threads
            held.enter_context(locks[key])
        yield


@contextlib.contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Restore the modules' buffers (BN statistics) and train/eval modes on exit, bit for bit.

    Also if the body raises. Another thread that enters with one of the modules waits. Weights are
    not copied: forward passes and `torch.autograd.grad` do not change them.

    >>> encoder = ex.Encoder("resnet10", width=8, stem="small")
    >>> with ex.untouched(encoder):
    ...     _ = encoder.eval()
    >>> encoder.training
    True
    """
    for module in modules:
        incoming.network(module, "What is left untouched")
    parts = [m for module in modules for m in module.modules()]
    buffers = [b for module in modules for b in module.buffers()]
    with alone(*modules):
        modes, saved = [m.training for m in parts], [b.detach().clone() for b in buffers]
        try:
            yield
        finally:
            for buffer, was in zip(buffers, saved, strict=True):
                buffer.data.copy_(was)  # .data: a graph recorded before, whose batch norm saved it, stays valid
            for part, mode in zip(parts, modes, strict=True):
                part.training = mode


@contextlib.contextmanager
def constant(*modules: nn.Module) -> Iterator[None]:
    """No weight requires a gradient inside: backward computes the pixels' only."""
    weights = [p for module in modules for p in module.parameters() if p.requires_grad and p.is_leaf]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
