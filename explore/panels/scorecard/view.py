"""HTML of the scorecard panel: the claims as a list, one claim with its evidence, from a `results.Scorecard`. No widget."""

import re
from collections.abc import Callable
from html import escape
from itertools import groupby

from ...figures.scorecard import UNITS, extent, mark_of
from ...results import Claim, Finding, Scorecard
from ...results.scorecard import FAILS, HOLDS, NOT_RUN, OPEN, OUT_OF_REACH, VERDICTS
from ..perturbation.view import ticks

CLASSES = {HOLDS: "holds", FAILS: "fails", OPEN: "open", OUT_OF_REACH: "away", NOT_RUN: "away"}
SIGNS = {HOLDS: "✓", FAILS: "✕", OPEN: "±", OUT_OF_REACH: "–", NOT_RUN: "–"}  # ±: the interval holds zero
SAID = {HOLDS: ("holds", "hold"), FAILS: ("does not", "do not"), OPEN: ("is not settled", "are not settled")}
SAID |= {OUT_OF_REACH: ("is not reachable here", "are not reachable here"), NOT_RUN: ("was not run", "were not run")}


def reading(card: Scorecard) -> str:
    """How many claims hold, in one sentence."""
    found = [c.verdict for c in card.claims]
    if set(found) == {NOT_RUN}:
        return f"The {card.tier} tier was <b>not run</b>: no verdict on any of the {len(found)} claims."
    counts = [(found.count(v), v) for v in VERDICTS]
    said = [f"<b>{n}</b> {SAID[v][n != 1]}" for n, v in counts if n]
    return f"Of the {len(found)} claims, at this scale, {', '.join(said)}."


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
    words = re.sub(r"--\w+ \S+", r"<span>\g<0></span>", command)
    return (
        f'<div class="ex-cd" data-claim="{claim.number}"><div class="ex-cd-h"><b>{claim.number}&ensp;{escape(claim.title)}</b>'
        f'{chip(claim.verdict)}</div><p class="ex-cd-says">{escape(claim.says)}</p>'
        f'<p class="ex-note">Source: {escape(claim.source)}</p>{evidence(claim)}'
        f'<p class="ex-cd-why">{escape(_sentence(claim.why))}</p>'
        f'<div class="ex-h">Measure it again</div><div class="ex-cd-run"><code class="mono">{words}</code>'
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
        f'<div class="ex-foot"><span>✓ every deciding interval lies on the claimed side, ✕ one on the other, ± neither; 95 %, t over '
        f"seeds, paired</span>"
        f'<span class="prov mono">{origin}</span></div>'
    )


def _order(claim: Claim, finding: Finding) -> int:
    """Units in the order in which they come first."""
    return [f.unit for f in claim.findings].index(finding.unit)


def _group(findings: list[Finding]) -> str:
    low, high = axis = extent(findings)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    rows = "".join(_row(f, at) for f in findings)
    step = ticks(axis, 6)
    digits = max((len(f"{t:g}".partition(".")[2]) for t in step), default=0)
    marks = "".join(f'<span style="left:{at(t):.2f}%">{t:.{digits}f}</span>'.replace("-", "−") for t in step)
    unit = UNITS[findings[0].unit]
    return f'<tbody>{rows}<tr class="axis"><td class="ex-note">{unit}</td><td><div class="ex-ax">{marks}</div></td><td colspan="5"></td></tr></tbody>'


def _row(f: Finding, at: Callable[[float], float]) -> str:
    kind = CLASSES.get(f.verdict, "none")
    ends = (f.low, f.high) if f.low == f.low else (f.mean, f.mean)
    left, right = (at(v) for v in ends)
    path = "".join(f"M{at(v):.2f} 0V5" for v in f.each.values()) if len(f.each) > 1 else ""
    mark = mark_of(f)
    line = f'<u style="left:{at(mark):.2f}%"></u>' if mark is not None else ""
    drawn = (
        f'<div class="ex-fd"><svg viewBox="0 0 100 5" preserveAspectRatio="none" aria-hidden="true"><path d="{path}"/></svg>'
        f'{line}<b style="left:{left:.2f}%;width:{right - left:.2f}%"></b><i style="left:{at(f.mean):.2f}%"></i></div>'
    )
    between = f"{f.show(f.low)} to {f.show(f.high)}" if f.low == f.low else ""
    sign = f'<span class="ex-v {kind}" title="{f.verdict}">{SIGNS[f.verdict]}</span>' if f.verdict in VERDICTS else ""
    p = "" if f.p != f.p else f"{f.p:.2g}" if f.p >= 0.001 else "&lt; .001"
    alt = f'<span class="ex-sr">{f.verdict or "decides nothing"}</span>'
    numbers = f"<td>{f.show(f.mean)}</td><td>{between}</td><td>{'' if f.of == 'count' else f.n}</td><td>{p}</td><td>{sign}{alt}</td>"
    return f'<tr class="{kind}"><td class="what">{escape(_sentence(f.what, ""))}</td><td>{drawn}</td>{numbers}</tr>'


def _sentence(text: str, end: str = ".") -> str:
    first = text[:1] if text.startswith("kNN") else text[:1].upper()
    return first + text[1:] + (end if text and not text.endswith(end) else "")
