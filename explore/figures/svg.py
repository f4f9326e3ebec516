"""Figures as SVG without a browser: points, lines, whiskers, filled shapes, pictures, labels, on
linear, logarithmic or named axes.

It draws what the library's figures are made of, in plotly's geometry; `write_image` falls back on
kaleido for all else.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import plotly.graph_objects as go

from ..errors import UserError
from ..serialization import write_text
from .chart import Chart
from .pictures import PICTURES, is_picture, picture, placed

SANS = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
INK, TICK = "#808080", 11
DASH = {"dash": "6 4", "dot": "1.5 3", "dashdot": "6 3 1.5 3", "longdash": "10 5", "longdashdot": "10 4 2 4"}
SHAPES = {  # of markers, in a circle of radius 1
    "square": "M-.85-.85H.85V.85H-.85Z",
    "diamond": "M0-1.15L1.15 0 0 1.15-1.15 0Z",
    "triangle-up": "M0-1.1L1 .75H-1Z",
    "triangle-down": "M0 1.1L1-.75H-1Z",
    "x": "M-.8-.8L.8.8M.8-.8L-.8.8",
    "cross": "M-1 0H1M0-1V1",
    "line-ew": "M-1 0H1",
    "line-ns": "M0-1V1",
    "star": "M0-1.2L.3-.35 1.15-.35 .45.2 .7 1 0 .5-.7 1-.45.2-1.15-.35-.3-.35Z",
    "circle": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z",
}
STROKED = {"x", "cross", "line-ew", "line-ns"}
SIDES = {"left": (0.0, "start"), "center": (0.5, "middle"), "right": (1.0, "end")}


def write_image(figure: go.Figure | Chart, path: str | Path, *, scale: float = 2.0) -> Path:
    """Write a figure for slides, as .svg without a browser, as .png or .pdf by kaleido (which needs
    Chrome); returns the path.

    >>> rows = [("FGSM", 1, 4.2, 4.1, 4.3), ("PGD", 5, 4.6, 4.5, 4.7)]
    >>> figure = ex.figures.gradients_spent(rows, clean=3.9)
    >>> ex.figures.write_image(figure, "loss.svg").name
    'loss.svg'
    """
    path = Path(path).expanduser()
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"A figure is written as .svg, .png or .pdf, got '{path.name}'; choose one of these endings.")
    if isinstance(figure, Chart):
        figure = figure.figure
    if not isinstance(figure, go.Figure):
        raise UserError(f"write_image takes a plotly figure, such as panel.figure(), got a {type(figure).__name__}.")
    if path.suffix == ".svg" and drawable(figure):
        write_text(path, svg(figure))
        return path
    try:
        figure.write_image(path, scale=scale)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"{path.name} is drawn by kaleido with Chrome, and one of them is missing; write a .svg, which needs neither, "
            "or install them: pip install kaleido, then plotly_get_chrome."
        ) from error
    return path


def drawable(figure: Any) -> bool:
    """True where `svg` draws every trace of the figure."""
    return all(trace.type == "scatter" or is_picture(trace) for trace in figure.data) and not figure.layout.images


def svg(figure: Any, *, font: str = SANS) -> str:
    """A figure (or its widget) as the text of an SVG."""
    content = json.loads(figure.to_json())
    return _Drawing(content["data"], content["layout"], font).text()


class _Axis:
    """Values to pixels along one side of the plot."""

    def __init__(self, given: Mapping[str, Any], values: list[Any], start: float, end: float):
        self.given, self.start, self.end = given, start, end
        self.log = given.get("type") == "log"
        self.names = list(dict.fromkeys(v for v in values if isinstance(v, str)))
        numbers = [n for n in (self._number(v) for v in values) if math.isfinite(n)] or [0.0, 1.0]
        air = 0.06 * (max(numbers) - min(numbers)) or 0.5
        low, high = given.get("range") or (min(numbers) - air, max(numbers) + air)
        low = 0.0 if given.get("rangemode") == "tozero" and not given.get("range") else low
        self.low, self.high = self._end(low, min(numbers) - air), self._end(high, max(numbers) + air)

    def _end(self, value: Any, otherwise: float) -> float:
        return otherwise if value is None else float(value)

    def _number(self, value: Any) -> float:
        if value is None:
            return math.nan
        if isinstance(value, str):
            return float(self.names.index(value)) if value in self.names else math.nan
        return math.log10(value) if self.log and value > 0 else math.nan if self.log else float(value)

    def at(self, value: Any, linear: bool = False) -> float:
        """`linear`: the value is in the axis's own numbers, as an annotation's on a logarithmic
        axis.
        """
        number = float(value) if linear and not isinstance(value, str) else self._number(value)
        return self.start + (self.end - self.start) * (number - self.low) / ((self.high - self.low) or 1)

    def ticks(self) -> list[tuple[float, str]]:
        if self.given.get("showticklabels") is False or self.given.get("visible") is False:
            return []
        if self.given.get("tickvals") is not None:
            values = self.given["tickvals"]
            return [
                (self.at(v), str(t))
                for v, t in zip(values, self.given.get("ticktext") or map(_short, values), strict=True)
            ]
        if self.names:
            return [(self.at(name), name) for name in self.names]
        low, high = sorted((self.low, self.high))
        step = self.given.get("dtick") or _step((high - low) / max(self.given.get("nticks") or 6, 1))
        count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        return [(self.at(i * step, linear=True), _short(10 ** (i * step) if self.log else i * step)) for i in count]


class _Drawing:
    def __init__(self, data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], font: str):
        self.layout, self.font = layout, font
        base = layout.get("template", {}).get("layout", {})
        shown = (placed(trace) for trace in data if trace.get("visible", True) is True)
        self.data = [trace for trace in shown if trace.get("x") is not None]
        self.wide, self.high = float(layout.get("width") or 640), float(layout.get("height") or 320)
        margin = {"l": 56, "r": 16, "t": 8, "b": 44, **(layout.get("margin") or {})}
        left, top = margin["l"], margin["t"]
        right, bottom = self.wide - margin["r"], self.high - margin["b"]
        self.plot = left, top, right, bottom
        self.axes: dict[str, _Axis] = {}
        for name in {"x", "y", *(t.get(f"{way}axis", way) for t in self.data for way in "xy")}:
            way, given = name[0], {**base.get(f"{name[0]}axis", {}), **layout.get(f"{name[0]}axis{name[1:]}", {})}
            low, high = given.get("domain") or (0, 1)
            ends = (
                (left + low * (right - left), left + high * (right - left))
                if way == "x"
                else (bottom - low * (bottom - top), bottom - high * (bottom - top))
            )
            values = [v for t in self.data if t.get(f"{way}axis", way) == name for v in t[way]]
            self.axes[name] = _Axis(given, values, *ends)

    def text(self) -> str:
        body = [*self._grid(), *self._shapes("below"), *(part for t in self.data for part in self._trace(t))]
        body += [*self._shapes("above"), *self._labels()]
        own = (
            f'viewBox="0 0 {self.wide:g} {self.high:g}" width="{self.wide:g}" height="{self.high:g}" overflow="visible"'
        )
        style = f'font-family={quoteattr(self.font)} font-size="12"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {own} {style} role="img">{"".join(body)}</svg>\n'

    def _grid(self) -> Iterable[str]:
        for name, axis in self.axes.items():
            if axis.given.get("visible") is False:
                continue
            other = self.axes.get(axis.given.get("anchor") or ("y" if name[0] == "x" else "x")) or self.axes["y"]
            title = (axis.given.get("title") or {}).get("text")
            if name[0] == "x":
                base, middle = max(other.start, other.end), (axis.start + axis.end) / 2
                yield _line(axis.start, base, axis.end, base, INK, 1)
                for x, text in axis.ticks():
                    yield _line(x, base, x, base + 4, INK, 1) + _words(x, base + 17, text, TICK, INK, "middle")
                yield _words(middle, base + 36, title, 12, INK, "middle") if title else ""
            else:
                base = min(other.start, other.end)
                for y, text in axis.ticks():
                    yield _line(base, y, max(other.start, other.end), y, "rgba(128,128,128,.25)", 1)
                    yield _words(base - 6, y + 4, text, TICK, INK, "end")
                turned = f"rotate(-90 {14} {(axis.start + axis.end) / 2:.1f})"
                yield _words(14, (axis.start + axis.end) / 2, title, 12, INK, "middle", turned) if title else ""

    def _trace(self, trace: Mapping[str, Any]) -> Iterable[str]:
        across, up = (self.axes[trace.get(f"{way}axis", way)] for way in "xy")
        if trace.get("type") in PICTURES:
            yield picture(trace, [across.at(x) for x in trace["x"]], [up.at(y) for y in trace["y"]])
            return
        points = [(across.at(x), up.at(y)) for x, y in zip(trace["x"], trace["y"], strict=True)]
        line, marker, mode = trace.get("line") or {}, trace.get("marker") or {}, trace.get("mode", "lines")
        colour = line.get("color") or _first(marker.get("color")) or INK
        way = _path(points)
        if trace.get("fill") in ("toself", "tonext") and way:
            yield f'<path d="{way}Z" {_fill(trace.get("fillcolor", colour))}/>'
        if "lines" in mode and way and line.get("width", 2):
            dash = _dash(line.get("dash"))
            yield f'<path d="{way}" fill="none" {_stroke(colour, line.get("width", 2))}{dash}/>'
        for name, axis, at in (("error_y", up, 1), ("error_x", across, 0)):
            yield from _whiskers(trace.get(name) or {}, trace["xy"[at]], points, axis, at, colour)
        texts = trace.get("text") or []
        for i, (x, y) in enumerate(points):
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            if "markers" in mode:
                yield _mark(x, y, marker, i, colour)
            if "text" in mode and i < len(texts):
                yield _words(x, y - 8, texts[i], (trace.get("textfont") or {}).get("size", 12), colour, "middle")

    def _shapes(self, layer: str) -> Iterable[str]:
        for shape in self.layout.get("shapes") or []:
            if shape.get("layer", "above") != layer:
                continue
            (x0, y0), (x1, y1) = (self._spot(shape, f"x{i}", f"y{i}") for i in (0, 1))
            line = shape.get("line") or {}
            if shape.get("type") == "rect":
                box = f'x="{min(x0, x1):.1f}" y="{min(y0, y1):.1f}" width="{abs(x1 - x0):.1f}" height="{abs(y1 - y0):.1f}"'
                yield f"<rect {box} {_fill(shape.get('fillcolor', 'none'))}/>"
            else:
                yield _line(x0, y0, x1, y1, line.get("color", INK), line.get("width", 2), line.get("dash"))

    def _labels(self) -> Iterable[str]:
        for label in self.layout.get("annotations") or []:
            x, y = self._spot(label, "x", "y", linear=True)
            size, colour = (label.get("font") or {}).get("size", 12), (label.get("font") or {}).get("color", INK)
            anchor = SIDES.get(label.get("xanchor", "center"), SIDES["center"])[1]
            rise = {"top": size, "bottom": -0.3 * size}.get(label.get("yanchor", "middle"), 0.35 * size)
            x, y = x + label.get("xshift", 0), y - label.get("yshift", 0) + rise
            for i, part in enumerate(re.split(r"<br\s*/?>", str(label.get("text", "")))):
                yield _words(x, y + 1.25 * size * i, part, size, colour, anchor)

    def _spot(self, of: Mapping[str, Any], x: str, y: str, linear: bool = False) -> tuple[float, float]:
        left, top, right, bottom = self.plot
        found = []
        for name, way, start, end in ((x, "x", left, right), (y, "y", bottom, top)):
            ref = of.get(f"{way}ref", way)
            axis = self.axes.get(ref.split(" ")[0])
            if ref == "paper" or axis is None:
                found.append(start + (end - start) * of[name])
            elif ref.endswith("domain"):
                found.append(axis.start + (axis.end - axis.start) * of[name])
            else:
                found.append(axis.at(of[name], linear))
        return found[0], found[1]


def _whiskers(
    given: Mapping[str, Any],
    values: Sequence[Any],
    points: Sequence[tuple[float, float]],
    axis: _Axis,
    at: int,
    colour: str,
) -> Iterable[str]:
    if not given.get("array") or given.get("visible") is False:
        return
    below = given.get("arrayminus") or given["array"]
    for value, point, more, less in zip(values, points, given["array"], below, strict=False):
        if more is None or less is None or not all(map(math.isfinite, point)):
            continue
        ends = axis.at(value - less), axis.at(value + more)
        spots = [(point[0], end) if at else (end, point[1]) for end in ends]
        yield _line(*spots[0], *spots[1], given.get("color") or colour, given.get("thickness", 1.25))


def _mark(x: float, y: float, marker: Mapping[str, Any], i: int, colour: str) -> str:
    symbol = str(_nth(marker.get("symbol"), i, "circle"))
    size, own = float(_nth(marker.get("size"), i, 6)) / 2, _nth(marker.get("color"), i, colour)
    edge = marker.get("line") or {}
    pen, width = _nth(edge.get("color"), i, own), float(_nth(edge.get("width"), i, 0) or 0)
    hollow, shape = "-open" in symbol, symbol.replace("-open", "").replace("-dot", "")
    place = f'transform="translate({x:.2f} {y:.2f}) scale({size:.3g})"'
    path = SHAPES.get(shape, SHAPES["circle"])
    if shape in STROKED or hollow:
        pen = own if hollow or not width else pen
        return f'<path d="{path}" {place} fill="none" {_stroke(pen, (width or 1.5) / size)}/>'
    faint = f' opacity="{marker["opacity"]}"' if isinstance(marker.get("opacity"), (int, float)) else ""
    return f'<path d="{path}" {place} {_fill(own)}{faint}/>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Lines through the points, with gaps where one is missing."""
    parts, begun = [], False
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{'L' if begun else 'M'}{x:.2f} {y:.2f}")
        begun = math.isfinite(x) and math.isfinite(y)
    return "".join(parts)


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float, dash: str | None = None) -> str:
    return f'<path d="M{x0:.2f} {y0:.2f}L{x1:.2f} {y1:.2f}" fill="none" {_stroke(colour, width)}{_dash(dash)}/>'


def _words(x: float, y: float, text: Any, size: float, colour: str, anchor: str, turn: str = "") -> str:
    plain = escape(unescape(re.sub(r"<[^>]*>", "", str(text))))  # tags and entities are plotly's
    turned = f' transform="{turn}"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" {_fill(colour)}{turned}>{plain}</text>'


def _colour(kind: str, colour: Any) -> str:
    found = re.fullmatch(r"rgba\(([^,]+),([^,]+),([^,]+),([^)]+)\)", str(colour).replace(" ", ""))
    if not found:
        return f"{kind}={quoteattr(str(colour))}"
    red, green, blue, share = found.groups()
    return f'{kind}="rgb({red},{green},{blue})" {kind}-opacity="{float(share):g}"'


def _fill(colour: Any) -> str:
    return _colour("fill", colour)


def _stroke(colour: Any, width: float) -> str:
    return f'{_colour("stroke", colour)} stroke-width="{width:.3g}"'


def _dash(name: str | None) -> str:
    return f' stroke-dasharray="{DASH[name]}"' if name in DASH else ""


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _nth(value: Any, i: int, otherwise: Any) -> Any:
    found = (value[i] if i < len(value) else None) if isinstance(value, list) else value
    return otherwise if found is None else found


def _step(about: float) -> float:
    unit = 10 ** math.floor(math.log10(about or 1))
    return next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= about * 0.99)


def _short(value: Any) -> str:
    return f"{value:g}".replace("-", "−") if isinstance(value, (int, float)) else str(value)
