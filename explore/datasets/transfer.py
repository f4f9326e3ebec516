"""The rebuttal's eight transfer sets (`TRANSFER`): official files, splits and metrics."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .. import paths
from ..errors import UserError, nearest
from ..random import seeded
from . import folder, load
from .progress import Bar
from .splits import Progress, Split, check_size
from .stream import Files, UpsampledSplit
from .transfer_sets import PARTS, TRANSFER, Items, Listing, TransferSet

__all__ = ["TRANSFER", "Transfer", "TransferSet", "available", "open_transfer"]

_PER_CLASS = 30  # images of Caltech-101 that are not for testing


@dataclass(eq=False)
class Transfer:
    """An open transfer set; its parts are `Split`s with 3 channels.

    `warnings` are sentences that every result made with it has to carry; `provenance` is plain
    JSON: source, path, split, seed, size, resample, counts, skipped (files that could not be read).
    """

    name: str
    classes: list[str]  # names by label: those that this copy has
    metric: Literal["top1", "mean_per_class"]
    size: int
    train: Split
    val: Split
    test: Split
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Transfer":
        """The same set on another device; warnings and provenance are shared."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(split):,}" for split in (self.train, self.val, self.test))
        note = "".join(f"\n  warning: {w}" for w in self.warnings)
        return f"<{self.name}: {counts} images, {self.size}x{self.size}, {len(self.classes)} classes>{note}"


@dataclass
class _Read:
    """What was read of a set: the parts in order, and how many images it lists to train (with val)
    and to test.
    """

    classes: list[str]
    splits: list[Split]
    found: tuple[int, int]
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def available(root: str | Path | None = None) -> dict[str, bool | str]:
    """Which of the eight are in `root`: True, or why not. Checks only that files exist."""
    return {name: _lacking(spec, _place(spec, root)) or True for name, spec in TRANSFER.items()}


def open_transfer(
    name: str, root: str | Path | None = None, *, size: int = 224, seed: int = 0, progress: Progress | None = None
) -> Transfer:
    """Open one of the eight (`TRANSFER`) in `root`, by default in `paths.cache()`; no download.

    Short side scaled to `size` pixels (bicubic), the centre cut out. `seed` draws what is held out
    where there is no official validation part. Read at once where all fits in `folder.IN_MEMORY`
    bytes, else when accessed. `progress` as in `load`. Errors: UserError, one sentence, with the
    way to get what is missing.
    """
    if name not in TRANSFER:
        raise UserError(f"there is no transfer set '{name}'.{nearest(name, TRANSFER)} They are {', '.join(TRANSFER)}.")
    check_size(size)
    spec = TRANSFER[name]
    at = _place(spec, root)
    if reason := _lacking(spec, at):
        raise UserError(f"{spec.title} is not in {at} ({reason}): {_remedy(spec, at)}.")
    with Bar() as bar:
        if spec.listing is None:
            read = _cifar(spec, at, size, seeded(seed), progress or bar)
        else:
            read = _files(spec, at, spec.listing, size, seeded(seed), progress or bar)
    read.warnings[:0] = _other_counts(spec, read.found)
    provenance: dict[str, Any] = {"name": name, "source": spec.title, "path": str((at / spec.folder).resolve())}
    provenance |= {"split": spec.protocol, "seed": seed, "size": size, "resample": "bicubic", "skipped": read.skipped}
    provenance["counts"] = {part: len(split) for part, split in zip(PARTS, read.splits, strict=True)}
    train, val, test = read.splits
    return Transfer(name, read.classes, spec.metric, size, train, val, test, read.warnings, provenance)


def _place(spec: TransferSet, root: str | Path | None) -> Path:
    return paths.cache() / spec.name if root is None else Path(root).expanduser()


def _lacking(spec: TransferSet, root: Path) -> str:
    """What of a set is not there, '' where nothing is missing."""
    if not (root / spec.folder).is_dir():
        return f"there is no folder {spec.folder} in it" if root.is_dir() else "that folder does not exist"
    missing = [f for f in spec.files if not (root / spec.folder / f).exists()]
    return f"{spec.folder} lacks {', '.join(missing)}" if missing else ""


def _remedy(spec: TransferSet, root: Path) -> str:
    return spec.how_to_get.replace("<root>", str(root))


def _other_counts(spec: TransferSet, found: tuple[int, int]) -> list[str]:
    """The warning about a copy that is not complete; none where it is."""
    train, val, test = spec.counts
    if found == (train + val, test):
        return []
    return [
        f"this copy of {spec.title} has {found[0]:,} + {found[1]:,} images, the published one {train + val:,} + {test:,}: "
        "do not compare its numbers with published ones."
    ]


def _cifar(spec: TransferSet, root: Path, size: int, generator: torch.Generator, progress: Progress) -> _Read:
    """CIFAR's training images in two parts, scaled now if that fits in memory, else when read."""
    data = load(spec.name, root, download=False, progress=progress)
    held = _held_out(data.train.labels, spec, generator)
    every = torch.ones(len(data.test), dtype=torch.bool)
    parts = ((data.train, ~held), (data.train, held), (data.test, every))
    splits: list[Split] = [UpsampledSplit(s.stored[mask], s.labels[mask], size) for s, mask in parts]
    if (len(held) + len(every)) * 3 * size**2 <= folder.IN_MEMORY:
        splits = [split.select(slice(None)) for split in splits]
    return _Read(data.classes, splits, (len(held), len(every)), warnings=data.warnings)


def _files(
    spec: TransferSet,
    root: Path,
    listing: Callable[[Path], Listing],
    size: int,
    generator: torch.Generator,
    progress: Progress,
) -> _Read:
    """Image files: listed, divided, decoded or streamed; missing ones count as unreadable."""
    names, parts = _listed(spec, root, listing)
    found = sum(map(len, parts.values()))
    missing = {file for items in parts.values() for file, _ in items if not file.is_file()}
    if len(missing) == found:
        raise UserError(f"none of the {found:,} images of {spec.title} is in {root}: {_remedy(spec, root)}.")
    used = {name for items in parts.values() for _, name in items}
    classes = [name for name in names if name in used]
    here = {part: [item for item in items if item[0] not in missing] for part, items in parts.items()}
    three = _divided(spec, here, classes, generator)
    to_test = len(parts.get("test", three[2]))
    read = _Read(classes, [], (found - to_test, to_test))
    if missing:
        read.skipped += [f"{file.relative_to(root).as_posix()} (no such file)" for file in sorted(missing)]
        read.warnings.append(folder.told(read.skipped, found))
    files = [Files(root, [f.relative_to(root).as_posix() for f, _ in items], size, "bicubic") for items in three]
    labelled = [(f, _labels(items, classes)) for f, items in zip(files, three, strict=True)]
    read.splits = folder.opened(labelled, read.skipped, read.warnings, progress)
    return read


def _listed(spec: TransferSet, root: Path, listing: Callable[[Path], Listing]) -> Listing:
    """The listing; UserError where its files cannot be read or a part of them is empty."""
    try:
        names, parts = listing(root)
    except Exception as error:  # torchvision and scipy fail in their own ways; the files are what is wrong
        reason = str(error).split("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"the lists of {spec.title} in {root} cannot be read ({reason}): {_remedy(spec, root)}."
        ) from error
    empty = [part for part, items in parts.items() if not items]
    if empty:
        raise UserError(f"{spec.title} in {root} lists no images for {' and '.join(empty)}: {_remedy(spec, root)}.")
    return names, parts


def _divided(
    spec: TransferSet, parts: dict[str, Items], classes: list[str], generator: torch.Generator
) -> tuple[Items, Items, Items]:
    """The images to train, to validate and to test on; what is not official is drawn."""
    if "all" in parts:
        labels = _labels(parts["all"], classes)
        drawn = _drawn(labels, (labels.bincount() - 1).clamp(0, _PER_CLASS), generator)
        parts = {"trainval": _where(parts["all"], drawn), "test": _where(parts["all"], ~drawn)}
    if "trainval" in parts:
        held = _held_out(_labels(parts["trainval"], classes), spec, generator)
        parts = {**parts, "train": _where(parts["trainval"], ~held), "val": _where(parts["trainval"], held)}
    return parts["train"], parts["val"], parts["test"]


def _labels(items: Items, classes: list[str]) -> Tensor:
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[name] for _, name in items], dtype=torch.int64)


def _where(items: Items, mask: Tensor) -> Items:
    return [item for item, inside in zip(items, mask.tolist(), strict=True) if inside]


def _held_out(labels: Tensor, spec: TransferSet, generator: torch.Generator) -> Tensor:
    """Mask of the held-out images: a share of all, over classes by largest remainder."""
    train, val, _ = spec.counts
    total = max(1, round(len(labels) * val / (train + val)))
    sizes = labels.bincount()
    exact = sizes.double() * total / len(labels)
    counts = exact.floor().long()
    order = (exact - counts).argsort(descending=True, stable=True)
    order = order[counts[order] < sizes[order] - 1]  # one of each class, at least, is left to train on
    counts[order[: total - int(counts.sum())]] += 1
    return _drawn(labels, counts, generator)


def _drawn(labels: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Mask (n,) of counts[c] images of each class c, drawn by the generator."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount()
    first = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[order] = torch.arange(len(labels)) - first < counts[labels[order]]
    return mask
