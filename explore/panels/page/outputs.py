"""A still picture of a panel: its widgets as HTML without scripts, pictures as PNG, charts as SVG.

It stands in a cell's output beside the live widget, for whoever opens the notebook without a
kernel: a course page, a viewer of notebooks, an e-mail. A live panel hides it (`KernelStatus`).
"""

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from IPython import get_ipython
from IPython.display import display

from ... import figures, paths
from ..html import Markup, fill, tag
from .document import sheet
from .tree import Tree

SAY = (
    "A still picture of the panel: run this cell to use it. Where the picture stays after that, JupyterLab lacks anywidget: "
    "pip install anywidget in the environment that JupyterLab runs in, then start it again."
)
OURS = ("ex-", "jupyter-", "widget-", "lm-")  # classes that the live panel has too
CLASS, ROOT = re.compile(r"\.((?:ex|jupyter|widget|lm)-)"), re.compile(r"\.ex(?![\w-])")
TAG = re.compile(r"<[^>]*>")  # attributes are escaped, so a > ends it
PATIENCE = 300  # seconds that a cell without a front end waits for its panel


def still(panel: Any) -> Markup:
    """The panel as HTML that needs no script and loads nothing; its controls do nothing."""
    with panel._drawing:
        body = Tree(panel, _drawn, ids=False).html() + tag.p(SAY, class_="ex-note")
    own = CLASS.sub(r".exs-\1", ROOT.sub(".exs", sheet("../explore.css", "widgets.css")))
    # the output before it, where that holds no live panel: "Loading widget", "model not found"
    empty = f".jp-OutputArea-child:not(:has(.ex)):has(+ .jp-OutputArea-child .{_name(panel)}){{display:none}}"
    inner = Markup(f"<style>{own}{empty}</style>{TAG.sub(_apart, body)}")
    return tag.div(inner, class_=f"exs-ex-still {_name(panel)}")


def _apart(found: re.Match) -> str:
    """A tag of the picture, told apart from the live panel's: other classes, nothing to click."""
    text = re.sub(r' data-(?:pick|act|copy|row|key)(?:="[^"]*")?', "", found[0])
    if text.startswith(("<button", "<input", "<select")):
        text = re.sub(r' aria-label="[^"]*"', "", text)
    text = re.sub(r'(?<= class=")[^"]*', lambda names: " ".join(map(_renamed, names[0].split())), text)
    return text.replace("<button", "<button disabled", 1) if "disabled" not in text else text


def _renamed(name: str) -> str:
    return "exs" if name == "ex" else f"exs-{name}" if name.startswith(OURS) else name


def _drawn(widget: Any, _name: str) -> Markup:
    if isinstance(widget, figures.Chart):
        shown = widget.figure
        return Markup(figures.svg(shown)) if figures.drawable(shown) else tag.p("A chart, drawn in Jupyter.")
    picture = getattr(widget, "still", None)
    return picture() if picture is not None else tag.p(f"{type(widget).__name__}, shown in Jupyter.", class_="ex-note")


def _name(panel: Any) -> str:
    return f"ex-still-{panel._status.key}"


def show(panel: Any) -> None:
    """Display a panel as a cell's output: the live widget, and the still picture as soon as
    there is a result to draw.
    """
    folder = os.environ.get(paths.PAGES)
    if folder:
        _show_page(panel, Path(folder))
        return
    display({**panel._repr_mimebundle_(), "text/plain": panel.title}, raw=True)  # the picture has the sentence
    if not _has_front_end():
        panel.wait(PATIENCE)
    complete = panel._done >= panel._serial
    handle = display({"text/html": still(panel) if complete else ""}, raw=True, display_id=True)
    if not complete:
        panel.later(lambda: handle.update({"text/html": still(panel)}, raw=True))


def _has_front_end() -> bool:
    """True where a front end shows widgets while the cell runs: a server of Jupyter, Voila, VS
    Code, Colab.
    """
    shell = get_ipython()
    named = ("JPY_SESSION_NAME" in os.environ) or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
    named = named or os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Interactive"
    return named or "google.colab" in sys.modules or "__vsc_ipynb_file__" in getattr(shell, "user_ns", {})


def _show_page(panel: Any, folder: Path) -> None:
    """Save the panel's page into the folder, which lies two below the site's, and show it in a
    frame.
    """
    from . import save

    name = f"panel-{len(list(folder.glob('panel-*.html'))) + 1}.html"
    src = quote(f"{folder.parent.name}/{folder.name}/{name}")
    save(panel, folder / name, plotly="../../plotly.js")
    frame = fill('<iframe class="ex-page-frame" src="{}" title="{}" loading="lazy"></iframe>', src, panel.title)
    display({"text/html": frame}, raw=True)
