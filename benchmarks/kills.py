"""A training killed with -9 at every disk event and at random times, and resumed: what is left of it.

Each training is a process that ends itself by SIGKILL before its n-th disk event (a file opened, renamed or removed), or is
killed from outside at a random time. Then another process finishes it. POSIX and CPU only.
"""

import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from explore.errors import UserError

from .timing import machine

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree")
COLUMNS = ("step", "epoch", "loss", "loss_adv", "chance", "knn", "lr")


def run(quick: bool, device: str) -> dict[str, object]:
    """How many of the kills broke a run, changed a bit of its encoder, or left a file behind."""
    kills = 20 if quick else 200
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLAE_RUNS"] = folder
        root, draws, seconds, numbers = Path(folder), random.Random(0), [], itertools.count()
        began = time.perf_counter()
        if _ended(_forked(lambda: _trained("whole"))):
            raise UserError("A training that nothing kills does not come to its end.")
        whole, lasts = _left(root / "whole"), time.perf_counter() - began
        _ended(_forked(lambda: (_killed_before(10**9, root / "events"), _trained("counted"))))
        events = int((root / "events").read_text())
        (root / "events").unlink()
        at = [i * events // min(events, kills // 2) for i in range(min(events, kills // 2))]
        found = {"kills": 0, "broken": 0, "other_bits": 0, "other_rows": 0, "files_left": 0, "before_it_was_a_run": 0}
        while found["kills"] < kills:
            name, event = f"run{next(numbers)}", at.pop(0) if at else None
            if event is None:
                child = _forked(lambda name=name: _trained(name))
                time.sleep(draws.uniform(0.1, 0.9) * lasts)
                os.kill(child, signal.SIGKILL)
            else:
                child = _forked(lambda name=name, event=event: (_killed_before(event), _trained(name)))
            if _ended(child) != -signal.SIGKILL:  # it had come to its end
                lasts *= 0.9
                continue
            found["kills"] += 1
            found["before_it_was_a_run"] += not (root / name / "config.json").is_file()
            began = time.perf_counter()
            fine = _ended(_forked(lambda name=name: _trained(name))) == 0 and "damaged" not in _states(root / name)
            seconds.append(time.perf_counter() - began)
            left = _left(root / name) if fine else {}
            found["broken"] += not fine
            found["other_bits"] += left.get("bits") != whole["bits"]
            found["other_rows"] += left.get("rows") != whole["rows"]
            found["files_left"] += left.get("files") != whole["files"]
            print(f"\r{found}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, number in found.items():
        print(f"{name.replace('_', ' '):<22}{number:>6}")
    resumed = statistics.median(seconds)
    print(f"{events} disk events in a training; resumed and finished in {resumed:.1f} s (median), whole {lasts:.1f} s")
    return {**found, "disk_events": events, "quick": quick, **machine(torch.device("cpu"))}


def _trained(name: str) -> None:
    """Train the run to its end, from wherever it is."""
    import explore as ex
    from explore.experiments.background import trained

    small = {"image_size": 16, "width": 4, "batch_size": 64, "train_images": 128, "knn_images": 100, "epochs": 3}
    trained(ex.TrainConfig(dataset="emoji", **small), name, threads=1)


def _forked(work: Callable[[], object]) -> int:
    """The number of a process that does the work; the libraries are imported once, here."""
    from explore import trunk  # noqa: F401
    from explore.experiments import background  # noqa: F401

    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _ended(child: int) -> int:
    """How a process ended: its exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killed_before(event: int, counted: Path | None = None) -> None:
    """End this process before its `event`-th disk event in the runs folder; `counted`: a file that gets the number of all."""
    seen, folder = -1, os.environ["CLAE_RUNS"]

    def hook(name: str, values: tuple) -> None:
        nonlocal seen
        if name in EVENTS and str(values[0]).startswith(folder) and str(values[0]) != str(counted):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)
            if counted is not None:
                counted.write_text(str(seen + 1))

    sys.addaudithook(hook)


def _states(path: Path) -> list[str]:
    import explore as ex

    table = ex.runs().set_index("run")
    return [table.state[path.name]]


def _left(path: Path) -> dict[str, object]:
    """What a finished run consists of, without times."""
    from explore.runfolder import Run
    from explore.serialization import load_tensors

    run = Run(path)
    rows = [tuple(row.get(column) for column in COLUMNS) for row in run.rows()]
    bits = {name: tensor.numpy().tobytes() for name, tensor in load_tensors(path / "encoder.safetensors")[0].items()}
    return {"bits": bits, "rows": rows, "files": sorted(p.name for p in path.iterdir())}
