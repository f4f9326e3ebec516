"""Figures of sweeps: curves over eps with seeds and intervals, and accuracy over cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from ..attack_table import TABLE
from ..errors import UserError
from ..results import Sweep
from .base import COLOURS, GREY, MARKS, as_text, blank, line

WIDE, HIGH = 760, 316  # left margin and 36 px an eps step below hold the film's frames of 64 px under every second tick
MARGIN = {"l": 56, "r": 128, "t": 8, "b": 44}
DODGE = 0.22  # k/255 between the whiskers of two kinds at one eps
BAND = 0.13  # opacity
NAMES = {"none": ("clean", "SimCLR"), **{name: (row.colour, row.title) for name, row in TABLE.items()}}
NAMES["gaussian-variance"] = (NAMES["gaussian"][0], "Gaussian, σ² = ε")
GLYPHS = {"circle": "●", "triangle-up": "▲", "square": "■", "diamond": "◆", "cross": "✚"}  # markers, in a name
GLYPHS |= {"circle-open": "○", "circle-open-dot": "◎"}


@dataclass(frozen=True)
class Curve:
    """A method over eps: means with intervals at every k, seeds' values, hover and click data."""

    role: str
    name: str
    k: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: Sequence[Sequence[float]] = ()
    hover: Sequence[str] = ()
    keys: Sequence[str] = ()
    style: dict[str, Any] = field(default_factory=dict)  # line and marker, where they differ from the role's


@dataclass(frozen=True)
class Level:
    """A horizontal line; with low and high also a band."""

    role: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    dash: str = "solid"
    hover: str = ""
    key: str = ""


@dataclass(frozen=True)
class Waiting:
    """A point that is being computed."""

    role: str
    k: float
    y: float
    text: str
    key: str = ""


def sweep_curves(
    curves: Sequence[Curve],
    levels: Sequence[Level | None] = (),
    waiting: Sequence[Waiting] = (),
    *,
    across: str,
    up: str,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    most: float = 16,
    now: float | None = None,
    width: int = WIDE,
    height: int = HIGH,
) -> go.Figure:
    """Curves over eps = k/255 up to `most`, levels, and points being computed.

    `across`, `up`: axis titles; `bounds`: of y. Every curve and level has two traces even if empty,
    so that a live figure's traces keep their order.
    """
    step, lines = most / 16, [level for level in levels if level is not None]
    low, high = _range(curves, lines, bounds)
    left, right = -step, most + step
    figure = blank(width, height, margin=MARGIN)
    for level in levels:
        figure.add_traces(_level(level, left, right, most))
    drawn = [curve for curve in curves if len(curve.k)]
    for curve in curves:
        figure.add_traces(_curve(curve, [k + DODGE * step * _place(curve, k, drawn) for k in curve.k]))
    figure.add_traces([_waiting(point) for point in waiting])
    for point in waiting:
        own = {"x": point.k, "y": point.y, "text": point.text, "showarrow": False, "yshift": 15}
        figure.add_annotation(**own, font={"color": COLOURS[point.role], "size": 11})
    ends = [(c.role, c.mean[-1], _named(c, drawn)) for c in drawn] + [(v.role, v.value, as_text(v.name)) for v in lines]
    _label_ends(figure, ends, right, gap=(high - low) * 17 / (height - 52), top=high)
    if now is not None:
        figure.update_layout(shapes=[upright(now)])
    marks = [step * 2 * i for i in range(9)]
    figure.update_xaxes(title={"text": across}, tickvals=marks, ticktext=[f"{m:g}" for m in marks], range=[left, right])
    return figure.update_yaxes(title={"text": up}, range=[low, high], nticks=8)


def upright(k: float) -> dict[str, Any]:
    """The dotted line at eps = k/255, one of a layout's shapes."""
    pen = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": k, "x1": k, "y0": 0, "y1": 1, "yref": "paper", "line": pen, "layer": "below"}


def empty_curves(curves: int, levels: int, waiting: int) -> go.Figure:
    """A figure with room for this many traces, for a panel without a result yet."""
    figure = blank(WIDE, HIGH, margin=MARGIN)
    return figure.add_traces([go.Scatter(x=[], y=[]) for _ in range(2 * curves + 2 * levels + waiting)])


def attack_costs(sweep: Sweep, *, metric: str = "probe", width: int = WIDE, height: int = 300) -> go.Figure:
    """Accuracy over training cost (SimCLR = 1): means with 95 % t-intervals, seeds as ticks.

    `sweep`: rows of `compare_attacks` and, if any, `equal_compute`. The shortest SimCLR is the
    band.
    """
    rows = sweep.where(metric=metric).summary()
    rows = rows[rows.cost > 0]
    plain = rows[rows.attack == "none"].sort_values("cost")
    if plain.empty or len(plain) == len(rows):
        raise UserError(
            f"A comparison needs SimCLR and an attack, measured by '{metric}'; the sweep has {len(rows)} such rows."
        )
    base, figure, drawn = plain.iloc[0], blank(width, height, margin=MARGIN), []
    most, left = float(rows.cost.max() / base.cost), 0.85
    right = most + 0.2
    level = Level("clean", "SimCLR", 100 * base["mean"], 100 * base.low, 100 * base.high)
    figure.add_traces(_level(level, left, right, most))
    for row in rows.sort_values("cost").itertuples():
        role, name = NAMES.get(row.attack, ("adv", row.attack))
        symbol = TABLE[row.attack].marker if row.attack in TABLE else MARKS[role]
        if row.attack == "none":
            name, symbol = f"{name}, {row.epochs} epochs", f"{symbol}-dot" if row.cost > base.cost else symbol
        x, y, low, high = row.cost / base.cost, 100 * row.mean, 100 * row.low, 100 * row.high
        text = f"<b>{as_text(name)}</b><br>{y:.1f} % [{low:.1f}, {high:.1f}], n = {row.n}<br>{x:.2f} × SimCLR"
        style = {"mode": "markers", "marker": {"symbol": symbol}}
        drawn.append(Curve(role, name, [x], [y], [low], [high], [[100 * v for v in row.values]], [text], style=style))
    for curve in drawn:
        figure.add_traces(_curve(curve, [x + 0.045 * _place(curve, x, drawn) for x in curve.k]))
    low, high = _range(drawn, [level], (0.0, 100.0))
    ends = [(curve.role, curve.mean[0], _named(curve)) for curve in drawn]
    _label_ends(figure, ends, right, gap=(high - low) * 17 / (height - 52), top=high)
    figure.update_xaxes(title={"text": "cost of the training, × SimCLR"}, range=[left, right])
    up = f"{metric}, % of {int(sweep.table.n.max()):,} test images correct"
    return figure.update_yaxes(title={"text": up}, range=[low, high], nticks=7)


def gradients_spent(
    rows: Sequence[tuple[str, int, float, float, float]], *, clean: float, width: int = 640, height: int = 280
) -> go.Figure:
    """Loss over gradients used: (name, gradients, loss, low, high); a line per name."""
    figure, drawn = blank(width, height, margin={"r": 128}), []
    rival = {row.title: row for row in TABLE.values()}
    for name in dict.fromkeys(row[0] for row in rows):
        own = sorted([row for row in rows if row[0] == name], key=lambda row: row[1])
        _, x, y, low, high = zip(*own, strict=True)
        text = [
            f"{as_text(name)}, {n} gradient{'s' * (n != 1)}<br>loss {v:.2f} nats" for n, v in zip(x, y, strict=True)
        ]
        sign = {"marker": {"symbol": rival[name].marker}, "line": {"dash": rival[name].dash}} if name in rival else {}
        drawn.append(Curve("adv", name, x, y, low, high, hover=text, style=sign))
    figure.add_traces([trace for curve in drawn for trace in _curve(curve, list(curve.k))[:1]])
    top, most = max(row[4] for row in rows), max(row[1] for row in rows)
    ends = [("adv", curve.mean[-1], _named(curve, drawn)) for curve in drawn] + [("clean", clean, "clean")]
    _label_ends(figure, ends, most + 0.5, gap=0.09 * top, top=top)
    figure.add_hline(y=clean, line={"color": COLOURS["clean"], "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title={"text": "gradients taken for an image"}, range=[0.5, most + 0.5], dtick=1)
    return figure.update_yaxes(title={"text": "contrastive loss, nats"}, rangemode="tozero")


def _place(curve: Curve, k: float, curves: Sequence[Curve]) -> float:
    """Where a curve's whisker at eps = k/255 stands beside those of the other curves there: 0 is
    the middle, and alone.
    """
    there = [own for own in curves if k in own.k]
    return next(i for i, own in enumerate(there) if own is curve) - (len(there) - 1) / 2


def _curve(curve: Curve, x: list[float]) -> list[go.Scatter]:
    hover = {
        "customdata": list(curve.keys),
        "hovertext": list(curve.hover),
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    main = line(curve.role, x, curve.mean, curve.low, curve.high, name=curve.name, **hover)
    main.update(curve.style)
    several = [(at, value) for at, values in zip(x, curve.seeds, strict=False) if len(values) > 1 for value in values]
    mark = {"symbol": "line-ew", "size": 10, "line": {"color": COLOURS[curve.role], "width": 1.25}}
    ticks = {"x": [x for x, _ in several], "y": [y for _, y in several], "mode": "markers", "marker": mark}
    return [main, go.Scatter(**ticks, hoverinfo="skip", cliponaxis=False)]


def _level(level: Level | None, left: float, right: float, most: float) -> list[go.Scatter]:
    if level is None:
        return [go.Scatter(x=[], y=[], hoverinfo="skip"), go.Scatter(x=[], y=[])]
    colour = COLOURS[level.role]
    x = [left, *(most / 8 * i for i in range(9) if left < most / 8 * i < right), right]
    pen = {"color": colour, "width": 2 if level.dash == "solid" else 1.75, "dash": level.dash}
    said = {
        "customdata": [level.key] * len(x),
        "hovertext": [level.hover] * len(x),
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    drawn = go.Scatter(x=x, y=[level.value] * len(x), mode="lines", line=pen, name=level.name, **said)
    if level.low is None or level.high is None or not math.isfinite(level.low):
        return [go.Scatter(x=[], y=[], hoverinfo="skip"), drawn]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = {"fill": "toself", "fillcolor": f"rgba({red},{green},{blue},{BAND})", "line": {"width": 0}, "mode": "lines"}
    corners = {"x": [left, right, right, left], "y": [level.low, level.low, level.high, level.high]}
    return [go.Scatter(**corners, **fill, hoverinfo="skip"), drawn]


def _waiting(point: Waiting) -> go.Scatter:
    mark = {"symbol": "circle-open-dot", "size": 13, "color": COLOURS[point.role], "line": {"width": 1.75}}
    said = {"customdata": [point.key], "hovertext": [point.text], "hovertemplate": "%{hovertext}<extra></extra>"}
    return go.Scatter(x=[point.k], y=[point.y], mode="markers", marker=mark, **said)


def _label_ends(figure: go.Figure, ends: list[tuple[str, float, str]], x: float, *, gap: float, top: float) -> None:
    """Names at the right edge in the roles' colours, at least `gap` apart."""
    ends = sorted(ends, key=lambda end: end[1])
    at: list[float] = []
    for _, y, _ in ends:
        at.append(max(y, at[-1] + gap) if at else y)
    for i in range(len(at) - 1, -1, -1):
        at[i] = min(at[i], top if i == len(at) - 1 else at[i + 1] - gap)
    for (role, _, text), y in zip(ends, at, strict=True):
        own = {"x": x, "y": y, "text": text, "showarrow": False, "xanchor": "left", "xshift": 6}
        figure.add_annotation(**own, font={"color": COLOURS[role], "size": 12 if len(text) < 18 else 11})


def _named(curve: Curve, others: Sequence[Curve] | None = None) -> str:
    """A curve's name after its marker; without, where none of `others` has its colour."""
    symbol = curve.style.get("marker", {}).get("symbol", MARKS[curve.role])
    alone = others is not None and sum(own.role == curve.role for own in others) == 1
    return as_text(curve.name if alone else f"{GLYPHS.get(symbol, '•')} {curve.name}")


def _range(curves: Sequence[Curve], levels: Sequence[Level], bounds: tuple[float, float]) -> tuple[float, float]:
    """y axis: everything drawn and possible, with a small margin."""
    seen = [v for c in curves for column in (c.mean, c.low, c.high, *c.seeds) for v in column]
    seen += [v for level in levels for v in (level.value, level.low, level.high) if v is not None]
    seen = [min(max(v, bounds[0]), bounds[1]) for v in seen if math.isfinite(v)]
    if not seen:
        return 0.0, 100.0
    air = 0.06 * (max(seen) - min(seen)) or 0.5
    return min(seen) - air, max(seen) + air
