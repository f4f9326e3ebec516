"""A training update as a CUDA graph: one launch in place of some five hundred."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Update = Callable[[Tensor, Tensor, torch.Generator], Any]  # two views, and the generator of the step's draws
EAGER = 3  # calls before the recording: optimisers make their states, cuDNN chooses its kernels


def recordable(device: torch.device) -> bool:
    """Whether a device has CUDA graphs."""
    return device.type == "cuda" and torch.version.cuda is not None


class Recorded:
    """`update(v1, v2, generator)` on a GPU, run `EAGER` times, then recorded and from then on
    replayed.

    What the update returns lies in memory that the next call overwrites. Draws are made on the GPU,
    by a generator that has the seed of the one given. A learning rate must be a tensor, since
    numbers are recorded as they are. Views of another shape are computed without the recording.
    """

    def __init__(self, update: Update, device: torch.device):
        self.update, self.calls = update, 0
        self.generator, self.stream = torch.Generator(device), torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.views: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.found: Any = None

    def __call__(self, v1: Tensor, v2: Tensor, generator: torch.Generator) -> Any:
        self.generator.manual_seed(generator.initial_seed())
        self.calls += 1
        if self.calls > EAGER and self.graph is None:
            self._record(v1, v2)
        if self.graph is None or v1.shape != self.views[0].shape:
            return self._eagerly(v1, v2)
        for own, new in zip(self.views, (v1, v2), strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.found

    def _eagerly(self, v1: Tensor, v2: Tensor) -> Any:
        """On a stream of its own, as recording demands of what precedes it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            found = self.update(v1, v2, self.generator)
        torch.cuda.current_stream().wait_stream(self.stream)
        return found

    def _record(self, v1: Tensor, v2: Tensor) -> None:
        """Record the update, which does not run it."""
        self.views = (v1.clone(), v2.clone())
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self.found = self.update(*self.views, self.generator)
        self.graph = graph
