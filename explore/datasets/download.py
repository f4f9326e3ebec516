"""Download a published file: mirrors in turn, resumable, accepted only if its checksum matches."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UserError
from .splits import Progress

_TIMEOUT = 20.0  # seconds without a byte
_CHUNK = 1 << 16
_ATTEMPTS = 20  # connections to one mirror, each of which brought the file on


class Unreachable(Exception):
    """No mirror gave the file; the message lists each with its reason."""


class _Refused(Exception):
    """This mirror cannot be used further."""


def digest(path: Path, algorithm: str, gunzip: bool = False) -> str:
    """Hex digest of a file's content; with `gunzip`, of what it unpacks to."""
    if gunzip:
        import gzip

        with gzip.open(path, "rb") as file:
            return _digest_of(file, algorithm)
    with open(path, "rb") as file:
        return _digest_of(file, algorithm)


def _digest_of(file, algorithm: str) -> str:
    sums = hashlib.new(algorithm, usedforsecurity=False)
    while block := file.read(1 << 20):
        sums.update(block)
    return sums.hexdigest()


def fetch(urls: Sequence[str], target: Path, md5: str, progress: Progress, timeout: float = _TIMEOUT) -> Path:
    """Download `target` from the first url that yields the right md5; Unreachable if none does.

    Partial data is in `target.part`, from which the next call continues. UserError if it cannot be
    written (disk full, no permission).
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target.parent, error) from error
    reasons = []
    for url in urls:
        reason = _from_mirror(url, part, md5, progress, timeout)
        if reason is None:
            os.replace(part, target)
            return target
        reasons.append(f"{urlsplit(url).netloc}: {reason}")
    raise Unreachable("; ".join(reasons))


def _from_mirror(url: str, part: Path, md5: str, progress: Progress, timeout: float) -> str | None:
    """None if `part` is complete and correct, else the reason; a bad resumed part is restarted."""
    while True:
        begun = _size(part)
        try:
            _transfer(url, part, progress, timeout)
        except _Refused as error:
            return str(error)
        if digest(part, "md5") == md5:
            return None
        part.unlink()
        if not begun:
            return "the file has a wrong checksum"


def _transfer(url: str, part: Path, progress: Progress, timeout: float) -> None:
    """Append to `part` until complete; a broken connection is resumed while it makes progress."""
    for _ in range(_ATTEMPTS):
        before = _size(part)
        try:
            return _stream(url, part, progress, timeout)
        except urllib.error.HTTPError as error:
            error.close()  # it is an open answer
            if error.code != 416 or not before:  # 416: nothing lies beyond what we have
                raise _Refused(f"HTTP {error.code} {error.reason}") from error
            if error.headers.get("Content-Range", "").endswith(f"/{before}"):
                return None
            part.unlink()
        except (OSError, http.client.HTTPException) as error:
            if _size(part) <= before:
                reason = getattr(error, "reason", None) or error
                raise _Refused(f"{getattr(reason, 'strerror', None) or reason or type(reason).__name__}") from error
    raise _Refused("the connection broke too often")


def _stream(url: str, part: Path, progress: Progress, timeout: float) -> None:
    have = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "clae-explorer", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with _opened(part, "ab" if goes_on else "wb") as file:
            while block := answer.read(_CHUNK):
                try:
                    file.write(block)
                except OSError as error:
                    raise _unwritable(part, error) from error
                have += len(block)
                progress(f"downloading {part.stem}", have, total)
    if have < total:
        raise ConnectionError(f"the connection closed after {have:,} of {total:,} bytes")


def _opened(part: Path, mode: str):
    try:
        return open(part, mode, buffering=0)
    except OSError as error:
        raise _unwritable(part, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({error.strerror or error}): make room there, or name another folder in "
        f"the environment variable CLAE_CACHE; what has arrived is kept and the download goes on from it."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
