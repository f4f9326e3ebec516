"""The scorecard: claims, what was measured here, and the verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..errors import UserError
from .base import fixed

HOLDS, FAILS, OPEN = "holds", "does not hold at this scale", "not settled at this scale"
OUT_OF_REACH, NOT_RUN = "not reachable here", "not run"
DIGITS = {"points": 1, "times": 2, "nats": 2, "share": 3, "percent": 1}
VERDICTS = (HOLDS, FAILS, OPEN, OUT_OF_REACH, NOT_RUN)


@dataclass(frozen=True)
class Finding:
    """One measured number of a claim with its 95 % interval, and the claim's side of `than`."""

    what: str
    mean: float
    low: float  # NaN where there is no spread
    high: float
    n: int
    of: str  # what n counts: 'seeds', 'batches', 'images'
    unit: str  # 'points' (of accuracy, a share times 100), 'times', 'nats', 'share'
    expected: str = ""  # 'above' or 'below' `than`; '' for a number that decides nothing
    than: float = 0.0
    p: float = float("nan")  # of the paired t-test, where there is one
    rows: tuple[str, ...] = ()  # rows of the table that it was computed from; () where trained runs were asked
    each: dict[int, float] = field(default_factory=dict)  # seed -> value

    @property
    def verdict(self) -> str:
        """HOLDS or FAILS if the interval is on one side of `than`, else OPEN; '' if no side is."""
        if not self.expected:
            return ""
        sign = 1 if self.expected == "above" else -1
        low, high = sorted((sign * (self.low - self.than), sign * (self.high - self.than)))
        return HOLDS if low > 0 else FAILS if high < 0 else OPEN

    def show(self, value: float) -> str:
        """A value of this finding's unit in words: '+0.3', '1.52', '0.592'."""
        return fixed(value, DIGITS[self.unit], sign=self.unit in ("points", "nats"))

    @property
    def interval(self) -> str:
        """'+0.3 (+0.1 to +0.5)'; the mean alone where there is no spread."""
        around = f" ({self.show(self.low)} to {self.show(self.high)})" if self.low == self.low else ""
        return self.show(self.mean) + around

    def __str__(self) -> str:
        unit = {"points": " points", "times": " times", "nats": " nats", "share": "", "percent": " %"}[self.unit]
        mean, _, around = self.interval.partition(" ")
        p = f", p = {self.p:.2g}" if self.p == self.p else ""
        return f"{self.what}: {mean}{unit}{f' {around}' if around else ''}, n = {self.n} {self.of}{p}"


@dataclass(frozen=True)
class Claim:
    """A falsifiable statement: source, findings, verdict with reason, command to reproduce it."""

    number: int
    title: str
    says: str
    source: str
    findings: tuple[Finding, ...]
    verdict: str  # one of VERDICTS
    why: str
    command: str


@dataclass(frozen=True)
class Scorecard:
    """All claims at one tier. `.table` has one row per finding, `claim(n)` is one claim."""

    claims: tuple[Claim, ...]
    tier: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def claim(self, number: int) -> Claim:
        """A claim by its number, from 1."""
        if not 1 <= number <= len(self.claims):
            raise UserError(f"The claims are numbered 1 to {len(self.claims)}, got {number}.")
        return self.claims[number - 1]

    @property
    def table(self) -> pd.DataFrame:
        """One row per finding; a claim without findings has one row with its verdict."""
        rows = []
        for c in self.claims:
            about = {"claim": c.number, "title": c.title, "claim_verdict": c.verdict, "command": c.command}
            for f in c.findings or [None]:
                own = (
                    {}
                    if f is None
                    else {k: getattr(f, k) for k in ("what", "mean", "low", "high", "n", "of", "unit", "p", "verdict")}
                )
                rows.append(about | own)
        return pd.DataFrame(rows)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a claim: number, title, verdict, why, source."""
        return pd.DataFrame(
            [(c.number, c.title, c.verdict, c.why, c.source) for c in self.claims],
            columns=["claim", "title", "verdict", "why", "source"],
        )


def together(findings: Sequence[Finding]) -> str:
    """Verdict of several findings: FAILS if one fails, HOLDS if all hold, else OPEN."""
    found = [f.verdict for f in findings if f.verdict]
    if not found:
        return NOT_RUN
    return FAILS if FAILS in found else HOLDS if all(v == HOLDS for v in found) else OPEN
