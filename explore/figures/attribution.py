"""Attribution maps: clean, map, perturbed, map, with one colour scale."""

import numpy as np
import plotly.graph_objects as go

from ..config import show_eps
from ..results import Seen, to_pixels
from .base import COLOURS, GREY, blank

GAP, TOP, BOTTOM = 12, 24, 78  # pixels around the pictures
DIVERGING = [[0.0, COLOURS["clean"]], [0.5, "rgba(52,103,210,0)"], [0.5, "rgba(227,106,14,0)"], [1.0, COLOURS["adv"]]]


def seen(result: Seen, i: int = 0, *, side: int = 192) -> go.Figure:
    """Image i clean and perturbed, each with its map: blue lowers the number, orange raises it.

    Pictures are scaled by the largest whole factor that fits `side`. Below: the numbers, the
    completeness delta, and the rank correlation with the map of randomised weights.
    """
    height, width = result.clean.x.shape[-2:]
    times = max(1, side // max(height, width))
    wide, tall, end = width * times, height * times, result.scale(i)
    figure = blank(4 * wide + 3 * GAP, tall + TOP + BOTTOM, margin={"l": 0, "r": 0, "t": TOP, "b": BOTTOM})
    pairs = (("clean", result.clean), ("perturbed", result.perturbed))
    for p, (name, found) in enumerate(pairs):
        rgb = to_pixels(found.x[i : i + 1])[0]
        rgb = np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb
        place = {"xaxis": f"x{2 * p + 1}".removesuffix("1"), "yaxis": f"y{2 * p + 1}".removesuffix("1")}
        figure.add_trace(go.Image(z=rgb, name=name, hovertemplate="(%{x}, %{y})<extra></extra>", **place))
        heat = {"colorscale": DIVERGING, "zmin": -end, "zmid": 0, "zmax": end, "showscale": False}
        place = {"xaxis": f"x{2 * p + 2}", "yaxis": f"y{2 * p + 2}"}
        hover = "(%{x}, %{y}): %{z:+.4f}<extra></extra>"
        figure.add_trace(go.Heatmap(z=found.maps[i].numpy(), name=f"{name} map", hovertemplate=hover, **heat, **place))
        titles = (f"{name}, {found.value[i]:.3f}".replace("-", "−"), f"{found.method.replace('_', ' ')}")
        for q, title in enumerate(titles):
            _axes(figure, 2 * p + q, (wide, tall), (width, height))
            role = COLOURS["clean" if name == "clean" else "adv"] if q == 0 else GREY
            own = {
                "x": (2 * p + q) * (wide + GAP) / (4 * wide + 3 * GAP),
                "y": 1,
                "xanchor": "left",
                "yanchor": "bottom",
            }
            figure.add_annotation(
                text=title, xref="paper", yref="paper", showarrow=False, font={"color": role, "size": 12}, **own
            )
    own = {"x": 0, "y": 0, "xanchor": "left", "yanchor": "top", "align": "left", "yshift": -8}
    return figure.add_annotation(
        text=caption(result, i), xref="paper", yref="paper", showarrow=False, font={"size": 11}, **own
    )


def caption(result: Seen, i: int) -> str:
    """The target, the scale, the completeness delta, the sanity check."""
    clean, moved, end = result.clean, result.perturbed, result.scale(i)
    lines = [
        f"{clean.target}; {result.attack.upper()}, ε = {show_eps(result.eps)}; colours from −{end:.2g} (blue) to +{end:.2g} (orange), one scale; "
        f"rank correlation of the two maps {_signed(float(result.correlation[i]))}"
    ]
    if clean.delta is not None:
        lines.append(
            f"completeness delta {_signed(float(clean.delta[i]), 4)} and {_signed(float(moved.delta[i]), 4)} "  # type: ignore[index]
            f"({100 * float(clean.error[i]):.2f} % and {100 * float(moved.error[i]):.2f} % of the change from the {clean.baseline} baseline)"
        )
    lines.append(
        f"randomised weights: rank correlation with the clean map {_signed(float(result.sanity[i]))}, "
        f"of absolute values {_signed(float(result.sanity_size[i]))}"
    )
    return "<br>".join(lines)


def _axes(figure: go.Figure, at: int, box: tuple[int, int], pixels: tuple[int, int]) -> None:
    """The axes of picture `at`: its own pixels, nothing drawn."""
    (wide, _), (width, height), n = box, pixels, str(at + 1) if at else ""
    whole, left = 4 * wide + 3 * GAP, at * (wide + GAP)
    bare = {"visible": False, "fixedrange": True, "constrain": "domain"}
    axes = {
        f"xaxis{n}": {
            **bare,
            "domain": [left / whole, (left + wide) / whole],
            "range": [-0.5, width - 0.5],
            "anchor": f"y{n}",
        },
        f"yaxis{n}": {**bare, "domain": [0, 1], "range": [height - 0.5, -0.5], "anchor": f"x{n}"},
    }
    figure.update_layout(axes)


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    return ("+" + text[1:] if float(text) == 0 else text).replace("-", "−")
