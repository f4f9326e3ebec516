"""The sweep of 45 l2 values on an encoder's features: ours against scikit-learn's LogisticRegression, warm-started too."""

import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

import explore as ex
from explore.evaluate.logistic import Logistic
from explore.evaluate.probe import L2_GRID, Probe, take_labels
from explore.training import resolve_device

from .timing import machine


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds of both sweeps on features of demo/simclr (8,000 to fit, 2,000 to choose), and the accuracy each ends with.

    Each solver stops by its own default tolerance: scikit-learn's lbfgs at tol 1e-4 with iterations enough to reach it.
    """
    data, where = ex.load("fashion"), resolve_device(device)
    encoder = ex.open_run("demo/simclr").encoder()
    h, y = ex.embed(encoder, data.train)
    test_h, test_y = ex.embed(encoder, data.test)
    held = take_labels(y, 0.2, ex.seeded(0))
    kept = torch.ones(len(y), dtype=torch.bool)
    kept[held] = False
    mean, std = h[kept].mean(0), h[kept].std(0, correction=0)
    x, held_x = (h[kept] - mean) / std, (h[held] - mean) / std
    grid = sorted(L2_GRID, reverse=True)[:: 6 if quick else 1]

    times: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
    for _ in range(1 if quick else 2):
        began = time.perf_counter()
        own = _ours(*(t.to(where) for t in (x, y[kept], held_x, y[held])), grid)
        times["ours"].append(time.perf_counter() - began)
        began = time.perf_counter()
        theirs = _scikit(*(t.numpy() for t in (x, y[kept], held_x, y[held])), grid)
        times["scikit-learn"].append(time.perf_counter() - began)
    seconds = {name: min(each) for name, each in times.items()}
    best = {
        name: max(rows, key=lambda row: (row[1], row[0]))[0] for name, rows in (("ours", own), ("scikit-learn", theirs))
    }
    mean, std = h.mean(0), h.std(0, correction=0)
    probe = Probe(l2=best["ours"]).fit(h, y)
    model = LogisticRegression(C=1 / best["ours"], tol=1e-6, max_iter=10_000).fit(
        ((h - mean) / std).double().numpy(), y.numpy()
    )
    accuracy = {"ours": probe.score(test_h, test_y).top1}
    accuracy["scikit-learn"] = float(model.score(((test_h - mean) / std).double().numpy(), test_y.numpy()))
    excess = _excess(x, y[kept], {"ours": own, "scikit-learn": theirs})
    print(f"{len(grid)} values of l2, {len(x):,} x {x.shape[1]} features, 10 classes")
    print(f"{'':<14}{'seconds':>9}{'best l2':>10}{'test, % at our l2':>20}{'loss above optimum':>20}")
    for name in times:
        print(f"{name:<14}{seconds[name]:>9.2f}{best[name]:>10.3g}{100 * accuracy[name]:>20.2f}{excess[name]:>20.4f}")
    coefficients = np.abs((probe.weight_ * std).numpy() - model.coef_).max() / np.abs(model.coef_).max()
    return {
        "sklearn_over_probe": seconds["scikit-learn"] / seconds["ours"],
        "accuracy_gap": 100 * abs(accuracy["ours"] - accuracy["scikit-learn"]),
        "coefficient_gap": float(coefficients),
        "excess": excess["ours"],
        "sklearn_excess": excess["scikit-learn"],
        "largest_gap_on_the_path": 100 * max(abs(a[1] - b[1]) for a, b in zip(own, theirs, strict=True)),
        "values": len(grid),
        **machine(where),
        "quick": quick,
    }


def _ours(x, y, held_x, held_y, grid):
    path = Logistic(x, y, 10).path(grid)
    return [
        (l2, float(((held_x @ w.T + b).argmax(1) == held_y).double().mean()), (w.cpu(), b.cpu())) for l2, (w, b) in path
    ]


def _scikit(x, y, held_x, held_y, grid):
    model, rows = LogisticRegression(warm_start=True, max_iter=10_000), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for l2 in grid:
            model.set_params(C=1 / l2)
            model.fit(x, y)
            found = torch.from_numpy(model.coef_.copy()), torch.from_numpy(model.intercept_.copy())
            rows.append((l2, float(model.score(held_x, held_y)), found))
    return rows


def _excess(x, y, paths):
    """The largest distance from the optimum on each path, nats an image, against one solved tightly in double precision."""
    x, worst = x.double(), dict.fromkeys(paths, 0.0)

    def loss(l2, w, b):
        logits = x @ w.double().T + b.double()
        return float(F.cross_entropy(logits, y, reduction="sum") + l2 / 2 * w.double().square().sum()) / len(x)

    grid = [row[0] for row in next(iter(paths.values()))]
    tight = Logistic(x, y, 10, tolerance=1e-6, max_iter=3000).path(grid[:: max(1, len(grid) // 5)])
    for l2, (w, b) in tight:
        for name, rows in paths.items():
            own = next(row[2] for row in rows if row[0] == l2)
            worst[name] = max(worst[name], loss(l2, *own) - loss(l2, w, b))
    return worst
