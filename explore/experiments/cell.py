"""A study's cells: one training each, measured, and kept on disk under the hash of all that determines it.

<out>/cells/<hash>.json  a finished cell      <out>/runs/<label>-<hash>/  its run folder, with the encoder
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .. import datasets
from ..attack_table import TABLE
from ..attacks import NOISES, attack_named
from ..config import BEFORE, LOSS_SETTINGS, TrainConfig
from ..environment import environment
from ..errors import UserError
from ..results import Sweep
from ..runfolder import Run, build_encoder
from ..serialization import write_text
from ..threads import at_work
from ..training import describe_device, resolve_device, train
from .metrics import USUAL, Measure, measured

SCHEMA = 1  # raise it when the same settings measure something else than before
NETWORK = ("arch", "width", "stem", "proj_dim", "proj_hidden", "dual_bn", "bn_adv_momentum", "seed")
NO_EFFECT = ("dataset", "data_dir", "image_size", "knn_every", "knn_images")  # images are hashed; live kNN only looks
MEASURING = 5.0  # cost of measuring, in forward passes of each image (on `fashion`, with the probe)
# settings newer than SCHEMA, with the value that cells had before: left out while they have it
ADDED: dict[str, Any] = {"chunk": None, "compile": False, "validation": 0, **BEFORE}
ADDED |= {"proj_hidden": None, "averaged": False, "decay": "matrices", "attack_mode": "train"}
ADVERSARY = (
    "eps",
    "steps",
    "alpha",
    "averaged",
    "adv_reference",
    "attack_branch",
    "attack_mode",
    "clamp",
    "gray",
    "gaussian_by",
    "noise_norm",
)


@dataclass(frozen=True)
class Cell:
    """One training and what is measured on it; `trained=False`: the network as it was drawn, before any training."""

    config: TrainConfig
    measure: Measure = USUAL
    trained: bool = True

    def training(self, data: str) -> dict[str, Any]:
        """All that determines the encoder, for images with this `fingerprint`; settings without effect are left out."""
        c, kept = self.config, self.config.to_dict()
        dropped = set(NO_EFFECT)
        if c.attack == "none":
            dropped |= {*ADVERSARY, "authors_step"}
        elif c.attack in NOISES:
            dropped |= {"steps", "attack_branch", "attack_mode"} | (
                set() if c.attack == "gaussian" else {"gaussian_by"}
            )
        else:
            dropped |= {"gaussian_by", "noise_norm"} | (set() if TABLE[c.attack].steps else {"steps"})
        dropped |= {name for loss, own in LOSS_SETTINGS.items() if loss != c.loss for name in own.values()}
        dropped |= {name for name, value in ADDED.items() if kept[name] == value}
        kept = {name: value for name, value in kept.items() if name not in dropped}
        if not self.trained:
            kept = {name: kept[name] for name in NETWORK if name in kept}
        return {"schema": SCHEMA, "data": data, "trained": self.trained, "config": kept}

    def key(self, data: str) -> str:
        """The cell's name on disk."""
        return content_hash({**self.training(data), "measure": self.measure.to_dict()})[:16]

    def run_name(self, data: str) -> str:
        """The name of its run folder: a training is found again also where something else is to be measured on it."""
        return f"{self.config.label}-{content_hash(self.training(data))[:8]}"

    @property
    def work(self) -> float:
        """About what it costs, in forward passes of each image."""
        return MEASURING + (cost_of(self.config) if self.trained else 0)


def step_passes(config: TrainConfig) -> int:
    """Forward passes of one view that a training step costs, a backward counted as two: SimCLR 6, CLAE 9, ... (see steps.py)."""
    if config.attack == "none":
        return 6
    if config.authors_step:
        return 15
    how = (config.adv_reference, config.attack_branch, config.attack_mode)
    own = how != ("other_view", "clean", "train")
    if config.attack in NOISES or (attack_named(config.attack, 0.0).single_step and not own):
        return 9
    again = config.attack_mode == "eval" or how[:2] == ("self", "adv")  # the anchor is embedded for the attack
    return 9 + 2 * TABLE[config.attack].gradients(config.steps) + again


def cost_of(config: TrainConfig) -> int:
    """What a training costs, in forward passes of each image: epochs * passes a step."""
    return config.epochs * step_passes(config)


def content_hash(identity: dict[str, Any]) -> str:
    """SHA-256 of plain JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def fingerprint(data: datasets.Data) -> str:
    """SHA-256 (16 characters) of a data set's images and labels; of names, sizes and labels where images are streamed."""
    digest = hashlib.sha256()
    splits = [data.train, data.test] + ([data.labelled] if data.labelled not in (None, data.train) else [])
    for split in splits:
        assert split is not None
        digest.update(split.labels.cpu().numpy().tobytes())
        files = getattr(split, "files", None)
        if files is None:
            digest.update(split.stored.cpu().contiguous().numpy().data)
        else:
            about = [(name, Path(files.path(i)).stat().st_size) for i, name in enumerate(files.names)]
            digest.update(json.dumps([files.size, about]).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=2)
def _loaded(dataset: str, data_dir: str | None, size: int | None) -> tuple[datasets.Data, str]:
    data = datasets.load(dataset, data_dir=data_dir, size=size)
    return data, fingerprint(data)


def images_of(config: TrainConfig) -> tuple[datasets.Data, str]:
    """A config's images and their fingerprint; loaded once a process."""
    return _loaded(config.dataset, config.data_dir, config.image_size)


def read_cell(out: Path, key: str) -> dict[str, Any] | None:
    """A finished cell from disk; None where there is none, or where its content does not match its name."""
    try:
        record = json.loads((out / "cells" / f"{key}.json").read_text())
        same = content_hash({**record["training"], "measure": record["measure"]})[:16] == key
        return record if same and record["rows"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cell(out: Path, key: str, record: dict[str, Any]) -> None:
    """Put a finished cell on disk, all of it or nothing."""
    (out / "cells").mkdir(parents=True, exist_ok=True)
    write_text(out / "cells" / f"{key}.json", json.dumps(record, indent=1))


def run_cell(
    cell: Cell,
    out: Path,
    *,
    expect: str,
    device: str = "auto",
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Train (or go on with) a cell's run, measure it, write its file at once; None where `should_stop()` ended it.

    `expect`: the `fingerprint` of the images it is meant for; others are refused. `threads`: of torch; None: as `train` takes them.
    """
    if threads:
        torch.set_num_threads(threads)
    where, (data, found) = resolve_device(device), images_of(cell.config)
    if found != expect:
        raise UserError(
            f"The images of '{cell.config.dataset}' on this machine are not those the sweep was started with; give every "
            "machine the same copy."
        )
    run = _run_of(cell, out, expect) if cell.trained else None
    if run is not None and not _finished(run):
        # a row of metrics waits for a GPU: there at epochs' ends alone
        quiet = sys.maxsize if where.type == "cuda" else 10
        settings: dict[str, Any] = {"device": device, "resume": True, "log_every": quiet, "threads": threads}
        for _ in train(run.config, data, run=run, should_stop=should_stop, **settings):
            pass
        if run.status["state"] != "done":
            return None
    began = time.perf_counter()
    if run is not None:
        (run.path / "resume.safetensors").unlink(missing_ok=True)
        encoder = run.encoder(where)
    else:
        encoder = build_encoder(cell.config).to(where).eval().requires_grad_(False)
    with at_work(threads or (run.env.get("threads") if run is not None else None)):  # as many as it was trained with
        rows = measured(encoder, data.to(where).for_choosing(cell.config.validation), cell.measure)
        record = _record(cell, expect, run, rows, describe_device(where), time.perf_counter() - began)
    write_cell(out, cell.key(expect), record)
    return record


def _record(
    cell: Cell, data: str, run: Run | None, rows: list[dict[str, Any]], device: str, seconds: float
) -> dict[str, Any]:
    """A finished cell as its file holds it; `seconds`: of the measuring."""
    env, trained = environment(), run.rows()[-1]["seconds"] if run is not None else 0.0
    return {
        "training": cell.training(data),
        "measure": cell.measure.to_dict(),
        "config": cell.config.with_(data_dir=None).to_dict(),
        "rows": rows,
        "run": run.name if run is not None else None,
        "seconds": trained + seconds,
        "training_seconds": trained,
        "device": device,
        "threads": torch.get_num_threads(),
        **{key: env[key] for key in ("versions", "commit", "machine", "time")},
    }


def collect(records: Iterable[tuple[str, dict[str, Any]]], provenance: dict[str, Any], runs: str = "") -> Sweep:
    """Finished cells (name, content) as a `Sweep`; `runs`: the prefix of the runs' names for `open_run`."""
    rows: list[dict[str, Any]] = []
    configs: dict[str, dict[str, Any]] = {}
    for key, record in records:
        c = TrainConfig.from_dict(record["config"])
        trained, noise = record["training"]["trained"], c.attack in NOISES
        configs[key] = record["config"]
        shared = {
            "dataset": c.dataset,
            "arch": arch_of(c),
            "method": c.method if trained else "untrained",
            "attack": attack_of(c) if trained else "none",
            "match": (c.noise_norm or "plain") if noise and trained else "plain",
            "eps": c.eps if trained else 0.0,
            "k": round(c.eps * 255, 6) if trained else 0.0,
            "epochs": c.epochs if trained else 0,
            "cost": cost_of(c) if trained else 0,
            "seed": c.seed,
            "device": record["device"],
            "versions": versions_of(record),
            "run": f"{runs}{record['run']}" if record["run"] else "",
            "seconds": record["seconds"],
            "commit": record["commit"] or "",
            "cell": key,
        }
        for row in record["rows"]:
            low, high = row["interval"]
            rows.append({**shared, **{k: row[k] for k in ("metric", "value", "n")}, "low": low, "high": high})
    first: dict[str, Any] = next(iter(configs.values()), {})
    same = {n: value for n, value in first.items() if all(n in c and c[n] == value for c in configs.values())}
    own = {key: {name: value for name, value in c.items() if name not in same} for key, c in configs.items()}
    return Sweep.of(rows, {**provenance, "config": same, "cells": own})


def attack_of(config: TrainConfig) -> str:
    """The attack's name; 'gaussian-variance' where eps is the variance."""
    by_variance = config.attack == "gaussian" and config.gaussian_by == "variance"
    return "gaussian-variance" if by_variance else config.attack


def arch_of(config: TrainConfig) -> str:
    """'resnet10, width 16'."""
    return f"{config.arch}, width {config.width}"


def versions_of(env: dict[str, Any]) -> str:
    """'python 3.11.7, torch 2.15.0, ...'."""
    return ", ".join(f"{name} {version}" for name, version in env["versions"].items())


def _run_of(cell: Cell, out: Path, data: str) -> Run:
    """The cell's run folder, made where it is not there yet."""
    name, root = cell.run_name(data), out / "runs"
    if (root / name / "config.json").is_file():
        return Run(root / name)
    return Run.create(cell.config, name=name, root=root)


def _finished(run: Run) -> bool:
    return run.status["state"] == "done" and (run.path / "encoder.safetensors").is_file()
