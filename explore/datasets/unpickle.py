"""Reads CIFAR's pickled batches without executing them: numbers, text, containers, arrays only.

A pickle can call any function. Here the names that arrays need map to stand-ins that only collect
bytes; every other name is refused.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError


class Refused(pickle.UnpicklingError):
    """The pickle needs something other than arrays; the message names it."""


class _Array:
    """Stand-in for an array; its state is (version, shape, dtype, fortran, bytes)."""

    value: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        *_, shape, dtype, fortran, raw = state
        self.value = _filled(raw, dtype, shape, "F" if fortran else "C")


class _Dtype:
    """Stand-in for a dtype of numbers: its code, such as 'u1', and its byte order."""

    def __init__(self, code: Any):
        if isinstance(code, bytes):
            code = code.decode("ascii")
        if not (isinstance(code, str) and re.fullmatch(r"[<>|=]?[biuf][1248]", code)):
            raise Refused(f"an array of {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


def _filled(raw: Any, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    return np.frombuffer(raw, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _dtype(code: Any, *_: Any) -> _Dtype:
    return _Dtype(code)


def _from_buffer(raw: Any, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.value = _filled(raw, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _filled(raw, dtype, (), "C").item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"text in {encoding!r}")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


_ADMITTED = {
    ("numpy", "ndarray"): "an array's type",
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _bytes,
    ("__builtin__", "bytes"): _bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise Refused(f"{module}.{name}")
        return _ADMITTED[module, name]


def _plain(value: Any) -> Any:
    """Stand-ins -> arrays, and keys of a dict as text, all the way down."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {k.decode("latin1") if isinstance(k, bytes) else k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict of a batch pickled by Python 2 or 3; UserError if it is anything else."""
    try:
        with open(path, "rb") as file:
            found = _plain(_Restricted(file, encoding="latin1").load())
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
    return found
