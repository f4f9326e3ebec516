"""A run's training in a process of its own: started, found again, stopped, resumed.

The process is `python -m explore train --resume NAME --monitored`. It goes on when the notebook's
kernel or the terminal ends. All that is known of it stands in the run folder:

process.json  its number, when it was started, and what status.json said then
train.log     what it printed
"""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths, system
from ..config import TrainConfig
from ..errors import UserError
from ..runfolder import Run, open_run
from ..serialization import read_json, write_text
from ..training import train
from .detached import launch

PATIENCE = 1.5  # seconds for the step under way, its saving included, until a stop ends the process at once
ENDED = ("done", "stopped", "failed")
STARTING = 300.0  # seconds after which a process that has not begun to train counts as lost
KILLED = (
    "The process ended without a report, killed or with the machine; resume it, it goes on from the last saved epoch."
)
_processes: dict[int, subprocess.Popen] = {}  # those that this process has started, by number


@dataclass(frozen=True)
class RunState:
    """`name`: new, starting, running, done, stopped or failed. `error`: one sentence where it
    failed. `silent`: seconds since it last wrote something, where it runs.
    """

    name: str
    error: str = ""
    silent: float = 0.0

    @property
    def alive(self) -> bool:
        return self.name in ("starting", "running")


class RunProcess:
    """The training of a run, seen from outside. `RunProcess(run)` is a handle on any run,
    `RunProcess.start(config)` trains one.
    """

    def __init__(self, run: Run | str):
        self.run = open_run(run) if isinstance(run, str) else run
        self.name = self.run.name

    def __repr__(self) -> str:
        return f"<training of {self.name}: {self.state.name}>"

    @classmethod
    def start(
        cls, config: TrainConfig, *, name: str | None = None, root: Path | None = None, **where: Any
    ) -> "RunProcess":
        """Make a run folder and train it. `name`: None takes the first that is free of 'label',
        'label-2' and so on. `where`: `device`, `threads`.

        UserError where the folder cannot be written, or the name is taken.
        """
        root = root or paths.runs_root()
        own = cls(Run.create(config, name=name or free_name(config.label, root), root=root))
        if root == paths.runs_root():
            own.run.name = own.name = own.run.path.relative_to(root).as_posix()
        own._launch(**where)
        return own

    def resume(self, **where: Any) -> None:
        """Go on from where it was stopped, or has failed; the encoder will be that of an
        uninterrupted training, bit for bit.
        """
        state = self.state
        if state.alive:
            raise UserError(f"The run '{self.name}' is {state.name}; stop it first, or wait until it has ended.")
        if state.name == "done":
            raise UserError(f"The run '{self.name}' is finished; start a new one for other settings.")
        self._launch(**where)

    def stop(self, patience: float = PATIENCE) -> RunState:
        """End it after the step it is in, which is saved; one that takes longer than `patience`
        seconds is ended at once.

        What is lost then, an epoch at most, is computed again by `resume`. Returns the state after
        it. UserError for a training that is not in the background.
        """
        if not self.state.alive or (pid := self._pid()) is None:
            return self.state
        if (started := self._started()) is None or started["pid"] != pid:  # a kernel, perhaps, that runs a cell
            raise UserError(
                f"The run '{self.name}' is trained by process {pid}, not in the background; stop it where it was started, by Ctrl-C."
            )
        if not (system.request_end(pid) and self._ends(patience)):
            system.kill(pid)
            self._ends(10)
        if not self.state.alive and self._status().get("state") not in ("stopped", "done"):
            self.run.set_status("stopped", pid=pid)
        return self.state

    def wait(self, seconds: float = 600) -> RunState:
        """Wait for its end, and that of its process; its state then, or now where the time was not
        enough.
        """
        if self._ends(seconds) and (started := self._started()) and started["pid"] in _processes:
            _processes[started["pid"]].wait(STARTING)
        return self.state

    @property
    def log(self) -> Path:
        return self.run.path / "train.log"

    @property
    def state(self) -> RunState:
        """What it is doing, read from its folder."""
        state, started = self._look(), self._started()
        if not state.alive and started is not None and started["pid"] in _processes:
            _processes[started["pid"]].poll()  # an ended process is taken off the system's list
        return state

    def _look(self) -> RunState:
        status, started = self._status(), self._started()
        told = str(status.get("state", "new"))
        if told == "done":
            return RunState("done")
        if started is not None and status == started["before"]:  # it has not begun to train
            if _runs(started):
                return RunState("starting", silent=max(0.0, time.time() - started["began"]))
            return RunState("failed", self._error())
        if told == "running" and self.run.held:
            return RunState("running", silent=self._silent())
        if told == "running" and (again := self._status()) != status:  # it ended between two looks
            told = str(again.get("state"))
        if told == "running":
            return RunState("failed", self._error()) if started else RunState("stopped")
        return RunState(told if told in ENDED else "new")

    def _launch(self, device: str = "auto", threads: int | None = None) -> None:
        root = self.run.path.parents[len(Path(self.name).parts) - 1]
        words = ["train", "--monitored", "--resume", self.name, "--runs-dir", str(root.resolve()), "--device", device]
        words += ["--threads", str(threads)] if threads else []
        before, began = self._status(), time.time()
        process = launch("explore", words, self.log)
        _processes[process.pid] = process
        write_text(self._file, json.dumps({"pid": process.pid, "began": began, "before": before}))

    @property
    def _file(self) -> Path:
        return self.run.path / "process.json"

    def _status(self) -> dict[str, Any]:
        try:
            return read_json(self.run.path / "status.json")
        except (FileNotFoundError, UserError):
            return {}

    def _started(self) -> dict[str, Any] | None:
        """What process.json says; None for a run that was never trained in the background."""
        try:
            found = read_json(self._file)
        except (FileNotFoundError, UserError):
            return None
        return found if {"pid", "began", "before"} <= found.keys() else None

    def _pid(self) -> int | None:
        status, started = self._status(), self._started()
        begun = started is None or status != started["before"]
        return status.get("pid") if begun else started["pid"] if started else None

    def _ends(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.state.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def _silent(self) -> float:
        """Seconds since a row of metrics, or the beginning, was written."""
        files = [self.run.path / name for name in ("metrics.jsonl", "status.json")]
        return max(0.0, time.time() - max((file.stat().st_mtime for file in files if file.is_file()), default=0.0))

    def _error(self) -> str:
        """The sentence with which it ended."""
        return self.run.why() or KILLED


def running(root: Path | None = None) -> list[RunProcess]:
    """The runs in a folder (None: the runs folder) that are trained at this moment, the latest
    started first.
    """
    root, found = root or paths.runs_root(), []
    for config in root.rglob("config.json"):
        try:
            run = Run(config.parent, config.parent.relative_to(root).as_posix())
            own = RunProcess(run)
            if own.state.alive:
                found.append((config.stat().st_mtime, own))
        except (UserError, OSError):
            continue  # a damaged run, or one that was removed meanwhile
    return [own for _, own in sorted(found, key=lambda each: -each[0])]


def trained(config: TrainConfig, name: str, **settings: Any) -> Run:
    """The run of this name, trained with these settings to its end, in this process: at once where
    it is there already.

    `settings`: those of `explore.train`. UserError where a run of that name has other settings.
    """
    path = paths.runs_root() / name
    run = Run(path, name) if (path / "config.json").is_file() else Run.create(config, name=name)
    run.name = name
    if run.config != config:
        raise UserError(f"The run '{name}' has other settings; choose another name, or remove the folder {path}.")
    if run.status["state"] != "done":
        for _ in train(config, run=run, resume=True, log_every=5, monitored=True, **settings):
            pass
    return run


def free_name(label: str, root: Path) -> str:
    """'label', or the first of 'label-2', 'label-3', ... that no folder has."""
    names = (label if i == 1 else f"{label}-{i}" for i in range(1, 10**6))
    return next(name for name in names if not (root / name).exists())


def _runs(started: dict[str, Any]) -> bool:
    """Whether a started process is there."""
    process = _processes.get(started["pid"])
    if process is not None:
        return process.poll() is None
    if time.time() - started["began"] > STARTING:
        return False
    return system.is_there(started["pid"])
