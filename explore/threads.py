"""How many threads a computation takes and how they wait, by what else is at work here.

torch's threads wait for each other by spinning. Two programs with as many threads as there are
cores then wait for threads that are not running, each many times longer than its work takes. Two
things are done about it, both at run time, so it is the same whatever was imported first:

- `choose` gives a computation its share of the cores: all where nothing else is at work. Programs
  of this project find each other by locked files in a folder for all users, which end with their
  process; other programs by the time that the cores worked.
- While the cores are wanted by more than this program, `at_work` lets libgomp's threads sleep
  instead of spinning, which changes no result: `_Sleepers`.

A training keeps the number that it began with, because sums of another number of threads differ in
their last bits. What the user set wins: OMP_NUM_THREADS fixes the number, `torch.set_num_threads`
is the most that is taken, and OMP_WAIT_POLICY or a GOMP_SPINCOUNT of one's own leave the waiting as
it is.
"""

import atexit
import contextlib
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import IO, Any

from . import system
from .errors import UserError

TURN = 0.5  # seconds between two looks at the cores
REST = 2.0  # seconds that the looking goes on after the last work: panels work in short pieces
LOOK = 0.2  # seconds of a look where none is fresh
SHARED = 0.5  # cores that others must use before they count
GRAIN = 32768  # elements of a tensor for which torch takes one thread more
SPINS = "10000"  # what `explore` sets GOMP_SPINCOUNT to where torch is not loaded yet


@dataclass(frozen=True)
class Share:
    """A number of threads, and why it is that."""

    threads: int
    why: str


def choose(most: int | None = None, wait: bool = True) -> Share:
    """Threads for a computation that begins now: at most `most` (torch's present number), less
    where others are at work.

    `wait`: look at the cores for a moment where it is not known what they do; else only what is
    known counts.
    """
    import torch

    most = most or torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ:
        return Share(most, "OMP_NUM_THREADS is set")
    others, used, cores = _folder.others(), _watch.used_by_others(wait), system.cores()
    if not others and (used is None or used < SHARED):
        return Share(most, f"all of {cores} cores are free")
    fair = cores // (1 + max(1, others))
    free = 0 if used is None else int(cores - used + 0.5)
    threads = min(most, max(1, fair, free if used is not None and used >= SHARED else 0))
    who = f"{others} of this project's programs" if others else f"other programs on {used:.1f} cores"
    return Share(threads, f"{who} at work on {cores} cores")


@contextlib.contextmanager
def at_work(threads: int | None = None, *, most: int | None = None, wait: bool = True) -> Iterator[Share]:
    """A computation: it counts as at work, torch has `threads` within (None: those of `choose`),
    and the number before afterwards.

    While others want the cores too its threads sleep when they wait. `most`, `wait`: see `choose`.
    """
    import torch

    if threads is not None and threads < 1:
        raise UserError(f"threads are 1 or more, got {threads}.")
    with _watch.working() as work:
        before = torch.get_num_threads()
        share = choose(most, wait) if threads is None else Share(threads, "told so")
        work["threads"] = share.threads
        try:
            _set(share.threads)
            yield share
        finally:
            _set(before)


def sharing(command: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes its share of the cores as they are when it is called."""

    @wraps(command)
    def shared(*args: Any, **kwargs: Any) -> Any:
        with at_work():
            return command(*args, **kwargs)

    return shared


def _set(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


class _Folder:
    """The programs at work: each holds a lock on a file of its own, and a lock ends with its
    process, however that ends.

    Without a folder to write in, or locks, no program of the project is seen.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._own: Path | None = None
        self._file: IO[bytes] | None = None

    def _place(self) -> Path:
        if self.path is None:
            self.path = Path(tempfile.gettempdir()) / "clae-explorer-at-work"
        if not self.path.is_dir():
            self.path.mkdir()
            self.path.chmod(0o1777)  # every user may add a file, none remove another's
        return self.path

    def enter(self) -> None:
        """This process is at work."""
        try:
            place = self._place()
            self._own = place / f"{os.getpid()}-{secrets.token_hex(4)}"
            self._file = open(self._own, "xb")  # noqa: SIM115
            self._own.chmod(0o644)  # for others to ask
            for _ in range(50):
                if system.lock(self._file.fileno()):
                    return
                time.sleep(0.001)  # another asks just now
            self.leave()  # a disk without locks
        except OSError:
            self.leave()

    def leave(self) -> None:
        """It is not any more."""
        file, own, self._file, self._own = self._file, self._own, None, None
        if file is not None:
            file.close()
        if own is not None:
            with contextlib.suppress(OSError):
                own.unlink()

    def others(self) -> int:
        """How many other processes are at work; what an ended one left is removed."""
        try:
            found = [one for one in self._place().iterdir() if one != self._own]
        except OSError:
            return 0
        return sum(map(_is_locked, found))


def _is_locked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:  # another user's file can be read, and so asked for its lock
            if not system.lock(file.fileno(), shared=True):
                return True
        if time.time() - path.stat().st_mtime > 60:  # not one that is being made
            path.unlink()
    except OSError:
        pass
    return False


class _Watch:
    """Looks at the cores every `TURN` seconds while this process is at work."""

    def __init__(self) -> None:
        self._lock, self._wake = threading.RLock(), threading.Event()
        self._works: list[dict[str, int]] = []  # the computations of this process, with their numbers of threads
        self._idle_since = 0.0
        self._thread: threading.Thread | None = None
        self._mark: tuple[float, float, float] | None = None
        self._used: tuple[float, float] | None = None  # when it was seen, cores that others used
        self.sleepers = _Sleepers()

    @contextlib.contextmanager
    def working(self) -> Iterator[dict[str, int]]:
        """A computation of this process; it writes its number of threads into what it gets."""
        work = {"threads": 1}
        with self._lock:
            if not self._works:
                _folder.enter()
            self._works.append(work)
            if self._thread is None:
                self._mark = _marked()
                self._thread = threading.Thread(target=self._go_on, name="explore-cores", daemon=True)
                self._thread.start()
        try:
            yield work
        finally:
            with self._lock:
                self._works = [one for one in self._works if one is not work]
                if not self._works:
                    self._idle_since = time.monotonic()
                    _folder.leave()

    def used_by_others(self, wait: bool) -> float | None:
        """Cores that other programs use, as seen lately; None where that is not known."""
        with self._lock:
            seen = self._used
        if seen is not None and time.monotonic() - seen[0] < 2 * TURN:
            return seen[1]
        return used_by_others() if wait else None

    def close(self) -> None:
        """The end of this process."""
        self._wake.set()
        self.sleepers.end()

    def _go_on(self) -> None:
        while not self._wake.wait(TURN):
            with self._lock:
                if not self._works and time.monotonic() - self._idle_since > REST:
                    self._thread = None
                    self.sleepers.end()
                    return
                mark, self._mark = self._mark, _marked()
                used = _used_since(mark, self._mark)
                self._used = None if used is None else (time.monotonic(), used)
                threads = max((work["threads"] for work in self._works), default=0)
            if threads:
                self._decide(threads, used)

    def _decide(self, threads: int, used: float | None) -> None:
        """Sleep while waiting where this program's threads and the cores that others use are more
        than there are.
        """
        cores = system.cores()
        if used is None:
            used = cores if _folder.others() else 0.0
        if threads > 1 and used >= SHARED and threads + used > cores:
            self.sleepers.begin(threads, cores)
        else:
            self.sleepers.end()


def used_by_others(seconds: float = LOOK) -> float | None:
    """Cores that other programs use from now on for some seconds; None where the system does not
    tell.
    """
    if (before := _marked()) is None:
        return None
    time.sleep(seconds)
    return _used_since(before, _marked())


def _marked() -> tuple[float, float, float] | None:
    """(ticks that all cores worked, ticks of all cores, this process's own), where the system tells."""
    worked = system.worked()
    return None if worked is None else (*worked, system.ticks(time.process_time()))


def _used_since(before: tuple[float, ...] | None, now: tuple[float, ...] | None) -> float | None:
    """Cores that other programs used between two marks."""
    if before is None or now is None or (whole := now[1] - before[1]) <= 0:
        return None
    busy, own = now[0] - before[0], now[2] - before[2]
    return max(0.0, (busy - own) / whole * (os.cpu_count() or 1))


class _Sleepers:
    """Makes libgomp's threads sleep almost at once when they wait, instead of spinning for
    milliseconds.

    libgomp reads how long to spin when it is loaded, but spins hardly at all where it has more
    threads than there are cores (its `gomp_throttled_spin_count_var`). Each Python thread that runs
    something parallel gets threads of its own for that; so a few that then rest make it so, and
    their end takes it back. Other OpenMP libraries take no notice.
    """

    MOST = 8  # threads made for that

    def __init__(self) -> None:
        self._end: threading.Event | None = None

    @property
    def on(self) -> bool:
        return self._end is not None

    def begin(self, threads: int, cores: int) -> None:
        needed = -(-cores // max(1, threads - 1))
        if self.on or needed > self.MOST or not _own_spinning():
            return
        self._end = threading.Event()
        for _ in range(needed):
            ready = threading.Event()
            threading.Thread(target=_rest, args=(threads, ready, self._end), name="explore-rest", daemon=True).start()
            ready.wait(5)

    def end(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end.set()


def _rest(threads: int, ready: threading.Event, end: threading.Event) -> None:
    import torch

    torch.set_num_threads(threads)  # a new thread's number is not that of the one at work
    with torch.no_grad():
        torch.ones(GRAIN * threads).add_(1)  # large enough for all of them
    ready.set()
    end.wait()


def _own_spinning() -> bool:
    """Whether the waiting is libgomp's on Linux, and not set by the user."""
    mine = os.environ.get("GOMP_SPINCOUNT", SPINS) == SPINS
    return sys.platform == "linux" and mine and "OMP_WAIT_POLICY" not in os.environ


_folder, _watch = _Folder(), _Watch()
atexit.register(_watch.close)
