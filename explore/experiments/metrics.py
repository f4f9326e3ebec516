"""What is measured on a trained encoder of a study."""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from torch import Tensor

from .. import datasets
from ..evaluate import Probe, embed, knn_accuracy, robust_accuracy
from ..nets import Encoder, TorchEncoder
from ..random import seeded
from ..results import Scores, wilson

# settings newer than the cells' SCHEMA, with the value that cells had before: left out while they have it
ADDED: dict[str, Any] = {"robust": 0.0, "attacked": 500, "z": False, "transfer": (), "votes": "weighted"}


@dataclass(frozen=True)
class Measure:
    """What is measured on a cell's encoder, on features h and the whole test set unless said otherwise.

    kNN as in live training: `k` of `neighbours` training images vote, by their similarity, or with equal `votes`. The linear probe's `l2` (None) is chosen on a
    `held_out` share of the training images. `robust`: the probe's accuracy under PGD of 20 steps at this eps (0: not), on
    `attacked` test images. `z`: kNN on projections too. `transfer`: other sets, by name, with a probe of their own each.
    """

    k: int = 20
    neighbours: int = 5000
    probe: bool = True
    l2: float | None = None
    held_out: float = 0.2
    robust: float = 0.0
    attacked: int = 500
    z: bool = False
    transfer: tuple[str, ...] = ()
    votes: Literal["weighted", "equal"] = "weighted"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; settings newer than `SCHEMA` are left out where they have the value that cells had before."""
        kept = {k: v for k, v in asdict(self).items() if k not in ADDED or v != ADDED[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


USUAL = Measure()


def measured(encoder: Encoder | TorchEncoder, data: datasets.Data, measure: Measure) -> list[dict[str, Any]]:
    """Rows of metric, value, interval (Wilson's 95 % over the n test images), n."""
    assert data.labelled is not None
    near = data.labelled.take(min(measure.neighbours, len(data.labelled)), seeded(0))
    test, rows = embed(encoder, data.test), []
    votes: dict[str, Any] = {"k": measure.k, "temperature": math.inf if measure.votes == "equal" else 0.1}
    knn = knn_accuracy(*embed(encoder, near), *test, **votes)
    rows.append({"metric": "knn", "value": knn.accuracy, "interval": knn.interval, "n": knn.n})
    if measure.z:
        knn = knn_accuracy(*embed(encoder, near, "z"), *embed(encoder, data.test, "z"), **votes)
        rows.append({"metric": "knn z", "value": knn.accuracy, "interval": knn.interval, "n": knn.n})
    if measure.probe or measure.robust:
        probe, scores = _probed(encoder, data, test, measure)
        rows.append(_row("probe", scores, l2=probe.l2_))
        if measure.robust:
            few = data.test.take(min(measure.attacked, len(data.test)), seeded(0))
            right = robust_accuracy(encoder, probe, few, eps=[measure.robust], attacks=["pgd"], check=False).right
            share = float(right.float().mean())
            rows.append({"metric": "robust", "value": share, "interval": wilson(share, len(few)), "n": len(few)})
    for name in measure.transfer:
        other = _other(name).to(data.device)
        _, scores = _probed(encoder, other, embed(encoder, other.test), measure)
        rows.append(_row(f"transfer {name}", scores))
    return rows


def _probed(
    encoder: Encoder | TorchEncoder, data: datasets.Data, test: tuple[Tensor, Tensor], measure: Measure
) -> tuple[Probe, Scores]:
    assert data.labelled is not None
    probe = Probe(l2=measure.l2, held_out=measure.held_out)
    probe.fit(*embed(encoder, data.labelled), classes=data.classes)
    return probe, probe.score(*test)


def _row(metric: str, scores: Scores, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "value": scores.top1, "interval": scores.interval, "n": scores.n, **more}


@lru_cache(maxsize=4)
def _other(name: str) -> datasets.Data:
    return datasets.load(name)
