"""How far do an adversary and equally long noise take a trained encoder, at every test-time eps?"""

import collections
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import datasets
from ..attacks import ATTACKS, norms
from ..config import show_eps
from ..environment import environment
from ..errors import UserError, nearest
from ..evaluate import Probe, embed, knn_accuracy
from ..experiments.cell import SCHEMA, arch_of, content_hash, cost_of, fingerprint, images_of, versions_of
from ..losses import chance
from ..nets import Encoder, TorchEncoder
from ..objectives import classify, contrast
from ..perturbation.engine import Batch, check_grid, contrast_with, guide_of, passes
from ..random import seeded
from ..results import Sweep, wilson
from ..runfolder import Run, open_run
from ..training import contrast_settings, describe_device, resolve_device

TEST_EPS = tuple(k / 255 for k in range(0, 17, 2))
Watch = Callable[[int, int], None]  # called with the batches done and their number; may raise to stop
Objectives = Callable[
    [Tensor, Tensor, int], contrast | classify
]  # (images, labels, seed of the views) -> what is raised


def loss_vs_eps(
    run: Run | str,
    *,
    kinds: Sequence[str] = ("fgsm", "gaussian", "uniform", "sign"),
    eps: Sequence[float] = TEST_EPS,
    match: str = "linf",
    images: int = 1000,
    batch_size: int | None = None,
    reference: str = "view",
    steps: int = 5,
    seed: int = 0,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """A run's contrastive loss on test images under adversaries and noises, at every eps (pixel units).

    `match`: noise is scaled, image by image, until its 'linf' or 'l2' length after clipping is that of the first attack in
    `kinds` (FGSM where there is none); 'plain' leaves it as drawn. `reference`: what an image is compared with, 'view' (a
    random view of it, Algorithm 1) or 'self' (the authors' code). A batch of `batch_size` (None: the training's) gives the
    negatives and with them the chance line in `.provenance`. Metrics: 'loss' in nats with a normal 95 % interval over the
    images, 'linf' and 'l2', the perturbation's mean lengths in pixel units. `seed`: of views, noise and random starts.

    Cost in forward passes an image, a backward through pixels counted as one: 2 for reference and clean image; 2 for the one
    gradient that every eps of FGSM and of the matching shares; 1 a kind and eps above 0; attacks that start elsewhere 2 more
    a step and eps. `.provenance["passes"]` has the sum beside that of a loop that shares nothing.
    """
    began = time.perf_counter()
    kinds, grid = check_grid(kinds, eps, match)
    _among("reference", [reference], ("view", "self"))
    where, run, data, x, y = _opened(run, device, data, images)
    encoder, config, settings = run.encoder(where), run.config, contrast_settings(run.config, data)
    parts = _parts(x, y, batch_size or config.batch_size)
    against = {"contrast": lambda part, _, draw: contrast_with(encoder, part, reference, seed=draw, **settings)}
    found: dict[tuple[str, float], list[Tensor]] = {}
    for part in _perturbed(parts, against, kinds, grid, progress, match=match, steps=steps, seed=seed):
        with torch.no_grad():
            z = encoder(part.moved.flatten(0, 1)).split(len(part.clean))
        for e, each, delta in zip(part.eps, z, part.moved - part.clean, strict=True):
            loss, length = part.objective.losses(each), norms(delta)
            found.setdefault((part.kind, e), []).append(torch.stack([loss, length["linf"], length["l2"]]).cpu())
    rows = []
    for kind, e in itertools.product(kinds, grid):
        each = torch.cat(found[kind if e else "clean", e], dim=1).double()
        for metric, values in zip(("loss", "linf", "l2"), each, strict=True):
            mean, half = float(values.mean()), 1.959964 * float(values.std()) / len(values) ** 0.5
            row = {"attack": kind, "against": "contrast" if kind in ATTACKS else "", "eps": e, "metric": metric}
            rows.append({**row, "value": mean, "low": mean - half, "high": mean + half, "n": len(values)})
    n = len(parts[0][0])
    about: dict[str, Any] = {"study": "loss_vs_eps", "kinds": kinds, "match": match, "steps": steps, "draw": seed}
    about |= {"reference": reference, "batch": n}
    about["chance"] = chance(n, config.loss, config.temperature, **config.loss_options)
    about |= {"loss": config.loss, "temperature": config.temperature, "passes": passes(kinds, grid, match, steps)}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def accuracy_vs_test_eps(
    run: Run | str,
    *,
    kinds: Sequence[str] = ("fgsm", "gaussian", "uniform", "sign"),
    eps: Sequence[float] = TEST_EPS,
    against: Sequence[str] = ("contrast", "probe"),
    judges: Sequence[str] = ("knn", "probe"),
    probe: Probe | None = None,
    match: str = "linf",
    images: int = 1000,
    batch_size: int | None = None,
    neighbours: int = 5000,
    k: int = 20,
    steps: int = 5,
    seed: int = 0,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """Accuracy of a run's features on perturbed test images, judged by neighbours and by a linear probe, at every eps.

    `against`: whose loss the attacks raise, 'contrast' (label-free: away from a random view of the image) or 'probe' (the
    cross-entropy of the probe itself, with labels). Noise is drawn once and has the length (`match`, see `loss_vs_eps`) of
    the first of them. `probe`: a fitted one; without it one is fitted on all training features, its l2 chosen on a held-out
    part of them. Metrics: 'knn' (`k` of `neighbours` training images vote) and 'probe', with Wilson's 95 % interval.

    Cost in forward passes an image: that of `loss_vs_eps` for the first of `against`, its attacks alone for the second (the
    probe needs no reference); and one for every training image.
    """
    began = time.perf_counter()
    kinds, grid = check_grid(kinds, eps, match)
    _among("against", against, ("contrast", "probe"))
    _among("judges", judges, ("knn", "probe"))
    where, run, data, x, y = _opened(run, device, data, images)
    if data.labelled is None:
        raise UserError(f"'{run.config.dataset}' has no labelled images, so there is no accuracy to measure.")
    encoder, config, settings = run.encoder(where), run.config, contrast_settings(run.config, data)
    if probe is None and "probe" in (*against, *judges):
        probe = Probe().fit(*embed(encoder, data.labelled), classes=data.classes)
    judge = _judges(judges, encoder, data.labelled, probe, neighbours, k)
    objectives: dict[str, Objectives] = {
        "contrast": lambda part, _, draw: contrast_with(encoder, part, seed=draw, **settings),
        "probe": lambda _, truth, __: classify(encoder, probe, truth),  # type: ignore[arg-type]
    }
    right: collections.Counter[tuple[str, str, float, str]] = collections.Counter()
    asked = {whom: objectives[whom] for whom in against}
    parts = _parts(x, y, batch_size or config.batch_size)
    for part in _perturbed(parts, asked, kinds, grid, progress, match=match, steps=steps, seed=seed):
        with torch.no_grad():
            features = encoder.features(part.moved.flatten(0, 1)).split(len(part.clean))
        for (e, h), (name, count) in itertools.product(zip(part.eps, features, strict=True), judge.items()):
            right[part.kind, part.against if part.kind in ATTACKS else "", e, name] += count(h, part.labels)
    rows = []
    for kind in kinds:
        for whom, e, name in itertools.product(against if kind in ATTACKS else [""], grid, judge):
            share = right[(kind, whom, e, name) if e else ("clean", "", 0.0, name)] / len(x)
            low, high = wilson(share, len(x))
            row = {"attack": kind, "against": whom, "eps": e, "metric": name, "value": share}
            rows.append({**row, "low": low, "high": high, "n": len(x)})
    about: dict[str, Any] = {"study": "accuracy_vs_test_eps", "kinds": kinds, "match": match, "steps": steps}
    about |= {"draw": seed, "against": list(against), "k": k, "neighbours": min(neighbours, len(data.labelled))}
    about |= {"probe": None if probe is None else probe.settings()}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def kept(question: Callable[..., Sweep], run: Run | str, out: str | Path, **options: Any) -> Sweep:
    """`question(run, **options)`, answered from <out>/curves where it was asked before of the same weights and images."""
    run = open_run(run) if isinstance(run, str) else run
    data, path = _kept_at(question, run, out, options)
    try:
        return Sweep.load(path)
    except UserError:
        found_now = question(run, data=data, **options)
        found_now.save(path)
        return found_now


def is_kept(question: Callable[..., Sweep], run: Run, out: str | Path, **options: Any) -> bool:
    """Whether `kept` would answer from disk."""
    try:
        return bool(len(Sweep.load(_kept_at(question, run, out, options)[1])))
    except UserError:
        return False


def _kept_at(
    question: Callable[..., Sweep], run: Run, out: str | Path, options: dict[str, Any]
) -> tuple[datasets.Data, Path]:
    data, found = images_of(run.config)
    weights = hashlib.sha256((run.path / "encoder.safetensors").read_bytes()).hexdigest()
    asked = {name: value for name, value in options.items() if name not in ("progress", "device")}
    identity = {"schema": SCHEMA, "question": question.__name__, "options": asked, "data": found, "weights": weights}
    return data, Path(out) / "curves" / content_hash(identity | {"run": run.name, "config": run.config.to_dict()})[:16]


def _opened(
    run: Run | str, device: str, data: datasets.Data | None, images: int
) -> tuple[torch.device, Run, datasets.Data, Tensor, Tensor]:
    """Device, run, its data, and `images` test images with labels, the classes in turn."""
    if images < 2:
        raise UserError(f"A sweep takes 2 test images or more, got {images}.")
    run, where = open_run(run) if isinstance(run, str) else run, resolve_device(device)
    data = (data or images_of(run.config)[0]).to(where)
    x, y = data.test.take(min(images, len(data.test)), seeded(0))[:]
    return where, run, data, x, y


def _judges(
    judges: Sequence[str],
    encoder: Encoder | TorchEncoder,
    labelled: datasets.Split,
    probe: Probe | None,
    neighbours: int,
    k: int,
) -> dict[str, Callable[[Tensor, Tensor], int]]:
    """(features, labels) -> how many are judged rightly, by name."""
    found: dict[str, Callable[[Tensor, Tensor], int]] = {}
    if "knn" in judges:
        bank = embed(encoder, labelled.take(min(neighbours, len(labelled)), seeded(0)))
        found["knn"] = lambda h, y: round(knn_accuracy(*bank, h, y, k=k).accuracy * len(y))
    if "probe" in judges and probe is not None:
        fitted = probe
        found["probe"] = lambda h, y: int((fitted.predict(h) == y).sum())
    return found


@dataclass(frozen=True)
class _Perturbed:
    """A batch under one kind of perturbation at some eps: clean (n, c, h, w), labels (n,), moved (len(eps), n, c, h, w)."""

    against: str
    kind: str
    eps: list[float]
    moved: Tensor
    clean: Tensor
    labels: Tensor
    objective: Any


def _perturbed(
    parts: Sequence[tuple[Tensor, Tensor]],
    against: Mapping[str, Objectives],
    kinds: Sequence[str],
    grid: Sequence[float],
    progress: Watch | None,
    *,
    seed: int,
    **how: Any,
) -> Iterator[_Perturbed]:
    """Every batch away from every objective of `against`; clean images and noise, which have none, with the first alone."""
    for i, (x, y) in enumerate(parts):
        for n, (whom, objective_of) in enumerate(against.items()):
            objective = objective_of(x, y, _mix(seed, i))
            batch = Batch(x, objective, guide=guide_of(kinds), seed=_mix(seed, i), **how)
            todo = ([kind for kind in kinds if kind in ATTACKS], [e for e in grid if e > 0]) if n else (kinds, grid)
            for kind, eps, moved in batch.all(*todo):
                yield _Perturbed(whom, kind, eps, moved, x, y, objective)
        if progress:
            progress(i + 1, len(parts))


def _parts(x: Tensor, y: Tensor, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """Batches (images, labels) of nearly one size, so that all have the same negatives to tell from."""
    n = max(1, math.ceil(len(x) / batch_size))
    return list(zip(x.tensor_split(n), y.tensor_split(n), strict=True))


def _mix(seed: int, batch: int) -> int:
    return seed * 1_000_003 + batch


def _among(name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise UserError(f"{name} takes {' or '.join(allowed)}, got '{value}'.{nearest(value, allowed)}")
    if not values:
        raise UserError(f"{name} takes {' or '.join(allowed)}, got nothing.")


def _result(
    run: Run,
    data: datasets.Data,
    where: torch.device,
    about: dict[str, Any],
    rows: list[dict[str, Any]],
    seconds: float,
) -> Sweep:
    """The sweep, every row with what it was measured on."""
    env, c = environment(), run.config
    about = {**about, "run": run.name, "data": fingerprint(data)}
    steps = int(run.rows()[-1]["epoch"]) if run.rows() else 0
    shared: Mapping[str, Any] = {
        "dataset": c.dataset,
        "arch": run.env.get("arch") or arch_of(c),
        "method": run.method + ("" if c.attack == "none" else f", ε {show_eps(c.eps)}"),
        "match": about["match"],
        "epochs": steps,
        "cost": cost_of(c.with_(epochs=max(1, steps))) if steps else 0,
        "seed": c.seed,
        "device": describe_device(where),
        "versions": versions_of(env),
        "run": run.name,
        "seconds": seconds,
        "commit": env["commit"] or "",
        "cell": content_hash(about)[:16],
    }
    about |= {key: env[key] for key in ("time", "machine", "commit", "versions")}
    about |= {"device": shared["device"], "config": c.with_(data_dir=None).to_dict(), "seconds": seconds}
    about["cells"] = {shared["cell"]: {}}
    return Sweep.of([{**shared, **row, "k": round(row["eps"] * 255, 6)} for row in rows], about)
