"""Trainings in a process of their own, followed through files: closing the page or the terminal does not stop them.

<out>/jobs/<name>.json  the request: cells, engine    <name>.state.json  its state, written every second
<name>.stop             requests its end              <name>.log         what the process printed
The process is `python -m explore.experiments.queue <out>/jobs/<name>.json`.
"""

import contextlib
import json
import secrets
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import UserError, nearest
from ..runfolder import Run
from ..serialization import read_json, write_text
from .cell import Cell, read_cell, step_passes
from .detached import launch
from .metrics import Measure
from .task import Engine, tasks_of

SILENT = 30.0  # seconds without a written state until a job counts as lost
LOOK = 0.7  # seconds between two looks at the jobs' files
ENDED = ("done", "stopped", "failed", "lost")
_processes: dict[Path, subprocess.Popen] = {}  # those that this process has started


@dataclass(frozen=True)
class TrainingProgress:
    """How far a job is. `cell` of `cells` and `epoch` of `epochs` are those under way, counted from 1; `share`: 0 to 1.

    Read from files by another process, epoch by epoch; `StudyProgress` counts finished cells in the process that runs them.
    """

    cell: int
    cells: int
    epoch: int
    epochs: int
    share: float
    seconds_left: float | None


class BackgroundTraining:
    """Cells that run in the background. `BackgroundTraining.start(...)` starts them, `trainings(out)` finds those there are.

    `study`: the name of the table that is written at the end; None for points of a panel's figure. `price`: seconds that all
    cells take, where they were estimated.
    """

    def __init__(self, spec: Path):
        self.spec, self.name, self.out = spec, spec.stem, spec.parent.parent
        self._last: dict[str, Any] | None = None  # its state, where its files are removed
        request = read_json(spec)
        self.study: str | None = request["study"]
        self.command: str | None = request["command"]
        self.price: float | None = request["price"]
        self.engine: dict[str, Any] = request["engine"]
        self.keys: list[str] = request["keys"]
        self.run_names: list[str] = request["runs"]
        self.data: list[str] = request["data"]
        self.cells = [
            Cell(TrainConfig.from_dict(c["config"]), Measure(**c["measure"]), c["trained"]) for c in request["cells"]
        ]

    @classmethod
    def start(
        cls,
        cells: Sequence[Cell],
        out: Path,
        *,
        study: str | None = None,
        command: str | None = None,
        price: float | None = None,
        **engine: Any,
    ) -> "BackgroundTraining":
        """Start cells in `out`, a study's folder. `engine`: fields of `Engine`. UserError where they cannot run."""
        where, tasks = Engine(**engine), tasks_of(cells)
        request: dict[str, Any] = {"study": study, "command": command, "price": price, "engine": asdict(where)}
        request |= {"keys": [task.key for task in tasks], "data": sorted({task.data for task in tasks})}
        request["runs"] = [task.cell.run_name(task.data) for task in tasks]
        request["cells"] = [
            {"config": c.config.to_dict(), "measure": c.measure.to_dict(), "trained": c.trained}
            for c in (task.cell for task in tasks)
        ]
        spec = out.resolve() / "jobs" / f"{_new_name()}.json"
        try:
            spec.parent.mkdir(parents=True, exist_ok=True)
            write_text(spec, json.dumps(request, indent=1))
        except OSError as error:
            raise UserError(
                f"Nothing can be written in {out} ({error.strerror}); choose another place by --out."
            ) from None
        job = cls(spec)
        job.write_state("waiting")
        job._launch(where.threads)
        return job

    def _launch(self, threads: int | None) -> None:
        extra = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        _processes[self.spec] = launch("explore.experiments.queue", [str(self.spec)], self._file("log"), extra)

    @property
    def state(self) -> dict[str, Any]:
        """{'state': 'waiting' | 'running' | 'done' | 'stopped' | 'failed' | 'lost', 'beat', 'began', 'share', 'error'}"""
        if self._last is not None:
            return self._last
        process, found = _processes.get(self.spec), self._read_state()
        gone = process is not None and process.poll() is not None
        silent = time.time() - found.get("beat", 0) > SILENT
        if found["state"] not in ENDED and (gone or silent):
            found = self._read_state()  # it may have been written meanwhile
            if found["state"] not in ENDED:
                error = f"The process ended without a report; see {self._file('log')}."
                return {**found, "state": "lost", "error": error}
        return found

    @property
    def alive(self) -> bool:
        return self.state["state"] not in ENDED

    @property
    def stopping(self) -> bool:
        """Whether its end was requested."""
        return self._file("stop").exists()

    def stop(self) -> None:
        """Request its end after the step it is in; what is finished is kept, and the same cells go on from there."""
        self._file("stop").touch()

    def wait(self, seconds: float = 60) -> str:
        """Wait for its end; its state then, or now where the time was not enough."""
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            time.sleep(0.1)
        return str(self.state["state"])

    def forget(self) -> None:
        """Remove the files of a job that has ended; its cells and runs stay."""
        self._last = self.state
        process = _processes.pop(self.spec, None)
        if process is not None:
            process.wait()
        for path in (self.spec, *(self._file(end) for end in ("state.json", "stop", "log"))):
            path.unlink(missing_ok=True)

    def again(self, price: float | None = None) -> "BackgroundTraining":
        """Forget an ended job and start its cells anew: they go on from where they were stopped."""
        self.forget()
        own = {"study": self.study, "command": self.command, "price": price or self.price}
        return self.start(self.cells, self.out, **own, **self.engine)  # type: ignore[arg-type]

    def finished(self) -> list[bool]:
        """Which of its cells are on disk."""
        return [read_cell(self.out, key) is not None for key in self.keys]

    def progress(self) -> TrainingProgress:
        """Read from its cells and from the rows that the runs of the others have logged."""
        cells, done = self.cells, self.finished()
        epochs = [0.0 if d else self._epoch(i) for i, d in enumerate(done)]
        passes = [c.work if d else e * step_passes(c.config) for c, d, e in zip(cells, done, epochs, strict=True)]
        share = sum(passes) / sum(cell.work for cell in cells)
        now = done.index(False) if False in done else len(done) - 1
        last = cells[now].config.epochs if cells[now].trained else 0
        epoch = last if done[now] else min(last, int(epochs[now]) + 1)
        return TrainingProgress(min(len(done), sum(done) + 1), len(done), epoch, last, share, self._left(share))

    def _left(self, share: float) -> float | None:
        """Seconds left at this share of the work: by the speed since it began, at first by the price."""
        state = self.state
        spent, first = time.time() - (state.get("began") or time.time()), state.get("share", 0.0)
        if share - first >= 0.05 and spent > 0:
            return spent / (share - first) * (1 - share)
        return None if self.price is None else max(0.0, self.price * (1 - first) - spent)

    def _epoch(self, i: int) -> float:
        """Epochs that the run of a cell has logged."""
        try:
            row = Run(self.out / "runs" / self.run_names[i]).rows()[-1]
        except (UserError, IndexError):
            return 0.0
        return min(self.cells[i].config.epochs, float(row.get("epoch", 0)))

    def _file(self, end: str) -> Path:
        return self.spec.with_suffix("." + end)

    def _read_state(self) -> dict[str, Any]:
        try:
            return json.loads(self._file("state.json").read_text())
        except (OSError, ValueError):
            return {"state": "lost", "error": "Its files are gone."}

    def write_state(self, state: str, **more: Any) -> None:
        """Written by the process itself, once a second."""
        write_text(self._file("state.json"), json.dumps({"state": state, "beat": time.time(), **more}))


def _new_name() -> str:
    """'261127-015815-042137-9f3c': by the time to the microsecond, so that names are ordered by it, and a word by chance."""
    now = time.time_ns()
    return f"{time.strftime('%y%m%d-%H%M%S', time.localtime(now // 10**9))}-{now // 1000 % 10**6:06d}-{secrets.token_hex(2)}"


def trainings(out: Path) -> list[BackgroundTraining]:
    """The jobs in a study's folder, the oldest first."""
    found = []
    for spec in sorted((out.resolve() / "jobs").glob("*.json")):
        if not spec.name.endswith(".state.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, UserError):
                found.append(BackgroundTraining(spec))
    return found


def training_named(out: Path, name: str) -> BackgroundTraining:
    """The job of this name in a study's folder; UserError where there is none."""
    there = {job.name: job for job in trainings(out)}
    if name not in there:
        have = f"there are {', '.join(there)}" if there else "there are none"
        raise UserError(f"No job '{name}' in {out}: {have}.{nearest(name, there)}")
    return there[name]


class JobWatch:
    """The jobs in a study's folder that `wanted` accepts. `changed(ended)` is called, in a thread, when one may look different;
    `ended`: cells were finished or a job has ended.

    `changed` must be a bound method: its object is held weakly, and the thread ends with it. A finished job is dropped from the
    list; one without a study is forgotten then.
    """

    def __init__(self, out: Path, wanted: Callable[[BackgroundTraining], bool], changed: Callable[[bool], None]):
        self.out, self._wanted = out, wanted
        self._changed = weakref.WeakMethod(changed)  # type: ignore[type-var]
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen: set[Any] = set()  # what was finished or ended at the last look
        self._dropped = False  # whether jobs were dropped since then
        self._all: dict[str, BackgroundTraining] = {}

    def __iter__(self) -> Iterator[BackgroundTraining]:
        with self._lock:
            return iter([*self._all.values()])

    def __getitem__(self, name: str) -> BackgroundTraining:
        return self._all[name]

    def start(self, cells: Sequence[Cell], price: float | None, threads: int) -> BackgroundTraining:
        """Start cells and watch them."""
        return self._add(BackgroundTraining.start(cells, self.out, price=price, threads=threads))

    def again(self, name: str, price: float | None) -> BackgroundTraining:
        """Start the cells of an ended job anew."""
        with self._lock:
            ended = self._all.pop(name)
        return self._add(ended.again(price))

    def forget(self, name: str) -> None:
        """Remove a job that has ended; what it made stays."""
        with self._lock:
            self._all.pop(name).forget()

    def watch(self) -> None:
        """Find the jobs there are, and look at them until all have ended, in a thread."""
        self._scan()
        with self._lock:
            if self._thread is None and self._all:
                self._thread = threading.Thread(target=_look, args=(weakref.ref(self),), daemon=True)
                self._thread.start()

    def _add(self, job: BackgroundTraining) -> BackgroundTraining:
        with self._lock:
            self._all[job.name] = job
        self.watch()
        return job

    def _scan(self) -> None:
        """Drop jobs that another process has removed or that are done, and take in those that are new."""
        with self._lock:
            there = [self._all.get(job.name, job) for job in trainings(self.out)]
            wanted = [job for job in there if job.name in self._all or self._wanted(job)]
            before, self._all = self._all, {job.name: job for job in wanted if job.state["state"] != "done"}
            self._dropped |= bool(before.keys() - self._all.keys())
            for job in wanted:
                if job.name not in self._all and job.study is None:
                    job.forget()

    def _look(self) -> bool:
        """Call `changed`; False where no job is left to be watched."""
        self._scan()
        states = {job.name: job.state["state"] for job in self}
        ended = {name for name, state in states.items() if state in ENDED}
        seen = ended | {(job.name, sum(job.finished())) for job in self if job.study is not None}
        alive, new = bool(states.keys() - ended), self._dropped or bool(seen - self._seen)
        self._seen, self._dropped, changed = seen, False, self._changed()
        if changed is None or not alive:
            with self._lock:
                self._thread = None
        if changed is not None:
            changed(new)
        return changed is not None and alive


def _look(jobs: "weakref.ref[JobWatch]") -> None:
    rest = threading.Event()
    while True:
        own = jobs()
        if own is None or not own._look():
            return
        own = None
        rest.wait(LOOK)
