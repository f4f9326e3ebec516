"""What can a linear probe read from an encoder's features, with how many labels, under attack, and by whose rule?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..datasets import Data, load
from ..errors import UserError
from ..evaluate import Probe, robust_accuracy, take_labels
from ..random import seeded
from ..results import Robustness
from ..results.probes import ProbeComparison, Selection
from ..runfolder import Run, open_run
from .probing import Encodes, Probing, Progress

SHARES = (0.01, 0.1, 1.0)
WEIGHTS = (".safetensors", ".pth", ".pt")
EPS = tuple(k / 255 for k in (0, 1, 2, 4, 8))


def compare_probes(
    run_a: Encodes,
    run_b: Encodes | None = None,
    *,
    images: str | Data | None = None,
    features: str = "h",
    share: float = 1.0,
    shares: Sequence[float] = (),
    seed: int = 0,
    seeds: int = 1,
    test: str = "clean",
    eps: float = 8 / 255,
    attack: str = "pgd",
    steps: int = 5,
    cache: bool = True,
    progress: Progress | None = None,
) -> ProbeComparison:
    """Linear probes on one encoder or two, fitted on the same `share` of the labels, judged on the same test images.

    `images`: a data set or its name; the run's own by default. `test`: 'clean'; 'attacked' at `eps` (pixel units) through each
    encoder and its own probe; 'noise', sign noise of the same size. The scores belong to the draw of labels `seed`; `.curve` has
    the clean accuracies of `seeds` draws at this share and at `shares`.
    """
    data = _data(run_a, images)
    study = Probing(data, features=features, attack=attack, steps=steps, cache=cache)
    keys = [study.add(what) for what in (run_a, run_b) if what is not None]
    for at in dict.fromkeys((share, *shares)):
        for draw in range(seed, seed + max(1, seeds)):
            for key in keys:
                study.clean(key, at, draw, progress)
    return study.compare(*keys, share=share, seed=seed, test=test, eps=eps, progress=progress)


def label_curve(
    run_a: Encodes, run_b: Encodes | None = None, *, shares: Sequence[float] = SHARES, seeds: int = 3, **settings: Any
) -> ProbeComparison:
    """`compare_probes` at several shares of the labels, several draws each: its `.curve` is the answer."""
    if not shares:
        raise UserError("label_curve needs one share of the labels or more, such as 0.01.")
    return compare_probes(run_a, run_b, share=shares[-1], shares=tuple(shares)[:-1], seeds=seeds, **settings)


def robust_curve(
    run: Encodes,
    *,
    images: str | Data | None = None,
    share: float = 1.0,
    seed: int = 0,
    n: int = 500,
    eps: Sequence[float] = EPS,
    attacks: Sequence[str] = ("pgd", "fgsm", "sign"),
    cache: bool = True,
    **settings: Any,
) -> Robustness:
    """Accuracy of a probe over `eps` under attacks and equal noise, on `n` test images; `.checks` against gradient masking.

    `settings` go to `robust_accuracy`: steps, restarts, progress, ...
    """
    study = Probing(_data(run, images), cache=cache)
    key = study.add(run)
    probe = study.probe(key, share, seed, settings.get("progress"))
    about = {**study.about[key], "images": study.data.name, "labels": probe.n_}
    test = study.data.test.take(n, seeded(seed)) if n < len(study.data.test) else study.data.test
    settings = {"eps": tuple(eps), "attacks": tuple(attacks), "seed": seed, "provenance": about, **settings}
    return robust_accuracy(study.encoders[key], probe, test, **settings)


def authors_trap(
    run: Encodes,
    *,
    images: str | Data | None = None,
    share: float = 0.1,
    seeds: int = 5,
    epochs: int = 100,
    held_out: float = 0.2,
    cache: bool = True,
) -> Selection:
    """One probe by the authors' protocol (Adam 3e-4, batch 256), and what five rules of reporting make of it.

    The authors' code prints the best test epoch (chihhuiho/CLAE, eval_lr.py). The honest rule chooses the epoch on labels held out
    of training and looks at the test images once. For the size of the trap the test images are halved at random: the best
    epoch on one half, and the same weights on the other half, which nobody chose on.
    """
    if seeds < 1:
        raise UserError(f"seeds is the number of label draws, 1 or more, got {seeds}.")
    study = Probing(_data(run, images), cache=cache)
    key = study.add(run)
    curves, rows = [], []
    for seed in range(seeds):
        curve, optimum = _trap(study, key, share, seed, epochs, held_out)
        curves.append(curve)
        rows.append(_rules(curve) | {"optimum (L-BFGS), l2 chosen on held-out labels": optimum})
    reported = pd.DataFrame(rows)
    columns = {"rule": list(reported), "looks_at": _LOOKS_AT, "accuracy": reported.mean().tolist()}
    columns |= {"least": reported.min().tolist(), "most": reported.max().tolist(), "draws": seeds}
    about = {"images": study.data.name, "share": share, "epochs": epochs, "test": len(study.data.test)}
    about = {"study": "authors_trap", **study.about[key], **about}
    return Selection(pd.DataFrame(columns), pd.concat(curves, ignore_index=True), about)


_LOOKS_AT = (  # what each of the rules of `_rules`, and then the optimum, chooses by
    *("the test images", "nothing", "training labels", "half of the test images", "the other half"),
    "training labels",
)


def _trap(
    study: Probing, key: str, share: float, seed: int, epochs: int, held_out: float
) -> tuple[pd.DataFrame, float]:
    """Accuracies after every epoch on test, its halves and held-out labels; and the optimum's."""
    (h, y), (test_h, test_y), used = (
        study.embedded(key, "train"),
        study.embedded(key, "test"),
        study.labels(share, seed),
    )
    own = Probe(protocol="authors", epochs=epochs, seed=seed)
    classes, order = study.data.classes, torch.randperm(len(test_y), generator=seeded(seed))
    halves = order[: len(order) // 2], order[len(order) // 2 :]

    def watched(rows: Tensor, test: tuple[Tensor, Tensor]) -> pd.DataFrame:
        return own.fit(h[rows], y[rows], classes=classes, test=test).curve_

    a, b = (
        watched(used, (test_h[half], test_y[half])) for half in halves
    )  # the same weights: only what is watched differs
    out = take_labels(y[used].cpu(), held_out, seeded(seed))
    kept = torch.ones(len(used), dtype=torch.bool)
    kept[out] = False
    chosen = watched(used[kept], (h[used[out]], y[used[out]]))
    curve = a[["epoch", "loss"]].assign(seed=seed, half_a=a.test, half_b=b.test, held_out=chosen.test)
    curve["test"] = (len(halves[0]) * curve.half_a + len(halves[1]) * curve.half_b) / len(order)
    return curve, study.clean(key, share, seed).top1


def _rules(curve: pd.DataFrame) -> dict[str, float]:
    """What each rule reports for one draw; of epochs that are equal on the few held-out labels, the last."""
    half = curve.half_a.idxmax()
    return {
        "best test epoch (the authors' code)": float(curve.test.max()),
        "last epoch": float(curve.test.iloc[-1]),
        "epoch chosen on held-out labels": float(curve.test[curve.held_out[::-1].idxmax()]),
        "best epoch of one half of the test images": float(curve.half_a[half]),
        "the same weights on the other half": float(curve.half_b[half]),
    }


def _data(what: Encodes, images: str | Data | None) -> Data:
    """The data set asked for, or the run's own."""
    if isinstance(images, Data):
        return images
    if images is not None:
        return load(images)
    weights = not isinstance(what, Run | nn.Module) and ("_Weights" in str(what) or Path(what).suffix in WEIGHTS)
    if weights or isinstance(what, nn.Module):
        raise UserError(
            "Only a run knows its own images, and this encoder is none; say which to probe it on: images='fashion'."
        )
    run = what if isinstance(what, Run) else open_run(what)
    return load(run.config.dataset, run.config.data_dir, size=run.image_size)
