"""The scorecard: claims, what was measured here, and the verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..errors import UserError
from .base import fixed
from .comparisons import POWER, Family

HOLDS, FAILS, OPEN = "holds", "does not hold at this scale", "not settled at this scale"
OUT_OF_REACH, NOT_RUN = "not reachable here", "not run"
DIGITS = {"points": 1, "times": 2, "nats": 2, "share": 3, "percent": 1}
UNITS = {"points": " points", "times": " times", "nats": " nats", "share": "", "percent": " %"}
VERDICTS = (HOLDS, FAILS, OPEN, OUT_OF_REACH, NOT_RUN)
SHOWN = ("what", "mean", "low", "high", "n", "of", "unit", "p", "p_holm", "detectable", "verdict")  # columns


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
    p_holm: float = float("nan")  # p after Holm's correction for the table's comparisons, where it is one of them
    detectable: float = float("nan")  # smallest true difference that n seeds show with 80 % power, where it is paired

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

    @property
    def could_show(self) -> str:
        """`detectable` without its unit: '2.0'; '' where there is none."""
        return fixed(self.detectable, DIGITS[self.unit]) if self.detectable == self.detectable else ""

    def __str__(self) -> str:
        unit = UNITS[self.unit]
        mean, _, around = self.interval.partition(" ")
        p = f", p = {self.p:.2g}" if self.p == self.p else ""
        p += f", p (Holm) = {self.p_holm:.2g}" if self.p_holm == self.p_holm else ""
        could = f", could show {self.could_show}{unit}" if self.could_show else ""
        return f"{self.what}: {mean}{unit}{f' {around}' if around else ''}, n = {self.n} {self.of}{p}{could}"


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
    """All claims at one tier. `.table` has one row per finding, `claim(n)` is one claim.

    `family`: all comparisons of the table behind it, which Holm's correction is made for.
    """

    claims: tuple[Claim, ...]
    tier: str
    provenance: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None  # None where nothing was run

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
                rows.append(about | ({} if f is None else {k: getattr(f, k) for k in SHOWN}))
        return pd.DataFrame(rows)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a claim: number, title, verdict, why, source, p, p_holm, could_show.

        The last three are words, the least and the largest of the paired findings that decide the
        claim: '0.0028 to 0.06', '1.0 to 2.0 points'; '' where there are none.
        """
        rows = []
        for c in self.claims:
            own = [f for f in c.findings if f.verdict]
            p, corrected = (_range([getattr(f, name) for f in own], _p) for name in ("p", "p_holm"))
            rows.append((c.number, c.title, c.verdict, c.why, c.source, p, corrected, _detectable(own)))
        return pd.DataFrame(rows, columns=["claim", "title", "verdict", "why", "source", "p", "p_holm", "could_show"])


def possible(findings: Sequence[Finding]) -> str:
    """What the open findings could have shown; '' where none of them is paired.

    'n = 3 seeds could have shown 2.0 points (80 % power)'
    """
    parts = []
    for n in sorted({f.n for f in findings if f.verdict == OPEN and f.of == "seeds"}):
        own = [f for f in findings if f.verdict == OPEN and f.of == "seeds" and f.n == n]
        if n == 1:
            parts.append("n = 1 seed shows no difference of any size")
        elif could := _detectable(own):
            parts.append(f"n = {n} seeds could have shown {could} ({100 * POWER:.0f} % power)")
    return ", ".join(parts)


def _detectable(findings: Sequence[Finding]) -> str:
    """'1.3 to 2.3 points', of each unit."""
    units = dict.fromkeys(f.unit for f in findings)
    spans = [
        (u, _range([f.detectable for f in findings if f.unit == u], lambda v, u=u: fixed(v, DIGITS[u]))) for u in units
    ]
    return ", ".join(f"{span}{UNITS[u]}" for u, span in spans if span)


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The least and the largest value in words, NaN left out: '0.0028 to 0.06'; one word where they
    look alike.
    """
    known = [v for v in values if v == v]
    return " to ".join(dict.fromkeys(show(v) for v in (min(known), max(known)))) if known else ""


def _p(value: float) -> str:
    return f"{value:.2g}"


def together(findings: Sequence[Finding]) -> str:
    """Verdict of several findings: FAILS if one fails, HOLDS if all hold, else OPEN."""
    found = [f.verdict for f in findings if f.verdict]
    if not found:
        return NOT_RUN
    return FAILS if FAILS in found else HOLDS if all(v == HOLDS for v in found) else OPEN
