"""Arrays and settings of a result on disk: a .npz without pickles and a .json of one name."""

import json
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


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
