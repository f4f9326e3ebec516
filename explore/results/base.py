"""Results on disk: tensors in a .npz without pickles, the rest in a .json of the same name."""

import json
import math
from dataclasses import fields, is_dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from ..serialization import read_json

Saved = TypeVar("Saved", bound="SavedResult")


class Check(NamedTuple):
    """One measured invariant: its name, whether it holds, and where and by how much it does not."""

    name: str
    ok: bool
    detail: str = ""


class SavedResult:
    """`save` and `load` for a dataclass, by the type of its fields.

    Tensors, also those in dictionaries and in dataclasses within, go to the .npz, prefixed by their
    field's name; tables, tuples and plain values go to the .json. `called` names the result in
    error messages.
    """

    called: ClassVar[str] = "a saved result"

    def save(self, path: str | Path) -> Path:
        """Write `path`.npz and `path`.json; returns the path of the .npz."""
        path, (arrays, rest) = _npz(path), _pack(self)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        path.with_suffix(".json").write_text(json.dumps(rest, indent=1))
        return path

    @classmethod
    def load(cls: type[Saved], path: str | Path) -> Saved:
        """Read what `save` wrote. UserError where a file is missing."""
        path = _npz(path)
        for part in (path, path.with_suffix(".json")):
            if not part.is_file():
                raise UserError(f"There is no file {part}; {cls.called} is a .npz and a .json of one name.")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        rest = read_json(path.with_suffix(".json"))
        return _unpack(cls, *cls.upgrade(arrays, rest))

    @classmethod
    def upgrade(cls, arrays: dict[str, Tensor], rest: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Arrays and values of an older file, as this version writes them."""
        return arrays, rest


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


def _pack(result: Any, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    rest: dict[str, Any] = {}
    for name, hint in _types(type(result)).items():
        value = getattr(result, name)
        if isinstance(value, Tensor):
            arrays[prefix + name] = value.numpy()
        elif hint == dict[str, Tensor]:
            arrays |= {f"{prefix}{name}_{key}": tensor.numpy() for key, tensor in value.items()}
        elif is_dataclass(value):
            inner, rest[name] = _pack(value, f"{prefix}{name}_")
            arrays |= inner
        elif isinstance(value, pd.DataFrame):
            rest[name] = value.astype(object).where(value.notna(), None).to_dict("list")
        elif value is not None:
            rest[name] = value
    return arrays, rest


def _unpack(cls: Any, arrays: dict[str, Tensor], rest: dict[str, Any], prefix: str = "") -> Any:
    values: dict[str, Any] = {}
    for name, hint in _types(cls).items():
        kinds = get_args(hint) or (hint,)
        if prefix + name in arrays:
            values[name] = arrays[prefix + name]
        elif hint == dict[str, Tensor]:
            start = f"{prefix}{name}_"
            values[name] = {key.removeprefix(start): t for key, t in arrays.items() if key.startswith(start)}
        elif name not in rest:
            values[name] = None
        elif (inner := next((kind for kind in kinds if is_dataclass(kind)), None)) is not None:
            values[name] = _unpack(inner, arrays, rest[name], f"{prefix}{name}_")
        elif pd.DataFrame in kinds:
            values[name] = pd.DataFrame(rest[name]).apply(
                lambda column: column.astype(float) if column.isna().all() else column
            )
        elif get_origin(hint) is tuple:
            values[name] = tuple(Check(*each) if Check in kinds else each for each in rest[name])
        else:
            values[name] = rest[name]
    return cls(**values)


def _types(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
