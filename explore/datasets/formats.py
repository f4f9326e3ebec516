"""Readers of the published formats: CIFAR's pickles, Fashion-MNIST's idx, STL-10's raw bytes."""

import gzip
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .splits import NO_CLASS, Split, checked_labels, resized
from .unpickle import read_pickle

FASHION_CLASSES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]
_STL10_CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@dataclass
class Parts:
    """What a reader returns, on the CPU."""

    train: Split
    test: Split
    classes: list[str]
    gray: bool = False
    labelled: Split | None = None  # where that is not `train`
    skipped: list[str] = field(default_factory=list)  # 'file: reason' of what could not be read
    warnings: list[str] = field(default_factory=list)
    sides: tuple[int, int] | None = None  # the least and the largest short side of the files, in pixels


def present(folder: Path, name: str) -> Path:
    """The file, or the gzipped file of that name where only that exists."""
    path = folder / name
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() and not path.is_file() else path


def padded(stored: Tensor, size: int | None) -> Tensor:
    """28x28 -> 32x32 by two black pixels all round; other sizes are scaled from 32."""
    if size == stored.shape[-1]:
        return stored
    stored = torch.nn.functional.pad(stored, (2, 2, 2, 2))
    return resized(stored, size or stored.shape[-1])


def cifar10(folder: Path, size: int | None) -> Parts:
    classes = _words(read_pickle(folder / "batches.meta"), "label_names", folder / "batches.meta")
    batches = [_batch(folder / f"data_batch_{i}", {"labels": len(classes)}) for i in range(1, 6)]
    x = torch.cat([b[0] for b in batches])
    train = Split(_fit(x, size), torch.cat([b[1]["labels"] for b in batches]))
    x, labels = _batch(folder / "test_batch", {"labels": len(classes)})
    return Parts(train, Split(_fit(x, size), labels["labels"]), classes)


def cifar100(folder: Path, size: int | None) -> Parts:
    meta = read_pickle(folder / "meta")
    classes = _words(meta, "fine_label_names", folder / "meta")
    above = _words(meta, "coarse_label_names", folder / "meta")
    splits = []
    for name in ("train", "test"):
        x, y = _batch(folder / name, {"fine_labels": len(classes), "coarse_labels": len(above)})
        extra = {"superclass": y["coarse_labels"]}
        splits.append(Split(_fit(x, size), y["fine_labels"], extra, {"superclass": above}))
    return Parts(splits[0], splits[1], classes)


def stl10(folder: Path, size: int | None) -> Parts:
    names = folder / "class_names.txt"
    classes = names.read_text(encoding="utf-8").split() if names.is_file() else _STL10_CLASSES
    splits = []
    for part in ("train", "test"):
        x = _stl10_images(folder / f"{part}_X.bin", size)
        y = torch.from_numpy(np.fromfile(folder / f"{part}_y.bin", np.uint8).astype(np.int64)) - 1
        splits.append(Split(x, checked_labels(y, len(x), len(classes), str(folder / f"{part}_y.bin"))))
    return Parts(splits[0], splits[1], classes)


def stl10_unlabeled(folder: Path, size: int | None) -> Parts:
    parts = stl10(folder, size)
    x = _stl10_images(folder / "unlabeled_X.bin", size)
    train = Split(x, torch.full((len(x),), NO_CLASS))
    return Parts(train, parts.test, parts.classes, labelled=parts.train)


def fashion_mnist(folder: Path, size: int | None) -> Parts:
    splits = []
    for part in ("train", "t10k"):
        x = read_idx(present(folder, f"{part}-images-idx3-ubyte"), 3)
        path = present(folder, f"{part}-labels-idx1-ubyte")
        y = checked_labels(read_idx(path, 1), len(x), len(FASHION_CLASSES), str(path))
        splits.append(Split(padded(x[:, None], size), y))
    return Parts(splits[0], splits[1], list(FASHION_CLASSES), gray=True)


def read_idx(path: Path, axes: int) -> Tensor:
    """An idx file of unsigned bytes, plain or gzipped -> uint8 tensor with that many axes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, found, *shape = struct.unpack_from(f">HBB{axes}I", raw)
        array = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is no readable idx file ({error}); get it again from its publisher.") from error
    if (zero, kind, found) != (0, 8, axes):
        raise UserError(f"{path} is no idx file of bytes with {axes} axes; get it again from its publisher.")
    return torch.from_numpy(array.copy())


def _fit(x: Tensor, size: int | None) -> Tensor:
    return resized(x, size or x.shape[-1])


def _words(meta: dict, key: str, path: Path) -> list[str]:
    if not meta.get(key):
        raise UserError(f"{path} has no '{key}'; get it again from its publisher.")
    return [w.decode() if isinstance(w, bytes) else str(w) for w in meta[key]]


def _batch(path: Path, expected: dict[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
    """A pickled batch -> images uint8 (n,3,32,32) and labels, {key: number of classes}."""
    found = read_pickle(path)
    missing = [key for key in ("data", *expected) if key not in found]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(repr(m) for m in missing)}: not a batch of CIFAR.")
    data = np.asarray(found["data"])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(
            f"{path} holds {data.dtype} images of shape {data.shape}, expected uint8 (n, 3072): the copy is damaged."
        )
    x = torch.from_numpy(data.reshape(-1, 3, 32, 32).copy())
    try:
        labels = {key: torch.as_tensor(np.asarray(found[key], np.int64)) for key in expected}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has labels that are no whole numbers ({error}): the copy is damaged.") from error
    return x, {key: checked_labels(y, len(x), expected[key], str(path)) for key, y in labels.items()}


def _stl10_images(path: Path, size: int | None) -> Tensor:
    """STL-10's bytes (each channel column by column) -> uint8 (n,3,s,s), a thousand at a time."""
    each = 3 * 96 * 96
    n, rest = divmod(path.stat().st_size, each)
    if rest or not n:
        raise UserError(f"{path} is no whole number of 96x96 images: the copy is damaged, get it again.")
    raw = np.memmap(path, np.uint8, "r", shape=(n, 3, 96, 96))
    out = torch.empty(n, 3, size or 96, size or 96, dtype=torch.uint8)
    for begin in range(0, n, 1024):
        part = np.ascontiguousarray(raw[begin : begin + 1024].transpose(0, 1, 3, 2))
        out[begin : begin + 1024] = _fit(torch.from_numpy(part), size)
    return out
