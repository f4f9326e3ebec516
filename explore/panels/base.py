"""`Panel`: what all panels share. A panel's state is its traits; `compute` calls one study; `draw` updates the widgets.

A subclass names its `inputs` (the traits that `compute` depends on), builds `controls()` and `body()` once, and writes
`compute(job, **inputs) -> outcome` and `draw(outcome)`. `compute` runs in a worker thread and sets nothing on the panel: its
outcome is the results object, or a frozen dataclass with the results object as `result` and all else that `draw` needs.
The newest request wins; an exception becomes a banner, because ipywidgets would swallow it.
"""

import atexit
import contextvars
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch
import traitlets

from ..errors import UserError
from ..threads import at_work
from .html import Markup, escape, join, tag

STYLE = Path(__file__).with_name("explore.css").read_text(encoding="utf-8")
REST = 30  # seconds without work after which the worker thread ends
_live: "weakref.WeakSet[Panel]" = weakref.WeakSet()


class Superseded(Exception):
    """Raised inside `compute` where a newer request waits or Stop was pressed."""


class NothingToCompute(Exception):
    """Raised by `compute` where there is nothing to compute from; its text becomes the panel's state."""


class Job:
    """A compute request; `check()` raises `Superseded` if a newer one came or Stop was pressed."""

    def __init__(self, panel: "Panel", serial: int, state: dict[str, Any]):
        self.panel, self.serial, self.state, self.began = panel, serial, state, time.perf_counter()

    def check(self) -> None:
        """Raise `Superseded` if a newer request came or Stop was pressed."""
        if self.panel._serial != self.serial or self.panel._stopped >= self.serial:
            raise Superseded

    def pause(self, seconds: float) -> None:
        """Leave the cores to the browser for a moment, then `check()`."""
        time.sleep(seconds)
        self.check()

    def show(self, draw: Callable[[], None]) -> None:
        """Draw a first part of the outcome while the rest is computed; raises `Superseded` like `check`."""
        self.check()
        with self.panel._drawing:
            draw()
            self.panel.appear()

    def busy(self, what: str) -> None:
        """Show that work has begun; the screen dims when it takes more than 150 ms."""
        self.panel._busy(what)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show 'PGD, 40 steps: 14 done · 2 s left' once it takes long; raises `Superseded` like `check`."""
        self.check()
        spent = time.perf_counter() - self.began
        if spent > 0.5 and done:
            left = spent / done * (total - done)
            self.panel._busy(f"{what}: {done} done · {left:.0f} s left", done / total)
        elif spent > 0.15 and self.panel.state != "busy":
            self.panel._busy("computing")


class Panel(traitlets.HasTraits):
    """A widget whose state is its traits and that shows `result`. Display it as a cell's last line."""

    title = "Panel"
    inputs: tuple[str, ...] = ()
    error = traitlets.Instance(Exception, allow_none=True, default_value=None)
    state = traitlets.Unicode("ready")  # ready, busy, stale, error, empty

    def __init__(self, **traits: Any):
        if "eps" in traits:
            _renamed()
            traits["k"] = traits.pop("eps")
        self._fields: dict[str, tuple[Any, Any]] = {}  # trait -> its control and the link between them
        super().__init__(**traits)
        self._wake = threading.Condition(threading.RLock())
        self._serial, self._done, self._stopped = 0, 0, -1
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._bad_draw = False  # the banner is about drawing, so the next good drawing takes it away
        self._outcome: Any = None  # what `compute` returned and `draw` drew
        self._drawing = threading.RLock()
        self._threads = torch.get_num_threads()
        self._frame()
        self.observe(lambda _: self.refresh(), names=list(self.inputs))
        _live.add(self)
        self.refresh()

    # to be written by a panel
    def controls(self) -> list[w.Widget]:
        """The controls above the reading, made once."""
        return []

    def body(self) -> list[w.Widget]:
        """What shows the result, made once."""
        return []

    def compute(self, job: Job, **inputs: Any) -> Any:
        """All that `draw` needs for these inputs; call `job.check()` or `job.progress(...)` now and then."""
        raise NotImplementedError

    def draw(self, outcome: Any) -> None:
        """Put what `compute` returned on the screen: set traits, never create widgets."""

    def empty(self) -> list[w.Widget]:
        """What stands in the body's place where `compute` raised `NothingToCompute`."""
        return []

    def label(self, result: Any) -> str:
        """What is on the screen, in two words, for the tag of a stale panel: 'ε = 8/255'."""
        return "an earlier result"

    def idle(self) -> bool:
        """One short piece of work done ahead while there is no request; False if none is left."""
        return False

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
        if threading.current_thread() is not self._thread:
            self.wait()
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

    def wait(self, timeout: float = 120) -> bool:
        """Wait until every request is done; False if that takes longer than `timeout` seconds."""
        with self._wake:
            return self._wake.wait_for(lambda: self._done >= self._serial, timeout)

    def refresh(self) -> None:
        """Request the result for the present traits; an earlier request is dropped."""
        with self._wake:
            self._serial += 1
            self._job = Job(self, self._serial, {name: getattr(self, name) for name in self.inputs})
            self._work_on()

    def stop(self) -> None:
        """Give up what is being computed; the last result stays on the screen, marked as stale."""
        self._stopped = self._serial

    def close(self) -> None:
        """Drop what is being computed, end the worker, close the widgets."""
        self._end()
        todo: list[w.Widget] = [self.view]
        while todo:
            widget = todo.pop()
            todo += getattr(widget, "children", ())
            widget.close()

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
                self._show_error(error)
                self._bad_draw = True
            else:
                if self._bad_draw:
                    self._hide_error()
                    self._settle("ready", "up to date")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.view._repr_mimebundle_(**kwargs)

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
        self._parts = (
            self.body()
        )  # they appear with the first result: a figure shown before it has content can stay blank
        self._body, self._empty = w.VBox().add_class("ex-body"), w.VBox(self.empty()).add_class("ex-empty")
        sheet = w.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        self.view = w.VBox([sheet, head, *self.controls(), self._banner, self._trace, self._body, self._empty])
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

    def guard(self, run: Callable[[], Any]) -> Any:
        """Run a callback; an exception becomes the banner."""
        try:
            return run()
        except Exception as error:
            self._show_error(error)

    def _busy(self, text: str, share: float = 0.0) -> None:
        self.state = "busy"
        self._state.value = join(tag.span(class_="ex-ring", style=f"--p:{share:.0%}"), text)
        self.view.add_class("ex-busy-now")

    def _settle(self, state: str, text: str) -> None:
        self.state, self._state.value = state, escape(text)
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
            self._bad_draw = False
            self.error, self._banner.layout.display, self._trace.layout.display = None, "none", "none"

    def _toggle_details(self) -> None:
        hidden = self._trace.layout.display == "none"
        self._trace.layout.display = "" if hidden else "none"
        self._details.description = "Hide details" if hidden else "Show details"

    # the worker
    def _work_on(self) -> None:
        with self._wake:
            if self._thread is None:
                run = contextvars.copy_context().run
                self._thread = threading.Thread(target=run, args=(_loop, weakref.ref(self), self._wake), daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _end(self) -> None:
        with self._wake:
            self._stopped = self._serial
            thread, self._thread, self._job, self._done = self._thread, None, None, self._serial
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _turn(self) -> bool:
        """One piece of work in the worker thread, on half of the cores or what others leave; False where there is none.

        The browser that draws the result wants the other half, and threads of torch that have to wait for one another on
        a busy core cost more than they bring (LOG.md has the figures).
        """
        try:
            with at_work(most=max(1, self._threads // 2), wait=False):  # the main thread keeps what it has
                return self._work()
        finally:
            torch.set_num_threads(self._threads)

    def _work(self) -> bool:
        with self._wake:
            job, self._job = self._job, None
        if job is None:
            return bool(self.guard(self.idle))
        try:
            self._attempt(job)
        except Superseded:
            if self._stopped >= job.serial and self._result is not None:
                self._settle("stale", self._stale_tag(" inputs changed"))
        except NothingToCompute as nothing:
            self._hide_error()
            self._settle("empty", str(nothing))
        except Exception as error:
            self._show_error(error)
        with self._wake:
            self._done = max(self._done, job.serial)
            self._wake.notify_all()
        return True

    def _attempt(self, job: Job) -> None:
        outcome = self.compute(job, **job.state)
        job.show(lambda: self._put(outcome))
        self._hide_error()
        spent = time.perf_counter() - job.began
        self._settle("ready", f"up to date · {spent * 1e3:.0f} ms" if spent < 1 else f"up to date · {spent:.1f} s")

    def _put(self, outcome: Any) -> None:
        self._outcome = outcome
        self.draw(outcome)


def _renamed() -> None:
    warnings.warn("A panel's eps is called k (eps = k/255); use panel.k.", FutureWarning, stacklevel=3)


def _loop(panel: "weakref.ref[Panel]", wake: threading.Condition) -> None:
    """Work for a panel until it is closed, collected, or has had no request for `REST` seconds."""
    while True:
        own = panel()
        if own is None or own._thread is not threading.current_thread():
            return
        worked = own._turn()
        with wake:
            if not worked and own._job is None:
                own = None  # while it rests the thread holds no panel
                woken, own = wake.wait(REST), panel()
                if not woken and own is not None and own._job is None:
                    own._thread = None if own._thread is threading.current_thread() else own._thread
                    return
        own = None


@atexit.register
def _end_all() -> None:
    for panel in list(_live):
        panel._end()
