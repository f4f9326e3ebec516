"""Figures of linear probes: accuracy over labels, eps and epochs."""

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from ..attack_table import NOISE_NAMES, TABLE
from ..results import Robustness
from ..results.probes import ProbeComparison, Selection
from .base import ADDED, COLOURS, FOCUS, GREY, MARKS, as_text, blank, end_labels, line, roles


def curves(encoders: int, *, width: int = 336, height: int = 150) -> go.Figure:
    """An empty `label_curve` for this many encoders, for a panel without a result yet."""
    figure = blank(width, height)
    return figure.add_traces([go.Scatter(x=[], y=[]) for _ in range(2 * encoders)])


def label_curve(result: ProbeComparison, *, width: int = 336, height: int = 150, now: float | None = None) -> go.Figure:
    """Clean accuracy over the share of labels: Wilson's intervals, every draw of labels as a tick.

    `now`: a share to mark; the axis then spans at least 1 % to 100 %.
    """
    curve, kinds = result.curve, roles(result.names)
    figure = blank(width, height, margin={"l": 34, "r": 76, "t": 8, "b": 42})
    least, most = float(curve.share.min()), float(curve.share.max())
    if now is not None:
        least, most = min(least, 0.01), max(most, 1.0)
        figure.add_vline(x=100 * now, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    ends: dict[str, tuple[float, float, str]] = {}
    for i, (role, name) in enumerate(zip(kinds, result.names, strict=True)):
        own = curve[curve.encoder == name]
        shift = 1.08 ** (2 * i - len(kinds) + 1)  # whiskers of two encoders side by side
        figure.add_traces(_over_shares(own, role, name, shift, "<br>click: look at this share" * (now is not None)))
        ends[role] = (math.log10(103 * most), 100 * own[own.share == own.share.max()].accuracy.mean(), as_text(name))
    shares = [s for s in (0.001, 0.01, 0.1, 1.0) if least * 0.99 <= s <= most * 1.01] or [least]
    low, high = 100 * curve.low.min(), 100 * curve.high.max()
    end_labels(figure, ends, gap=(high - low + 4) * 16 / (height - 50))
    several = bool(curve.duplicated(["encoder", "share"]).any())
    figure.update_xaxes(
        type="log",
        tickvals=[100 * s for s in shares],
        ticktext=[f"{100 * s:g} %" for s in shares],
        range=[math.log10(100 * least) - 0.12, math.log10(100 * most) + 0.06],
        title={"text": "labels used" + "; ticks: single draws" * several},
    )
    return figure.update_yaxes(range=[max(0, low - 2), min(100, high + 2)], nticks=4)


def _over_shares(own: pd.DataFrame, role: str, name: str, shift: float, click: str) -> list[go.Scatter]:
    """One encoder's means with intervals, and its single draws."""
    mean = own.groupby("share", as_index=False).agg(
        {"labels": "first", "accuracy": "mean", "low": "mean", "high": "mean", "n": "first", "seed": "count"}
    )
    text = [
        f"{as_text(name)}<br>{100 * r.accuracy:.1f} % right [{100 * r.low:.1f}, {100 * r.high:.1f}] of {r.n:,}"
        f"<br>{r.labels:,} labels, {_draws(r.seed)}{click}"
        for r in mean.itertuples()
    ]
    columns = ([100 * v for v in mean[c]] for c in ("accuracy", "low", "high"))
    hover = {"customdata": mean.share.tolist(), "hovertext": text, "hovertemplate": "%{hovertext}<extra></extra>"}
    ticks = {"symbol": "line-ew", "size": 9, "line": {"color": COLOURS[role], "width": 1.25}}
    draws = own[own.groupby("share").seed.transform("count") > 1]
    x, y = [100 * s * shift for s in draws.share], [100 * a for a in draws.accuracy]
    return [
        line(role, [100 * s * shift for s in mean.share], *columns, name=name, **hover),
        go.Scatter(x=x, y=y, mode="markers", marker=ticks, hoverinfo="skip"),
    ]


def robust_curve(found: Robustness | Mapping[str, Robustness], *, width: int = 640, height: int = 280) -> go.Figure:
    """Accuracy over eps: attacks as full lines, noise of the same size dashed."""
    many = found if isinstance(found, Mapping) else {"": found}
    kinds = dict(zip(many, roles(list(many)), strict=True))
    figure = blank(width, height, margin={"r": 160})
    ends: list[tuple[float, str, str]] = []
    for name, robust in many.items():
        for attack, rows in robust.table.groupby("attack", sort=False):
            word, noise = str(attack), attack in NOISE_NAMES
            role = kinds[name] if name else ADDED.get(word, word)
            called = TABLE[word].title if word in TABLE else word.upper()
            label = as_text(" ".join(part for part in (name, f"{word} noise" if noise else called) if part))
            text = [
                f"{label}, ε = {r.k:g}/255<br>{100 * r.accuracy:.1f} % right [{100 * r.low:.1f}, {100 * r.high:.1f}] of {r.n:,}"
                for r in rows.itertuples()
            ]
            values = ([100 * v for v in rows[c]] for c in ("accuracy", "low", "high"))
            trace = line(
                role, rows.k.tolist(), *values, hovertext=text, hovertemplate="%{hovertext}<extra></extra>", name=label
            )
            trace.line.dash = "dot" if noise else "dash" if word in TABLE and not TABLE[word].steps else "solid"
            figure.add_trace(trace)
            ends.append((100 * float(rows.accuracy.iloc[-1]), role, label))
    most, low = max(r.eps[-1] for r in many.values()) * 255, -float("inf")
    for y, role, label in sorted(ends):
        low = max(y, low + 100 * 15 / (height - 52))
        own = {"x": most, "y": low, "text": label, "showarrow": False, "xanchor": "left", "xshift": 10}
        figure.add_annotation(**own, font={"color": COLOURS[role], "size": 12})
    figure.update_xaxes(title={"text": "ε at test, k/255"}, range=[-0.02 * most, 1.02 * most])
    return figure.update_yaxes(title={"text": "probe, % right"}, range=[0, 102], nticks=6)


def selection(found: Selection, *, width: int = 640, height: int = 240, seed: int | None = None) -> go.Figure:
    """Accuracy after every epoch of one draw, and the epoch that each rule selects."""
    own: pd.DataFrame = found.curve[found.curve.seed == (found.curve.seed.iloc[0] if seed is None else seed)]
    figure = blank(width, height, margin={"r": 140})
    names = {"test": ("adv", "test images"), "held_out": ("clean", "held-out labels")}
    for column, (role, what) in names.items():
        best = own.loc[own[column][::-1].idxmax()]
        hover = f"{what}, after epoch %{{x}}: %{{y:.1f}} % right<extra></extra>"
        pen = {"color": COLOURS[role], "width": 1.5}
        figure.add_trace(
            go.Scatter(x=own.epoch, y=100 * own[column], mode="lines", line=pen, hovertemplate=hover, name=what)
        )
        mark = {
            "symbol": MARKS[role],
            "size": 9,
            "color": COLOURS[role],
            "line": {"width": 1.5, "color": COLOURS[role]},
        }
        figure.add_trace(
            go.Scatter(x=[best.epoch], y=[100 * best[column]], mode="markers", marker=mark, hoverinfo="skip")
        )
    last = {role: (float(own.epoch.iloc[-1]), 100 * float(own[c].iloc[-1]), what) for c, (role, what) in names.items()}
    top = 100 * float(own[list(names)].to_numpy().max()) + 2
    end_labels(figure, last, gap=FOCUS * 18 / (height - 52))
    figure.update_xaxes(
        title={"text": "epoch; marks: the best of each curve"}, range=[0, 1.01 * float(own.epoch.max())]
    )
    return figure.update_yaxes(title={"text": "% right"}, range=[top - FOCUS, top])


def _draws(n: int) -> str:
    return "one draw of labels" if n == 1 else f"mean of {n} draws of labels"
