"""Results as plotly figures; no other part of the library imports plotly.

`figures.label_curve(result)` displays itself in a cell. In a panel `live(figure)` makes the widget
once, and `follow(widget, figure)` updates it with another figure's content.
"""

from ..errors import extra

with extra("A figure"):
    from .attribution import seen
    from .base import COLOURS, Figure, blank, end_labels, follow, line, live, roles, script, template
    from .chart import Chart
    from .probe import curves, label_curve, robust_curve, selection
    from .scorecard import forest, training_eps
    from .similarities import softmax_weights
    from .svg import drawable, svg, write_image
    from .sweep import Curve, Level, Waiting, attack_costs, empty_curves, gradients_spent, sweep_curves, upright
    from .training import empty_training, training_curves

__all__ = [
    "COLOURS",
    "Chart",
    "Curve",
    "Figure",
    "Level",
    "Waiting",
    "attack_costs",
    "blank",
    "curves",
    "drawable",
    "empty_curves",
    "empty_training",
    "end_labels",
    "follow",
    "forest",
    "gradients_spent",
    "label_curve",
    "line",
    "live",
    "robust_curve",
    "roles",
    "script",
    "seen",
    "selection",
    "softmax_weights",
    "svg",
    "sweep_curves",
    "template",
    "training_curves",
    "training_eps",
    "upright",
    "write_image",
]
