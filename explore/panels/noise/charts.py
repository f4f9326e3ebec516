"""The curves, lines and titles of a scene, as `figures` draws them. No widget."""

import math
from collections.abc import Iterable
from typing import Any

from ...attack_table import TABLE
from ...figures import Curve, Figure, Level, Waiting, sweep_curves
from ...losses import chance_words
from ..html import fill
from .cards import short_runs
from .points import KINDS, LEVELS, RIVALS, Point, Scene

STYLE: dict[str, dict[str, Any]] = {
    "probe": {"line": {"dash": "dot"}, "marker": {"symbol": "cross", "size": 9, "line": {"width": 0}}},
    **{
        name: {
            "line": {"dash": TABLE[name].dash, "width": 1.5},
            "marker": {"symbol": TABLE[name].marker, "size": 7 if TABLE[name].marker == "square" else 9},
        }
        for name in RIVALS[1:]
    },
}
CURVES = tuple(key for key in KINDS if key not in LEVELS)
ROOM = (len(CURVES), len(LEVELS) + 1, 6)  # the chart's traces: curves, horizontal lines, points that are being computed


def chart(scene: Scene, now: float, waiting: Iterable[tuple[str, float, str]] = ()) -> Figure:
    """The figure of a scene, with separate traces for every kind. `now`: the slider's k; `waiting`: (kind, k, word) of points being computed."""
    curves = [_curve(scene, key) for key in CURVES]
    levels = [_level(scene, key) for key in LEVELS] + [_chance(scene)]
    ahead = [_waiting(scene, key, k, text) for key, k, text in waiting if key in scene.kinds][: ROOM[2]]
    n = {int(v) for v in scene.sweep.table.n}
    of = f"% of {n.pop():,} test images correct" if len(n) == 1 else "% correct"
    up = "contrastive loss, nats" if scene.choice.show == "loss" else f"{scene.choice.judge}, {of}"
    across = "training ε, k/255" if scene.choice.training else "ε on the test images, k/255"
    bounds = (0.0, math.inf if scene.choice.show == "loss" else 100.0)
    return sweep_curves(curves, levels, ahead, across=across, up=up, bounds=bounds, most=most(scene), now=now)


def most(scene: Scene) -> float:
    """Where the axis of eps ends: 16, or the next of 32, 64, ... that holds every point."""
    end, last = 16.0, max((p.k for p in scene.points.values()), default=0.0)
    while end < last:
        end *= 2
    return end


def place(scene: Scene, key: str, k: float) -> float:
    """Where a missing point is drawn: on the line between its neighbours, else at SimCLR, else in the middle."""
    own = scene.of(key)
    before, after = [p for p in own if p.k <= k], [p for p in own if p.k >= k]
    if before and after:
        a, b = before[-1], after[0]
        share = (k - a.k) / (b.k - a.k) if b.k > a.k else 0.0
        return scene.unit.scale * (a.mean + share * (b.mean - a.mean))
    nearest = (before or after or scene.of("simclr") or list(scene.points.values()))[-1:]
    return scene.unit.scale * nearest[0].mean if nearest else 50.0


def hover_text(scene: Scene, point: Point) -> str:
    """The hover text of a point: name, value with interval and n, runs, what a click does."""
    u, n = scene.unit, f"n = {point.n}" if point.n > 1 else f"one seed, {point.rows.n.iloc[0]:,} images"
    name = point.kind.name if point.kind.level else f"{point.kind.name}, ε = {point.k:g}/255"
    value = f"{u.value(point.mean)}{u.mark}  {u.bounds(point.low, point.high)}, {n}"
    runs = short_runs(point.rows.run.tolist())
    return str(fill("<b>{}</b><br>{}<br>{}<br>click: pin it", name, value, runs))  # plotly reads it as HTML


def _curve(scene: Scene, key: str) -> Curve:
    own, scale, (role, name) = scene.of(key), scene.unit.scale, KINDS[key]
    name = scene.kinds[key].name if key in scene.kinds else name
    mean, low, high = ([scale * getattr(p, part) for p in own] for part in ("mean", "low", "high"))
    return Curve(
        role,
        f"{name} (CLAE)" if scene.choice.training and key == "adversary" and not scene.choice.rivals else name,
        [p.k for p in own],
        mean,
        low,
        high,
        [[scale * v for v in p.values.values()] for p in own],
        [hover_text(scene, p) for p in own],
        [f"{key},{p.k:g}" for p in own],
        STYLE.get(key, {}),
    )


def _level(scene: Scene, key: str) -> Level | None:
    if not scene.of(key):
        return None
    point, scale, (role, name) = scene.of(key)[0], scene.unit.scale, KINDS[key]
    whole = key == "simclr"  # a band for one line only
    low, high = (scale * point.low, scale * point.high) if whole else (None, None)
    return Level(
        role, name, scale * point.mean, low, high, "solid" if whole else "dash", hover_text(scene, point), f"{key},0"
    )


def _chance(scene: Scene) -> Level | None:
    """The line at the chance level of the loss."""
    about = scene.sweep.provenance
    if scene.choice.show != "loss" or "chance" not in about:
        return None
    words = chance_words(int(about["batch"]), about.get("loss", "nt_xent"))
    return Level("ref", words, about["chance"], dash="dash", hover="what chance gives")


def _waiting(scene: Scene, key: str, k: float, text: str) -> Waiting:
    return Waiting(scene.kinds[key].role, k, place(scene, key, k), text, f"{key},{k:g}")
