"""A data set as the library uses it: stored as uint8, read as float pixels in [0, 1]."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..random import seeded

Progress = Callable[[str, int, int], None]  # (what, done, total); total 0: unknown
NO_CLASS = -1  # the label of an image that has none


def pixels(stored: Tensor) -> Tensor:
    """uint8 (n,1,h,w) or (n,3,h,w) -> float32 (n,3,h,w) in [0, 1]; gray is repeated."""
    return stored.expand(-1, 3, -1, -1).float().div_(255)


def check_size(size: int | None) -> None:
    """Raise UserError unless `size` is a valid side in pixels; None is the data set's own size."""
    if size is not None and (not isinstance(size, int) or not 8 <= size <= 1024):
        raise UserError(f"expected size from 8 to 1024 pixels, got {size}.")


def resized(stored: Tensor, size: int) -> Tensor:
    """uint8 (n,c,h,h) -> uint8 (n,c,size,size): bilinear, antialiased, in chunks."""
    if stored.shape[-1] == size:
        return stored
    out = stored.new_empty((*stored.shape[:2], size, size))
    for begin in range(0, len(stored), 1024):
        part = stored[begin : begin + 1024].float()
        part = torch.nn.functional.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
        out[begin : begin + 1024] = part.round_().clamp_(0, 255).to(torch.uint8)
    return out


def checked_labels(labels: Tensor, images: int, classes: int, where: str) -> Tensor:
    """`labels` as int64 (n,); UserError unless one per image, all in 0..classes-1."""
    labels = labels.long()
    if len(labels) != images:
        raise UserError(f"{where} has {images:,} images but {len(labels):,} labels: the copy is damaged.")
    if images and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError(f"{where} has labels from {found}, expected 0 to {classes - 1}: the copy is damaged.")
    return labels


class Split:
    """Images in memory, with labels: uint8 `stored` (n,c,s,s) on the device, c = 1 if gray.

    `split[idx]` and `batches` give `(x, y)`: x float32 (n,3,s,s) in [0, 1], y int64 (n,), -1 where
    there is no class. `extra` holds further labels, int64 (n,) each, whose words are in
    `extra_names`.
    """

    streamed = False

    def __init__(
        self,
        stored: Tensor,
        labels: Tensor,
        extra: dict[str, Tensor] | None = None,
        extra_names: dict[str, list[str]] | None = None,
    ):
        self.stored = stored
        self.labels = labels
        self.extra = extra or {}
        self.extra_names = extra_names or {}

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{len(self):,} images, {'streamed' if self.streamed else 'in memory'}, on {self.device}>"

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def __getitem__(self, idx: int | slice | Sequence[int] | Tensor | Any) -> tuple[Tensor, Tensor]:
        """(x, y) of an index, slice, list, index tensor or mask; always with a batch axis."""
        return self._read(self._indices(idx))

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return pixels(self.stored.index_select(0, indices)), self.labels[indices]

    def _indices(self, idx: Any) -> Tensor:
        """Any kind of index -> non-negative int64 (n,); IndexError if out of range."""
        n = len(self)
        if isinstance(idx, slice):
            return torch.arange(*idx.indices(n), device=self.device)
        found = torch.as_tensor(idx, device=self.device)
        if found.dtype == torch.bool:
            if found.shape != (n,):
                raise IndexError(f"a mask over {n} images has the shape ({n},), not {tuple(found.shape)}.")
            return found.nonzero()[:, 0]
        if found.numel() and found.is_floating_point():
            raise IndexError(f"expected whole numbers as indices, got {found.dtype}.")
        found = found.long().reshape(-1)
        outside = found[(found < -n) | (found >= n)]
        if len(outside):
            raise IndexError(f"there is no image {int(outside[0])}: the split has {n:,}, counted from 0.")
        return found.remainder(max(n, 1))

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over (x, y); the order depends on the generator's state only, drawn at the call.

        `start`: skip this many batches without reading them, to continue an interrupted epoch with
        the same generator state. `part` (r, w): read only images r, r + w, ... of every batch, one
        of w processes.
        """
        n = len(self)
        if batch_size < 1 or start < 0:
            raise UserError(f"expected batch_size of 1 or more and start of 0 or more, got {batch_size}, {start}.")
        if drop_last and batch_size > n:
            raise UserError(f"a batch of {batch_size:,} does not fit in {n:,} images: take a smaller batch_size.")
        if shuffle and generator is None:
            raise UserError("shuffle=True draws an order and needs a generator, e.g. generator=ex.seeded(0).")
        if shuffle and generator is not None:
            order = torch.randperm(n, generator=generator, device=generator.device).cpu()
        else:
            order = torch.arange(n)
        stop = n - n % batch_size if drop_last else n
        chunks = order[start * batch_size : stop].split(batch_size) if stop else ()
        return self._batches([chunk[part[0] :: part[1]] for chunk in chunks])

    def _batches(self, chunks: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in chunks:
            if len(chunk):
                yield self._read(chunk.to(self.device, non_blocking=True))

    def _chosen(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Indices of n images, cycling through the classes: each prefix is balanced."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UserError(f"expected to take 1 image or more, got {n!r:.60}.")
        y = self.labels.cpu()
        order = torch.arange(len(y))
        if generator is not None:
            order = torch.randperm(len(y), generator=generator, device=generator.device).cpu()
        _, y = torch.unique(y[order], return_inverse=True)
        by_class = torch.argsort(y, stable=True)
        counts = torch.bincount(y)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        turn = torch.empty_like(y)
        turn[by_class] = torch.arange(len(y)) - first
        return order[torch.argsort(turn * len(counts) + y)[:n]].to(self.device)

    def take(self, n: int, generator: torch.Generator | None = None) -> "Split":
        """At most n images as a split in memory, balanced; the first, or drawn by `generator`."""
        return self.select(self._chosen(n, generator))

    def select(self, idx: int | slice | Sequence[int] | Tensor | Any) -> "Split":
        """The images of `idx` as a split of their own, in memory."""
        chosen = self._indices(idx)
        extra = {name: values[chosen] for name, values in self.extra.items()}
        return Split(self.stored[chosen], self.labels[chosen], extra, self.extra_names)

    def to(self, device: torch.device | str) -> "Split":
        """The same split on another device."""
        extra = {name: values.to(device) for name, values in self.extra.items()}
        return Split(self.stored.to(device), self.labels.to(device), extra, self.extra_names)


@dataclass(eq=False)
class Data:
    """A named data set: a split to train on, one to test on, and where it came from.

    `warnings` are sentences that every result made with the set has to carry; `provenance` is plain
    JSON: source, licence, checksum (state, per file), counts, skipped (files that could not be
    read).
    """

    name: str
    classes: list[str]  # class names, by label; empty where there are none
    gray: bool  # every image has r = g = b
    size: int  # pixels, height and width
    train: Split
    test: Split
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    labelled: Split | None = None  # what probes and neighbours are fitted on: `train`, unless that has no labels

    @property
    def device(self) -> torch.device:
        return self.train.device

    def to(self, device: torch.device | str) -> "Data":
        """The same set on another device; warnings and provenance are shared."""
        train = self.train.to(device)
        labelled = self.labelled
        if labelled is not None:
            labelled = train if labelled is self.train else labelled.to(device)
        return Data(
            name=self.name,
            classes=self.classes,
            gray=self.gray,
            size=self.size,
            train=train,
            test=self.test.to(device),
            warnings=self.warnings,
            provenance=self.provenance,
            labelled=labelled,
        )

    def for_choosing(self, n: int) -> "Data":
        """For choosing settings: n fixed training images replace the test images; 0: this set."""
        if n == 0:
            return self
        source = self.labelled or self.train
        if not 0 < n < len(source):
            raise UserError(f"validation takes 1 image or more and leaves 1 of {len(source):,} to train on, got {n:,}.")
        chosen = source._chosen(n, seeded(0))
        rest = torch.ones(len(source), dtype=torch.bool, device=source.device)
        rest[chosen] = False
        kept, test = source.select(rest), source.select(chosen)
        train = kept if source is self.train else self.train
        return replace(self, train=train, test=test, labelled=kept if self.labelled is not None else None)

    def __repr__(self) -> str:
        kind = f"{len(self.classes)} classes" if self.classes else "no classes"
        counts = f"{len(self.train):,} + {len(self.test):,} images"
        note = "".join(f"\n  warning: {w}" for w in self.warnings)
        return f"<{self.name}: {counts}, {self.size}x{self.size}, {kind}, on {self.device}>{note}"
