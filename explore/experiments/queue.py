"""Cells trained in a process of their own, followed through files: a closed page stops nothing, a restarted kernel finds it again.

<out>/jobs/<name>.json        what was asked             <name>.state.json  how it goes, written anew every second
<name>.stop                   asks it to end             <name>.log         what it printed
Run as `python -m explore.panels.background <out>/jobs/<name>.json`; a job that finds another sweep at work waits its turn.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import UserError
from ..results import Sweep
from ..runfolder import Run
from ..serialization import write_text
from .cell import Cell, collect, images_of, read_cell, step_passes
from .metrics import Measure
from .runner import run_cells
from .task import Done

BEAT, SILENT = 1.0, 30.0  # seconds between signs of life, and without one until a job counts as lost
# settings in which points of one figure may differ, and those without effect on a point
FREE = {"attack", "eps", "steps", "gaussian_by", "noise_norm", "epochs", "seed"} | {
    "data_dir",
    "knn_every",
    "knn_images",
}
ENDED = ("done", "stopped", "failed", "lost")
_processes: dict[Path, subprocess.Popen] = {}  # those that this process has started


@dataclass(frozen=True)
class TrainingProgress:
    """How far a job is. `seed` and `epoch` are those under way, counted from 1; `share` 0 to 1 of its work."""

    seed: int
    seeds: int
    epoch: int
    epochs: int
    share: float
    seconds_left: float | None


class BackgroundTraining:
    """Some cells of one point in the background. `BackgroundTraining.start(...)` begins one, `trainings(out)` finds those there are."""

    def __init__(self, spec: Path):
        self.spec, self.out = spec, spec.parent.parent
        asked = json.loads(spec.read_text())
        self.about: dict[str, Any] = asked["about"]
        self.price: float | None = asked["price"]
        self.keys: list[str] = asked["keys"]
        self.run_names: list[str] = asked["runs"]
        self.cells = [Cell(TrainConfig.from_dict(c["config"]), Measure(**c["measure"])) for c in asked["cells"]]

    @classmethod
    def start(
        cls,
        cells: Sequence[Cell],
        out: Path,
        *,
        about: dict[str, Any] | None = None,
        price: float | None = None,
        threads: int | None = None,
    ) -> "BackgroundTraining":
        """Begin to run cells into `out`, a study's folder. `about`: whatever is to be known of it later."""
        found = [images_of(cell.config)[1] for cell in cells]
        keys = [cell.key(data) for cell, data in zip(cells, found, strict=True)]
        runs = [cell.run_name(data) for cell, data in zip(cells, found, strict=True)]
        spec = out.resolve() / "jobs" / f"{time.time_ns()}-{keys[0]}.json"
        asked = {"about": about or {}, "price": price, "threads": threads, "keys": keys, "runs": runs}
        asked["cells"] = [{"config": cell.config.to_dict(), "measure": cell.measure.to_dict()} for cell in cells]
        spec.parent.mkdir(parents=True, exist_ok=True)
        write_text(spec, json.dumps(asked, indent=1))
        job = cls(spec)
        job._say("waiting")
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        with open(job._file("log"), "w") as log:
            _processes[spec] = subprocess.Popen(
                [sys.executable, "-m", "explore.experiments.queue", str(spec)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither Ctrl-C nor the kernel's end reaches it
            )
        return job

    @property
    def state(self) -> dict[str, Any]:
        """{'state': 'waiting' | 'running' | 'done' | 'stopped' | 'failed' | 'lost', 'beat', 'began', 'error'}"""
        process, said = _processes.get(self.spec), self._said()
        gone = process is not None and process.poll() is not None
        silent = time.time() - said.get("beat", 0) > SILENT
        if said["state"] not in ENDED and (gone or silent):
            said = self._said()  # its last word may have come meanwhile
            if said["state"] not in ENDED:
                return {**said, "state": "lost", "error": f"It ended without a word; see {self._file('log')}."}
        return said

    @property
    def alive(self) -> bool:
        return self.state["state"] not in ENDED

    def stop(self) -> None:
        """Ask it to end after the step it is in; what is finished is kept, and the same cells go on from there."""
        self._file("stop").touch()

    def wait(self, seconds: float = 60) -> str:
        """Wait for its end; its state then, or now where the time was not enough."""
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            time.sleep(0.1)
        return str(self.state["state"])

    def forget(self) -> None:
        """Remove the files of a job that has ended; its cells and runs stay."""
        process = _processes.pop(self.spec, None)
        if process is not None:
            process.wait()
        for path in (self.spec, *(self._file(end) for end in ("state.json", "stop", "log"))):
            path.unlink(missing_ok=True)

    def progress(self) -> TrainingProgress:
        """Read from its cells and from the rows that its run has logged."""
        done = [read_cell(self.out, key) is not None for key in self.keys]
        now = done.index(False) if False in done else len(done) - 1
        config, row = self.cells[now].config, self._row(now)
        epoch = min(config.epochs, float(row.get("epoch", 0)))
        work = [cell.work for cell in self.cells]
        through = sum(w for w, d in zip(work, done, strict=True) if d)
        through += 0 if done[now] else epoch * step_passes(config)
        share, left = through / sum(work), self.price
        began = self.state.get("began")
        if began and self.price is not None:
            spent = time.time() - began
            left = max(0.0, self.price - spent) if share < 0.05 else spent / share * (1 - share)
        return TrainingProgress(now + 1, len(done), min(config.epochs, int(epoch) + 1), config.epochs, share, left)

    def _row(self, i: int) -> dict[str, Any]:
        path = self.out / "runs" / self.run_names[i]
        try:
            return Run(path).rows()[-1]
        except (UserError, IndexError):
            return {}

    def _file(self, end: str) -> Path:
        return self.spec.with_suffix("." + end)

    def _said(self) -> dict[str, Any]:
        try:
            return json.loads(self._file("state.json").read_text())
        except (OSError, ValueError):
            return {"state": "lost", "error": "Its files are gone."}

    def _say(self, state: str, **more: Any) -> None:
        write_text(self._file("state.json"), json.dumps({"state": state, "beat": time.time(), **more}))


def trainings(out: Path) -> list[BackgroundTraining]:
    """The jobs in a study's folder, the oldest first."""
    found = []
    for spec in sorted((out.resolve() / "jobs").glob("*.json")):
        if not spec.name.endswith(".state.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, UserError):
                found.append(BackgroundTraining(spec))
    return found


def finished(out: Path, base: TrainConfig, data: Sequence[str], measure: Measure, runs: str = "") -> Sweep:
    """The cells in `out` that differ from `base` in attack, noise, eps, epochs and seed alone, on images with these fingerprints."""
    wanted, found = {k: v for k, v in base.to_dict().items() if k not in FREE}, []
    for path in sorted((out / "cells").glob("*.json")):
        record = read_cell(out, path.stem)
        if record is None or record["training"]["data"] not in data or record["measure"] != measure.to_dict():
            continue
        if all(record["config"].get(name) == value for name, value in wanted.items()):
            found.append((path.stem, record))
    return collect(found, {"study": "points computed here"}, runs)


class _Heartbeat:
    """Says every second how a job goes, until its end."""

    def __init__(self, job: BackgroundTraining):
        self.job, self.state = job, "waiting"
        self.began: float | None = None
        self._lock, self._quiet = threading.Lock(), threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def run(self) -> None:
        """It is its turn."""
        if self.began is None:
            self.state, self.began = "running", time.time()

    def end(self, state: str, error: str | None = None) -> None:
        with self._lock:
            self._quiet.set()
            self.job._say(state, began=self.began, error=error)

    def _beat(self) -> None:
        while not self._quiet.wait(BEAT):
            with self._lock:
                if not self._quiet.is_set():
                    self.job._say(self.state, began=self.began)


def main(spec: Path) -> None:
    """The background process: run the cells of a job, and say every second how it goes."""
    job = BackgroundTraining(spec)
    voice, threads = _Heartbeat(job), json.loads(spec.read_text())["threads"]
    stop, errors = job._file("stop"), []

    def should_stop() -> bool:
        voice.run()
        return stop.exists()

    if hasattr(os, "nice"):
        os.nice(5)  # browser and kernel first
    try:
        for done in _in_turn(job, threads, should_stop):
            errors += [done.error] if done.error is not None else []
    except UserError as error:
        return voice.end("failed", str(error))
    except BaseException as error:
        voice.end("failed", f"{type(error).__name__}: {error}")
        raise
    if errors:
        return voice.end("failed", errors[0])
    voice.end("done" if all(read_cell(job.out, key) for key in job.keys) else "stopped")


def _in_turn(job: BackgroundTraining, threads: int | None, should_stop: Callable[[], bool]) -> Iterator[Done]:
    """The job's cells as they are finished; while another sweep is at work in its folder, it waits."""
    while not job._file("stop").exists():
        try:
            yield from run_cells(job.cells, job.out, threads=threads, should_stop=should_stop)
            return
        except UserError as error:
            if not str(error).startswith("Another sweep is at work"):
                raise
            time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
