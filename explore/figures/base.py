"""One template, the methods' colours, lines with direct labels; figures as widgets."""

import html
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go
from IPython import get_ipython

from ..attack_table import TABLE
from .cells import made_in_a_cell
from .chart import Chart

COLOURS = {  # one hex a role in both themes, >= 3:1 on white and on Lab's dark; explore.css repaints text by it
    "clean": "#3467d2",
    "adv": "#e36a0e",
    "gauss": "#2aa37c",
    "uniform": "#896630",
    "sign": "#ae81cf",
    "ref": "#808080",
}
MARKS = {"clean": "circle-open", "adv": "circle", "ref": "x"}
MARKS |= {row.colour: row.marker for row in TABLE.values() if row.role == "noise"}
WIDTHS = {"adv": 2.25, "ref": 1.5}
GREY, GRID, CLEAR = "#808080", "rgba(128,128,128,.25)", "rgba(0,0,0,0)"
FONT = "var(--jp-ui-font-family, system-ui, sans-serif)"
TRAINED = {"SimCLR": "clean", "CLAE": "adv", "Gaussian": "gauss", "Uniform": "uniform", "Sign": "sign"}
ADDED = {"contrast": "adv", **{name: row.colour for name, row in TABLE.items()}}
FOCUS = 16  # points below the best epoch that `selection` shows
MARGIN = {"l": 56, "r": 16, "t": 8, "b": 44}


def roles(names: Sequence[str]) -> tuple[str, ...]:
    """Role (colour) of every encoder, by its training; of two equal ones the first is gray."""
    found = [TRAINED.get(name, "ref") for name in names]
    kept = [role if role not in found[i + 1 :] else "ref" for i, role in enumerate(found)]
    return tuple(kept if len(set(kept)) == len(kept) else ("ref", "adv")[: len(kept)])


@cache
def template() -> go.layout.Template:
    """Type, grid and axes of every figure, legible in both themes; no box, no legend."""
    axis = {
        "tickfont": {"size": 11},
        "title": {"font": {"size": 12}, "standoff": 8},
        "zeroline": False,
        "automargin": False,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": GREY},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "showlegend": False,
            "hovermode": "closest",
            "dragmode": False,
            "hoverlabel": {"align": "left", "font": {"size": 12, "family": FONT}},
            "xaxis": {**axis, "showgrid": False, "showline": True, "linewidth": 1, "ticks": "outside", "ticklen": 4},
            "yaxis": {**axis, "gridcolor": GRID, "gridwidth": 1, "showline": False, "ticks": ""},
        }
    )


class Figure(go.Figure):
    """A plotly figure that a notebook's cell shows as a `Chart`: live, with a picture for whoever
    has no kernel; plotly's own output is dropped by nbconvert and GitHub.
    """

    def _ipython_display_(self) -> None:
        if getattr(get_ipython(), "kernel", None) is None:  # a terminal
            super()._ipython_display_()
        else:
            chart = live(self)
            made_in_a_cell(chart)
            chart._ipython_display_()


def blank(width: int, height: int, **layout: Any) -> Figure:
    """An empty figure of fixed size in the panels' style; `layout` as plotly names it."""
    figure = Figure(layout={"template": template(), "width": width, "height": height, **layout})
    return figure.update_layout(margin={**MARGIN, **layout.get("margin", {})})


def line(
    role: str, x: Sequence[float], y: Sequence[float], low: Sequence[float], high: Sequence[float], **more: Any
) -> go.Scatter:
    """A role's curve with whiskers (no caps) from low to high."""
    colour, width = COLOURS[role], WIDTHS.get(role, 1.5)
    whiskers = {"type": "data", "symmetric": False, "thickness": 1.25, "width": 0, "color": colour}
    whiskers |= {
        "array": [b - a for a, b in zip(y, high, strict=True)],
        "arrayminus": [a - b for a, b in zip(y, low, strict=True)],
    }
    marker = {
        "symbol": MARKS[role],
        "size": 8 if role == "adv" else 7,
        "color": colour,
        "line": {"width": 1.5, "color": colour},
    }
    dash = "dash" if role == "ref" else "solid"
    given: dict[str, Any] = {"x": list(x), "y": list(y), "error_y": whiskers, "mode": "lines+markers", "marker": marker}
    return go.Scatter(**{**given, "line": {"color": colour, "width": width, "dash": dash}, "cliponaxis": False, **more})


def end_labels(figure: go.Figure, labels: Mapping[str, tuple[float, float, str]], gap: float) -> go.Figure:
    """Names at the lines' ends in the roles' colours: role -> (x, y, text), `gap` apart in y."""
    low = -float("inf")
    for role, (x, y, text) in sorted(labels.items(), key=lambda item: item[1][1]):
        low = max(y, low + gap)
        own = {"x": x, "y": low, "text": text, "showarrow": False, "xanchor": "left", "xshift": 10}
        figure.add_annotation(**own, font={"color": COLOURS[role], "size": 12})
    return figure


def as_text(name: Any) -> str:
    """A name for a figure's words, in which plotly reads tags, entities and, in a hovertemplate,
    %{x}.
    """
    return html.escape(str(name), quote=False).replace("%{", "%&#123;")


def live(figure: go.Figure, picked: Callable[[Any], None] | None = None) -> Chart:
    """The figure as a widget as wide as its place; a click calls `picked(customdata)`."""
    return Chart(figure, picked)


def script() -> str:
    """plotly.js, whole, for a page that works offline."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def follow(widget: Chart, figure: go.Figure) -> None:
    """Show another figure in the widget's place."""
    widget.show(figure)
