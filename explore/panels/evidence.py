"""HTML of the scorecard panel: the claims as a list, one claim with its evidence, from a `results.Scorecard`. No widget."""

import math
from html import escape
from itertools import groupby

from ..results import Claim, Finding, Scorecard
from ..results.scorecard import FAILS, HOLDS, NOT_RUN, OPEN, OUT_OF_REACH, VERDICTS
from .tables import Axis, ticks

CLASSES = {HOLDS: "holds", FAILS: "fails", OPEN: "open", OUT_OF_REACH: "away", NOT_RUN: "away"}
SIGNS = {HOLDS: "✓", FAILS: "✕", OPEN: "±", OUT_OF_REACH: "–", NOT_RUN: "–"}  # ±: the interval holds zero
COUNTED = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not settled", OUT_OF_REACH: "not reachable here"}
ONE = {HOLDS: "holds", FAILS: "does not hold", OPEN: "is not settled", OUT_OF_REACH: "not reachable here"}
UNITS = {"points": "points", "nats": "nats", "share": "share", "percent": "% of images", "times": "times"}
DIGITS = {"points": 1, "nats": 2, "share": 3, "percent": 1, "times": 2}
SIGNED = ("points", "nats")


def reading(card: Scorecard) -> str:
    """How many claims hold, in one sentence."""
    found = [c.verdict for c in card.claims]
    if all(v == NOT_RUN for v in found):
        return f"The {card.tier} tier was <b>not run</b>: no verdict on any of the {len(found)} claims."
    said = [f"<b>{n}</b> {(ONE if n == 1 else COUNTED)[v]}" for v in COUNTED if (n := found.count(v))]
    said += [f"<b>{found.count(NOT_RUN)}</b> not run"] if NOT_RUN in found else []
    return f"Of {len(found)} claims at this scale {', '.join(said)}."


def chip(verdict: str, short: bool = False) -> str:
    """A verdict: sign, colour and words."""
    words = verdict.removesuffix(" at this scale").removesuffix(" here") if short else verdict
    return f'<span class="ex-v {CLASSES[verdict]}"><i aria-hidden="true">{SIGNS[verdict]}</i>{words}</span>'


def listed(card: Scorecard) -> str:
    """The claims, each a part that is picked by its number."""
    rows = "".join(
        f'<div data-row role="presentation"><div data-pick="{c.number}" role="option" aria-selected="false">'
        f'<span class="ex-cl-n">{c.number}</span><span>{escape(c.title)}<br>{chip(c.verdict, True)}</span></div></div>'
        for c in card.claims
    )
    return f'<div class="ex-cl" role="listbox" aria-label="claims">{rows}</div>'


def detail(claim: Claim) -> str:
    """A claim: what was said and where, the verdict and why, what was measured, the command that measures it again."""
    command = escape(claim.command)
    return (
        f'<div class="ex-cd" data-claim="{claim.number}"><div class="ex-cd-h"><b>{claim.number}&ensp;{escape(claim.title)}</b>'
        f'{chip(claim.verdict)}</div><p class="ex-cd-says">{escape(claim.says)}</p>'
        f'<p class="ex-note">{escape(claim.source)}</p>{evidence(claim)}'
        f'<p class="ex-cd-why">{escape(_sentence(claim.why))}</p>'
        f'<div class="ex-h">Measure it again</div><div class="ex-cd-run"><code class="mono">{command}</code>'
        f'<button class="jupyter-button" data-copy="{command}">Copy command</button></div></div>'
    )


def evidence(claim: Claim) -> str:
    """A forest plot that is a table: a row a finding, findings of one unit on one axis."""
    if not claim.findings:
        return ""
    head = (
        '<thead><tr><th>measured</th><th class="l">mean, 95 % interval, seeds</th><th>mean</th><th>interval</th><th>n</th>'
        "<th>p</th><th></th></tr></thead>"
    )
    parts = [list(own) for _, own in groupby(sorted(claim.findings, key=lambda f: _order(claim, f)), lambda f: f.unit)]
    caption = f"what was measured for claim {claim.number}; the numbers are in panel.result.table"
    columns = "".join(f'<col class="c{i}">' for i in range(7))
    body = "".join(_group(own) for own in parts)
    return f'<table class="ex-fp" aria-label="{caption}"><colgroup>{columns}</colgroup>{head}{body}</table>'


def foot(card: Scorecard) -> str:
    """How verdicts are made, and where the numbers come from."""
    p = card.provenance
    words = [p.get("commit"), *(f"{k} {v}" for k, v in p.get("versions", {}).items() if k in ("torch",))]
    origin = escape(" · ".join(str(word).split("+")[0] for word in words if word))
    return (
        f'<div class="ex-foot"><span>✓ every deciding interval on the claimed side, ✕ one on the '
        f'other, ± one holds zero; t over seeds, paired</span><span class="prov mono">{origin}</span></div>'
    )


def axis_of(findings: list[Finding]) -> Axis:
    """From the least to the most that is drawn, zero and what is compared with included, with a little air."""
    seen = [v for f in findings for v in (f.mean, f.low, f.high, *f.each.values()) if math.isfinite(v)]
    seen += [f.than for f in findings if f.expected or f.unit in SIGNED]
    air = 0.05 * (max(seen) - min(seen)) or 0.5
    return min(seen) - air, max(seen) + air


def _order(claim: Claim, finding: Finding) -> int:
    """Units in the order in which they come first."""
    return [f.unit for f in claim.findings].index(finding.unit)


def _group(findings: list[Finding]) -> str:
    low, high = axis = axis_of(findings)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    rows = "".join(_row(f, at) for f in findings)
    step = ticks(axis, 4)
    digits = max((len(f"{t:g}".partition(".")[2]) for t in step), default=0)
    marks = "".join(f'<span style="left:{at(t):.2f}%">{t:.{digits}f}</span>'.replace("-", "−") for t in step)
    unit = UNITS[findings[0].unit]
    return f'<tbody>{rows}<tr class="axis"><td class="ex-note">{unit}</td><td><div class="ex-ax">{marks}</div></td><td colspan="5"></td></tr></tbody>'


def _row(f: Finding, at) -> str:
    kind = CLASSES.get(f.verdict, "none")
    ends = (f.low, f.high) if f.low == f.low else (f.mean, f.mean)
    left, right = (at(v) for v in ends)
    path = "".join(f"M{at(v):.2f} 0V5" for v in f.each.values()) if len(f.each) > 1 else ""
    line = f'<u style="left:{at(f.than):.2f}%"></u>' if f.expected or f.unit in SIGNED else ""
    drawn = (
        f'<div class="ex-fd"><svg viewBox="0 0 100 5" preserveAspectRatio="none" aria-hidden="true"><path d="{path}"/></svg>'
        f'{line}<b style="left:{left:.2f}%;width:{right - left:.2f}%"></b><i style="left:{at(f.mean):.2f}%"></i></div>'
    )
    between = f"{_show(f, f.low)} to {_show(f, f.high)}" if f.low == f.low else ""
    sign = f'<span class="ex-v {kind}" title="{f.verdict}">{SIGNS[f.verdict]}</span>' if f.verdict in VERDICTS else ""
    p = "" if f.p != f.p else f"{f.p:.2g}" if f.p >= 0.001 else "&lt; .001"
    alt = f'<span class="ex-sr">{f.verdict or "decides nothing"}</span>'
    numbers = f"<td>{_show(f, f.mean)}</td><td>{between}</td><td>{f.n}</td><td>{p}</td><td>{sign}{alt}</td>"
    return f'<tr class="{kind}"><td class="what">{escape(_sentence(f.what, ""))}</td><td>{drawn}</td>{numbers}</tr>'


def _show(f: Finding, value: float) -> str:
    text = f"{value:{'+' if f.unit in SIGNED else ''}.{DIGITS[f.unit]}f}"
    return text.replace("-", "−")


def _sentence(text: str, end: str = ".") -> str:
    return text[:1].upper() + text[1:] + (end if text and not text.endswith(end) else "")
