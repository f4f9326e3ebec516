"""A panel's widgets as plain HTML, with the classes that ipywidgets gives them, so that explore.css
fits both.

`Tree(panel, content).html()` walks `panel.view`. Controls become native inputs: those that set a
trait of `content` work in the page, others are disabled. `mount(widget, id)` gives what stands in
the element of a widget that draws itself: JavaScript, or a figure.
"""

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as w

from ..html import Markup, element, tag

NEEDS = "This control needs Python: run the lesson in Jupyter to use it."
SHEET = "<style>"


class Tree:
    """Walks the widgets below `panel.view`; `ids` are the names of those that the page's
    JavaScript writes to.
    """

    def __init__(self, panel: Any, mount: Callable[[Any, str], Markup], live: Iterable[str] = (), ids: bool = True):
        self.panel, self.mount, self.live = panel, mount, frozenset(live)
        self._named = ids  # whether elements carry their ids: two still pictures may stand in one document
        self.ids: dict[str, str] = {}  # by model: a figure cannot be a key
        self.controls: dict[str, dict[str, Any]] = {}  # id -> its trait and the values that it offers
        self._traits = {field.model_id: name for name, (field, _) in panel._fields.items()}
        gone = [panel._halt, panel._again, panel._status, *([panel._empty] if panel.state != "empty" else [])]
        gone += [panel._banner, panel._trace] if panel.error is None else []
        self._left_out = {widget.model_id for widget in gone}

    def name(self, widget: w.Widget) -> str:
        """The widget's id in the page."""
        return self.ids.setdefault(widget.model_id, f"w{len(self.ids)}")

    def html(self) -> Markup:
        return self._node(self.panel.view)

    def _node(self, widget: Any) -> Markup:
        if widget.model_id in self._left_out:
            return Markup("")
        if isinstance(widget, w.HTML):
            return self._text(widget)
        if isinstance(widget, w.Box):
            way = "vbox" if isinstance(widget, w.VBox) else "hbox"
            kind = "" if isinstance(widget, w.GridBox) else f" widget-{way} jupyter-widget-{way}"
            return self._outer(widget, f"widget-box jupyter-widget-box{kind}", [map(self._node, widget.children)])
        if isinstance(widget, w.Button | w.FileUpload):
            off = {"disabled": True, "title": NEEDS}
            return element(
                "button",
                widget.description,
                class_=self._classes(widget, "jupyter-button"),
                style=_style(widget),
                **off,
            )
        if isinstance(widget, w.Checkbox):
            box = tag.input(type="checkbox", checked=widget.value, **self._bind(widget, [False, True]))
            return self._outer(
                widget, "widget-checkbox jupyter-widget-checkbox", [tag.label(box, tag.span(widget.description))]
            )
        if hasattr(widget, "value") and hasattr(widget, "description"):
            return self._control(widget)
        own = {
            "class_": self._classes(widget, ""),
            "style": _style(widget),
            "id": self.name(widget) if self._named else None,
        }
        return tag.div(self.mount(widget, self.name(widget)), **own)

    def _text(self, widget: w.HTML) -> Markup:
        if widget.value.startswith(SHEET):
            return Markup("")  # the page has the sheet once
        said = "saved" if widget is self.panel._state else Markup(widget.value)
        inner = tag.div(
            said,
            class_="widget-html-content jupyter-widget-html-content",
            id=self.name(widget) if self._named else None,
        )
        return self._outer(widget, "widget-html jupyter-widget-html", [inner])

    def _control(self, widget: Any) -> Markup:
        label = tag.label(widget.description, class_="widget-label") if widget.description else None
        if isinstance(widget, w.Dropdown):
            bound = self._bind(widget, [value for _, value in _options(widget)])
            options = [tag.option(text, selected=value == widget.value) for text, value in _options(widget)]
            return self._outer(widget, "widget-dropdown jupyter-widget-dropdown", [label, tag.select(options, **bound)])
        if isinstance(widget, w.ToggleButtons):
            bound = self._bind(widget, [value for _, value in _options(widget)])
            off = {name: bound.pop(name) for name in ("disabled", "title") if name in bound}
            buttons = [
                tag.button(text, class_="jupyter-button" + " mod-active" * (value == widget.value), **off)
                for text, value in _options(widget)
            ]
            return self._outer(widget, "widget-toggle-buttons", [label, tag.div(buttons, **bound)])
        if isinstance(widget, (w.IntSlider, w.FloatSlider, w.SelectionSlider)):
            return self._slider(widget, label)
        kind = "text" if isinstance(widget, w.Text) else "number"
        field = tag.input(type=kind, value=widget.value, **self._bind(widget, []))
        return self._outer(widget, "widget-text jupyter-widget-text", [label, field])

    def _slider(self, widget: Any, label: Markup | None) -> Markup:
        if isinstance(widget, w.SelectionSlider):
            values = [value for _, value in _options(widget)]
            own: dict[str, Any] = {"min": 0, "max": len(values) - 1, "step": 1, "value": values.index(widget.value)}
            shown = _options(widget)[own["value"]][0]
        else:
            values = []
            own = {name: getattr(widget, name) for name in ("min", "max", "step", "value")}
            shown = f"{widget.value:g}"
        share = 100 * (own["value"] - own["min"]) / ((own["max"] - own["min"]) or 1)
        bound = self._bind(widget, values)
        field = tag.input(type="range", aria_label="epsilon, k/255", style=f"--p:{share:.2f}%", **own, **bound)
        readout = tag.div(shown, class_="widget-readout") if widget.readout else None
        return self._outer(widget, "widget-slider", [label, tag.div(field, class_="slider-container"), readout])

    def _bind(self, widget: Any, values: list[Any]) -> dict[str, Any]:
        """The attributes of a native control: its trait, or that it is off."""
        trait = self._traits.get(widget.model_id)
        if trait not in self.live or widget.disabled:
            return {"disabled": True, "title": NEEDS}
        name = self.name(widget)
        self.controls[name] = {"trait": trait, "values": values}
        return {"data_control": name, "title": widget.tooltip}

    def _outer(self, widget: Any, classes: str, inner: list[Any]) -> Markup:
        return tag.div(inner, class_=self._classes(widget, classes), style=_style(widget))

    def _classes(self, widget: Any, more: str) -> str:
        return " ".join(
            [
                "lm-Widget jupyter-widgets",
                more,
                *(name for name in getattr(widget, "_dom_classes", ()) if name != "ex-busy-now"),
            ]
        )


def _options(widget: Any) -> list[tuple[str, Any]]:
    return [option if isinstance(option, tuple) else (str(option), option) for option in widget.options]


def _style(widget: Any) -> str | None:
    """The layout's own values as CSS."""
    layout = getattr(widget, "layout", None)
    names = [name for name in getattr(layout, "keys", ()) if not name.startswith("_")]
    set_ = [(name, getattr(layout, name)) for name in names]
    return ";".join(f"{name.replace('_', '-')}:{value}" for name, value in set_ if isinstance(value, str)) or None
