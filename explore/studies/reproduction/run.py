"""The reproduction: settings chosen on validation images with one budget for both methods, then every claim's trainings with several seeds."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ... import paths
from ...errors import UserError
from ...experiments.cell import Cell, read_cell
from ...experiments.grid import gather
from ...experiments.runner import run_cells
from ...experiments.task import Done, StudyProgress, tasks_of
from ...results import Sweep
from ...runfolder import Run
from ...serialization import read_json, write_text
from ..sweep import kept
from .diagnostics import every_batch, gradient_parts, reporting, transferred
from .rows import METHODS, SPACE, Row, Tier, trial_cells, trials

LOOKED_AT: dict[str, tuple[Callable[..., Sweep], ...]] = {
    "simclr": (every_batch, gradient_parts, reporting),
    "fgsm-4": (),
}


class Stopped(Exception):
    """The reproduction was asked to stop; what is finished is kept."""


Watch = Callable[[str, Done, StudyProgress], None]  # which stage, the cell that is through, how far


def tune(tier: Tier, out: Path, *, progress: Watch | None = None, **engine: Any) -> dict[str, dict[str, Any]]:
    """The settings with the best probe on the validation images, for each method; cells are kept in `out`."""
    cells = {method: trial_cells(tier, method) for method in METHODS}
    _run("tuning", [cell for part in cells.values() for cell in part], out, progress, engine)
    recipes = {}
    for method, part in cells.items():
        records = [read_cell(out, job.key) for job in tasks_of(part)]
        if any(record is None for record in records):
            raise Stopped
        scores = [_value(record, "probe") for record in records if record]
        best = max(range(len(scores)), key=scores.__getitem__)
        recipes[method] = trials(tier, method)[best]
    return recipes


def train_rows(cells: Sequence[Cell], out: Path, *, progress: Watch | None = None, **engine: Any) -> None:
    """Train and measure what is missing of the rows' cells, in their order (see `by_worth`)."""
    _run("rows", cells, out, progress, engine)


def train_for(
    minutes: float, cells: Sequence[Cell], out: Path, *, progress: Watch | None = None, **engine: Any
) -> list[Cell]:
    """As `train_rows`, for so many minutes; returns the cells that are left.

    A cell is begun where it should be finished in time, by the seconds of those before it. Where none of the rest fits, the
    first is begun and goes on in the next call, from its last saved epoch. One that failed
    is left too; `progress` is told why.
    """
    end, should_stop = time.monotonic() + 60 * minutes, engine.pop("should_stop", lambda: False)
    watch, left, failed = StudyProgress(cells), [], []

    def over() -> bool:
        return should_stop() or time.monotonic() > end

    def through(done: Done) -> None:
        watch.note(done)
        if progress is not None:
            progress("rows", done, watch)

    for task in tasks_of(cells):
        if (record := read_cell(out, task.key)) is None:
            left.append(task.cell)
        else:
            through(Done(task.cell, task.key, record, kept=True))
    while left and not over():
        seconds = watch.spent / watch.worked if watch.worked else 0.0  # a unit of work
        fits = [cell for cell in left if cell.work * seconds < end - time.monotonic()]
        cell = (fits or left)[0]
        for done in run_cells([cell], out, should_stop=over, **engine):
            left.remove(cell)
            failed += [cell] if done.error is not None else []
            through(done)
    return left + failed


def table(lines: Sequence[Row], out: Path, *, seeds: int | None = None) -> Sweep:
    """What is on disk of the rows, as one `Sweep` whose column `method` holds the rows' names.

    Metrics: 'knn', 'knn z', 'probe', 'robust', 'transfer <set>' (shares of test images) and 'seconds of training'.
    """
    parts, about = [], {}
    for row in lines:
        found = gather(row.name, row.cells(seeds), out)
        if len(found):
            once = found.table.drop_duplicates("cell")
            records = [read_cell(out, cell) or {} for cell in once.cell]
            cost = once.assign(metric="seconds of training", low=float("nan"), high=float("nan"))
            cost = cost.assign(value=[record["training_seconds"] for record in records], n=1)
            found = Sweep(pd.concat([found.table, cost], ignore_index=True).assign(method=row.name), found.provenance)
            parts.append(found)
            about[row.name] = {"title": row.title, "against": row.against, "cells": sorted(set(found.table.cell))}
    if not parts:
        raise UserError(f"No training of these rows is finished in {out}; run the reproduction first.")
    joined = parts[0].join(*parts[1:])
    return Sweep(joined.table, {**joined.provenance, "rows": about})


def looks(lines: Sequence[Row], out: Path, *, root: Path | None = None, say: Callable[[str], None] = print) -> Sweep:
    """What finished runs answer without training, with rows' names in `method`; answers are kept in `out`.

    SimCLR's runs: `every_batch`, `gradient_parts`, `reporting`. Those of SimCLR and CLAE: transfer to the sets found below `root`.
    """
    parts = []
    for row in (row for row in lines if row.name in LOOKED_AT):
        asked: list[tuple[Callable[..., Sweep], dict[str, Any]]] = [(q, {}) for q in LOOKED_AT[row.name]]
        asked += [(transferred, {"root": str(root)})] if root is not None else []
        for run in runs_of(row, out):
            for question, options in asked:
                say(f"{question.__name__}, {row.title}, seed {run.config.seed}")
                found = kept(question, run, out, **options)
                parts.append(Sweep(found.table.assign(method=row.name), found.provenance))
    if not parts:
        raise UserError(f"No run of {', '.join(LOOKED_AT)} is finished in {out}; run the reproduction first.")
    return parts[0].join(*parts[1:])


def runs_of(row: Row, out: Path) -> list[Run]:
    """The finished runs of a row, by seed."""
    jobs = tasks_of(row.cells())
    records = [record for job in jobs if (record := read_cell(out, job.key)) is not None]
    return [Run(out / "runs" / record["run"]) for record in records]


def beside(found: Sweep, folder: Path) -> pd.DataFrame:
    """Means over seeds of a re-run beside those in a folder: row, metric, mean, low, high, n; shipped, and whether the intervals overlap."""
    found = Sweep(found.table[found.table.metric != "seconds of training"])
    own = found.summary()[["method", "metric", "mean", "low", "high", "n"]].rename(columns={"method": "row"})
    if not (folder / "rows.csv").is_file():
        return own
    theirs = Sweep.load(folder / "rows").summary()[["method", "metric", "mean", "low", "high"]]
    theirs = theirs.rename(columns={"method": "row", "mean": "shipped", "low": "shipped low", "high": "shipped high"})
    both = own.merge(theirs, on=["row", "metric"], how="left")
    return both.assign(agrees=(both["shipped low"] <= both["high"]) & (both["low"] <= both["shipped high"]))


def recipes_of(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The tuned settings that a folder keeps; None where there are none."""
    path = folder / "recipes.json"
    return read_json(path)["recipes"] if path.is_file() else None


def keep_recipes(folder: Path, tier: Tier, recipes: dict[str, dict[str, Any]], out: Path) -> None:
    """Write the tuned settings with every trial and what it measured."""
    tried = {}
    for method in METHODS:
        jobs = tasks_of(trial_cells(tier, method))
        records = [read_cell(out, job.key) for job in jobs]
        tried[method] = [
            {**settings, "probe": _value(record, "probe"), "seconds": record["seconds"], "cell": job.key}
            for settings, job, record in zip(trials(tier, method), jobs, records, strict=True)
            if record
        ]
    about = {"epochs": tier.tuning_epochs, "validation": tier.validation, "seed": 0, "space": SPACE}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipes.json", json.dumps({"recipes": recipes, "trials": tried, **about}, indent=1) + "\n")


def default_out() -> Path:
    """Where the reproduction keeps cells, runs and tables unless told otherwise."""
    return paths.runs_root() / "reproduction"


def shipped_folder(tier: str) -> Path:
    """Where a tier's tables come with the project."""
    return paths.shipped() / "reproduction" / tier


def _run(stage: str, cells: Sequence[Cell], out: Path, progress: Watch | None, engine: dict[str, Any]) -> None:
    watch, failed = StudyProgress(cells, engine.get("workers", 1)), []
    for done in run_cells(cells, out, **engine):
        watch.note(done)
        if done.error is not None:
            failed.append(done.error)
        if progress is not None:
            progress(stage, done, watch)
    if failed:
        raise UserError(f"{len(failed)} trainings failed; the first: {failed[0]}")
    if watch.through < len(watch.jobs):
        raise Stopped


def _value(record: dict[str, Any], metric: str) -> float:
    return next(row["value"] for row in record["rows"] if row["metric"] == metric)
