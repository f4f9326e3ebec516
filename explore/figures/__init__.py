"""Results as plotly figures: the only room that imports plotly.

`figure = figures.label_curve(result)`; in a notebook's cell it shows itself; in a panel `live(figure)` is the widget, made once,
and `follow(widget, figure)` puts another figure's content into it.
"""

from plotly.graph_objects import Figure

from .attribution import seen
from .base import COLOURS, blank, end_labels, follow, line, live, roles, template
from .probe import curves, label_curve, robust_curve, selection
from .scorecard import forest, training_eps
from .sweep import Curve, Level, Waiting, attack_costs, empty_curves, gradients_spent, sweep_curves, upright

__all__ = [
    "COLOURS",
    "Curve",
    "Figure",
    "Level",
    "Waiting",
    "attack_costs",
    "blank",
    "curves",
    "empty_curves",
    "end_labels",
    "follow",
    "forest",
    "gradients_spent",
    "label_curve",
    "line",
    "live",
    "robust_curve",
    "roles",
    "seen",
    "selection",
    "sweep_curves",
    "template",
    "training_eps",
    "upright",
]
