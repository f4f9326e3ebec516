"""One training in several processes (torchrun): the images, draws, statistics, loss and gradients of a single one.

Rank r of W has images r, r + W, r + 2W, ... of every batch. Each rank back-propagates the mean loss of its own pairs, against
the negatives of all; what `gather` hands on comes back summed over the ranks, so that averaging the weights' gradients at the
end gives the whole batch's, exactly.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import UserError
from .nets import BatchNorm2d
from .random import Share


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; `ALONE` is the ordinary case, where every method does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes the run folder and speaks."""
        return self.rank == 0

    def share(self, count: int, what: str) -> int:
        """This rank's part of a count that all of them must have equally."""
        if count % self.world:
            raise UserError(f"{what} ({count}) must be a multiple of the number of processes ({self.world}).")
        return count // self.world

    def complete(self, x: Tensor, n: int) -> None:
        """Refuse a batch with images missing: beside others with all of theirs it would mean another loss to each rank."""
        if self.world > 1 and len(x) != n:
            raise UserError(
                f"{n - len(x)} of {n} images of a batch could not be read; repair or remove them, or train in one process."
            )

    def seeded(self, seed: int) -> torch.Generator:
        """A generator whose draws are this rank's rows of what a single process would draw."""
        return Share(self.rank, self.world).manual_seed(seed)

    def rows(self, n: int) -> slice:
        """Where this rank's n rows stand in what `gather` returns."""
        return slice(self.rank * n, (self.rank + 1) * n)

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all ranks (W n, ...), rank by rank; differentiable, the gradients of all ranks' losses summed."""
        return x if self.world == 1 else _Gather.apply(x, self)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the ranks, all of them in one exchange."""
        if self.world == 1:
            return
        each = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in each])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, mean in zip(each, flat.split([t.numel() for t in each]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether a flag is up on some rank: the same answer on all."""
        flags = torch.tensor([float(flag)], device=device)
        self.average([flags])
        return bool(flags > 0)

    def stop(self, should_stop: Callable[[], bool], at_row: bool, device: torch.device) -> bool:
        """Whether to stop: asked after every step of a single process; of several, at rows alone, with one answer for all."""
        return should_stop() if self.world == 1 else at_row and self.any(should_stop(), device)

    def join(self, encoder: nn.Module) -> None:
        """Start from the first rank's weights, and take batch-norm statistics over the images of all ranks."""
        if self.world == 1:
            return
        with torch.no_grad():
            for tensor in [*encoder.parameters(), *encoder.buffers()]:
                same = tensor.contiguous()
                dist.broadcast(same, 0)
                tensor.copy_(same)
        for part in encoder.modules():
            if isinstance(part, BatchNorm2d):
                part.over = self.normalize

    def normalize(self, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Batch norm in train mode over the images of all ranks, each of which has equally many. Computed in fp32 at least."""
        exact = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(exact, (0, 2, 3), correction=0)
        means, variances = self.gather(torch.stack([mean, var])[None]).unbind(1)  # (W, channels) each
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        count = self.world * x.numel() // x.shape[1]
        with torch.no_grad():
            bn.num_batches_tracked.add_(1)  # type: ignore[union-attr, operator]
            bn.running_mean.lerp_(mean, bn.momentum)  # type: ignore[union-attr, arg-type]
            bn.running_var.lerp_(var * (count / (count - 1)), bn.momentum)  # type: ignore[union-attr, arg-type]
        scale = bn.weight * (var + bn.eps).rsqrt()
        shift = bn.bias - mean * scale
        return torch.addcmul(shift[:, None, None], exact, scale[:, None, None]).to(x.dtype)

    def in_turn(self) -> contextlib.AbstractContextManager[None]:
        """The first rank goes through the body before the others do: it downloads, they find it done."""
        return _in_turn(self)


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.rows = ranks, ranks.rows(len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(ranks.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.rows], None


@contextlib.contextmanager
def together(device: str = "auto") -> Iterator[Ranks]:
    """The processes that torchrun started, joined; `ALONE` outside torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _in_turn(ranks: Ranks) -> Iterator[None]:
    if ranks.world > 1 and not ranks.first:
        dist.barrier()
    yield
    if ranks.world > 1 and ranks.first:
        dist.barrier()
