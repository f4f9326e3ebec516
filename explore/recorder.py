"""`Recorder`: writes a training into its run folder while it runs, and reads from there what a
resumption needs.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from .nets import Encoder
from .runfolder import Run

QUICK = 0.25  # seconds: a saving that takes less is made at every epoch's end
SPARE = 20  # a longer one where this many times its seconds have passed


class Recorder:
    """Keeps a training in its run folder, from where `resume` goes on; `run` None: writes nothing.

    Every process of several reads what a resumption needs; the `first` alone writes. Rows carry the
    time spent and the time left of `total` steps.
    """

    def __init__(
        self,
        run: Run | None,
        encoder: Encoder,
        optimizer: torch.optim.Optimizer,
        sums: Tensor,
        total: int,
        *,
        resume: bool = False,
        first: bool = True,
    ):
        self.run = run if first else None
        self._lock = run.hold() if first and run is not None else None
        self.encoder, self.optimizer, self.sums, self.total = encoder, optimizer, sums, total
        self.step, spent = 0, 0.0
        self._saved, self._saving = -math.inf, 0.0  # when the last saving ended, and the seconds it took
        if resume and run is not None and (run.path / "resume.safetensors").is_file():
            progress = run.load_resume(encoder, optimizer, sums)
            self.step, spent = progress["step"], progress["seconds"]
        if resume and self.run is not None:
            self.run.keep_rows(self.step or -1)  # drops what a crash left behind: all rows if in its first epoch
        self._began = time.perf_counter() - spent

    def start(self, **facts: Any) -> None:
        """Add facts to env.json; the run counts as running."""
        if self.run is not None:
            self.run.note_env(**facts)
            self.run.set_status("running")

    def write(self, row: dict[str, Any]) -> dict[str, Any]:
        """Append a row of metrics; returns it with the seconds spent and left."""
        step, seconds = row["step"], time.perf_counter() - self._began
        row = row | {"seconds": seconds}
        if step:
            row["seconds_left"] = seconds / step * (self.total - step)
        if self.run is not None:
            self.run.append(row)
        return row

    def save(self, step: int, last: bool = True) -> None:
        """Write the weights and all that a resumption needs.

        Not the `last` time, it is left out where the time since the last saving is less than
        `SPARE` times what that took: a large network on a fast GPU would spend most of its time so.
        """
        began = time.perf_counter()
        due = last or self._saving < QUICK or began - self._saved > SPARE * self._saving
        if self.run is not None and due:
            self.run.save_encoder(self.encoder, step)
            progress = {"step": step, "seconds": time.perf_counter() - self._began}
            self.run.save_resume(self.encoder, self.optimizer, self.sums, progress)
            self._saved = time.perf_counter()
            self._saving = self._saved - began

    def end(self, state: str, step: int) -> None:
        """Set the run's status, 'done' or 'stopped', and let others train it."""
        if self.run is not None:
            self.run.set_status(state, step=step)
        if self._lock is not None:
            self._lock.release()
