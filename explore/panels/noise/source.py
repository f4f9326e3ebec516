"""Where the rows of the noise-or-adversary panel come from: shipped or given sweeps, points computed here, and runs that are measured now."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import paths
from ...attack_table import NOISE_NAMES
from ...config import TrainConfig
from ...errors import UserError
from ...experiments.cell import images_of
from ...experiments.grid import finished
from ...perturbation.engine import passes
from ...results import Sweep
from ...runfolder import Run
from ...studies import TEST_EPS, Measure, accuracy_vs_test_eps, default_out, loss_vs_eps, shipped
from ...studies.sweep import is_kept, kept
from ...types import ProgressCallback
from .points import MATCHES, Choice, adversary, is_training

BASE = TrainConfig(attack="fgsm", epochs=10, knn_every=0)  # settings of computed points where there is no study


class SweepSource:
    """Rows for the panel. `sweep`: a `Sweep` or the path of a saved one, in the place of the shipped studies of its sort."""

    def __init__(self, sweep: Any = None):
        given, ours = _split(_opened(sweep)), _split(shipped())
        self.training, self.tests = (own if len(own) else theirs for own, theirs in zip(given, ours, strict=True))
        self.base = self._base()
        self.measure = Measure(**self.training.provenance.get("measure", {}))
        self.stale = True  # points may have been computed since they were last read
        self._own = Sweep.of([])

    @property
    def out(self) -> Path:
        """The folder where points are computed."""
        return default_out()

    @property
    def data(self) -> list[str]:
        """Fingerprints of the images that the trainings were made with."""
        parts = [self.training.provenance, *self.training.provenance.get("joined", [])]
        return sorted({found for part in parts for found in part.get("data", [])})

    @property
    def grows(self) -> bool:
        """Whether points can be added: the settings and images of the trainings are known."""
        return self.base is not None and (bool(self.data) or not len(self.training))

    @property
    def dataset(self) -> str:
        """The data set of the trainings."""
        named = self.training.table.dataset
        return named.iloc[0] if len(named) else self.base.dataset if self.base is not None else ""

    @property
    def methods(self) -> list[str]:
        """Encoders of the sweeps over test eps: methods, where each stands for one run a seed."""
        runs = self.tests.table.groupby(["method", "seed"], sort=False).run.nunique()
        several = {method for (method, _), n in runs.items() if n > 1}
        return [m for m in self.tests.table.method.unique() if m not in several]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings, and of new points."""
        return sorted(self.training.table.seed.unique().tolist()) or [0, 1, 2]

    def offers(self, column: str, known: Mapping[str, str], *, training: bool, encoder: str, loss: bool) -> list[str]:
        """The names of `known` (name -> value of a column) that can be shown: those of the tables, or all where rows can be made."""
        if training:
            rows = self.training.table if column == "metric" or not self.grows else self.training.table.iloc[:0]
        elif encoder in self.methods:
            rows = self.tests.table[self.tests.table.method == encoder]
            rows = rows if column == "metric" else rows[(rows.metric == "loss") == loss]
        else:
            return list(known)
        there = set(rows[column])
        return [name for name, value in known.items() if value in there] or list(known)

    def trained(self) -> Sweep:
        """The trainings: shipped or given, and what was computed here with the same settings."""
        if self.stale and self.base is not None:
            data = self.data or ([] if len(self.training) else [images_of(self.base)[1]])
            own = finished(self.out, self.base, data, self.measure)
            known = set(self.training.table.cell)
            self._own, self.stale = Sweep(own.table[~own.table.cell.isin(known)], own.provenance), False
        return self.training.join(self._own) if len(self._own) else self.training

    def looked_at(
        self,
        choice: Choice,
        encoder: "str | Run",
        images: int,
        extra: Iterable[float],
        progress: ProgressCallback,
        attacks: Sequence[str] = ("fgsm",),
    ) -> Sweep:
        """Loss or accuracy over test eps: of a method from the tables, or of a run, measured now and kept on disk.

        `extra`: eps beyond the usual ones. `progress` is called after every batch.
        """
        study = "loss_vs_eps" if choice.show == "loss" else "accuracy_vs_test_eps"
        if isinstance(encoder, str):
            own = self.tests.table[self.tests.table.metric == choice.metric]
            return Sweep(own[own.method == encoder], _about(self.tests, study))
        question, options = _question(choice, images, attacks)
        options["progress"] = lambda done, total: progress(f"{choice.show} over ε", done, total)
        found = kept(question, encoder, self.out, eps=list(TEST_EPS), **options)
        more = [kept(question, encoder, self.out, eps=[k / 255], **options) for k in extra if k / 255 not in TEST_EPS]
        return found.join(*more) if more else found

    def seconds_to_look(
        self, choice: Choice, run: Run, encoder: nn.Module, images: int, attacks: Sequence[str], data: Any
    ) -> float:
        """About how long `looked_at` takes for a run on this machine; 0 where the answer is on disk."""
        question, options = _question(choice, images, attacks)
        if is_kept(question, run, self.out, eps=list(TEST_EPS), **options):
            return 0.0
        x = data.test[: min(64, len(data.test))][0]
        with torch.no_grad():
            encoder(x)
            began = time.perf_counter()
            encoder(x)
        a_pass = (time.perf_counter() - began) / len(x)
        needed = passes(options["kinds"], TEST_EPS, options["match"])["shared"] * min(images, len(data.test))
        if choice.show == "accuracy":  # through the probe too, which is fitted on all training images
            needed = 2 * needed + len(data.train)
        return a_pass * needed

    @staticmethod
    def here(names: Iterable[str]) -> set[str]:
        """The runs whose encoder is on this machine."""
        roots = (paths.runs_root(), paths.shipped())
        return {name for name in names if name and any((r / name / "encoder.safetensors").is_file() for r in roots)}

    def _base(self) -> TrainConfig | None:
        """The settings of the trainings, as the adversary's first cell has them; None where they are not kept."""
        table = self.training.table
        if not len(table):
            return BASE
        first = table[table.attack == adversary(self.training)]
        try:
            return TrainConfig.from_dict(self.training.config((first if len(first) else table).cell.iloc[0]))
        except UserError:
            return None


def _question(choice: Choice, images: int, attacks: Sequence[str]) -> tuple[Callable[..., Sweep], dict[str, Any]]:
    """The study that a choice over test eps asks, and its options."""
    gaussian = "gaussian-variance" if (choice.match, choice.gaussian) == ("ε", "σ²") else "gaussian"
    others = [name for name in NOISE_NAMES if name != "gaussian"]
    question = loss_vs_eps if choice.show == "loss" else accuracy_vs_test_eps
    return question, {"kinds": (*attacks, gaussian, *others), "match": MATCHES[choice.match], "images": images}


def written(result: Sweep, name: str) -> tuple[Path, str]:
    """Save a sweep into the current folder under a name that is free; its path, and a sentence that says where."""
    stem = name.replace(" ", "-").replace("ε", "eps")
    free = (f"{stem}{f'-{i}' if i > 1 else ''}" for i in range(1, 10_000))
    path = Path.cwd() / next(name for name in free if not Path(f"{name}.csv").exists())
    result.save(path)
    return path, f"wrote {path.name}.csv, .parquet and .json in {path.parent}"


def _opened(sweep: Any) -> Sweep:
    if sweep is None:
        return Sweep.of([])
    if isinstance(sweep, (str, Path)):
        return Sweep.load(sweep)
    if not isinstance(sweep, Sweep):
        raise UserError(
            f"sweep takes a results.Sweep or the path of a saved one, got {type(sweep).__name__}; studies return one."
        )
    return sweep


def _split(sweep: Sweep) -> tuple[Sweep, Sweep]:
    """The rows of trainings, and those of test images that were perturbed."""
    own = is_training(sweep.table)
    return Sweep(sweep.table[own], sweep.provenance), Sweep(sweep.table[~own], sweep.provenance)


def _about(sweep: Sweep, study: str) -> dict[str, Any]:
    """The provenance of the first part that answers this study."""
    parts = [sweep.provenance, *sweep.provenance.get("joined", [])]
    return next((part for part in parts if part.get("study") == study), sweep.provenance)
