"""Chart: a plotly figure as a widget whose state is complete whenever a page opens it.

Why JavaScript of its own: plotly's FigureWidget sends a change as a message to the views that are
there, and then its whole state, which a view reads once, before its first drawing. A view that is
made between the two, as on a busy machine, stays blank. It also sends its 5 MB of JavaScript with
every figure; here they are sent once for all.
"""

import gzip
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import traitlets
from IPython.display import display
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from .. import paths
from .widget import Widget

INSTALL = "pip install anywidget"
STILL = (
    f"A picture of the figure: run this cell for the live one. Where it stays, JupyterLab lacks anywidget: {INSTALL}."
)


def without_widgets(title: str) -> str:
    """What stands where a front end shows no widget: one sentence on what to do."""
    return (
        f"{title} is not live here. Run this cell; where it stays so, in the environment that JupyterLab (or Notebook) "
        f"itself runs in: {INSTALL}; then restart the server and reload the page."
    )


class Script(Widget):
    """plotly.js, sent to the page once for all charts of a kernel."""

    _esm = "export default {};"
    zipped = traitlets.Bytes().tag(sync=True)


_script: list[Script] = []


@cache
def _zipped() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 4)


def _shared_script() -> Script:
    if not _script or _script[0].comm is None:  # closed, as by `Widget.close_all`
        _script[:] = [Script(zipped=_zipped())]
    return _script[0]


def _reference(widget: Script, _owner: Any) -> str:
    return f"IPY_MODEL_{widget.model_id}"


class Chart(Widget):
    """A figure on the page; `show(figure)` replaces it.

    A click on a point calls `picked` with the point's customdata.
    """

    _esm = Path(__file__).with_name("chart.js").read_text(encoding="utf-8")

    data_json = traitlets.Unicode("[]").tag(sync=True)
    layout_json = traitlets.Unicode("{}").tag(sync=True)
    version = traitlets.Unicode(get_plotlyjs_version()).tag(sync=True)
    script = traitlets.Instance(Script).tag(sync=True, to_json=_reference)

    def __init__(self, figure: go.Figure, picked: Callable[[Any], Any] | None = None):
        self.picked = picked
        super().__init__(script=_shared_script(), **self._state_of(figure))
        self.on_msg(self._told)

    def _state_of(self, figure: go.Figure) -> dict[str, str]:
        self.figure = figure
        plain = json.loads(figure.to_json())
        return {"data_json": json.dumps(plain["data"]), "layout_json": json.dumps(plain["layout"])}

    @property
    def data(self) -> tuple[Any, ...]:
        """The traces that are shown."""
        return self.figure.data

    def show(self, figure: go.Figure) -> None:
        """Show another figure in this one's place."""
        with self.hold_sync():  # one message
            for name, value in self._state_of(figure).items():
                setattr(self, name, value)

    def mark(self, **layout: Any) -> None:
        """Change parts of the layout, such as `shapes`; the traces are not sent again."""
        self.figure.update_layout(**layout)
        self.layout_json = json.dumps(json.loads(self.figure.to_json())["layout"])

    def _told(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("what") == "script":
            self.send({"what": "script"}, buffers=[_zipped()])
            return
        for trace, point in content.get("points", ()) if isinstance(content, dict) and self.picked else ():
            keys = self.figure.data[trace].customdata
            if keys is not None:
                self.picked(keys[point])

    def _ipython_display_(self) -> None:
        """As a cell's output: the live chart, and a picture of it for whoever opens the notebook
        without a kernel, which the live chart hides; in a static site the figure itself.
        """
        from .svg import drawable, svg

        if os.environ.get(paths.PAGES):
            shown = {"data": json.loads(self.data_json), "layout": json.loads(self.layout_json)}
            display({"application/vnd.plotly.v1+json": shown}, raw=True)
            return
        found = self._repr_mimebundle_()
        live = found[0] if isinstance(found, tuple) else found
        display({**(live or {}), "text/plain": "A figure"}, raw=True)
        picture = svg(self.figure) if drawable(self.figure) else "A figure."
        name, output = f"ex-still-{self.key}", ".jp-OutputArea-child"
        # the output before it, where that holds no live chart: "Loading widget", "model not found"
        empty = f"<style>{output}:not(:has(.ex-chart)):has(+ {output} .{name}){{display:none}}</style>"
        display({"text/html": f'<div class="{name}">{empty}{picture}<p>{STILL}</p></div>'}, raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = super()._repr_mimebundle_(**kwargs)
        bundle, *more = found if isinstance(found, tuple) else (found,)
        bundle = bundle and {**bundle, "text/plain": without_widgets("A figure")}
        return (bundle, *more) if more else bundle
