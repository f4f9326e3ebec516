"""Where cells run: in this process, in n processes of this machine, or as tasks of a Ray cluster."""

import contextlib
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
from filelock import FileLock, Timeout

from .. import system
from ..errors import UserError
from ..threads import choose
from .cell import Cell, read_cell, write_cell
from .cluster import on_ray
from .task import RETRIES, Done, Engine, Stop, Task, stop_by, tasks_of, work


class FolderBusy(UserError):
    """Another process runs cells in this folder."""


def run_cells(
    cells: Iterable[Cell], out: str | Path, *, should_stop: Stop = lambda: False, **engine: Any
) -> Generator[Done, None, None]:
    """Finished cells as they come: first those on disk already, then the others, each on disk before it is handed out.

    `engine`: the fields of `Engine`. `engine="local"`: `workers=1` trains in this process, more in as many processes, the
    threads that are free divided among them. `engine="ray"`: one cell a task, with `threads` CPUs and `gpu_share` of a GPU; `address=None`
    starts Ray here for `workers` cells at once, "auto" or "host:port" joins a cluster, whose size then decides (one CPU and,
    where there are some, one GPU a cell unless told otherwise). Its machines need this package and the images; where all share
    the disk of `out`, a cell whose worker is lost goes on in its run folder, else it starts again. On one machine and with
    equal `threads` results are equal bit for bit, whatever the engine.

    While `should_stop()` is true running cells stop after a step and go on from there the next time (under Ray: from their last
    epoch). Ending the iteration does the same. A cell that fails is handed out with its error, the others go on. Raises
    `FolderBusy` where another process runs cells in `out`.
    """
    where, out, todo = Engine(**engine), Path(out).resolve(), []
    tasks = tasks_of(cells)
    with _alone(out):
        for task in tasks:
            record = read_cell(out, task.key)
            if record is None:
                todo.append(task)
            else:
                yield Done(task.cell, task.key, record, kept=True)
        if not todo:
            return
        run = on_ray if where.engine == "ray" else _here if where.workers == 1 else _processes
        with contextlib.closing(run(todo, out, where, should_stop)) as finished:
            for done in finished:
                if done.record is not None and read_cell(out, done.key) is None:  # written on another machine's disk
                    write_cell(out, done.key, done.record)
                yield done


def _here(tasks: list[Task], out: Path, engine: Engine, should_stop: Stop) -> Generator[Done, None, None]:
    own = torch.get_num_threads()
    try:
        for task in tasks:
            done = None if should_stop() else work(task, out, engine.device, engine.threads, should_stop)
            if done is None:
                return
            yield done
    finally:
        torch.set_num_threads(own)


def _processes(tasks: list[Task], out: Path, engine: Engine, should_stop: Stop) -> Generator[Done, None, None]:
    """A pool of fresh processes; one that dies takes the pool with it, and a new pool takes the cells that are left."""
    context = multiprocessing.get_context("spawn")
    share = engine.threads or max(1, choose().threads // engine.workers)
    left, lost = {task.key: task for task in tasks}, 0
    while left and not should_stop():
        stop = context.Event()
        pool = ProcessPoolExecutor(min(engine.workers, len(left)), context, _begin_worker, (stop,))
        try:
            with (
                _environment(OMP_NUM_THREADS=str(share)),
                system.without_interrupts(),
            ):  # read when the processes load torch
                futures = {pool.submit(work, task, out, engine.device, share) for task in left.values()}
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
    """In a new process: stop with the parent, ignore Ctrl-C (the parent handles it), end where the parent died."""
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
    """Hold the folder's lock, which the system releases when a process ends, however it ends."""
    lock = FileLock(out / ".lock", thread_local=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderBusy(f"Another sweep is at work in {out}; wait for it, or choose another place by --out.") from None
    except OSError as error:
        raise UserError(f"Nothing can be written in {out} ({error.strerror}); choose another place by --out.") from None
    try:
        yield
    finally:
        lock.release()
