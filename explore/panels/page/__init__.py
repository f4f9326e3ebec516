"""A panel without its kernel: a page of its own that a browser opens from disk (`save`)."""

from pathlib import Path
from typing import Any

from ...errors import UserError
from ...figures import Chart, Figure
from ...serialization import write_text
from .content import Change, Content, Packed, Parts, Table, thumbs
from .document import document, facts
from .outputs import show, still

__all__ = ["Change", "Content", "Parts", "Table", "chart_of", "save", "show", "still", "thumbs"]


def save(panel: Any, path: str | Path, *, plotly: str | None = None, timeout: float = 600) -> Path:
    """Write a panel's page once all that was requested is computed; see `Panel.save`. `plotly`:
    where its script lies beside the page.
    """
    path = Path(path).expanduser()
    if path.suffix != ".html":
        raise UserError(f"A panel is saved as a page, so a name that ends in .html is expected, got '{path.name}'.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} to save the panel in; make it first.")
    panel.wait(timeout)
    if panel.error is not None:
        raise UserError(f"The panel shows an error, so there is nothing to save: {panel.error}")
    if panel._outcome is None:
        raise UserError(
            "The panel has no result yet, so there is nothing to save; choose a run, or wait for the result."
        )
    text = panel.within(lambda: _page(panel, plotly), timeout)
    write_text(path, text)
    return path


def _page(panel: Any, plotly: str | None) -> str:
    content = panel.content()
    with panel._drawing:
        packed = Packed(panel, content)
    about = getattr(panel._result, "provenance", {})
    return document(packed, title=panel.title, origin=facts(about), plotly=plotly)


def chart_of(panel: Any) -> Figure:
    """The first chart among a panel's widgets, as a figure of its own."""
    todo = [panel.view]
    while todo:
        widget = todo.pop(0)
        if isinstance(widget, Chart):
            return Figure(widget.figure)
        todo += getattr(widget, "children", ())
    raise UserError(f"{panel.title} has no chart; panel.save writes its page, and panel.result holds its numbers.")
