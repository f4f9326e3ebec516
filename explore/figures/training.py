"""Figures of trainings while they run: losses against chance above, kNN accuracy below, on one axis
of epochs.
"""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..attack_table import TABLE
from ..results.training import TrainingCurves
from .base import COLOURS, GREY, GRID, as_text, blank

ROOM = {"width": 600, "height": 340}
LOSSES, KNN = "y", "y2"
MARGIN = {"l": 56, "r": 144, "t": 10, "b": 40}
End = tuple[float, float, str, str]  # epoch and value of a line's end, its words, its colour


def role_of(config: dict[str, Any]) -> str:
    """The role (colour) of a run by what it was trained with."""
    return TABLE[config["attack"]].colour if config["attack"] in TABLE else "clean"


def empty_training(**room: int) -> go.Figure:
    """An empty `training_curves` for two runs, for a panel without a result yet."""
    return blank(**(ROOM | room)).add_traces([go.Scatter(x=[], y=[]) for _ in range(6)])


def training_curves(result: TrainingCurves, *, width: int = 600, height: int = 340) -> go.Figure:
    """Clean and adversarial loss with the chance line, and kNN accuracy in percent, over epochs.

    The first run in full lines; a second, thinner and paler. Dashed: chance, and the untrained
    encoder.
    """
    figure = blank(width, height, margin=MARGIN)
    ends: dict[str, list[End]] = {LOSSES: [], KNN: []}
    for i, name in enumerate(result.runs[:2]):
        for trace, axis, end in _of_run(result, name, thin=i > 0):
            figure.add_trace(trace)
            if end is not None:
                ends[axis].append(end)
    epochs = _far(result)
    figure.update_layout(
        xaxis={"range": [0, epochs], "title": {"text": "epoch"}, "anchor": KNN},
        yaxis={"domain": [0.44, 1], "title": {"text": "loss, nats"}, "nticks": 5},
        yaxis2={
            "domain": [0, 0.34],
            "anchor": "x",
            "title": {"text": "kNN, % right"},
            "nticks": 4,
            "gridcolor": GRID,
            "zeroline": False,
        },
    )
    for axis, level in ((LOSSES, _chance(result)), (KNN, _untrained(result))):
        if level is not None:
            value, text = level
            dashed = {"color": GREY, "width": 1.5, "dash": "dash"}
            figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=value, y1=value, yref=axis, line=dashed)
            ends[axis].append((epochs, value, text, GREY))
    for axis, share in ((LOSSES, 0.56), (KNN, 0.34)):
        _name_ends(figure, axis, ends[axis], epochs, share * (height - 50))
    return figure


def _of_run(result: TrainingCurves, name: str, thin: bool) -> list[tuple[go.Scatter, str, End | None]]:
    """The three lines of a run, the axis of each, and where its name stands."""
    config, found = result.provenance["config"][name], []
    role = role_of(config)
    second = "adversarial" if role == "adv" else "with noise"
    whose = f"{result.of(name).method.iloc[0].split(' (')[0]}, " if thin and len(result.of(name)) else ""
    for column, kind, words in (("loss", "clean", "clean"), ("loss_adv", role, second), ("knn", role, "kNN")):
        axis, factor, digits = (KNN, 100, 1) if column == "knn" else (LOSSES, 1, 2)
        epochs, values = result.points(name, column)
        values = [factor * value for value in values]
        line = {"color": COLOURS[kind], "width": 1.25 if thin else 2.25 if kind == "adv" else 1.5}
        text = f"{as_text(name)}<br>epoch %{{x:.2f}}: {words} %{{y:.{digits}f}}<extra></extra>"
        trace = go.Scatter(
            x=epochs,
            y=values,
            yaxis=axis,
            mode="lines+markers" if column == "knn" else "lines",
            line=line,
            marker={"size": 5 if thin else 7, "color": COLOURS[kind]},
            opacity=0.75 if thin else 1,
            hovertemplate=text,
            cliponaxis=False,
        )
        end = (epochs[-1], values[-1], f"{whose}{words} {values[-1]:.{digits}f}", COLOURS[kind]) if values else None
        found.append((trace, axis, end))
    return found


def _far(result: TrainingCurves) -> float:
    """Where the axis of epochs ends: a round number behind the last row, at most where the
    trainings do.
    """
    done = max([0.0, *result.table.epoch.astype(float)])
    far = max(result.provenance["config"][name]["epochs"] for name in result.runs[:2])
    rounds = (m * 10**e for e in range(7) for m in (1, 2, 5))
    return float(min(far, next(at for at in rounds if at >= 1.2 * done)))


def _chance(result: TrainingCurves) -> tuple[float, str] | None:
    value, config = result.last(result.runs[0], "chance"), result.provenance["config"][result.runs[0]]
    if value is None:
        return None
    how = f" ln {2 * config['batch_size'] - 1} =" if config["loss"] == "nt_xent" else ""
    return value, f"chance{how} {value:.2f}"


def _untrained(result: TrainingCurves) -> tuple[float, str] | None:
    epochs, values = result.points(result.runs[0], "knn")
    return (100 * values[0], f"untrained {100 * values[0]:.1f}") if values and epochs[0] == 0 else None


def _name_ends(figure: go.Figure, axis: str, ends: Sequence[End], epochs: float, pixels: float) -> None:
    """Names right of the lines, one beside the other's end pushed apart; the axis' range holds
    lines and names.
    """
    drawn = [v for trace in figure.data if (trace.yaxis or "y") == axis for v in trace.y or ()]
    values = [*drawn, *(end[1] for end in ends)]
    if not values:
        return
    low, high = min(values), max(values)
    room = (high - low or 1) * 0.08
    low, high = low - room, high + room
    gap, last = 16 * (high - low) / pixels, -float("inf")
    for _, value, text, colour in sorted(ends, key=lambda end: end[1]):
        last = max(value, last + gap)
        own = {"x": epochs, "y": last, "yref": axis, "text": text, "showarrow": False, "xanchor": "left", "xshift": 8}
        figure.add_annotation(**own, font={"color": colour, "size": 12})
    figure.layout["yaxis" + axis[1:]].range = [low, max(high, last)]
