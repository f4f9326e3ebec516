"""Which trainings answer a question: noise or adversary over eps, attack against attack, equal compute; and their results.

Also the other way round: which finished cells belong to one figure, and the command that trains given cells.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import paths
from ..attacks import ATTACKS, NOISES
from ..config import ATTACK_NAMES, BEFORE, TrainConfig
from ..environment import environment
from ..errors import UserError, nearest
from ..results import Sweep
from .cell import USUAL, Cell, Measure, attack_of, collect, read_cell, step_passes
from .runner import run_cells
from .task import Done, StudyProgress, tasks_of

TRAIN_EPS = tuple(k / 255 for k in (2, 4, 6, 8, 12, 16))
METHODS = (*ATTACK_NAMES, "gaussian-variance")
# settings in which the points of one figure may differ, and settings without effect on a result
FREE = {"attack", "eps", "steps", "gaussian_by", "noise_norm", "epochs", "seed", "data_dir", "knn_every", "knn_images"}
OWN = ("attack", "eps", "seed", "gaussian_by", "noise_norm", "knn_every", "data_dir")  # not settings of `sweep_command`


def train_eps_cells(
    base: TrainConfig,
    methods: Sequence[str] = ("none", "fgsm", "gaussian"),
    *,
    eps: Sequence[float] = TRAIN_EPS,
    seeds: "int | Sequence[int]" = 3,
    measure: Measure = USUAL,
) -> list[Cell]:
    """Every method at every eps and seed ('none' is SimCLR, once a seed), and the untrained network of every seed."""
    if not methods or not len(eps):
        raise UserError(f"A study needs one method and one eps or more; methods are {', '.join(METHODS)}.")
    cells = []
    for seed in _seeds(base, seeds):
        cells.append(Cell(_method(base, "none", 0.0, seed), measure, trained=False))
        for name in methods:
            for e in eps if name != "none" else [0.0]:
                cells.append(Cell(_method(base, name, e, seed), measure))
    return cells


def attack_cells(
    base: TrainConfig,
    attacks: Sequence[str] = ("none", *ATTACKS),
    *,
    eps: float = 8 / 255,
    seeds: "int | Sequence[int]" = 3,
    measure: Measure = USUAL,
) -> list[Cell]:
    """Every attack at one eps and every seed, SimCLR ('none') and the untrained network beside them."""
    return train_eps_cells(base, attacks, eps=[eps], seeds=seeds, measure=measure)


def equal_compute_cells(
    base: TrainConfig,
    attacks: Sequence[str] = ("fgsm",),
    *,
    eps: float = 8 / 255,
    seeds: "int | Sequence[int]" = 3,
    measure: Measure = USUAL,
) -> list[Cell]:
    """Every attack, SimCLR for as many epochs, and SimCLR for as many passes: epochs * passes a step / 6, rounded."""
    cells = []
    for seed in _seeds(base, seeds):
        plain = _method(base, "none", 0.0, seed)
        cells.append(Cell(plain, measure))
        for name in attacks:
            config = _method(base, name, eps, seed)
            cells.append(Cell(config, measure))
            longer = max(1, round(config.epochs * step_passes(config) / step_passes(plain)))
            cells.append(Cell(plain.with_(epochs=longer), measure))
    return cells


def accuracy_vs_train_eps(base: TrainConfig | None = None, **options: Any) -> Sweep:
    """Accuracy (kNN and probe, clean test images) of encoders trained with adversaries or noise of every eps.

    Options: those of `train_eps_cells` (methods, eps, seeds, measure) and of `run_grid` (out, progress, engine, workers, ...).
    """
    return _answer("train-eps", train_eps_cells, base, options)


def compare_attacks(base: TrainConfig | None = None, **options: Any) -> Sweep:
    """Accuracy of encoders trained with each attack at one eps; options of `attack_cells` and of `run_grid`."""
    return _answer("attacks", attack_cells, base, options)


def equal_compute(base: TrainConfig | None = None, **options: Any) -> Sweep:
    """Accuracy of CLAE and of SimCLR trained until it cost the same; options of `equal_compute_cells` and of `run_grid`."""
    return _answer("equal-compute", equal_compute_cells, base, options)


def run_grid(
    name: str,
    cells: Sequence[Cell],
    *,
    out: str | Path | None = None,
    progress: Callable[[Done, StudyProgress], None] | None = None,
    **engine: Any,
) -> Sweep:
    """Run what is missing of a grid, then read all of it: the `Sweep`, saved as <out>/<name>.parquet, .csv, .json.

    `out` (None: <runs>/sweeps) may serve many studies: cells are named by content, and those that two studies share are run
    once. `engine`: options of `run_cells`. `progress(done, progress)` is called for every cell that is through.
    """
    out = Path(out) if out else default_out()
    watch = StudyProgress(cells, None if engine.get("address") else engine.get("workers", 1))
    failed: dict[str, str] = {}
    for done in run_cells(cells, out, **engine):
        watch.note(done)
        if done.error is not None:
            failed[done.key] = done.error
        if progress is not None:
            progress(done, watch)
    found = gather(name, cells, out, failed)
    if failed and not len(found):
        raise UserError(f"None of {len(failed)} cells could be run; the first: {next(iter(failed.values()))}")
    if len(found):
        found.save(out / name)
    return found


def gather(name: str, cells: Sequence[Cell], out: str | Path, failed: dict[str, str] | None = None) -> Sweep:
    """What is finished of a grid, read from disk; nothing is run. `.provenance["missing"]` counts the rest."""
    out, jobs = Path(out).resolve(), tasks_of(cells)
    found = [(job.key, record) for job in jobs if (record := read_cell(out, job.key)) is not None]
    env = environment()
    command = " ".join(["python", "-m", "explore", *env["argv"]]) if Path(sys.argv[0]).name == "__main__.py" else None
    about: dict[str, Any] = {"study": name, "command": command}
    about |= {"data": sorted({job.data for job in jobs}), "missing": len(jobs) - len(found), "failed": failed or {}}
    about |= {"seconds": sum(record["seconds"] for _, record in found)}
    about |= {key: sorted({record[key] for _, record in found}) for key in ("device", "machine", "threads")}
    about |= {key: env[key] for key in ("time", "commit", "versions")}
    return collect(found, about, _runs_below(out))


def same_figure(config: dict[str, Any], base: TrainConfig) -> bool:
    """Whether trainings with these settings may be points of one figure: they differ at most in those of `FREE`."""
    kept = {**TrainConfig().to_dict(), **BEFORE, **config}
    return all(kept[name] == value for name, value in base.to_dict().items() if name not in FREE)


def finished(out: Path, base: TrainConfig, data: Sequence[str], measure: Measure) -> Sweep:
    """The cells in `out` that belong to one figure with `base`, on images with these fingerprints and measured so."""
    found = []
    for path in sorted((out / "cells").glob("*.json")):
        record = read_cell(out, path.stem)
        if record is None or record["training"]["data"] not in data or record["measure"] != measure.to_dict():
            continue
        if same_figure(record["config"], base):
            found.append((path.stem, record))
    return collect(found, {"study": "points computed here"}, _runs_below(out))


def sweep_command(config: TrainConfig, seeds: Sequence[int]) -> str:
    """`python -m explore sweep ...` that trains these cells; '' where the seeds have gaps."""
    if list(seeds) != list(range(min(seeds), min(seeds) + len(seeds))):
        return ""
    k = round(config.eps * 255, 6)
    words = ["--study train-eps", f"--methods {attack_of(config)}"]
    words += [f"--eps {f'{k:.0f}/255' if k == int(k) else repr(config.eps)}"] if config.attack != "none" else []
    words += [f"--seeds {len(seeds)}"] + ([f"--seed {min(seeds)}"] if min(seeds) else [])
    words += [f"--noise-norm {config.noise_norm}"] if config.noise_norm and config.attack in NOISES else []
    words += [f"--dataset {shlex.quote(config.dataset)}"] if config.dataset != TrainConfig().dataset else []
    usual = TrainConfig(dataset=config.dataset)
    for name in (f.name for f in fields(TrainConfig)):
        value = getattr(config, name)
        if name not in OWN and value != getattr(usual, name) and value is not None:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            words.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(["python -m explore sweep", *words])


def shipped(*names: str) -> Sweep:
    """The studies that come with the project ('train-eps', 'attacks', 'equal-compute', 'loss-eps', 'test-eps'; none named: all there are), in one."""
    root = paths.shipped() / "studies"
    there = sorted(path.stem for path in root.glob("*.json"))
    for name in names:
        if name not in there:
            have = f"there are {', '.join(there)}" if there else "there are none; make studies trains them"
            raise UserError(f"No study '{name}' is shipped: {have}.{nearest(name, there)}")
    found = [Sweep.load(root / name) for name in names or there]
    return found[0].join(*found[1:]) if found else Sweep.of([])


def default_out() -> Path:
    """The default folder of studies' cells and tables."""
    return paths.runs_root() / "sweeps"


def _runs_below(out: Path) -> str:
    """The prefix of the names of this folder's runs for `open_run`: 'sweeps/runs/'."""
    root, runs = paths.runs_root().resolve(), out.resolve() / "runs"
    return f"{runs.relative_to(root).as_posix()}/" if runs.is_relative_to(root) else ""


def _answer(name: str, plan: Callable[..., list[Cell]], base: TrainConfig | None, options: dict[str, Any]) -> Sweep:
    own = {key: options.pop(key) for key in ("methods", "attacks", "eps", "seeds", "measure") if key in options}
    return run_grid(name, plan(base or TrainConfig(knn_every=0), **own), **options)


def _seeds(base: TrainConfig, seeds: "int | Sequence[int]") -> list[int]:
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError(f"A study takes one seed or more, got {seeds}.")
        return list(range(base.seed, base.seed + seeds))
    return list(seeds)


def _method(base: TrainConfig, name: str, eps: float, seed: int) -> TrainConfig:
    if name not in METHODS:
        raise UserError(f"methods are {', '.join(METHODS)} ('none' is SimCLR), got '{name}'.{nearest(name, METHODS)}")
    if name == "gaussian-variance":
        return base.with_(attack="gaussian", gaussian_by="variance", eps=eps, seed=seed)
    return base.with_(attack=name, eps=eps, seed=seed)
