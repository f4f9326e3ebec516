"""ImageNet-100: CMC's 100 classes from your own copy of ImageNet (ILSVRC 2012)."""

from dataclasses import replace
from pathlib import Path

from .. import paths
from ..errors import UserError
from .decode import SUFFIXES
from .folder import Found, parts_of, walk
from .formats import Parts
from .splits import Progress

SIZE = 224
SOURCE = "ImageNet (ILSVRC 2012), the 100 classes of github.com/HobbitLong/CMC's imagenet100.txt"
_VALPREP = "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh"


def imagenet100(path: Path, size: int | None, progress: Progress) -> Parts:
    """Images of the list's classes in path/train/<wnid>/ and path/val/<wnid>/; val/ is for test.

    Labels follow the list's order. If train/ lacks some classes, the others are used, with a
    warning.
    """
    listed = dict(zip(wnids(), class_names(), strict=True))
    train, val = path / "train", path / "val"
    if not train.is_dir():
        what = "holds no train/" if path.is_dir() else "does not exist"
        raise UserError(
            f"the folder {path} {what}; expected 'imagenet100:' and the path of ImageNet's folder, with "
            "train/<wnid>/ and val/<wnid>/ in it."
        )
    here = [wnid for wnid in listed if (train / wnid).is_dir()]
    if not here:
        raise UserError(
            f"{train} has none of the 100 classes of ImageNet-100: expected sub-folders named by their wnids, "
            f"{next(iter(listed))} and 99 more ('folder:{path}' reads a folder with other classes)."
        )
    seen = [wnid for wnid in here if (val / wnid).is_dir()]
    if not seen:
        raise UserError(_no_val(val))
    warnings = [_lacking("train/", here, list(listed))] if len(here) < len(listed) else []
    warnings += [_lacking("val/", seen, here)] if len(seen) < len(here) else []
    found = [_files(path, "train", here), _files(path, "val", seen)]
    for part, images in zip((train, val), found, strict=True):
        if not images.names:
            raise UserError(f"the class folders of {part} hold no images (looked for {', '.join(sorted(SUFFIXES))}).")
    parts = parts_of(found[0], found[1], here, size or SIZE, warnings, progress)
    return replace(parts, classes=[listed[wnid] for wnid in here])


def wnids() -> list[str]:
    """The 100 WordNet ids in the list's order: label i is line i."""
    return _lines("wnids.txt")


def class_names() -> list[str]:
    """Names of the classes, in the same order."""
    return _lines("names.txt")


def _lines(name: str) -> list[str]:
    path = paths.shipped() / "imagenet100" / name
    if not path.is_file():
        raise UserError(f"{path}, which comes with the project, is missing: install the project again.")
    return path.read_text(encoding="utf-8").splitlines()


def _files(path: Path, part: str, classes: list[str]) -> Found:
    files = [(file, wnid) for wnid in classes for file in walk(path / part / wnid)]
    return Found(path, [f.relative_to(path).as_posix() for f, _ in files], [wnid for _, wnid in files])


def _lacking(part: str, have: list[str], of: list[str]) -> str:
    lack = [wnid for wnid in of if wnid not in have]
    more = f" and {len(lack) - 3} more" if len(lack) > 3 else ""
    return (
        f"{part} lacks {len(lack)} of the {len(of)} classes ({', '.join(lack[:3])}{more}): "
        "numbers on it are not numbers on ImageNet-100."
    )


def _no_val(val: Path) -> str:
    """The sentence for a val/ that cannot be used."""
    if val.is_dir() and any(p.suffix.lower() in SUFFIXES for p in val.iterdir()):
        return (
            f"the images of {val} lie in no class folders, as ImageNet's archive has them: run {_VALPREP} inside "
            f"it, which sorts them into {val.name}/<wnid>/."
        )
    return f"{val} has none of the classes that are in train/: expected ImageNet's validation images in val/<wnid>/."
