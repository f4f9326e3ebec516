"""Cells as tasks of an engine: named, counted, and run one by one in whichever process this is."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..runfolder import build_encoder
from ..training import resolve_device
from .cell import Cell, images_of, run_cell

Stop = Callable[[], bool]
RETRIES = 3  # times that a cell may lose its worker
_stop: Stop = bool  # `work`'s default for `should_stop`: always False until `stop_by` replaces it


@dataclass(frozen=True)
class Engine:
    """Where cells run, see `run_cells`; UserError for settings that make no sense."""

    engine: str = "local"
    workers: int = 1
    threads: int | None = None
    address: str | None = None
    gpu_share: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise UserError(f"engine is 'local' or 'ray', got '{self.engine}'.")
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise UserError(f"workers and threads are 1 or more, got {self.workers} and {self.threads}.")
        if self.gpu_share is not None and not 0 <= self.gpu_share <= 1:
            raise UserError(f"A cell's share of a GPU lies in 0 to 1, got {self.gpu_share}.")
        if self.address is None:
            resolve_device(self.device)


@dataclass(frozen=True)
class Done:
    """A cell that was run or found on disk: `record` is the content of its file, None where it failed; then `error` says why."""

    cell: Cell
    key: str
    record: dict[str, Any] | None
    kept: bool = False  # it was on disk before
    error: str | None = None


@dataclass(frozen=True)
class Task:
    """A cell with its name on disk and the fingerprint of the images it is meant for."""

    cell: Cell
    key: str
    data: str


class StudyProgress:
    """How far a study is, and how long the rest takes: by the seconds of the cells finished here, weighted by their cost.

    `workers`: cells at once; None (a cluster): as many as were finished in the time so far, one at least.
    """

    def __init__(self, cells: Iterable[Cell], workers: int | None = 1):
        self.jobs, self.workers = tasks_of(cells), workers
        self.began, self.kept, self.done, self.failed = time.monotonic(), 0, 0, 0
        self.left = sum(job.cell.work for job in self.jobs)  # cost of the cells that are not through
        self.worked, self.spent, self.last = 0.0, 0.0, self.began

    @property
    def through(self) -> int:
        """Cells that are through, in whichever way."""
        return self.kept + self.done + self.failed

    def note(self, done: Done) -> None:
        """Count a cell that is through."""
        self.left -= done.cell.work
        self.kept += done.kept
        self.failed += done.error is not None
        if not done.kept and done.record is not None:
            self.done += 1
            self.worked, self.spent = self.worked + done.cell.work, self.spent + done.record["seconds"]
            self.last = time.monotonic()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last cell; None before the first one is finished here. Cells under way count as not begun."""
        if not self.worked or self.through == len(self.jobs):
            return None if not self.worked else 0.0
        seen = max(1.0, self.spent / max(1e-9, self.last - self.began))
        at_once = min(self.workers or seen, len(self.jobs) - self.through)
        return max(0.0, self.left * self.spent / self.worked / at_once - (time.monotonic() - self.last))


def tasks_of(cells: Iterable[Cell]) -> list[Task]:
    """Every different cell once, named by its content; the images are loaded for that."""
    jobs: dict[str, Task] = {}
    networks = set()
    for cell in cells:
        c, (data, found) = cell.config, images_of(cell.config)
        if (network := (c.arch, c.width, c.stem, c.proj_dim)) not in networks:
            networks.add(network)
            with torch.device("meta"):  # a network that cannot be built is refused before anything is trained
                build_encoder(c)
        if c.batch_size > (images := min(c.train_images or len(data.train), len(data.train))):
            raise UserError(f"A batch of {c.batch_size} is larger than the {images} training images; use --batch-size.")
        if data.labelled is None or len(data.classes) < 2:
            raise UserError(f"'{c.dataset}' has no classes to tell apart, so there is no accuracy to measure.")
        jobs.setdefault(cell.key(found), Task(cell, cell.key(found), found))
    if not jobs:
        raise UserError("A study needs one cell or more.")
    return list(jobs.values())


def work(job: Task, out: Path, device: str, threads: int | None, should_stop: Stop | None = None) -> Done | None:
    """One cell, in whichever process this is; None where it was stopped."""
    stop = should_stop or _stop
    try:
        record = run_cell(job.cell, out, expect=job.data, device=device, threads=threads, should_stop=stop)
    except UserError as error:
        return Done(job.cell, job.key, None, error=str(error))
    except (torch.OutOfMemoryError, MemoryError):
        return Done(job.cell, job.key, None, error="Out of memory; use fewer workers or a smaller batch.")
    return None if record is None else Done(job.cell, job.key, record)


def stop_by(stop: Stop) -> None:
    """Set the default `should_stop` of `work` in this process."""
    global _stop
    _stop = stop
