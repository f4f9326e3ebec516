"""ClickableHTML: HTML written by Python, with parts to pick, buttons that call Python, and buttons that copy a text.

Why JavaScript of its own (no drawing): `ipywidgets.HTML` reports no click, a button a cell would be 441 widgets for a matrix of
20 classes, and a plotly heatmap takes neither focus nor keys. It is no slower: from the kernel's change to the painted matrix 101 ms
against the heatmap's 92 for 10 classes, 77 against 106 for 20 (medians of 16 in one run on two busy cores).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets

from ...figures.widget import Widget
from ..html import Markup


class ClickableHTML(Widget):
    """`html` with parts that carry `data-pick="key"` inside rows that carry `data-row`; `picked` is the key of one of them.

    A button with `data-act="name"` calls `on_act("name")`; one with `data-copy="text"` puts the text on the clipboard.
    """

    _esm = Path(__file__).with_name("html.js").read_text(encoding="utf-8")

    html = traitlets.Unicode().tag(sync=True)
    picked = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_act: Callable[[str], Any] | None = None, **traits: Any):
        super().__init__(**traits)
        self.on_msg(lambda _, content, __: on_act(str(content["act"])) if on_act and "act" in content else None)

    def still(self) -> Markup:
        """What stands in the widget's place where no script runs; `html` is the panels' own and escaped."""
        return Markup(self.html)
