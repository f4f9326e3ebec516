"""Files that a page sends, as a folder that `load("folder:...")` reads: pictures, a table of their
classes, archives of both.
"""

import hashlib
import io
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from .. import paths
from ..errors import UserError
from ..serialization import folder_for
from . import label_file
from .decode import SUFFIXES

LARGEST = 2_000_000_000  # bytes of all files, unpacked
_BROKEN = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError)


def uploaded(files: Iterable[tuple[str, bytes]]) -> Path:
    """The folder of files (name, content), in the cache, named by what they hold; a .zip is
    unpacked. UserError where they hold no picture.
    """
    files = list(files)
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(name.encode("utf-8", "replace") + b"\0" + hashlib.sha256(content).digest())
    root = folder_for(paths.cache() / "uploads", "CLAE_CACHE")
    place = root / digest.hexdigest()[:16]
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory(dir=root) as made:
        inner, pictures = Path(made) / "files", 0
        for member, content in _members(files):
            path = inner / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            pictures += path.suffix.lower() in SUFFIXES
        if not pictures:
            names = ", ".join(name for name, _ in files[:3]) or "nothing"
            raise UserError(f"Expected pictures, or a .zip of them, got {names}; choose PNG, JPEG or .zip files.")
        if not place.is_dir():
            shutil.move(inner, place)
    return place


def _members(files: list[tuple[str, bytes]]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Pictures and tables by names that stay below a folder, archives unpacked."""
    room = LARGEST - sum(len(content) for _, content in files)
    for name, content in files:
        if not name.lower().endswith(".zip"):
            if kept := _below(PurePosixPath(name).name):
                yield kept, content
            continue
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                listed = [(kept, each) for each in archive.infolist() if (kept := _below(each.filename))]
                room -= sum(each.file_size for _, each in listed)
                if room < 0:
                    raise UserError(
                        f"{name} unpacks to more than {LARGEST / 1e9:g} GB; give its folder's path instead."
                    )
                for kept, each in listed:
                    yield kept, archive.read(each)
        except _BROKEN as error:
            raise UserError(
                f"{name} cannot be unpacked: {str(error) or type(error).__name__}; pack it anew."
            ) from error


def _below(name: str) -> PurePosixPath | None:
    """The name as one below a folder, on every system; None for what is neither picture nor
    table.
    """
    parts = [re.sub(r'[<>:"|?*\\\x00-\x1f]', "_", part).strip(". ") for part in PurePosixPath(name).parts]
    path = PurePosixPath(*(part for part in parts if part))
    hidden = name.endswith("/") or "__MACOSX" in parts or PurePosixPath(name).name.startswith(".")
    return None if hidden or path.suffix.lower() not in {*SUFFIXES, *label_file.SUFFIXES} else path
