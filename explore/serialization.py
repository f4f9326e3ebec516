"""Tensors on disk as safetensors files (no pickle), written safely: temp file, fsync, rename."""

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import UserError

LARGEST = 50_000_000  # bytes of a JSON file that is read


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file to write that takes `path`'s place only when complete and on disk; a full disk
    leaves the old one.
    """
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


def parse_json(text: str | bytes, where: str | Path) -> dict[str, Any]:
    """A JSON object; UserError, naming `where`, for text that is none, is cut off, or is nested too
    deeply.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise UserError(f"{where} is damaged: it is nested too deeply; restore it from a copy.") from None
    except ValueError as error:  # no UTF-8 and numbers of thousands of digits among them
        raise UserError(f"{where} is damaged: expected JSON, {error}; restore it from a copy.") from None
    if not isinstance(found, dict):
        raise UserError(
            f"{where} is damaged: expected a JSON object, got a {type(found).__name__}; restore it from a copy."
        )
    return found


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object of a file of at most `LARGEST` bytes; FileNotFoundError where there is none,
    else UserError.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(f"{path} has {size:,} bytes, expected at most {LARGEST:,}; it is no file of this project.")
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its permissions.") from None
    return parse_json(text, path)


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors and string metadata as one safetensors file."""
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    with replacing(path) as file:
        file.write(save(own, metadata))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata. A foreign or cut file is a
    UserError.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; train the run again or choose another.")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({error}); it was cut off or is another "
            "format. Copy it again, or train the run again."
        ) from error


def prune(folder: Path, kept: int) -> None:
    """Keep the `kept` bytes of a folder's tensor files that were written or touched last."""
    files = [(path.stat(), path) for path in folder.glob("*.safetensors")]
    for stat, path in sorted(files, key=lambda each: each[0].st_mtime, reverse=True):
        kept -= stat.st_size
        if kept < 0:
            path.unlink(missing_ok=True)


def keep(path: Path, save: Callable[[Path], object], kept: int) -> None:
    """Save what spares time alone, and prune its folder; where it cannot be written, a warning says
    so and all goes on.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
        with contextlib.suppress(OSError):  # another user's files
            prune(path.parent, kept)
    except (OSError, UserError) as error:
        reason = (error.__cause__ if isinstance(error, UserError) else error) or error
        warnings.warn(
            f"{path.parent} cannot be written ({getattr(reason, 'strerror', None) or reason}), so this is computed again "
            "next time; name another folder in the environment variable CLAE_CACHE.",
            stacklevel=3,
        )


def folder_for(path: Path, variable: str) -> Path:
    """Make a folder; where it cannot be written, a UserError names the environment variable for
    another.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(
            f"The folder {path} cannot be written ({error.strerror or error}); name another in the environment "
            f"variable {variable}."
        ) from error
    return path


def load_into(module: torch.nn.Module, path: str | Path, read: Callable = load_tensors) -> dict[str, str]:
    """Load a file's tensors into a module, every name and shape fitting; returns the metadata."""
    tensors, metadata = read(path)
    check_fits(module, tensors, path)
    module.load_state_dict(tensors)
    return metadata


def check_fits(module: torch.nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Raise UserError unless the tensors of a file have a module's names and shapes."""
    own = module.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [k for k in own if own[k].shape != tensors[k].shape]
    if wrong:
        raise UserError(
            f"{path} holds the weights of another network than its config describes ({len(wrong)} tensors differ, "
            f"first '{wrong[0]}'); open it with the config it was trained with."
        )
