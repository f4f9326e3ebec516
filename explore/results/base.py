"""Shared by results: numbers as text, arrays and settings on disk (.npz and .json)."""

import json
import math
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError


def save_arrays(path: str | Path, arrays: dict[str, np.ndarray], rest: dict[str, Any]) -> Path:
    """Write `path`.npz and `path`.json; returns the path of the arrays."""
    path = _npz(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    path.with_suffix(".json").write_text(json.dumps(rest, indent=1))
    return path


def load_arrays(path: str | Path, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_arrays` wrote: tensors and settings. UserError where a file is missing."""
    path = _npz(path)
    for part in (path, path.with_suffix(".json")):
        if not part.is_file():
            raise UserError(f"There is no file {part}; {what} is a .npz and a .json of one name.")
    with np.load(path, allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return tensors, json.loads(path.with_suffix(".json").read_text())


def fixed(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """`value` with `digits` decimals and a true minus sign; halves are rounded away from zero.

    An accuracy is a share of counted images, so exact halves occur. Whether their float lies just
    below or just above the half depends on the order of a sum; the tenth decimal is cut off first,
    so that every machine prints the same.

    >>> fixed(45.55), fixed(45.55 - 1e-14), fixed(-0.25, sign=True)
    ('45.6', '45.6', '−0.3')
    """
    if not math.isfinite(value):
        return str(value)
    exact = Decimal(repr(round(float(value), 9))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{exact:{'+' if sign else ''}f}".replace("-", "−")


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
