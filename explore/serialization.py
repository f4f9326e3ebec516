"""Tensors on disk in the safetensors format, written safely: no pickle, temp file, fsync, rename.

The format is eight bytes of header length, a JSON header, raw little-endian bytes (github.com/huggingface/safetensors).
It is read and written here so that training needs torch alone; the tests hold both directions against the library.
"""

import contextlib
import errno
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from .errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file to write that takes `path`'s place only when complete and on disk; a full disk leaves the old one."""
    path = Path(path)
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temp, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except OSError as error:
        temp.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk that holds {path.parent} is full, so {path.name} was not written; what was there before is "
                "unharmed. Free some space and go on with --resume."
            ) from error
        raise
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file by `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors and string metadata as one safetensors file."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(_bytes(tensor))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata. A foreign or cut file is a UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; train the run again or choose another.")
    data = path.read_bytes()
    try:
        length = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        body = memoryview(bytearray(data[8 + length :]))
        return {name: _tensor(body, entry) for name, entry in header.items()}, metadata
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({type(error).__name__}); it was cut off or is another "
            "format. Copy it again, or train the run again."
        ) from error


def load_into(module: torch.nn.Module, path: str | Path, read: Callable = load_tensors) -> dict[str, str]:
    """Load a file's tensors into a module, every name and shape fitting; returns the metadata."""
    tensors, metadata = read(path)
    own = module.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [k for k in own if own[k].shape != tensors[k].shape]
    if wrong:
        raise UserError(
            f"{path} holds the weights of another network than its config describes ({len(wrong)} tensors differ, "
            f"first '{wrong[0]}'); open it with the config it was trained with."
        )
    module.load_state_dict(tensors)
    return metadata


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")


def _tensor(body: memoryview, entry: dict) -> Tensor:
    dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if end - start != count * dtype.itemsize or end > len(body):
        raise ValueError("offsets do not fit")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(body, dtype=torch.uint8, count=end - start, offset=start).view(dtype).reshape(shape).clone()
