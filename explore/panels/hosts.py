"""What a front end shows that cannot show a live panel: a sentence, and what to do."""

from typing import Any

from IPython.display import display

from ..figures.chart import without_widgets
from .html import Markup, tag


def note(title: str, key: str) -> Markup:
    """HTML for the cell's output that a live panel hides (`KernelStatus`): for a reopened notebook,
    a front end without anywidget.

    It appears after some seconds only, in which a panel that is about to come has come.
    """
    style = (
        "@keyframes ex-note{from{visibility:hidden;max-height:0;overflow:hidden}}"
        f".ex-note-{key}{{animation:ex-note 8s step-end backwards;font-size:13px}}"
    )
    return tag.div(tag.style(Markup(style)), without_widgets(title), class_=f"ex-note-{key}")


def with_text(bundle: Any, title: str) -> Any:
    """A widget's MIME bundle with a sentence as its text (where ipywidgets shows nothing: None)."""
    return bundle and {**bundle, "text/plain": without_widgets(title)}


def show(bundle: Any, title: str, key: str) -> None:
    """Display a panel, and above it the note that it hides while it lives."""
    display({"text/html": str(note(title, key)), "text/plain": without_widgets(title)}, raw=True)
    display({**bundle, "text/plain": title}, raw=True)  # the note has the sentence
