"""Linear evaluation of a frozen encoder on the rebuttal's eight transfer sets."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..environment import environment
from ..errors import UserError, nearest
from ..results import Transfer
from ..runfolder import Run
from .encoders import open_encoder
from .features import Progress, embed
from .probe import Probe


def transfer(
    encoders: "Run | str | Path | nn.Module | Sequence[Run | str | Path | nn.Module]",
    *,
    datasets: Sequence[str] | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: bool = True,
    progress: Progress | None = None,
) -> Transfer:
    """Evaluate an encoder, or several seeds of one method, on the transfer sets below `root`.

    Sets that are absent are listed with how to get them. Protocol (SimCLR, B.8): resize and centre
    crop to `size` (default: the encoder's training size; the paper's is 224), clean-branch
    features, l2 chosen on the validation split, refit on train + val, one evaluation on the test
    split. `seed` draws the held-out parts of sets without official ones. `encoders`: as for
    `open_encoder`.
    """
    from ..datasets.transfer import TRANSFER, open_transfer  # slow import: torchvision's loaders

    names = list(datasets or TRANSFER)
    for name in names:
        if name not in TRANSFER:
            raise UserError(f"The transfer sets are {', '.join(TRANSFER)}, got '{name}'.{nearest(name, TRANSFER)}")
    many = encoders if isinstance(encoders, Sequence) and not isinstance(encoders, str) else [encoders]
    opened = [open_encoder(one, device, size=size) for one in many]
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    for name in names:
        for encoder, about in opened:
            side = size or about.get("size", 224)
            try:
                data = open_transfer(name, root, size=side, seed=seed, progress=progress)
            except UserError as error:
                absent[name] = str(error)
                break
            rows.append(_row(name, encoder, about, data.to(device), seed, cache, progress))
    env = environment()
    about = {"study": "transfer", "seed": seed, "device": device}
    about["encoders"] = [{k: v for k, v in a.items() if k != "data_dir"} for _, a in opened]
    return Transfer(tuple(rows), absent, about | {k: env[k] for k in ("time", "versions", "commit", "machine")})


def _row(
    name: str, encoder: nn.Module, about: dict[str, Any], data: Any, seed: int, cache: bool, progress: Progress | None
) -> dict[str, Any]:
    began = time.perf_counter()
    parts = [embed(encoder, part, cache=cache, progress=progress) for part in (data.train, data.val, data.test)]
    (h, y), val, (test_h, test_y) = parts
    probe = Probe(seed=seed).fit(h, y, classes=data.classes, val=val)
    scores = probe.score(test_h, test_y)
    top1 = data.metric == "top1"
    low, high = scores.interval if top1 else scores.mean_per_class_interval
    return {
        "encoder": about["encoder"],
        "dataset": name,
        "metric": data.metric,
        "value": scores.top1 if top1 else scores.mean_per_class,
        "low": low,
        "high": high,
        "n": scores.n,
        "classes": len(data.classes),
        "train": len(y),
        "val": len(val[1]),
        "size": int(data.train[:1][0].shape[-1]),
        "l2": probe.l2_,
        "top1": scores.top1,
        "top5": scores.top5,
        "seconds": round(time.perf_counter() - began, 1),
        "warnings": [*data.warnings],
        "data": {k: v for k, v in data.provenance.items() if k != "path"},
    }
