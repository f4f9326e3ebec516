"""What a saved panel carries: the state of its widgets, tables of what Python drew for every
value of a trait, and replies.
"""

import base64
import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...figures import Chart
from ..html import Markup, tag
from .tree import Tree

PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
Change = tuple[Any, str, Any]  # a widget, a trait of it, the trait's value
Replies = Mapping[str, Sequence[tuple[Mapping[str, Any], Sequence[bytes]]]]


@dataclass(frozen=True)
class Table:
    """What widgets show for every value of some traits.

    `axes`: trait -> its values. `draw(*values)` returns (widget, trait of it, value) each, for the
    same widgets every time.
    """

    axes: Mapping[str, Sequence[Any]]
    draw: Callable[..., Sequence[Change]]


class Parts(tuple):
    """A text in parts that other rows have too: each is in the page once."""


@dataclass(frozen=True)
class Content:
    """All that a panel's page can do without Python. `links`: (trait of the panel, widget, trait
    of the widget), both ways; of a chart, 'click' is what its points carry as `customdata`, and
    'kind,k' stands for two traits. `replies`: widget -> the messages (with buffers) that answer
    it, by what it sends as JSON.
    """

    tables: Sequence[Table] = ()
    links: Sequence[tuple[str, Any, str]] = ()
    replies: Mapping[Any, Replies] = field(default_factory=dict)

    def live(self) -> set[str]:
        """The traits that the page can change."""
        return {name for table in self.tables for name in table.axes} | {
            name for names, _, _ in self.links for name in names.split(",")
        }


class Packed:
    """A panel's page in the making: its HTML, and beside it the data that page.js reads."""

    def __init__(self, panel: Any, content: Content):
        self.panel, self.content = panel, content
        self.widgets: dict[str, dict[str, Any]] = {}
        self.modules: dict[str, str] = {}  # name -> JavaScript
        self.figures: dict[str, Any] = {}
        self._pictures: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._tree = Tree(panel, self._mount, content.live())
        self.body = self._tree.html()

    def _mount(self, widget: Any, name: str) -> Markup:
        if isinstance(widget, Chart):
            self.figures[name] = {"data": json.loads(widget.data_json), "layout": json.loads(widget.layout_json)}
        elif hasattr(widget, "_esm"):
            module = type(widget).__name__
            self.modules[module] = str(widget._esm)
            state = {key: self._plain(getattr(widget, key)) for key in widget.keys if not key.startswith("_")}
            state = {key: value for key, value in state.items() if key not in ("key", "layout", "tabbable", "tooltip")}
            self.widgets[name] = {"module": module, "state": state}
        else:
            return tag.p(f"{type(widget).__name__} needs Python: run the lesson in Jupyter.", class_="ex-note")
        return Markup(getattr(widget, "html", ""))  # a script that draws writes over it

    def _plain(self, value: Any) -> Any:
        """A value as JSON; bytes become {'bytes': base64}, pictures within text their number."""
        if isinstance(value, (bytes, memoryview)):
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, Parts):
            return {"parts": [self._texts.setdefault(self._plain(text), len(self._texts)) for text in value]}
        if isinstance(value, str):
            text = str(value)
            return PICTURE.sub(
                lambda found: f"picture:{self._pictures.setdefault(found[0], len(self._pictures))}:", text
            )
        return value

    def _rows(self, table: Table) -> dict[str, Any]:
        targets: list[tuple[str, str]] = []
        rows = []
        for values in itertools.product(*table.axes.values()):
            drawn = table.draw(*values)
            targets = [(self._tree.name(widget), name) for widget, name, _ in drawn]
            rows.append([self._plain(value) for _, _, value in drawn])
        return {"axes": {name: list(values) for name, values in table.axes.items()}, "targets": targets, "rows": rows}

    def _replies(self) -> dict[str, Any]:
        return {
            self._tree.name(widget): {
                asked: [[self._plain_in(message), [self._plain(b) for b in buffers]] for message, buffers in said]
                for asked, said in answers.items()
            }
            for widget, answers in self.content.replies.items()
        }

    def _plain_in(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._plain(value) for key, value in message.items()}

    def data(self) -> str:
        """All of it as JSON, gzipped, in base64: a text without any character that HTML minds."""
        shown = {
            "traits": {name: getattr(self.panel, name) for name in sorted(self.content.live())},
            "widgets": self.widgets,
            "figures": self.figures,
            "controls": self._tree.controls,
            "links": [[trait, self._tree.name(widget), name] for trait, widget, name in self.content.links],
            "tables": [self._rows(table) for table in self.content.tables],
            "replies": self._replies(),
        }
        shown |= {"texts": list(self._texts), "pictures": list(self._pictures)}  # last: all are found by now
        text = json.dumps(shown, separators=(",", ":"), default=_number)
        return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def thumbs(images: str, found: Iterable[tuple[str, str]]) -> dict[str, list[tuple[dict[str, Any], list[bytes]]]]:
    """`replies` of a map: picture and words of every point."""
    said = (
        {"type": "thumb", "i": i, "images": images, "src": src, "text": text} for i, (src, text) in enumerate(found)
    )
    return {json.dumps({"type": "thumb", "i": each["i"]}, separators=(",", ":")): [(each, [])] for each in said}


def _number(value: Any) -> Any:
    """A NumPy scalar or a tuple's like as JSON has it."""
    return value.item() if hasattr(value, "item") else list(value)
