"""A panel's jobs in the background: started, found again, watched, and removed when they are done."""

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...experiments.cell import content_hash
from ...experiments.queue import ENDED, FREE, BackgroundTraining, trainings
from ...studies import Cell

LOOK = 0.7  # seconds between two looks at the jobs' files


def family_of(base: TrainConfig, data: Sequence[str]) -> str:
    """Names the figure that a point belongs to: all settings but those of `FREE`, and the images."""
    kept = {k: v for k, v in base.to_dict().items() if k not in FREE}
    return content_hash({"config": kept, "data": sorted(data)})[:16]


class Jobs:
    """The jobs of one family in a study's folder. `changed(ended)` is told, in a thread, that there is something to draw.

    `changed` must be a bound method: its panel is held weakly, and the thread ends with it.
    """

    def __init__(self, out: Path, family: str, changed: Callable[[bool], None]):
        self.out, self.family, self._changed = out, family, weakref.WeakMethod(changed)  # type: ignore[type-var]
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended: set[str] = set()
        self._all = {job.spec.stem: job for job in trainings(out) if job.about.get("family") == family}

    def __iter__(self):
        with self._lock:
            return iter([*self._all.items()])

    def __getitem__(self, name: str) -> BackgroundTraining:
        return self._all[name]

    def start(
        self, cells: Sequence[Cell], about: dict[str, Any], price: float | None, threads: int
    ) -> BackgroundTraining:
        """Begin to train the cells of one point."""
        job = BackgroundTraining.start(
            cells, self.out, about={**about, "family": self.family}, price=price, threads=threads
        )
        with self._lock:
            self._all[job.spec.stem] = job
        self.watch()
        return job

    def forget(self, name: str) -> None:
        """Remove a job that has ended; what it made stays."""
        with self._lock:
            self._all.pop(name).forget()

    def watch(self) -> None:
        """Look at the jobs until all have ended, in a thread of its own."""
        with self._lock:
            if self._thread is None and self._all:
                self._thread = threading.Thread(target=_look, args=(weakref.ref(self),), daemon=True)
                self._thread.start()

    def _look(self) -> bool:
        """Tell the panel how the jobs are; False where none is left to be watched."""
        gone = [name for name, job in self if not job.spec.is_file()]  # another panel has removed it
        with self._lock:
            for name in gone:
                del self._all[name]
        changed, states = self._changed(), {name: job.state["state"] for name, job in self}
        ended = {name for name, state in states.items() if state in ENDED}
        for name in ended:
            if states[name] == "done":
                self.forget(name)
        alive, new = bool(states.keys() - ended), bool(gone or ended - self._ended)
        self._ended = ended
        if changed is None or not alive:
            with self._lock:
                self._thread = None
        if changed is not None:
            changed(new)
        return changed is not None and alive


def _look(jobs: "weakref.ref[Jobs]") -> None:
    rest = threading.Event()
    while True:
        own = jobs()
        if own is None or not own._look():
            return
        own = None
        rest.wait(LOOK)
