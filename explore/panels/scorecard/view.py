"""HTML of the scorecard panel: the claims as a list, one claim with its evidence, from a `results.Scorecard`. No widget."""

import re
from collections.abc import Callable
from itertools import groupby

from ...figures.scorecard import UNITS, extent, mark_of
from ...results import Claim, Finding, Scorecard
from ...results.scorecard import FAILS, HOLDS, NOT_RUN, OPEN, OUT_OF_REACH, VERDICTS
from ..html import Markup, fill, heading, join, origin, scale, tag, ticks

CLASSES = {HOLDS: "holds", FAILS: "fails", OPEN: "open", OUT_OF_REACH: "away", NOT_RUN: "away"}
SIGNS = {HOLDS: "✓", FAILS: "✕", OPEN: "±", OUT_OF_REACH: "–", NOT_RUN: "–"}  # ±: the interval holds zero
SAID = {HOLDS: ("holds", "hold"), FAILS: ("does not", "do not"), OPEN: ("is not settled", "are not settled")}
SAID |= {OUT_OF_REACH: ("is not reachable here", "are not reachable here"), NOT_RUN: ("was not run", "were not run")}
COLUMNS = {  # heading -> what it means, as a tooltip
    "measured": "",
    "mean, 95 % interval, seeds": "a point for the mean, a line for the 95 % interval, a tick for each seed",
    "mean": "",
    "interval": "95 % interval of the mean: Student's t over seeds",
    "n": "how many seeds, or batches, or images",
    "p": "How often seeds would differ at least this much by chance, if there were no difference (paired t-test). "
    "Of twenty such tests about one has p below 0.05 by chance alone.",
    "p (Holm)": "p made larger because the table makes many comparisons, so that even one false alarm among those below 0.05 "
    "is unlikely (5 %; Holm 1979). Empty: not one of the table's comparisons with a baseline.",
    "could show": "The smallest true difference that so many seeds find four times in five (80 % power). "
    "A smaller one is likely to stay 'not settled', though it may be there.",
    "": "",
}


def reading(card: Scorecard) -> Markup:
    """How many claims hold, in one sentence."""
    found = [c.verdict for c in card.claims]
    if set(found) == {NOT_RUN}:
        return fill("The {} tier was <b>not run</b>: no verdict on any of the {} claims.", card.tier, len(found))
    said = [fill("<b>{}</b> {}", n, SAID[v][n != 1]) for v in VERDICTS if (n := found.count(v))]
    return fill("Of the {} claims, at this scale, {}.", len(found), Markup(", ").join(said))


def chip(verdict: str, short: bool = False) -> Markup:
    """A verdict: sign, colour and words."""
    words = verdict.removesuffix(" at this scale").removesuffix(" here") if short else verdict
    return tag.span(tag.i(SIGNS[verdict], aria_hidden="true"), words, class_=f"ex-v {CLASSES[verdict]}")


def listed(card: Scorecard) -> Markup:
    """The claims, each a part that is picked by its number."""
    rows = []
    for c in card.claims:
        inner = tag.span(c.number, class_="ex-cl-n"), tag.span(c.title, tag.br(), chip(c.verdict, True))
        option = tag.div(*inner, data_pick=c.number, role="option", aria_selected="false")
        rows.append(tag.div(option, data_row=True, role="presentation"))
    return tag.div(rows, class_="ex-cl", role="listbox", aria_label="claims")


def detail(claim: Claim) -> Markup:
    """A claim: what was said and where, the verdict and why, what was measured, the command that measures it again."""
    parts = re.split(r"(--\w+ \S+)", claim.command)  # every second one is an option with its value: not broken
    words = [tag.span(part) if i % 2 else part for i, part in enumerate(parts)]
    copy = tag.button("Copy command", class_="jupyter-button", data_copy=claim.command)
    return tag.div(
        tag.div(tag.b(f"{claim.number}\u2002{claim.title}"), chip(claim.verdict), class_="ex-cd-h"),
        tag.p(claim.says, class_="ex-cd-says"),
        tag.p(f"Source: {claim.source}", class_="ex-note"),
        evidence(claim),
        tag.p(_sentence(claim.why), class_="ex-cd-why"),
        heading("Measure it again"),
        tag.div(tag.code(words, class_="mono"), copy, class_="ex-cd-run"),
        class_="ex-cd",
        data_claim=claim.number,
    )


def evidence(claim: Claim) -> Markup:
    """A forest plot that is a table: a row a finding, findings of one unit on one axis."""
    if not claim.findings:
        return Markup("")
    head = tag.thead(
        tag.tr(
            tag.th(name, class_="l" if i == 1 else "", title=said or None)
            for i, (name, said) in enumerate(COLUMNS.items())
        )
    )
    parts = [list(own) for _, own in groupby(sorted(claim.findings, key=lambda f: _order(claim, f)), lambda f: f.unit)]
    caption = f"what was measured for claim {claim.number}; the numbers are in panel.result.table"
    columns = tag.colgroup(tag.col(class_=f"c{i}") for i in range(len(COLUMNS)))
    table = tag.table(columns, head, [_group(own) for own in parts], class_="ex-fp", aria_label=caption)
    return tag.div(table, class_="ex-scroll")


def foot(card: Scorecard) -> Markup:
    """How verdicts are made, and where the numbers come from."""
    p = card.provenance
    words = [p.get("commit"), *(f"{k} {v}" for k, v in p.get("versions", {}).items() if k in ("torch",))]
    how = (
        "✓ every deciding interval lies on the claimed side, ✕ one on the other, ± neither; 95 %, t over seeds, paired"
    )
    family = None if card.family is None else tag.span(f"{card.family}; {card.family.could_show}")
    return tag.div(tag.span(how), family, origin(str(word).split("+")[0] for word in words if word), class_="ex-foot")


def _order(claim: Claim, finding: Finding) -> int:
    """Units in the order in which they come first."""
    return [f.unit for f in claim.findings].index(finding.unit)


def _group(findings: list[Finding]) -> Markup:
    low, high = axis = extent(findings)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    step = ticks(axis, 6)
    digits = max((len(f"{t:g}".partition(".")[2]) for t in step), default=0)
    numbers = scale((f"{t:.{digits}f}".replace("-", "−"), f"{at(t):.2f}%") for t in step)
    unit = tag.td(UNITS[findings[0].unit], class_="ex-note")
    last = tag.tr(unit, tag.td(numbers), [tag.td() for _ in range(len(COLUMNS) - 2)], class_="axis")
    return tag.tbody([_row(f, at) for f in findings], last)


def _row(f: Finding, at: Callable[[float], float]) -> Markup:
    kind = CLASSES.get(f.verdict, "none")
    ends = (f.low, f.high) if f.low == f.low else (f.mean, f.mean)
    left, right = (at(v) for v in ends)
    path = "".join(f"M{at(v):.2f} 0V5" for v in f.each.values()) if len(f.each) > 1 else ""
    mark = mark_of(f)
    drawn = tag.div(
        tag.svg(tag.path(d=path), viewBox="0 0 100 5", preserveAspectRatio="none", aria_hidden="true"),
        tag.u(style=f"left:{at(mark):.2f}%") if mark is not None else None,
        tag.b(style=f"left:{left:.2f}%;width:{right - left:.2f}%"),
        tag.i(style=f"left:{at(f.mean):.2f}%"),
        class_="ex-fd",
        title=f"{f.interval}, seeds: {', '.join(f.show(v) for v in f.each.values())}" if f.each else None,
    )
    known = f.verdict in VERDICTS
    sign = tag.span(SIGNS[f.verdict], class_=f"ex-v {kind}", title=f.verdict) if known else None
    verdict = join(sign, tag.span(f.verdict or "decides nothing", class_="ex-sr"))
    between = f"{f.show(f.low)} to {f.show(f.high)}" if f.low == f.low else ""
    cells = [
        drawn,
        f.show(f.mean),
        between,
        "" if f.of == "count" else f.n,
        _p(f.p),
        _p(f.p_holm),
        f.could_show,
        verdict,
    ]
    return tag.tr(tag.td(_sentence(f.what, ""), class_="what"), [tag.td(cell) for cell in cells], class_=kind)


def _p(value: float) -> str:
    return "" if value != value else f"{value:.2g}" if value >= 0.001 else "< .001"


def _sentence(text: str, end: str = ".") -> str:
    first = text[:1] if text.startswith("kNN") else text[:1].upper()
    return first + text[1:] + (end if text and not text.endswith(end) else "")
