"""What a trained run answers without further training: loss batch by batch, what steers the attack, how reporting shifts a figure."""

import time
from typing import Any

import torch

from ... import datasets
from ...evaluate import Probe, embed, transfer
from ...perturbation.engine import Batch, contrast_with
from ...perturbation.study import PerturbationStudy
from ...results import Sweep, wilson
from ...runfolder import Run
from ...training import contrast_settings
from ..probes import authors_trap
from ..sweep import Watch, _mix, _opened, _result

AUTHORS = 0.015  # the authors' --eps 0.03 after Normalize(.5, .5), in pixel units


def every_batch(
    run: Run | str,
    *,
    eps: tuple[float, ...] = (AUTHORS, 8 / 255),
    images: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """How far FGSM and uniform noise of the same eps raise the contrastive loss of every batch of test images.

    Metrics: 'rise' (mean over batches, in nats, normal 95 % interval, n batches), and for FGSM against uniform noise 'above', the share
    of batches in which FGSM's loss is the higher one (Wilson). Batches are of the training's size, each against another view of it.
    """
    began = time.perf_counter()
    where, run, data, x, _ = _opened(run, device, data, images)
    encoder, config, settings = run.encoder(where), run.config, contrast_settings(run.config, data)
    parts = [part for part in x.split(config.batch_size) if len(part) == config.batch_size] or [x]
    rises: dict[tuple[str, float], list[float]] = {}
    for i, part in enumerate(parts):
        away = contrast_with(encoder, part, seed=_mix(seed, i), **settings)
        batch = Batch(part, away, match="plain", seed=_mix(seed, i))
        with torch.no_grad():
            clean = float(away(part).mean())
            for kind, at, moved in batch.all(("fgsm", "uniform"), eps):
                for e, z in zip(at, encoder(moved.flatten(0, 1)).split(len(part)), strict=True):
                    loss = away.losses(z)
                    rises.setdefault((kind, e), []).append(float(loss.mean()) - clean)
        if progress:
            progress(i + 1, len(parts))
    rows = [_mean(found, attack=kind, eps=e, metric="rise") for (kind, e), found in rises.items()]
    for e in eps:
        pairs = list(zip(rises["fgsm", e], rises["uniform", e], strict=True))
        share = sum(adv > noise for adv, noise in pairs) / len(pairs)
        low, high = wilson(share, len(pairs))
        rows.append(
            {"attack": "fgsm", "against": "uniform", "eps": e, "metric": "above", "value": share}
            | {"low": low, "high": high, "n": len(pairs)}
        )
    about = {"study": "every_batch", "match": "plain", "draw": seed, "batch": config.batch_size, "images": len(x)}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def gradient_parts(
    run: Run | str,
    *,
    eps: float = 8 / 255,
    images: int = 2048,
    seed: int = 0,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """What steers FGSM's first step, away from an image's own embedding ('self', the authors' code) and from another view ('view').

    Metrics, means over batches of 128 test images: 'positive share', the positive pair's share of the gradient's L2 norm; 'cosine' of
    an image's embedding before and after the step of eps; 'hardest' and 'mean negative', by how much the step raises the largest and
    the mean cosine to the other images' embeddings.
    """
    began = time.perf_counter()
    where, run, data, x, _ = _opened(run, device, data, images)
    encoder, settings = run.encoder(where), contrast_settings(run.config, data)
    found: dict[tuple[str, str], list[float]] = {}
    parts = x.split(min(128, len(x)))
    for i, part in enumerate(parts):
        with torch.no_grad():
            z = encoder(part)
        for reference in ("self", "view"):
            study = PerturbationStudy(encoder, part, reference=reference, seed=_mix(seed, i), **settings)
            with torch.no_grad():
                moved = encoder(study.adversary(eps * 255))
            others = ~torch.eye(len(part), dtype=torch.bool, device=where)
            near = [(after @ z.T)[others].view(len(part), -1) for after in (z, moved)]
            for metric, value in {
                "positive share": float(study.share().mean()),
                "cosine": float((z * moved).sum(1).mean()),
                "hardest": float((near[1].amax(1) - near[0].amax(1)).mean()),
                "mean negative": float((near[1].mean(1) - near[0].mean(1)).mean()),
            }.items():
                found.setdefault((reference, metric), []).append(value)
        if progress:
            progress(i + 1, len(parts))
    rows = [_mean(v, attack="fgsm", against=ref, eps=eps, metric=metric) for (ref, metric), v in found.items()]
    about = {"study": "gradient_parts", "match": "plain", "draw": seed, "images": len(x), "chosen_eps": eps}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def reporting(
    run: Run | str,
    *,
    epochs: int = 100,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """How a probe's figure shifts with the way of reporting it, in shares of the test images, one draw.

    Metrics: 'best - last', best test epoch of the authors' probe (Adam 3e-4) over its last; 'best - chosen', over the epoch chosen on held-out
    labels; 'trap', the best epoch of half the test images there, over the same weights on the other half; '9984 - all', the optimum's
    probe on the first whole batches of 256 of the test images over all of them (`drop_last` of the authors' loaders).
    """
    began = time.perf_counter()
    where, run, data, _, _ = _opened(run, device, data, 2)
    trap = authors_trap(run, images=data, share=1.0, seeds=1, epochs=epochs, cache=False).table
    at = dict(zip(trap.rule, trap.accuracy, strict=True))
    best, last, chosen, half, other = list(at.values())[:5]
    encoder = run.encoder(where)
    assert data.labelled is not None
    probe = Probe().fit(*embed(encoder, data.labelled), classes=data.classes)
    right = probe.score(*embed(encoder, data.test)).right.double()
    whole = len(right) - len(right) % 256 or len(right)
    shifts = {
        "best - last": best - last,
        "best - chosen": best - chosen,
        "trap": half - other,
        "9984 - all": float(right[:whole].mean() - right.mean()),
    }
    rows = [{"metric": name, "value": value, "eps": 0.0, "n": len(right)} for name, value in shifts.items()]
    about = {"study": "reporting", "match": "plain", "epochs": epochs, "draw": 0, "whole": whole}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def transferred(
    run: Run | str,
    *,
    root: str,
    device: str = "auto",
    data: datasets.Data | None = None,
    progress: Watch | None = None,
) -> Sweep:
    """Linear evaluation on those of the rebuttal's transfer sets that lie below `root`, the run's own set left out; see `evaluate.transfer`."""
    from ...datasets.transfer import TRANSFER  # with torchvision's loaders, so only where it is asked for

    began = time.perf_counter()
    where, run, data, _, _ = _opened(run, device, data, 2)
    names = [name for name in TRANSFER if name != run.config.dataset]
    found = transfer(run, datasets=names, root=root, device=str(where))
    rows = [
        {"metric": f"transfer {row['dataset']}", "eps": 0.0, **{k: row[k] for k in ("value", "low", "high", "n")}}
        for row in found.rows
    ]
    about = {"study": "transferred", "match": "plain", "draw": 0, "sets": {r["dataset"]: r["data"] for r in found.rows}}
    return _result(run, data, where, about, rows, time.perf_counter() - began)


def _mean(values: list[float], **row: Any) -> dict[str, Any]:
    """A row with the mean over batches and its normal 95 % interval."""
    each = torch.tensor(values, dtype=torch.float64)
    half = 1.959964 * float(each.std()) / len(each) ** 0.5 if len(each) > 1 else float("nan")
    mean = float(each.mean())
    return {**row, "value": mean, "low": mean - half, "high": mean + half, "n": len(each)}
