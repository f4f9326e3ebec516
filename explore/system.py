"""What differs between Linux, macOS and Windows: processes, signals, locks of open files, cores, consoles.

All calls that one of them lacks stand here (tests/test_systems.py), so that the rest is the same
everywhere.
"""

import codecs
import contextlib
import ctypes
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from .errors import UserError

WINDOWS = os.name == "nt"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") and "SC_CLK_TCK" in os.sysconf_names else 100


_PLAIN = str.maketrans({"ε": "eps", "−": "-", "→": "->", "✓": "+", "✕": "x", "±": "+/-", "–": "-", "·": "-"})


def plain_consoles() -> None:
    """Where a console's encoding lacks a letter that is printed (Windows' cp1252 has no ε), it shows
    a plain one instead.
    """
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return letters.translate(_PLAIN).encode("ascii", "replace").decode(), error.end


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worked() -> tuple[float, float] | None:
    """Ticks that all cores worked, and all ticks, since the start, where the system tells."""
    try:
        with open("/proc/stat") as file:
            ticks = [float(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def ticks(seconds: float) -> float:
    """Seconds in the unit of `worked`."""
    return seconds * _TICKS


def lock(file: int, shared: bool = False) -> bool:
    """Take the lock of an open file if it is free; it is given back when the file is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_root() -> bool:
    """Whether this is Linux's or macOS's root user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def yield_to_others() -> None:
    """Let other programs go first, where a process can ask for that."""
    if hasattr(os, "nice"):
        os.nice(5)


def detached() -> dict[str, Any]:
    """Arguments of `Popen` with which neither Ctrl-C nor the end of kernel or terminal reaches it."""
    if WINDOWS:
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | 0x08000000}  # without a window
    return {"start_new_session": True}


def is_there(pid: int) -> bool:
    """Whether a process of that number is there; True on Windows, where asking could end it."""
    if WINDOWS:
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def request_end(pid: int) -> bool:
    """Request a process's end; one that is paused is woken for it. False on Windows, which has no
    such request. UserError where it is another user's.
    """
    if WINDOWS:
        return False
    _send(pid, signal.SIGTERM)
    _send(pid, signal.SIGCONT)
    return True


def kill(pid: int) -> None:
    """End a process at once. UserError where it is another user's."""
    _send(pid, signal.SIGTERM if WINDOWS else signal.SIGKILL)  # on Windows any number but 0 and 1 ends it at once


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise UserError(
            f"Process {pid} cannot be stopped from here ({error.strerror}); stop it where it runs."
        ) from None


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a training: Ctrl-C, a request, a closed terminal unless that is ignored (nohup)."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if not WINDOWS and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started within never see a Ctrl-C, not even while they load; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_memory() -> bool:
    """Make glibc reuse freed memory instead of returning it to the system; True if it does.

    For processes that only train on a CPU: page faults took 6 % of a ResNet-18 step. Up to 2 GiB
    stay with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def release_memory() -> None:
    """Collect what is unreachable, and have glibc return what is free to the system.

    Tensors in cycles are few objects with much memory, for which Python waits long; and every
    thread that computed leaves an arena of its own.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
