"""`Panel`: what all panels share. A panel's state is its traits; `compute` calls one study; `draw` updates the widgets.

A subclass names its `inputs` (the traits that `compute` depends on), builds `controls()` and `body()` once, and writes
`compute(job, **inputs) -> outcome` and `draw(outcome)`. `compute` runs in a worker thread and sets nothing on the panel: its
outcome is the results object, or a frozen dataclass with the results object as `result` and all else that `draw` needs.
The newest request wins; an exception becomes a banner, because ipywidgets would swallow it.
"""

import itertools
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w
import traitlets

from .. import system
from ..errors import UserError, nearest
from ..figures import Figure
from ..figures.cells import made_in_a_cell
from ..figures.chart import without_widgets
from .html import Markup, join, tag
from .page import Content, chart_of, save, show, still
from .session import from_elsewhere
from .widgets.kernel_status import KernelStatus
from .worker import Job, NothingToCompute, Superseded, Worker

__all__ = ["Job", "NothingToCompute", "Panel", "Superseded"]

_closings = itertools.count()  # of all panels
STYLE = Path(__file__).with_name("explore.css").read_text(encoding="utf-8")


class Panel(Worker):
    """A widget whose state is its traits and that shows `result`. Display it as a cell's last line."""

    title = "Panel"
    error = traitlets.Instance(Exception, allow_none=True, default_value=None)

    def __init__(self, **traits: Any):
        if "eps" in traits:
            _renamed()
            traits["k"] = traits.pop("eps")
        if unknown := [name for name in traits if name not in self.trait_names()]:
            known = sorted({*self.trait_names()} - {"error", "state"})
            near = nearest(unknown[0], known)
            raise UserError(f"{type(self).__name__} has no setting '{unknown[0]}'; it has {', '.join(known)}.{near}")
        self._fields: dict[str, tuple[Any, Any]] = {}  # trait -> its control and the link between them
        super().__init__(**traits)
        self._prepare()
        self._unseen: list[w.Widget] = []  # links within the browser, closed with the panel
        self._bad_draw = False  # the banner is about drawing, so the next good drawing takes it away ...
        self._bad_call = False  # ... or about a callback, so the next good one does
        self._ended = ("ready", "up to date")  # how the last request ended, unless by an error
        self._outcome: Any = None  # what `compute` returned and `draw` drew
        self._frame()
        made_in_a_cell(self)
        self.observe(lambda _: self.refresh(), names=list(self.inputs))
        self.refresh()

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except traitlets.TraitError:
            if not self.has_trait(name):
                raise
            raise UserError(self._refusal(name, value)) from None

    # to be written by a panel
    def controls(self) -> list[w.Widget]:
        """The controls above the reading, made once."""
        return []

    def body(self) -> list[w.Widget]:
        """What shows the result, made once."""
        return []

    def draw(self, outcome: Any) -> None:
        """Put what `compute` returned on the screen: set traits, never create widgets."""

    def empty(self) -> list[w.Widget]:
        """What stands in the body's place where `compute` raised `NothingToCompute`."""
        return []

    def label(self, result: Any) -> str:
        """What is on the screen, in two words, for the tag of a stale panel: 'ε = 8/255'."""
        return "an earlier result"

    def remark(self) -> str:
        """What stands behind 'up to date' in the head."""
        return ""

    # for notebooks
    @property
    def result(self) -> Any:
        """The results object for the present traits; waits while it is computed."""
        return self._latest()

    @property
    def _result(self) -> Any:
        """The results object on the screen, None before the first."""
        return getattr(self._outcome, "result", self._outcome)

    def _latest(self, part: str = "result") -> Any:
        """A part of the outcome for the present traits; waits while it is computed."""
        while threading.current_thread() is not self._thread and not self.wait():
            pass  # however long it takes: what was shown before is not the result for these traits
        return self._result if part == "result" else getattr(self._outcome, part, None)

    @property
    def eps(self) -> float:
        """The former name of `k`."""
        _renamed()
        return self.k  # type: ignore[attr-defined]

    @eps.setter
    def eps(self, k: float) -> None:
        _renamed()
        self.k = k

    def close(self) -> None:
        """Drop what is being computed, end the worker, close the widgets."""
        self._end()
        todo: list[w.Widget] = [self.view, *self._parts, *self._unseen]
        while todo:
            widget = todo.pop()
            own = (getattr(widget, name, None) for name in ("layout", "style"))  # ipywidgets keeps them for ever
            todo += [*getattr(widget, "children", ()), *(part for part in own if isinstance(part, w.Widget))]
            widget.close()
        if next(_closings) % 4 == 3:  # it takes a fifth of a second
            system.release_memory()

    def appear(self) -> None:
        """Put the body on the page; the first result does so by itself, a panel that shows something before it calls this."""
        self._body.children = self._body.children or self._parts

    def redraw(self) -> None:
        """Draw the last result again: the screen's own state has changed."""
        with self._drawing:
            if self._outcome is None:
                return
            try:
                self.draw(self._outcome)
            except Exception as error:
                if self.error is None or self._bad_draw:  # else the banner says why nothing was computed
                    self._show_error(error)
                    self._bad_draw = True
            else:
                if self._bad_draw:
                    self._recover()

    def content(self) -> Content:
        """What a saved page of this panel can do without Python; called in the worker's thread, when there is an outcome."""
        return Content()

    def save(self, path: str | Path) -> Path:
        """Write the panel as one HTML page that works from disk, without Python and offline; returns its path.

        What a browser can do goes on working there; controls that need Python are disabled and say so.
        """
        return save(self, path)

    def still(self) -> str:
        """The panel as HTML without scripts, as it stands in a saved notebook beside the live widget."""
        return str(still(self))

    def figure(self) -> Figure:
        """The panel's chart as a plotly figure, once it is drawn; `figures.write_image` writes it for slides."""
        self.wait()
        return chart_of(self)

    def _ipython_display_(self) -> None:
        show(self)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = self.view._repr_mimebundle_(**kwargs)
        return found and {**found, "text/plain": without_widgets(self.title)}

    # the frame: head, controls, error, body
    def _frame(self) -> None:
        self._state = w.HTML().add_class("ex-state")
        self._halt = self._button("stop", self.stop, "ex-link")
        self._again = self._button("Compute", self.refresh, "ex-again", style="primary")
        self._halt.tooltip = "Give up what is being computed; the last result stays"
        self._again.tooltip = "Compute the result for the settings above"
        head = w.HBox([w.HTML(tag.b(self.title)), self._state, self._halt, self._again]).add_class("ex-head")
        self._message, self._trace = w.HTML().add_class("ex-say"), w.HTML().add_class("ex-trace")
        self._details = self._button("Show details", self._toggle_details)
        self._banner = w.HBox([self._message, self._details]).add_class("ex-error")
        self._elsewhere = w.HTML()
        self._parts = [*self.body(), self._elsewhere]  # they appear with the first result
        self._body, self._empty = w.VBox().add_class("ex-body"), w.VBox(self.empty()).add_class("ex-empty")
        sheet = w.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        self._status = KernelStatus()
        shown = [sheet, self._status, head, *self.controls(), self._banner, self._trace, self._body, self._empty]
        self.view = w.VBox(shown)
        self.view.add_class("ex")
        self._hide_error()

    def _button(self, text: str, run: Callable[[], None], *classes: str, style: str = "") -> w.Button:
        button = w.Button(description=text, button_style=style)
        button.on_click(lambda _: self.guard(run))
        for name in classes:
            button.add_class(name)
        return button

    def offer(self, proposal: Any, opens: Mapping[str, Callable[[Any], Any]], empty: str = "none") -> Any:
        """For `traitlets.validate`: a value that the trait's dropdown does not list is opened, which raises if there is no such
        thing, and then listed. `opens`: trait -> what opens a value of it; `empty`: how no value is listed.
        """
        value, name = proposal["value"], proposal["trait"].name
        if name in self._fields:
            listed = list(self._fields[name][0].options)
            if value not in dict(listed).values():
                if value and name in opens:
                    opens[name](value)
                words = f"{value:,}" if isinstance(value, int) else value or empty
                self.list_options(name, [*listed, (words, value)])
        return value

    def row(self, fields: list[tuple[str, Any, str, str]], prefix: str = "ex-") -> w.HBox:
        """(label, widget, trait, width) each, linked with the traits, in one row; a trait's help is the control's tooltip."""
        for label, field, name, width in fields:
            field.description, field.layout.width = label, width
            field.add_class("ex-field").add_class(f"{prefix}{name.replace('_', '-')}")
            self.connect(field, name)
        return w.HBox([field for _, field, _, _ in fields]).add_class("ex-row")

    def connect(self, field: Any, name: str) -> None:
        """Link a control with a trait, whose help becomes its tooltip."""
        field.tooltip = self.traits()[name].help
        self._fields[name] = field, traitlets.link((self, name), (field, "value"))

    def list_options(self, name: str, options: list[tuple[str, Any]]) -> None:
        """Replace what a trait's dropdown offers; the trait keeps its value, which has to be among them."""
        field, link = self._fields[name]
        if list(field.options) != options:
            link.unlink()  # a dropdown with new options jumps to the first
            field.options = options
            link.link()

    def guard(self, run: Callable[[], Any], *, mends: bool = True) -> Any:
        """Run a callback; an exception becomes the banner. `mends`: a good run takes away the banner of an earlier callback."""
        try:
            found = run()
        except Exception as error:
            self._bad_call = self._bad_call or self.error is None
            self._show_error(error)
            return None
        if mends and self._bad_call:
            self._recover()
        return found

    def _recover(self) -> None:
        """Take the banner away and show what is true without it: a request is being computed, or how the last one ended."""
        self._hide_error()
        if self._done < self._serial:
            self._busy("computing")
        else:
            self._settle(*self._ended)

    def _refusal(self, name: str, value: Any) -> str:
        """The sentence about a value that a trait or its control does not take."""
        trait, field = self.traits()[name], self._fields.get(name, (None, None))[0]
        choices = list(getattr(trait, "values", ()) or ()) or [
            option[1] if isinstance(option, tuple) else option for option in getattr(field, "options", ())
        ]
        low, high = getattr(trait, "min", None), getattr(trait, "max", None)
        if choices:
            wanted = f"one of {', '.join(str(choice) or 'automatic' for choice in choices)}"
        else:
            wanted = (
                trait.info() + (f" from {low}" if low is not None else "") + (f" to {high}" if high is not None else "")
            )
        hint = nearest(str(value), [str(choice) for choice in choices])
        return f"{type(self).__name__} takes {name} as {wanted}, got {value!r}; choose another value.{hint}"

    def _busy(self, text: str, share: float = 0.0) -> None:
        self.state = "busy"
        self._state.value = join(tag.span(class_="ex-ring", style=f"--p:{share:.0%}"), text)
        self.view.add_class("ex-busy-now")

    def _settle(self, state: str, text: str) -> None:
        if state != "error":
            self._ended = state, text
        self.state, self._state.value = state, join(text, self.remark() if state == "ready" else None)
        self.view.remove_class("ex-busy-now")
        for name, on in (
            ("ex-stale", state in ("stale", "error")),
            ("ex-can-compute", state == "stale"),
            ("ex-none", state == "empty"),
        ):
            (self.view.add_class if on else self.view.remove_class)(name)

    def _stale_tag(self, more: str = "") -> Markup:
        """The state of a panel whose result is not that of its inputs: what is on the screen."""
        return (
            Markup("") if self._result is None else tag.span("shows ", self.label(self._result), class_="ex-tag") + more
        )

    def _show_error(self, error: Exception) -> None:
        said, hint, name = str(error).strip(), "", type(error).__name__
        if isinstance(error, UserError):
            head, _, rest = said.partition("; ")
            said, hint = (f"{head}.", f"{rest[:1].upper()}{rest[1:]}") if rest else (said, "")
        else:
            said, hint = f"{self.title} stopped: {said or name}", "Change a control to go on."
        self._message.value = tag.span(tag.b(said), f" {hint} ", tag.span(name, class_="hint"), role="alert")
        self._trace.value = tag.pre("".join(traceback.format_exception(error)))
        self._trace.layout.display, self._banner.layout.display = "none", ""
        self.error = error
        self._settle("error", self._stale_tag())

    def _hide_error(self) -> None:
        if self.error is not None or self._banner.layout.display != "none":
            self._bad_draw = self._bad_call = False
            self.error, self._banner.layout.display, self._trace.layout.display = None, "none", "none"

    def _toggle_details(self) -> None:
        hidden = self._trace.layout.display == "none"
        self._trace.layout.display = "" if hidden else "none"
        self._details.description = "Hide details" if hidden else "Show details"

    def _put(self, outcome: Any) -> None:
        self._outcome = outcome
        self.draw(outcome)
        self._elsewhere.value = from_elsewhere(
            self.trait_values().values(), getattr(self, "shelf", getattr(self, "session", None))
        )

    def _gave_up(self) -> None:
        if self._result is not None:
            self._settle("stale", self._stale_tag(" inputs changed"))


def _renamed() -> None:
    warnings.warn("A panel's eps is called k (eps = k/255); use panel.k.", FutureWarning, stacklevel=3)
