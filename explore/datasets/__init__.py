"""Image data sets: `load(name)` and `names()`. One interface, in memory or streamed."""

import os
from pathlib import Path
from typing import Any

import torch

from .. import paths
from ..errors import UserError, nearest
from . import shipped
from .arrays import from_arrays
from .formats import Parts
from .progress import Bar
from .splits import Data, Progress, Split, check_size

__all__ = ["Data", "Split", "at_hand", "from_arrays", "load", "names"]

_FOLDER, _IMAGENET100 = "folder:", "imagenet100:"  # names that end in a path


def names() -> dict[str, str]:
    """Every data set that `load` knows, with one line about each.

    >>> "fashion" in ex.names()
    True
    """
    from .public import SETS

    own = "your own images: class sub-folders, train/ + test/ (or val/), a CSV of classes, or images alone"
    hundred = "the 100 classes of ImageNet-100 out of your own ImageNet folder: train/<wnid>/, val/<wnid>/; 224x224"
    by_path = {"imagenet100:/path": hundred, "folder:/path": own}
    return {
        **{name: spec.about for name, spec in shipped.SETS.items()},
        **{name: spec.about for name, spec in SETS.items()},
        **by_path,
    }


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    size: int | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> Data:
    """Load a data set by name, 'imagenet100:/path', or 'folder:/path' for your own images.

    `names()` lists the names. `data_dir`: a folder with your copy of a published set; by default
    the folder in the environment variable CLAE_DATA, else the set is downloaded once to
    `paths.cache()`. `size`: height and width in pixels, by default the set's own. `progress(what,
    done, total)` is called while downloading and decoding; by default a bar is shown. Raises
    UserError.

    >>> data = ex.load("fashion")
    >>> x, y = data.test[:2]
    >>> x.shape, data.classes[y[0]]
    (torch.Size([2, 3, 32, 32]), 'Ankle boot')
    """
    if not isinstance(name, str):
        raise UserError(f"a data set is given by its name, like 'fashion', got a {type(name).__name__}.")
    check_size(size)
    on = _usable(device)
    with Bar() as bar:
        parts, provenance = _parts(name, data_dir, size, download, progress or bar)
    provenance["counts"] = {"train": len(parts.train), "test": len(parts.test)}
    provenance["skipped"] = parts.skipped
    if parts.sides:
        provenance["sides"] = list(parts.sides)
    first = parts.train
    data = Data(
        name=name,
        classes=parts.classes,
        gray=parts.gray,
        size=first.files.size if first.streamed else first.stored.shape[-1],  # type: ignore[attr-defined]
        train=first,
        test=parts.test,
        warnings=parts.warnings,
        provenance=provenance,
        labelled=parts.labelled or (first if parts.classes else None),
    )
    return data if on.type == "cpu" else data.to(on)


def at_hand(name: str) -> bool:
    """True if `load(name)` needs no download: shipped, a path, in CLAE_DATA's folder or cached."""
    from .public import SETS, complete

    if (spec := SETS.get(name)) is None:
        return True
    return _own_copy(name) is not None or complete(spec, paths.cache() / (spec.cached or spec.name)) is not None


def _own_copy(name: str) -> Path | None:
    """The folder in CLAE_DATA, if it holds a published set."""
    from .public import SETS, complete

    root = os.environ.get("CLAE_DATA")
    return Path(root).expanduser() if root and complete(SETS[name], Path(root).expanduser()) else None


def _parts(
    name: str, data_dir: str | Path | None, size: int | None, download: bool, progress: Progress
) -> tuple[Parts, dict[str, Any]]:
    """The images, and their provenance."""
    if name in shipped.SETS:
        if data_dir is not None:
            raise UserError(f"'{name}' comes with the project and reads no data folder: leave data_dir away.")
        spec = shipped.SETS[name]
        return spec.read(size), _provenance(name, spec.source, spec.licence, {"state": "comes with the project"})
    if name.startswith(_FOLDER) and name != _FOLDER:
        from .folder import folder

        path = _named_path(name, _FOLDER, data_dir)
        state = {"state": "not checked: your own images"}
        return folder(path, size, progress), _provenance(name, str(path.resolve()), "your own", state)
    if name.startswith(_IMAGENET100) and name != _IMAGENET100:
        from .imagenet100 import SOURCE, imagenet100

        path = _named_path(name, _IMAGENET100, data_dir)
        provenance = _provenance(name, SOURCE, "ImageNet's terms of access", {"state": "not checked"})
        return imagenet100(path, size, progress), provenance | {"path": str(path.resolve())}
    if name in names():
        return _published(name, data_dir, size, download, progress)
    raise UserError(_unknown(name))


def _published(
    name: str, data_dir: str | Path | None, size: int | None, download: bool, progress: Progress
) -> tuple[Parts, dict[str, Any]]:
    from .public import SETS, checked, located

    spec = SETS[name]
    own = Path(data_dir).expanduser() if data_dir is not None else _own_copy(name)
    place = located(spec, own, download, progress)
    sums, differing = checked(spec, place)
    state = "other than published" if differing else "as published"
    provenance = _provenance(name, spec.source, spec.licence, {"state": state, "differing": differing, "files": sums})
    provenance["path"] = str(place.resolve())
    parts = spec.read(place, size)
    if differing:
        parts.warnings.append(
            f"{spec.title} in {place} is not the published copy ({len(differing)} of {len(sums)} checksums "
            f"differ: {', '.join(differing[:3])}{' ...' if len(differing) > 3 else ''}), so do not compare "
            "its numbers with published ones."
        )
    return parts, provenance


def _provenance(name: str, source: str, licence: str, checksum: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "source": source, "licence": licence, "checksum": checksum}


def _named_path(name: str, prefix: str, data_dir: str | Path | None) -> Path:
    """The path at the end of a name, below `data_dir` where one is given."""
    path = Path(name.removeprefix(prefix)).expanduser()
    return path if data_dir is None else Path(data_dir).expanduser() / path


def _unknown(name: str) -> str:
    """The sentence for a name that is no data set's."""
    known = [n for n in names() if not n.endswith(":/path")]
    if name.replace("-", "").removesuffix(":") == "imagenet100":
        return f"'{name}' needs a path: write {_IMAGENET100}/path for ImageNet's folder with train/ and val/ in it."
    if name and (os.sep in name or "/" in name or Path(name).is_dir()):
        return f"'{name}' looks like a path: write {_FOLDER}{name} for a folder of your own images."
    hint = nearest(name, known)
    return (
        f"there is no data set '{name}'.{hint} The sets are {', '.join(known)}, {_IMAGENET100}/path for the 100 "
        f"classes out of ImageNet's own folder, and {_FOLDER}/path for a folder of your own images."
    )


def _usable(device: str | torch.device) -> torch.device:
    """The device, after a check that this machine has it."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"the device '{device}' cannot be used here ({reason}): take device='cpu'.") from error
    return found
