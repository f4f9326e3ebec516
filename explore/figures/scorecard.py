"""Figures of the scorecard: findings with intervals and seeds, accuracy over training eps."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..errors import UserError
from ..results import Claim, Finding, Scorecard, Sweep
from ..results.scorecard import FAILS, HOLDS, OPEN
from .base import GREY, as_text, blank
from .sweep import Curve, Level, sweep_curves

MARKS = {  # verdict of a finding -> colour, symbol, size: never by colour alone
    HOLDS: ("#388e3c", "circle", 9),
    FAILS: ("#d84343", "x", 9),
    OPEN: (GREY, "circle-open", 9),
    "": (GREY, "circle", 4),
}
SIGNS = {HOLDS: "●", FAILS: "✕", OPEN: "○"}
UNITS = {
    "points": "points of accuracy",
    "nats": "nats",
    "share": "share",
    "percent": "% of test images correct",
    "times": "times",
}
JUDGES = {"probe": "linear probe", "knn": "kNN"}
ORIGIN = {"points": 0.0, "nats": 0.0, "times": 1.0}  # where nothing has changed: a line
LEFT, RIGHT, ROW, TOP, BOTTOM, INDENT = 376, 184, 22, 28, 44, 16  # px
Line = tuple[str, Finding | None]  # words, and what was measured; a heading without


def forest(
    found: Scorecard | Claim | Sequence[Finding], *, unit: str = "points", width: int = 800, left: int = LEFT
) -> go.Figure:
    """One line per finding of this unit: mean, 95 % interval, seeds; coloured by verdict.

    `left`: width of the labels in px. Every claim of a scorecard has a heading. UserError if no
    finding has the unit.
    """
    lines = _lines(found, unit)
    shown = [(-i, f) for i, (_, f) in enumerate(lines) if f is not None]
    if not shown:
        units = sorted({f.unit for _, f in _lines(found, "") if f is not None})
        raise UserError(f"No finding here is measured in {unit}; there are {', '.join(units) or 'no findings'}.")
    height = TOP + BOTTOM + ROW * len(lines)
    figure = blank(width, height, margin={"l": left, "r": RIGHT, "t": TOP, "b": BOTTOM})
    figure.add_traces([_seeds(shown), *(_kind(shown, verdict) for verdict in MARKS)])
    origin = ORIGIN.get(unit)
    own_lines = [_upright(x, y) for y, f in shown if (x := mark_of(f)) is not None and x != origin]
    figure.update_layout(shapes=[*own_lines, *([] if origin is None else [_upright(origin)])])
    for i, (text, f) in enumerate(lines):
        side = "" if f is None else f"{f.interval}  n = {f.n}"
        indent = INDENT if f is not None and isinstance(found, Scorecard) else 0
        for words, at, shift in ((text, 0, indent - left), (side, 1, 12)):
            own = {"x": at, "xref": "paper", "y": -i, "yref": "y", "xanchor": "left", "xshift": shift}
            figure.add_annotation(**own, text=words, showarrow=False, font={"size": 12})
    signs = [f"{_sign(verdict)} {verdict.removesuffix(' at this scale')}" for verdict in SIGNS]
    key = "   ".join([*signs, "· decides nothing", "line: 95 % interval", "ticks below it: seeds"])
    own = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": -left, "y": 1, "yref": "paper", "yanchor": "bottom"}
    figure.add_annotation(**own, text=key, showarrow=False, font={"size": 12}, yshift=6)
    figure.update_xaxes(title={"text": UNITS[unit]}, range=extent([f for _, f in shown]), nticks=8)
    return figure.update_yaxes(range=[0.5 - len(lines), 0.5], showgrid=False, showticklabels=False)


def mark_of(finding: Finding) -> float | None:
    """Position of a finding's reference line: its `than`, else no change, or None."""
    return finding.than if finding.expected else ORIGIN.get(finding.unit)


def extent(findings: Sequence[Finding]) -> tuple[float, float]:
    """An axis range with all means, intervals, seeds and reference lines of one unit."""
    seen = [v for f in findings for v in (f.mean, f.low, f.high, *f.each.values()) if math.isfinite(v)]
    seen += [line for f in findings if (line := mark_of(f)) is not None]
    seen += [0.0, 1.0] if findings[0].unit == "share" else []
    air = 0.05 * (max(seen) - min(seen)) or 0.5
    return min(seen) - air, max(seen) + air


def training_eps(rows: Sweep, *, metric: str = "probe", width: int = 760, height: int = 316) -> go.Figure:
    """Accuracy over training eps of the rows `fgsm-K`, `gaussian-K` and `uniform-K`, with seeds.

    SimCLR's rows are the band, SimCLR at CLAE's compute (`longer`) the dashed line.
    """
    table = rows.where(metric=metric).summary().set_index("method")
    if "simclr" not in table.index:
        raise UserError(f"The rows need 'simclr' measured by '{metric}'; there are {', '.join(table.index) or 'none'}.")
    kinds = (("fgsm", "adv", "adversary (CLAE)"), ("gaussian", "gauss", "Gaussian"), ("uniform", "uniform", "uniform"))
    parts = [
        (table[[bool(re.fullmatch(rf"{attack}-[\d.]+", row)) for row in table.index]], role, name)
        for attack, role, name in kinds
    ]
    curves = [_curve(part, role, name) for part, role, name in parts if len(part)]
    plain = table.loc["simclr"]
    levels = [Level("clean", "SimCLR", 100 * plain["mean"], 100 * plain.low, 100 * plain.high, hover=_said(plain))]
    if "longer" in table.index:
        same = table.loc["longer"]
        levels.append(
            Level("clean", f"SimCLR, {same.epochs} epochs", 100 * same["mean"], dash="dash", hover=_said(same))
        )
    up = f"{JUDGES.get(metric, metric)}, % of {int(rows.where(metric=metric).table.n.max()):,} test images correct"
    return sweep_curves(
        curves, levels, across="training ε, k/255", up=up, bounds=(0.0, 100.0), width=width, height=height
    )


def _lines(found: Scorecard | Claim | Sequence[Finding], unit: str) -> list[Line]:
    """Headings and findings of the unit ('' for any), top to bottom."""
    if isinstance(found, Scorecard):
        parts = [_lines(claim, unit) for claim in found.claims]
        heads: list[Line] = [
            (f"<b>{c.number}  {as_text(c.title)}</b>   {_sign(c.verdict)} {c.verdict}", None) for c in found.claims
        ]
        return [line for head, part in zip(heads, parts, strict=True) if part for line in (head, *part)]
    findings = found.findings if isinstance(found, Claim) else found
    return [(as_text(f.what), f) for f in findings if f.unit == unit or not unit]


def _sign(verdict: str) -> str:
    return f'<span style="color:{MARKS[verdict][0]}">{SIGNS[verdict]}</span>' if verdict in SIGNS else ""


def _kind(shown: list[tuple[int, Finding]], verdict: str) -> go.Scatter:
    """Means and intervals of the findings with one verdict."""
    own = [(y, f) for y, f in shown if f.verdict == verdict]
    colour, symbol, size = MARKS[verdict]
    spread = [(f.mean - f.low, f.high - f.mean) if f.low == f.low else (0.0, 0.0) for _, f in own]
    whiskers = {"type": "data", "symmetric": False, "thickness": 2 if verdict else 1, "width": 0, "color": colour}
    whiskers |= {"array": [b for _, b in spread], "arrayminus": [a for a, _ in spread]}
    pen = {"width": 1.75 if verdict == OPEN else 0, "color": colour}
    marker = {"symbol": symbol, "size": size, "color": colour, "line": pen}
    return go.Scatter(
        x=[f.mean for _, f in own],
        y=[y for y, _ in own],
        error_x=whiskers,
        mode="markers",
        marker=marker,
        name=verdict or "decides nothing",
        hovertext=[
            f"{as_text(f.what)}<br>{as_text(str(f)[len(f.what) + 2 :])}<br>{f.verdict or 'decides nothing'}"
            for _, f in own
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        cliponaxis=False,
    )


def _seeds(shown: list[tuple[int, Finding]]) -> go.Scatter:
    several = [(v, y - 0.27) for y, f in shown if len(f.each) > 1 for v in f.each.values()]
    mark = {"symbol": "line-ns", "size": 5, "line": {"color": GREY, "width": 1}}
    given = {"x": [x for x, _ in several], "y": [y for _, y in several], "mode": "markers", "marker": mark}
    return go.Scatter(**given, hoverinfo="skip", cliponaxis=False, name="seeds")


def _curve(part: pd.DataFrame, role: str, name: str) -> Curve:
    part = part.sort_values("k")
    mean, low, high = ([100 * v for v in part[column]] for column in ("mean", "low", "high"))
    seeds = [[100 * v for v in values] for values in part["values"]]
    return Curve(role, name, list(part.k), mean, low, high, seeds, [_said(row) for _, row in part.iterrows()])


def _said(row: pd.Series) -> str:
    name = f"{row.attack.upper()} {row.k:g}/255" if row.k else f"SimCLR, {row.epochs} epochs"
    return (
        f"<b>{as_text(name)}</b><br>{100 * row['mean']:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}], n = {row.n}"
        f"<br>row {as_text(row.name)}"
    )


def _upright(x: float, y: float | None = None) -> dict[str, Any]:
    """A vertical line through the figure, or through row y if that has its own reference."""
    pen, at = {"color": GREY, "width": 1}, {"y0": 0, "y1": 1, "yref": "paper"}
    at = at if y is None else {"y0": y - 0.5, "y1": y + 0.5, "yref": "y"}
    return {"type": "line", "x0": x, "x1": x, **at, "line": pen, "layer": "below"}
