"""Random generators, and networks put back as they were."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def seeded(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A random generator that starts from `seed`; a CPU generator gives the same draws for every device."""
    return torch.Generator(device).manual_seed(seed)


class Share(torch.Generator):
    """A generator of one of several processes: `draw` gives it every world-th row of what one process would draw."""

    def __new__(cls, rank: int = 0, world: int = 1):
        return super().__new__(cls)

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world


def draw(sample: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None, **options: Any):
    """`sample(shape)`, torch.rand or torch.randn, one row an image; a `Share` gets its rows of the whole batch's draw."""
    if not isinstance(generator, Share):
        return sample(shape, generator=generator, **options)
    whole = (shape[0] * generator.world, *shape[1:])
    return sample(whole, generator=generator, **options)[generator.rank :: generator.world]


def keep_memory() -> bool:
    """Have glibc keep freed memory for the next step instead of handing it back, cleared page by page; True where it does.

    For processes that only train on a CPU: 6 % of a step of ResNet-18 was page faults. Up to 2 GiB stay with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


@contextlib.contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Within it, modules may run in any mode; after it, buffers (BN statistics) and modes are what they were, bit for bit.

    Holds also when the body raises. Weights are not copied: forward passes and `torch.autograd.grad` leave them alone.
    """
    parts = [m for module in modules for m in module.modules()]
    buffers = [b for module in modules for b in module.buffers()]
    modes, saved = [m.training for m in parts], [b.detach().clone() for b in buffers]
    try:
        yield
    finally:
        for buffer, was in zip(buffers, saved, strict=True):
            buffer.data.copy_(was)  # .data: a graph recorded before, whose batch norm saved this buffer, stays valid
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


@contextlib.contextmanager
def constant(*modules: nn.Module) -> Iterator[None]:
    """Within it no weight asks for a gradient, so that a backward pass computes that of the images alone; after it, as before."""
    weights = [p for module in modules for p in module.parameters() if p.requires_grad and p.is_leaf]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
