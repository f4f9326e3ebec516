"""Picks: HTML written by Python, of whose parts one can be picked, by a click or by arrow keys and Enter.

The third widget with JavaScript of its own (40 lines, no drawing). Why not what was there: `ipywidgets.HTML` hears no click,
a plotly heatmap takes neither focus nor keys, and a button a cell would be 10,404 widgets for 102 classes. LOG.md has the times.
"""

from pathlib import Path

import anywidget
import traitlets


class Picks(anywidget.AnyWidget):
    """`html` with parts that carry `data-pick="key"` inside rows that carry `data-row`; `picked` is the key of one of them."""

    _esm = Path(__file__).with_name("picks.js").read_text(encoding="utf-8")

    html = traitlets.Unicode().tag(sync=True)
    picked = traitlets.Unicode().tag(sync=True)

