"""The weight of every candidate of one view against its cosine: what a temperature does."""

import numpy as np
import plotly.graph_objects as go
import torch

from ..results import Similarities
from .base import COLOURS, GREY, blank

SAME = "#896aac"  # a negative of the anchor's class
RANGE = (-4, 0.15)  # powers of ten that the weights' axis shows


def softmax_weights(result: Similarities, i: int = 0, *, width: int = 380, height: int = 268) -> go.Figure:
    """View i's candidates: cosine to it against softmax weight, and the weight as a function.

    On the logarithmic axis the function is a straight line whose slope is 1 / temperature. The
    dashed line is the weight that each would have if all were alike.
    """
    cosine, weight, n = result.cosine[i], result.weights[i], len(result.x)
    y, j = torch.cat([result.labels, result.labels]), int(result.positive[i])
    same = result.negative[i] & (y == y[i]) & (y[i] >= 0)
    groups = (
        ("negative", result.negative[i] & ~same, GREY, "circle-open", 7),
        ("negative of its class", same, SAME, "diamond", 8),
        ("positive", torch.arange(2 * n) == j, COLOURS["clean"], "circle", 10),
    )
    figure = blank(width, height, margin={"l": 56, "r": 16, "t": 8, "b": 44})
    low = float(cosine.min()) - 0.05
    grid = np.linspace(low, 1, 50)
    level = float(torch.cat([cosine[:i], cosine[i + 1 :]]).div(result.temperature).logsumexp(0))
    figure.add_scatter(
        x=grid,
        y=np.exp(grid / result.temperature - level),
        mode="lines",
        line={"color": GREY, "width": 1.5},
        hoverinfo="skip",
    )
    even = 1 / (2 * n - 1)
    dashed = {"color": GREY, "width": 1.5, "dash": "dash"}
    figure.add_scatter(x=[low, 1], y=[even, even], mode="lines", line=dashed, hoverinfo="skip")
    for name, rows, colour, symbol, size in groups:
        shown = {"color": colour, "symbol": symbol, "size": size, "line": {"width": 1.5, "color": colour}}
        hover = f"{name}<br>cosine %{{x:.3f}}<br>weight %{{y:.2%}}<extra></extra>"
        figure.add_scatter(
            x=cosine[rows].numpy(), y=weight[rows].numpy(), name=name, mode="markers", marker=shown, hovertemplate=hover
        )
    decades = list(range(RANGE[0], 1))
    figure.update_xaxes(title_text="cosine to the anchor", range=[low, 1.04])
    figure.update_yaxes(
        title_text="weight in the softmax",
        type="log",
        range=RANGE,
        tickvals=[10.0**d for d in decades],
        ticktext=[f"{100 * 10.0**d:g} %" for d in decades],
    )
    place = {"xref": "paper", "x": 0, "xanchor": "left", "showarrow": False}
    return figure.add_annotation(
        text="all alike", y=np.log10(even), yanchor="bottom", font={"color": GREY, "size": 11}, **place
    )
