"""The shipped data sets: `fashion`, the default, and `emoji`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import paths
from ..errors import UserError
from .formats import FASHION_CLASSES, Parts, padded
from .splits import Split, checked_labels, resized


@dataclass(frozen=True)
class Shipped:
    """A shipped data set. `about`: one line for `names()`; `read(size)` returns its images."""

    about: str
    source: str
    licence: str
    read: Callable[[int | None], Parts]


_GROUPS = [
    *("Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places"),
    *("Activities", "Objects", "Symbols", "Flags"),
]
_SHEETS = {"noto": "noto32.webp", "fluent3d": "fluent3d32.webp"}
_HELD_OUT = 0.2  # of the concepts of each group
_LEFT_OUT = {"1F595"}  # the middle finger, which would stand on the first page a class sees


def held_out(names: list[str], share: float = _HELD_OUT, seed: int = 0) -> list[bool]:
    """Which of the names are held out: a share of them (at least one of two), chosen by their hash.

    The choice depends on the names and the seed alone: not on their order, the machine or torch's
    version.
    """
    count = max(1, round(len(names) * share)) if len(names) > 1 else 0
    ranked = sorted(
        names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest(), name)
    )
    chosen = set(ranked[:count])
    return [name in chosen for name in names]


def fashion(size: int | None) -> Parts:
    path = _shipped("fashion/fashion.npz")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    splits = []
    for part in ("train", "test"):
        x = arrays[f"{part}_images"]
        y = checked_labels(arrays[f"{part}_labels"], len(x), len(FASHION_CLASSES), str(path))
        splits.append(Split(padded(x[:, None], size), y))
    return Parts(splits[0], splits[1], list(FASHION_CLASSES), gray=True)


def emoji(size: int | None) -> Parts:
    sheet = json.loads(_shipped("emoji/labels.json").read_text(encoding="utf-8"))
    rows = [(vendor, *row) for vendor in _SHEETS for row in sheet["sets"][vendor]]
    x = torch.cat([_tiles(_shipped(f"emoji/{f}"), len(sheet["sets"][v]), sheet) for v, f in _SHEETS.items()])
    name_of = {code: name for _, code, name, *_ in rows}
    group_of = {code: group for _, code, _, group, _ in rows}
    codes = sorted(name_of)
    test_codes: set[str] = set()
    for group in _GROUPS:
        members = [code for code in codes if group_of[code] == group]
        test_codes.update(code for code, out in zip(members, held_out(members), strict=True) if out)

    def split(test: bool) -> Split:
        kept = [i for i, row in enumerate(rows) if (row[1] in test_codes) == test and row[1] not in _LEFT_OUT]
        index = {code: i for i, code in enumerate(codes)}
        extra = {
            "vendor": torch.tensor([list(_SHEETS).index(rows[i][0]) for i in kept]),
            "concept": torch.tensor([index[rows[i][1]] for i in kept]),
        }
        words = {"vendor": list(_SHEETS), "concept": [name_of[code].capitalize() for code in codes]}
        labels = torch.tensor([_GROUPS.index(rows[i][3]) for i in kept])
        return Split(resized(x[kept], size or x.shape[-1]), labels, extra, words)

    return Parts(split(False), split(True), list(_GROUPS))


def _tiles(path: Path, count: int, sheet: dict[str, Any]) -> Tensor:
    """A sheet of square tiles, row by row -> uint8 (count,3,tile,tile)."""
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    tile = sheet["tile"]
    rows, columns = pixels.shape[0] // tile, sheet["columns"]
    cut = pixels.reshape(rows, tile, columns, tile, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, tile, tile)
    return torch.from_numpy(np.ascontiguousarray(cut[:count]))


SETS = {
    "fashion": Shipped(
        about="10,000 + 2,000 gray product photographs, 28x28 shown at 32x32, 10 classes; shipped",
        source="a balanced subset of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017); data/make_fashion.py",
        licence="MIT",
        read=fashion,
    ),
    "emoji": Shipped(
        about="Noto and Fluent emoji, 32x32 in colour, split by concept, 9 groups; shipped",
        source="Noto Emoji (Google) and Fluent Emoji (Microsoft); data/README.md",
        licence="Noto: Apache-2.0, Fluent: MIT",
        read=emoji,
    ),
}


def _shipped(name: str) -> Path:
    path = paths.shipped() / name
    if not path.is_file():
        raise UserError(f"{path}, which comes with the project, is missing: install the project again.")
    return path
