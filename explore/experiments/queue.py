"""The process of a background training: `python -m explore.experiments.queue <out>/jobs/<name>.json`.

It waits while another process runs cells in the folder, and writes its state every second. SIGTERM and Ctrl-C end it as a stop
does: after the step it is in, which is kept.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import system
from ..errors import UserError
from ..results import Sweep
from .grid import gather
from .jobs import BackgroundTraining
from .runner import FolderBusy, run_cells
from .task import Done

BEAT = 1.0  # seconds between two written states


class _Heartbeat:
    """Writes a job's state every second until its end."""

    def __init__(self, job: BackgroundTraining):
        self.job, self.state = job, "waiting"
        self.about: dict[str, float] = {}  # when it began, and the share of the work that was done before
        self._lock, self._quiet = threading.Lock(), threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def run(self) -> None:
        """The job has begun."""
        if not self.about:
            self.about = {"began": time.time(), "share": self.job.progress().share}
            self.state = "running"

    def end(self, state: str, **error: str) -> None:
        with self._lock:
            self._quiet.set()
            self.job.write_state(state, **self.about, **error)

    def _beat(self) -> None:
        while not self._quiet.wait(BEAT):
            with self._lock:
                if not self._quiet.is_set():
                    self.job.write_state(self.state, **self.about)


def main(spec: Path) -> None:
    """Run the cells of a job, write its study's table, report its end."""
    job, signals = BackgroundTraining(spec), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signals.set())
    system.yield_to_others()  # browser and kernel first
    beat, failed = _Heartbeat(job), {}

    def should_stop() -> bool:
        return signals.is_set() or job.stopping

    try:
        for done in _in_turn(job, beat, should_stop):
            if done.error is not None:
                failed[done.key] = done.error
        if job.study is not None:
            _write_table(job, failed)
    except UserError as error:
        return beat.end("failed", error=str(error))
    except BaseException as error:
        beat.end("failed", error=f"{type(error).__name__}: {error}")
        raise
    if failed:
        return beat.end("failed", error=next(iter(failed.values())))
    beat.end("done" if all(job.finished()) else "stopped")


def _in_turn(job: BackgroundTraining, beat: _Heartbeat, should_stop: Callable[[], bool]) -> Iterator[Done]:
    """The job's cells as they are finished; it waits while another process runs cells in its folder."""

    def running() -> bool:
        beat.run()
        return should_stop()

    while not should_stop():
        try:
            yield from run_cells(job.cells, job.out, should_stop=running, **job.engine)
            return
        except FolderBusy:
            time.sleep(1)


def _write_table(job: BackgroundTraining, failed: dict[str, str]) -> None:
    """What is finished of the study, as `run_grid` writes it, with the command that started the job."""
    found = gather(str(job.study), job.cells, job.out, failed)
    if len(found):
        Sweep(found.table, {**found.provenance, "command": job.command}).save(job.out / str(job.study))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
