"""Your own images: `folder:/path`, with or without class sub-folders, in memory or streamed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .decode import SUFFIXES, short_side
from .formats import Parts
from .label_file import labels_beside
from .shipped import held_out
from .splits import NO_CLASS, Progress, Split
from .stream import Files, StreamedSplit

IN_MEMORY = 2_000_000_000  # bytes of uint8 pixels; a folder that needs more is streamed
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")
_LARGEST_DEFAULT = 64
_NAMED = 3  # so many of the skipped files are named in the warning


@dataclass(frozen=True)
class Found:
    """Image files below a folder, sorted, and each one's class: a sub-folder's name or ''."""

    root: Path
    names: list[str]  # relative, with /
    classes: list[str]

    def only(self, keep: list[bool]) -> "Found":
        names = [n for n, k in zip(self.names, keep, strict=True) if k]
        return Found(self.root, names, [c for c, k in zip(self.classes, keep, strict=True) if k])


def folder(path: Path, size: int | None, progress: Progress) -> Parts:
    """Read a folder of images.

    Layouts: train/ or Training/ with test/, Testing/, val/, valid/, eval/ ... (below each as here);
    class sub-folders; images without classes, or with a CSV or text file of their classes beside
    them (ImageNet's and Tiny ImageNet's validation folders as they are downloaded). Where there is
    no test part, a fifth of every class is held out, chosen by the files' names. Without `size`,
    the images' median short side, 64 at most.
    """
    try:
        train, test, warnings = _laid_out(path)
    except PermissionError as error:
        raise UserError(
            f"the folder {path} holds '{error.filename}', which this user may not read; allow it, or name another."
        ) from None
    classes = sorted({*train.classes, *test.classes} - {""})
    sides = _sides([path / f.root / name for f in (train, test) for name in f.names])
    usual = max(8, min(_LARGEST_DEFAULT, sides[len(sides) // 2] if sides else _LARGEST_DEFAULT))
    parts = parts_of(train, test, classes, size or usual, warnings, progress)
    parts.sides = (sides[0], sides[-1]) if sides else None
    return parts


def parts_of(
    train: Found, test: Found, classes: list[str], size: int, warnings: list[str], progress: Progress
) -> Parts:
    """The files of two parts as `Parts`; one channel if every image is gray."""
    number = {**{name: i for i, name in enumerate(classes)}, "": NO_CLASS}
    skipped: list[str] = []
    labels = [torch.tensor([number[c] for c in f.classes], dtype=torch.int64) for f in (train, test)]
    files = [Files(f.root, f.names, size) for f in (train, test)]
    splits = opened(list(zip(files, labels, strict=True)), skipped, warnings, progress)
    if not any(s.streamed for s in splits) and (twice := _in_both(splits[0].stored, splits[1].stored)):
        warnings.append(
            f"{twice:,} of {len(splits[1]):,} test images are among the training images too, pixel by pixel."
        )
    gray = not splits[0].streamed and all(_is_gray(s.stored) for s in splits)
    if gray:
        splits = [Split(s.stored[:, :1].contiguous(), s.labels) for s in splits]
    return Parts(splits[0], splits[1], classes, gray=gray, skipped=skipped, warnings=warnings)


def opened(
    parts: list[tuple[Files, Tensor]], skipped: list[str], warnings: list[str], progress: Progress
) -> list[Split]:
    """A split of each (files, labels): decoded now if all fit in IN_MEMORY bytes, else streamed.

    Unreadable files are left out, listed in `skipped` and mentioned in `warnings`; UserError if
    none is readable.
    """
    total = sum(len(labels) for _, labels in parts)
    if sum(len(labels) * 3 * files.size**2 for files, labels in parts) > IN_MEMORY:
        return [StreamedSplit(files, labels, skipped, warnings) for files, labels in parts]
    bad: list[str] = []
    splits = [_decoded(files, labels, bad, progress) for files, labels in parts]
    if bad and len(bad) == total:
        raise UserError(f"none of the {total:,} image files below {parts[0][0].root} can be read: {bad[0]}.")
    if bad:
        warnings.append(told(bad, total))
    skipped += bad
    return splits


def told(skipped: list[str], of: int) -> str:
    """The warning about files that could not be read."""
    more = f" and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    was = "was" if len(skipped) == 1 else "were"
    return (
        f"{len(skipped):,} of {of:,} images could not be read and {was} left out: {'; '.join(skipped[:_NAMED])}{more}."
    )


def _laid_out(path: Path) -> tuple[Found, Found, list[str]]:
    """(train, test, warnings) of a folder, whatever its layout."""
    if not path.is_dir():
        raise UserError(f"the folder {path} does not exist; expected 'folder:' and the path of a folder of images.")
    warnings: list[str] = []
    path = _entered(path)
    parts = _parts(path)
    own = next((parts[name] for name in _TRAIN_FOLDERS if name in parts), None)
    tests = [parts[name] for name in _TEST_FOLDERS if name in parts and own is not None]
    train = _found(own or path, path, warnings)
    if not train.names:
        raise UserError(
            f"the folder {own or path} holds no images (looked for "
            f"{', '.join(sorted(SUFFIXES))} in it and in its sub-folders)."
        )
    found = [(place, _found(place, path, warnings)) for place in tests]
    found = [(place, test) for place, test in found if test.names]
    if found:  # the first that has train's classes: Tiny ImageNet's test images have none
        place, test = next((f for f in found if set(f[1].classes) & set(train.classes)), found[0])
        return train, _same_classes(train, test, place, warnings), warnings
    if tests:
        warnings.append(f"{tests[0]} holds no images: a fifth of {own} is held out instead.")
    if len(train.names) < 2:
        raise UserError(f"the folder {path} holds one image, expected two at least: one to train on, one to test.")
    out = _held_out(train)
    if not any(out):
        raise UserError(
            f"no image of {path} is left to test on: each of its {len(set(train.classes))} classes has one image; give two or more "
            "of a class, or a folder test/ beside train/."
        )
    return train.only([not o for o in out]), train.only(out), warnings


def _parts(path: Path) -> dict[str, Path]:
    """Sub-folders by name in small letters."""
    return {p.name.lower(): p for p in sorted(path.iterdir()) if p.is_dir()}


def _entered(path: Path) -> Path:
    """The folder itself, or the one with train/ and test/ that wraps it alone."""
    at = path
    for _ in range(3):
        inner = [p for name, p in _parts(at).items() if not name.startswith((".", "__macosx"))]
        if len(inner) != 1:
            break
        at = inner[0]
        names = set(_parts(at))
        if names & set(_TRAIN_FOLDERS) and names & set(_TEST_FOLDERS):
            return at
    return path


def _found(below: Path, root: Path, warnings: list[str]) -> Found:
    """The image files below a folder; a single wrapping sub-folder is entered."""
    while True:
        entries = sorted(p for p in below.iterdir() if not p.name.startswith((".", "__MACOSX")))
        folders = [p for p in entries if p.is_dir()]
        direct = [p for p in entries if _is_image(p) and p.is_file()]
        if direct or len(folders) != 1 or not _wraps(folders[0]):
            break
        below = folders[0]
    odd: list[str] = []
    files = [(file, shown(f.name)) for f in folders for file in walk(f, odd)]
    odd += [f"{shown(p.name)} (no file)" for p in entries if _is_image(p) and not p.is_file() and not p.is_dir()]
    if odd:
        more = f" and {len(odd) - _NAMED:,} more" if len(odd) > _NAMED else ""
        warnings.append(f"{len(odd):,} of what is in {below} was left out: {'; '.join(odd[:_NAMED])}{more}.")
    if files and direct:
        warnings.append(f"{len(direct):,} images beside the class folders of {below} have no class: left out.")
    elif direct:
        files = [(file, "") for file in direct]
    found = Found(root, [f.relative_to(root).as_posix() for f, _ in files], [c for _, c in files])
    return _with_table(found, [below, *folders[:1]], warnings) if len(set(found.classes)) == 1 else found


def _with_table(found: Found, folders: list[Path], warnings: list[str]) -> Found:
    """Images of one folder with the classes that a table beside them gives, if there is one."""
    table = labels_beside(found.names, [*folders, *([found.root] if found.root not in folders else [])])
    if table is None:
        return found
    known, path = table
    if missing := [name for name in found.names if name not in known]:
        warnings.append(f"{len(missing):,} images are not in {path.name} and were left out: {shown(missing[0])} ...")
    names = [name for name in found.names if name in known]
    return Found(found.root, names, [known[name] for name in names])


def _wraps(folder: Path) -> bool:
    """Whether a folder holds sub-folders, not images: no image, or two sub-folders besides."""
    folders = sum(p.is_dir() for p in folder.iterdir())
    return folders > 1 or (folders == 1 and not any(_is_image(p) for p in folder.iterdir()))


def walk(below: Path, left_out: list[str] | None = None) -> Iterator[Path]:
    """Every image file below a folder, sorted folder by folder; links are followed, each folder is
    read once.

    What is no file (a pipe, a device, a link to nothing) and links to a folder that `below` lies in
    are named in `left_out`.
    """
    odd = [] if left_out is None else left_out
    above = {below.resolve(), *below.resolve().parents}
    seen, waiting = {below.resolve()}, [below]
    while waiting:
        at = waiting.pop()
        folders = []
        with os.scandir(at) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                path = at / entry.name
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.is_dir():
                    real = path.resolve()
                    if real in above and entry.is_symlink():
                        odd.append(f"{shown(path.name)} (a link to a folder above it)")
                    elif real not in seen:
                        seen.add(real)
                        folders.append(path)
                elif _is_image(path):
                    if entry.is_file():
                        yield path
                    else:
                        odd.append(f"{shown(path.name)} (no file)")
        waiting += reversed(folders)


def shown(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 become the replacement character."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _same_classes(train: Found, test: Found, where: Path, warnings: list[str]) -> Found:
    """`test` if its classes are train's; a warning about unknown ones; UserError if all are."""
    new = sorted(set(test.classes) - set(train.classes))
    if new and set(new) == set(test.classes):
        names = ", ".join(repr(n) for n in new[:3]) if new != [""] else "none"
        raise UserError(
            f"{where} has no class folder in common with train/ (its classes: {names}): sort its images into "
            "folders of the same names, or take it away and a fifth of train/ is held out."
        )
    if new:
        warnings.append(f"{where} has classes that train/ lacks: {', '.join(new[:5])}.")
    return test


def _held_out(found: Found) -> list[bool]:
    """For each file, whether it is held out: a fifth of its class, at least one of two."""
    out = [False] * len(found.names)
    for name in sorted(set(found.classes)):
        members = [i for i, c in enumerate(found.classes) if c == name]
        chosen = held_out([found.names[i] for i in members])
        for i, is_out in zip(members, chosen, strict=True):
            out[i] = is_out
    return out


def _sides(paths: list[Path]) -> list[int]:
    """The short sides of 64 files of the set or a few more, from the least."""
    return sorted(side for path in paths[:: max(1, len(paths) // 64)] if (side := short_side(path)))


def _decoded(files: Files, labels: Tensor, skipped: list[str], progress: Progress) -> Split:
    """Decode all files once, in threads (Pillow leaves Python's lock while it decodes)."""
    n, size = len(labels), files.size
    stored = torch.empty(n, 3, size, size, dtype=torch.uint8)
    whole = torch.zeros(n, dtype=torch.bool)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded = pool.map(files.image, range(n))
        for i, pixels in enumerate(decoded):
            if isinstance(pixels, np.ndarray):
                stored[i], whole[i] = torch.from_numpy(pixels), True
            else:
                skipped.append(f"{files.names[i]} ({pixels})")
            if i % 100 == 99 or i == n - 1:
                progress("reading images", i + 1, n)
    return Split(stored, labels) if bool(whole.all()) else Split(stored[whole], labels[whole])


def _in_both(train: Tensor, test: Tensor) -> int:
    """How many of the test images are among the training images."""
    known = {hash(x.numpy().tobytes()) for x in train}
    return sum(hash(x.numpy().tobytes()) in known for x in test)


def _is_gray(stored: Tensor) -> bool:
    return all(bool((c[:, :1] == c).all()) for c in stored.split(1024))
