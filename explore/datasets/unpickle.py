"""Reads CIFAR's pickled batches: numbers, text, containers and arrays of numbers.

A pickle that names anything else is refused.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError


class Refused(pickle.UnpicklingError):
    """A pickle named something other than arrays of numbers; the message says what."""


class _Dtype:
    """The dtype of an array of numbers; numpy's own would accept flags that can corrupt memory."""

    def __init__(self, code: Any, *_: Any):
        if not (isinstance(code, str) and re.fullmatch(r"[<>|=]?[biuf][1248]", code)):
            raise Refused(f"an array of {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    def __setstate__(self, state: tuple) -> None:  # (version,) shape, dtype, whether in Fortran's order, bytes
        *_, shape, dtype, fortran, raw = state
        super().__setstate__((1, shape, dtype.value, bool(fortran), raw))  # type: ignore[arg-type]


def _frombuffer(raw: Any, dtype: _Dtype, shape: Any = (), order: str = "C") -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise Refused(f"text in {encoding!r}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,  # an argument that is not used
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): lambda: b"",
    ("__builtin__", "bytes"): lambda: b"",
}
for _core in ("numpy.core", "numpy._core"):
    ALLOWED[f"{_core}.multiarray", "_reconstruct"] = lambda *_: _Array(0)
    ALLOWED[f"{_core}.multiarray", "scalar"] = lambda dtype, raw: _frombuffer(raw, dtype)[()]
    ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise Refused(f"{module}.{name}")
        return ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict of a batch pickled by Python 2 or 3; UserError if it is anything else."""
    try:
        with open(path, "rb") as file:
            found = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Refused as error:
        raise UserError(
            f"{path} was refused: a batch of images holds arrays and plain containers only, and this file "
            f"contains {error}; download it again from its publisher."
        ) from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        kind = type(error).__name__
        raise UserError(f"{path} is no readable pickle ({kind}: {error}); get the file again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, expected a dict of images and labels.")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}
