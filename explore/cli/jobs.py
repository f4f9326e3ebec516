"""python -m explore jobs: trainings in the background, those of `sweep`, `train` and the panels."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UserError


def add(sub: Any) -> None:
    """Register the command."""
    about = "list the trainings in the background, stop one, or forget one that has ended"
    p = sub.add_parser("jobs", help=about, description=about)
    p.set_defaults(command=_jobs)
    p.add_argument("action", nargs="?", choices=("stop", "forget"), help="without it: list them")
    p.add_argument("name", nargs="?", metavar="NAME", help="of the job")
    p.add_argument("--out", type=Path, metavar="DIR", help="the folder of the sweep (default: <runs>/sweeps)")
    p.add_argument("--json", action="store_true", help="one line of JSON")


def _jobs(args: argparse.Namespace) -> int:
    from ..experiments.background import running
    from ..experiments.grid import default_out
    from ..experiments.jobs import training_named, trainings

    out = args.out or default_out()
    # runs that are trained by themselves, beside the jobs of a sweep and their cells
    alone = {} if args.out else {own.name: own for own in running() if out not in own.run.path.parents}
    if args.action is None:
        return _list([_row(job) for job in trainings(out)] + [_run_row(own) for own in alone.values()], out, args.json)
    if args.name is None:
        raise UserError(f"jobs {args.action} takes the name of a job, got none; list them with: python -m explore jobs")
    if args.name in alone and args.action == "stop":
        state = alone[args.name].stop().name
        text = f"{args.name} is {state}; go on with: python -m explore train --resume {args.name} --background"
        print(json.dumps({"job": args.name, "action": "stop"}) if args.json else text)
        return 0
    job = training_named(out, args.name)
    state = job.state["state"]
    if args.action == "stop":
        if not job.alive:
            raise UserError(
                f"Job {job.name} is not running, it is {state}; remove it with: python -m explore jobs forget"
            )
        job.stop()
        text = f"{job.name} stops after the step it is in; what is finished is kept, the same sweep goes on from there"
    else:
        if job.alive:
            raise UserError(f"Job {job.name} is {state}; stop it first with: python -m explore jobs stop {job.name}")
        job.forget()
        text = f"{job.name} is removed from the list; its results are kept"
    print(json.dumps({"job": job.name, "action": args.action}) if args.json else text)
    return 0


def _row(job: Any) -> dict[str, Any]:
    state, now = job.state, job.progress()
    known = state["state"] in ("waiting", "running") and now.seconds_left is not None
    return {
        "name": job.name,
        "state": "stopping" if job.alive and job.stopping else state["state"],
        "cell": now.cell,
        "cells": now.cells,
        "epoch": now.epoch,
        "epochs": now.epochs,
        "share": round(now.share, 4),
        "seconds_left": round(now.seconds_left) if known else None,
        "study": job.study or "a panel's point",
        "error": state.get("error"),
    }


def _run_row(own: Any) -> dict[str, Any]:
    from ..experiments.follow import progress_of

    now, state = progress_of(own.run), own.state
    return {
        "name": own.name,
        "state": state.name,
        "cell": 1,
        "cells": 1,
        "epoch": min(now.epochs, int(now.epoch) + 1),
        "epochs": now.epochs,
        "share": round(now.share, 4),
        "seconds_left": None if now.seconds_left is None else round(now.seconds_left),
        "study": "a run",
        "error": state.error or None,
    }


def _list(rows: list[dict[str, Any]], out: Path, as_json: bool) -> int:
    from ..experiments.cost import duration

    if as_json:
        print(json.dumps(rows))
        return 0
    if not rows:
        print(f"no jobs in {out}")
        return 0
    lines = [("name", "state", "progress", "left", "study")]
    for row in rows:
        at = f"cell {row['cell']} of {row['cells']}, epoch {row['epoch']} of {row['epochs']}"
        left = "" if row["seconds_left"] is None else f"about {duration(row['seconds_left'])}"
        progress = f"{row['share']:.0%}" + ("" if row["state"] == "done" else f", {at}")
        lines.append((row["name"], row["state"], progress, left, row["study"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row["error"]:
            print(f"{row['name']}: {row['error']}")
    return 0
