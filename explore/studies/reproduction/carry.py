"""Finished trainings from one machine to another, in a few small files.

records.json  the finished cells      runs.json  config, environment and metrics of their runs
<run>.1.safetensors, <run>.2.safetensors, ...  an encoder in half precision, at most `LIMIT` bytes a file
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ...experiments.cell import Cell, read_cell, write_cell
from ...experiments.task import tasks_of
from ...runfolder import Run
from ...serialization import load_tensors, read_json, save_tensors, write_text

TAKEN = "taken.json"  # in `out`: what `take` found of runs
LIMIT = 15_000_000  # bytes of a file of weights
KEPT = ("time", "versions", "commit", "machine", "device", "precision", "image_size")  # of env.json: no paths


def pack(cells: Sequence[Cell], out: Path, folder: Path, *, encoders: int = 0) -> None:
    """Write what is finished of the cells in `out` to `folder`, and the weights of the first `encoders` of them."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {task.key: record for task in tasks_of(cells) if (record := read_cell(out, task.key)) is not None}
    names = [record["run"] for record in records.values() if record["run"]]
    runs = {name: Run(out / "runs" / name) for name in names if (out / "runs" / name / "config.json").is_file()}
    about = _taken(out) | {
        name: {
            "config": run.config.with_(data_dir=None).to_dict(),
            "env": {key: run.env[key] for key in KEPT if key in run.env},
            "metrics": run.rows(),
        }
        for name, run in runs.items()
    }
    write_text(folder / "records.json", json.dumps(records))
    write_text(folder / "runs.json", json.dumps(about))
    with_weights = [name for name, run in runs.items() if (run.path / "encoder.safetensors").is_file()]
    for name in with_weights[:encoders]:
        tensors, header = load_tensors(runs[name].path / "encoder.safetensors")
        for i, part in enumerate(_parts(tensors), 1):
            save_tensors(folder / f"{name}.{i}.safetensors", part, header)


def take(folder: Path, out: Path) -> int:
    """Put the records that `pack` wrote among those of `out`, where they are not yet; returns how many were new."""
    path = folder / "records.json"
    if not path.is_file():
        raise UserError(f"There is no {path}; give the folder that --pack wrote.")
    new = 0
    for key, record in read_json(path).items():
        if read_cell(out, key) is None:
            write_cell(out, key, record)
            if read_cell(out, key) is None:
                (out / "cells" / f"{key}.json").unlink()
                raise UserError(f"The record {key} in {path} does not match its name: the file was changed.")
            new += 1
    if (runs := folder / "runs.json").is_file():
        write_text(out / TAKEN, json.dumps(_taken(out) | read_json(runs)))
    return new


def _taken(out: Path) -> dict[str, Any]:
    """What was taken of runs, whose folders are elsewhere."""
    return read_json(out / TAKEN) if (out / TAKEN).is_file() else {}


def packed_encoder(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights of a packed run, float32."""
    files = sorted(folder.glob(f"{name}.*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no weights of '{name}'.")
    return {
        key: t.float() if t.is_floating_point() else t for file in files for key, t in load_tensors(file)[0].items()
    }


def _parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in half precision, in parts of at most `LIMIT` bytes."""
    parts: list[dict[str, Any]] = [{}]
    size = 0
    for name, t in tensors.items():
        half = t.to(torch.float16) if t.is_floating_point() else t
        if size + half.nbytes > LIMIT and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name], size = half, size + half.nbytes
    return parts
