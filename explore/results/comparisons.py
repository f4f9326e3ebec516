"""Several comparisons judged together: Holm's correction, and the smallest difference that so many
seeds can show.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from ..errors import UserError
from .base import fixed
from .sweep import Difference, Sweep, interval

ALPHA, POWER = 0.05, 0.8  # chance of a difference where there is none; of showing one that is there
Pair = tuple[str, str]  # a row and its baseline


def holm(p_values: Iterable[float]) -> list[float]:
    """p values corrected for their number, in the order given.

    Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6,
    65-70. The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller
    than one before it, nor larger than 1. With all below 0.05 called differences, the chance of
    even one false one is at most 5 %, however the tests depend on each other. NaN (a single seed)
    is no test: it stays NaN and is not counted in m.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = [float(p) for p in p_values]
    if wrong := [p for p in values if not (math.isnan(p) or 0 <= p <= 1)]:
        raise UserError(f"A p value lies between 0 and 1, got {wrong[0]:g}; pass the p of each test.")
    order = sorted((i for i, p in enumerate(values) if not math.isnan(p)), key=values.__getitem__)
    found, least = [float("nan")] * len(values), 0.0
    for rank, i in enumerate(order):
        found[i] = least = max(least, min(1.0, (len(order) - rank) * values[i]))
    return found


def detectable(sd: float, n: int, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest true difference that a paired t-test of n seeds shows with this power, in `sd`'s
    unit.

    `sd`: standard deviation of the paired differences over seeds. 'Shows': the two-sided p is below
    `alpha` and the difference has the true sign. The statistic then has the noncentral t
    distribution with n - 1 degrees of freedom around difference / (sd / √n). NaN for a single seed,
    which has no spread, and where `sd` is NaN.

    >>> round(detectable(0.5, 3), 2), round(detectable(0.5, 5), 2)
    (1.63, 0.84)
    """
    if n < 1:
        raise UserError(f"n is 1 seed or more, got {n}; pass how many seeds both trainings have.")
    if not alpha / 2 < power < 1:
        raise UserError(f"power lies between alpha / 2 = {alpha / 2:g} and 1, got {power:g}; 0.8 is usual.")
    return float("nan") if n == 1 or math.isnan(sd) else sd * _effect(n, power, alpha)


@lru_cache(maxsize=256)
def _effect(n: int, power: float, alpha: float) -> float:
    """The difference in standard deviations: where the chance of showing it, which grows with it,
    is `power`.
    """
    from scipy import stats

    edge = stats.t.ppf(1 - alpha / 2, n - 1)

    def reached(effect: float) -> bool:
        return bool(stats.nct.sf(edge, n - 1, effect * n**0.5) >= power)

    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def pooled_sd(groups: Iterable[Sequence[float]]) -> float:
    """One standard deviation of several groups about their own means: √(Σ (n - 1) sd² / Σ (n - 1)).

    NaN where no group has two values.
    """
    spreads = [(len(g) - 1, interval(list(g))[1]) for g in groups if len(g) > 1]
    freedom = sum(df for df, _ in spreads)
    return (sum(df * sd**2 for df, sd in spreads) / freedom) ** 0.5 if freedom else float("nan")


@dataclass(frozen=True)
class Family:
    """Every row of a table against its baseline by one metric: the comparisons that are corrected
    together.

    Which rows a claim names, or a page shows, changes nothing here: the family is the whole table.
    `sd` is pooled over all of it, because the two degrees of freedom of three seeds leave a
    standard deviation all but unknown (95 % interval: 0.5 to 6.3 times the estimate). That supposes
    that the differences of all rows scatter alike; rows of one baseline also share its luck.
    """

    metric: str
    differences: Mapping[Pair, Difference]  # (row, baseline) -> row minus baseline

    @classmethod
    def of(cls, rows: Sweep, metric: str = "probe") -> "Family":
        """The comparisons that a table's provenance names ('rows': name -> 'against'), where both
        rows were run.
        """
        own, pairs = rows.where(metric=metric).table, []
        for name, about in rows.provenance["rows"].items():
            pairs += [(name, about["against"])] if about["against"] != name else []
        twice = own[own.duplicated(["method", "seed"]) & own.method.isin({name for pair in pairs for name in pair})]
        if len(twice):
            row = twice.iloc[0]
            raise UserError(
                f"Row {row.method} has seed {row.seed} several times by '{metric}'; a table has one value each."
            )
        values = {
            str(name): dict(zip(part.seed.tolist(), part.value.tolist(), strict=True))
            for name, part in own.groupby("method")
        }
        both = [(a, b) for a, b in pairs if values.get(a, {}).keys() & values.get(b, {}).keys()]
        return cls(metric, {(a, b): Difference.between(metric, values[b], values[a]) for a, b in both})

    def __len__(self) -> int:
        return len(self.differences)

    @property
    def sd(self) -> float:
        """Standard deviation of the paired differences over seeds, pooled over the family."""
        return pooled_sd(list(d.each.values()) for d in self.differences.values())

    @property
    def p_holm(self) -> dict[Pair, float]:
        """(row, baseline) -> p after Holm's correction for the whole family."""
        return dict(zip(self.differences, holm(d.p for d in self.differences.values()), strict=True))

    @property
    def table(self) -> pd.DataFrame:
        """One row a comparison: row, against, mean, low, high, n, p, p_holm, detectable (shares, as
        measured).
        """
        sd, corrected = self.sd, self.p_holm
        rows = [
            (*pair, d.mean, d.low, d.high, d.n, d.p, corrected[pair], detectable(sd, d.n))
            for pair, d in self.differences.items()
        ]
        return pd.DataFrame(rows, columns=["row", "against", "mean", "low", "high", "n", "p", "p_holm", "detectable"])

    @property
    def below(self) -> int:
        """How many have p < 0.05."""
        return sum(d.p < ALPHA for d in self.differences.values())

    @property
    def below_holm(self) -> int:
        """How many have p < 0.05 after Holm's correction."""
        return sum(p < ALPHA for p in self.p_holm.values())

    def __str__(self) -> str:
        n = len(self)
        return (
            f"{n} comparison{'s' * (n != 1)} with a baseline by the {self.metric}: {self.below} with p < {ALPHA:g}, where "
            f"chance alone would give {ALPHA * n:.1f}; {self.below_holm} after Holm's correction (1979) for all {n}"
        )

    @property
    def could_show(self) -> str:
        """In words, in points: 'n = 3 seeds could show 2.0 points, n = 5 seeds 1.0 (80 % power;
        ...)'.
        """
        sd, seeds = self.sd, sorted({d.n for d in self.differences.values()} - {1})
        if not seeds:
            return "one seed shows no difference of any size"
        found = [f"n = {n} seeds {{}}{fixed(100 * detectable(sd, n))}" for n in seeds]
        found = [found[0].format("could show ") + " points", *(part.format("") for part in found[1:])]
        about = f"{100 * POWER:.0f} % power; the paired differences' standard deviation is {fixed(100 * sd, 2)} points"
        return f"{', '.join(found)} ({about}, pooled over the table)"
