"""Where cells run: in this process, in n processes of this machine, or as tasks of a Ray cluster."""

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..training import resolve_device
from .cell import Cell, read_cell, write_cell
from .cluster import on_ray
from .task import RETRIES, Done, Stop, Task, stop_by, tasks_of, work


def run_cells(
    cells: Iterable[Cell],
    out: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    threads: int | None = None,
    address: str | None = None,
    gpu_share: float | None = None,
    device: str = "auto",
    should_stop: Stop = lambda: False,
) -> Generator[Done, None, None]:
    """Finished cells as they come: first those on disk already, then the others, each on disk before it is handed out.

    `engine="local"`: `workers=1` trains in this process, more in as many processes, torch's threads divided among them.
    `engine="ray"`: one cell a task, with `threads` CPUs and `gpu_share` of a GPU; `address=None` starts Ray here for
    `workers` cells at once, "auto" or "host:port" joins a cluster, whose size then decides (one CPU and, where there are some, one
    GPU a cell unless told otherwise). Its machines need this package and the images; where all share the disk of `out`, a cell
    whose worker is lost goes on in its run folder, else it starts again. On one machine and with equal `threads` results are
    equal bit for bit, whatever the engine.

    `should_stop` is asked to end: running cells stop after a step and go on from there the next time (under Ray: from their
    last epoch). Ending the iteration does the same. A cell that fails is handed out with its sentence, the others go on.
    """
    if engine not in ("local", "ray"):
        raise UserError(f"engine is 'local' or 'ray', got '{engine}'.")
    if workers < 1 or (threads is not None and threads < 1):
        raise UserError(f"workers and threads are 1 or more, got {workers} and {threads}.")
    if gpu_share is not None and not 0 <= gpu_share <= 1:
        raise UserError(f"A cell's share of a GPU lies in 0 to 1, got {gpu_share}.")
    if address is None:
        resolve_device(device)
    out, todo = Path(out).resolve(), []
    jobs = tasks_of(cells)
    with _alone(out):
        for job in jobs:
            record = read_cell(out, job.key)
            if record is None:
                todo.append(job)
            else:
                yield Done(job.cell, job.key, record, kept=True)
        if not todo:
            return
        if engine == "ray":
            finished = on_ray(todo, out, workers, threads, address, gpu_share, device, should_stop)
        elif workers == 1:
            finished = _here(todo, out, threads, device, should_stop)
        else:
            finished = _processes(todo, out, workers, threads, device, should_stop)
        with contextlib.closing(finished):
            for done in finished:
                if done.record is not None and read_cell(out, done.key) is None:  # written on another machine's disk
                    write_cell(out, done.key, done.record)
                yield done


def _here(
    jobs: list[Task], out: Path, threads: int | None, device: str, should_stop: Stop
) -> Generator[Done, None, None]:
    own = torch.get_num_threads()
    try:
        for job in jobs:
            done = None if should_stop() else work(job, out, device, threads, should_stop)
            if done is None:
                return
            yield done
    finally:
        torch.set_num_threads(own)


def _processes(
    jobs: list[Task], out: Path, workers: int, threads: int | None, device: str, should_stop: Stop
) -> Generator[Done, None, None]:
    """A pool of fresh processes; one that dies takes the pool with it, and a new pool takes the cells that are left."""
    context, share = multiprocessing.get_context("spawn"), threads or max(1, torch.get_num_threads() // workers)
    left, lost = {job.key: job for job in jobs}, 0
    while left and not should_stop():
        stop = context.Event()
        pool = ProcessPoolExecutor(min(workers, len(left)), context, _begin_worker, (stop,))
        try:
            with _environment(OMP_NUM_THREADS=str(share)):  # read when the processes load torch
                futures = {pool.submit(work, job, out, device, share) for job in left.values()}
            while futures:
                ready, futures = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
                if should_stop():
                    return
                for future in ready:
                    done = future.result()
                    if done is not None:
                        del left[done.key]
                        lost = 0
                        yield done
        except BrokenProcessPool:
            lost += 1
            if lost > RETRIES:
                raise UserError(
                    f"A process was lost {lost} times without a cell finished, out of memory perhaps; use fewer workers."
                ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(stop: Any) -> None:
    """In a new process: the parent's stop is asked, its Ctrl-C left to it, and its death shared."""
    stop_by(stop.is_set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else works in this folder, by a lock that a killed process does not leave behind."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "a+b")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"Nothing can be written in {out} ({error.strerror}); choose another place by --out.") from None
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):  # else: a disk without locks
                raise UserError(
                    f"Another sweep is at work in {out}; wait for it, or choose another place by --out."
                ) from None
        yield


def _lock(file: int) -> None:
    """Lock an open file until it is closed; OSError where another has it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
