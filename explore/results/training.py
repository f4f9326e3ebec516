"""The course of trainings: every logged row, and how far the last one is."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from .base import SavedResult


@dataclass(frozen=True)
class RunProgress:
    """How far a training is. `epoch` of `epochs`; `images_a_second`, `seconds_left`: by its latest
    steps, None before them.
    """

    epoch: float
    epochs: int
    step: int
    images_a_second: float | None = None
    seconds_left: float | None = None

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.epoch / self.epochs)


@dataclass(frozen=True)
class TrainingCurves(SavedResult):
    """The rows of one or several runs: `run`, `method`, `epoch`, `step`, `loss`, `loss_adv`,
    `chance`, `knn` and so on.

    Losses and chance in nats, kNN accuracy as a share of 1. `alignment`, `uniformity` and `rankme`
    stand in runs that were monitored.
    """

    called: ClassVar[str] = "saved training curves"
    table: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[str, ...]:
        """Names, the run that is looked at first."""
        return tuple(self.provenance["runs"])

    def of(self, run: str) -> pd.DataFrame:
        """The rows of one run."""
        return self.table[self.table.run == run]

    def points(self, run: str, column: str) -> tuple[list[float], list[float]]:
        """Epochs and values of a column, where it was measured."""
        own = self.of(run)
        if column not in own:
            return [], []
        own = own[own[column].notna()]
        return own.epoch.astype(float).tolist(), own[column].astype(float).tolist()

    def last(self, run: str, column: str) -> float | None:
        """The latest value of a column; None where there is none."""
        values = self.points(run, column)[1]
        return values[-1] if values else None
