"""Image sets too large for memory: decoded by batch in worker processes, floats on the device."""

import os
import sys
import warnings as python_warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .decode import Resample, read_image
from .splits import Split, pixels

_AHEAD = 2  # batches that are being decoded while one is in use, for each worker
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Files:
    """Image files and the size they are read at."""

    root: Path
    names: list[str]
    size: int
    resample: Resample = "bilinear"

    def path(self, i: int) -> str:
        return os.path.join(self.root, self.names[i])

    def image(self, i: int) -> np.ndarray | str:
        """uint8 (3,s,s) of one file, or the reason why it cannot be read."""
        return read_image(self.path(i), self.size, self.resample)

    def read(self, indices: list[int]) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """uint8 (n,3,s,s) of the readable files, and (index, reason) of the others."""
        out = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        failed: list[tuple[int, str]] = []
        for k, i in enumerate(indices):
            image = self.image(i)
            if isinstance(image, np.ndarray):
                out[k - len(failed)] = image
            else:
                failed.append((k, image))
        return out[: len(indices) - len(failed)], failed


class StreamedSplit(Split):
    """A `Split` whose images stay on disk; it has no `stored`.

    An image that cannot be read is left out of its batch, named once in `skipped` and counted in
    the data's warning.
    """

    streamed = True

    def __init__(self, files: Files, labels: Tensor, skipped: list[str], warnings: list[str]):
        self.files = files
        self.labels = labels
        self.extra: dict[str, Tensor] = {}
        self.extra_names: dict[str, list[str]] = {}
        self._skipped, self._warnings = skipped, warnings

    @property
    def stored(self) -> Tensor:  # type: ignore[override]
        raise UserError("these images are streamed from disk: use batches(), split[idx] or split.take(n).")

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        stored, labels = self._load(indices)
        return pixels(stored), labels

    def _load(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images and labels of those that can be read, decoded in threads of this process."""
        chunks = [c.tolist() for c in indices.cpu().split(8)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            parts = list(pool.map(self.files.read, chunks))
        read = [self._joined(chunk, *part) for chunk, part in zip(chunks, parts, strict=True)]
        if not read:
            empty = torch.empty(0, 3, self.files.size, self.files.size, dtype=torch.uint8, device=self.device)
            return empty, self.labels[:0]
        return torch.cat([x for x, _ in read]), torch.cat([y for _, y in read])

    def _joined(self, chunk: list[int], images: np.ndarray, failed: list[Any]) -> tuple[Tensor, Tensor]:
        """Images on the device with their labels; what failed is written down."""
        for k, reason in failed:
            self._note(chunk[k], reason)
        bad = {k for k, _ in failed}
        good = torch.tensor([i for k, i in enumerate(chunk) if k not in bad], dtype=torch.int64)
        stored = torch.from_numpy(images).to(self.device, non_blocking=True)
        return stored, self.labels[good.to(self.device)]

    def _note(self, i: int, reason: str) -> None:
        entry = f"{self.files.names[i]} ({reason})"
        if entry in self._skipped:
            return
        self._skipped.append(entry)
        head = "images could not be read and are left out of their batches"
        self._warnings[:] = [w for w in self._warnings if head not in w]
        self._warnings.append(f"{len(self._skipped):,} {head}, the last: {entry}.")

    def _batches(self, chunks: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        lists = [chunk.tolist() for chunk in chunks if len(chunk)]
        read = _threaded if in_kernel() or len(lists) < 3 else _worked
        for chunk, (images, failed) in zip(lists, read(self.files, lists), strict=True):
            stored, labels = self._joined(chunk, images, failed)
            if len(stored):
                yield pixels(stored), labels

    def select(self, idx: Any) -> Split:
        """The images of `idx` as a split of their own, in memory."""
        return Split(*self._load(self._indices(idx)))

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """The same split, handing out its images on another device."""
        return StreamedSplit(self.files, self.labels.to(device), self._skipped, self._warnings)


class UpsampledSplit(Split):
    """Images scaled (bicubic) to `size` when read: CIFAR at 224x224 would take 9 GB.

    `stored` has them as they were published; what is read, and what `select` and `take` give, has
    the full size.
    """

    def __init__(self, stored: Tensor, labels: Tensor, size: int):
        super().__init__(stored, labels)
        self.size = size

    def _scaled(self, indices: Tensor) -> Tensor:
        """uint8 (n,c,size,size): rows, then columns, rounded after each, as Pillow does."""
        scaled = self.stored.index_select(0, indices)
        if scaled.shape[-1] == self.size:
            return scaled
        scaled = scaled.float()
        for to in ((scaled.shape[-2], self.size), (self.size, self.size)):
            scaled = torch.nn.functional.interpolate(scaled, to, mode="bicubic", antialias=True)
            scaled = scaled.round_().clamp_(0, 255)
        return scaled.to(torch.uint8)

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return pixels(self._scaled(indices)), self.labels[indices]

    def select(self, idx: Any) -> Split:
        """The images of `idx` as a split of their own, at full size in memory."""
        chosen = self._indices(idx)
        out = self.stored.new_empty((len(chosen), self.stored.shape[1], self.size, self.size))
        for begin in range(0, len(chosen), 256):
            out[begin : begin + 256] = self._scaled(chosen[begin : begin + 256])
        return Split(out, self.labels[chosen])

    def to(self, device: torch.device | str) -> "UpsampledSplit":
        """The same split on another device, where it is then scaled."""
        return UpsampledSplit(self.stored.to(device), self.labels.to(device), self.size)


def in_kernel() -> bool:
    """Whether this is a notebook's kernel, where worker processes misbehave."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def _worked(files: Files, lists: list[list[int]]) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Batches in order from worker processes; as arrays, which need no shared memory."""
    workers = max(1, min(os.cpu_count() or 1, _MOST_WORKERS, len(lists)))
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        lists,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        collate_fn=partial(_read, files),
        generator=torch.Generator(),  # its own: the global random state stays untouched
    )
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on fork beside threads
        batches = iter(loader)
    yield from batches


def _read(files: Files, chunk: list[int]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    return files.read(chunk)


def _threaded(files: Files, lists: list[list[int]]) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Batches in order, decoded ahead in threads: used in a notebook's kernel."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        waiting = [pool.submit(files.read, chunk) for chunk in lists[: _AHEAD * 2]]
        for k in range(len(lists)):
            batch = waiting.pop(0).result()
            if k + _AHEAD * 2 < len(lists):
                waiting.append(pool.submit(files.read, lists[k + _AHEAD * 2]))
            yield batch
