"""A training as its run folder shows it while it runs: its curves, its speed, the time it has left."""

import itertools
from statistics import median
from typing import Any

import pandas as pd

from ..results.training import RunProgress, TrainingCurves
from ..runfolder import Run

LATEST = 12  # rows that the speed is taken from: one during which it was paused does not count
COLUMNS = ("loss", "loss_adv", "chance", "knn", "alignment", "uniformity", "rankme", "lr", "seconds")


def curves_of(run: Run, *others: Run) -> TrainingCurves:
    """The rows of a run, and of others to compare it with."""
    rows: list[dict[str, Any]] = []
    for each in (run, *others):
        rows += [{"run": each.name, "method": each.method, **row} for row in each.rows()]
    order = ["run", "method", "epoch", "step", *COLUMNS]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[name for name in order if name in table] if rows else order)
    about = {each.name: each.config.to_dict() for each in (run, *others)}
    own = {name: run.env.get(name) for name in ("device", "threads", "commit", "versions")}
    return TrainingCurves(table, {"runs": [*about], "config": about, **own})


def progress_of(run: Run) -> RunProgress:
    """How far a run is, with the speed of its latest steps: a pause, or another speed before it,
    does not count.
    """
    config, rows = run.config, run.rows()
    steps = [row for row in rows if row.get("step")]
    if not steps:
        return RunProgress(0.0, config.epochs, 0)
    step, epoch = int(steps[-1]["step"]), float(steps[-1]["epoch"])
    total = round(step / epoch) * config.epochs
    pairs = list(itertools.pairwise(rows))
    plain = [_each(a, b) for a, b in pairs if b.get("knn") is None] or [_each(a, b) for a, b in pairs]
    if not plain:
        return RunProgress(epoch, config.epochs, step)
    speed = median(plain[-LATEST:])
    looks = [
        max(0.0, (b["seconds"] - a["seconds"]) - speed * (b["step"] - a["step"])) for a, b in pairs if b.get("knn")
    ]
    due = (config.epochs - int(epoch)) / config.knn_every if config.knn_every else 1
    left = (total - step) * speed + (due * median(looks) if looks and step < total else 0.0)
    return RunProgress(epoch, config.epochs, step, config.batch_size / speed if speed else None, left)


def _each(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Seconds of each step between two rows."""
    return (after["seconds"] - before["seconds"]) / max(1, after["step"] - before["step"])
