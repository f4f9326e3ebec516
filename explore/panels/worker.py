"""`Worker`: the thread of a panel. The newest request wins; each is a `Job`, and a panel's `compute` is given it."""

import atexit
import contextvars
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
import traitlets

from ..threads import at_work

REST = 30  # seconds without work after which the worker thread ends
_live: "weakref.WeakSet[Worker]" = weakref.WeakSet()


class Superseded(Exception):
    """Raised inside `compute` where a newer request waits or Stop was pressed."""


class NothingToCompute(Exception):
    """Raised by `compute` where there is nothing to compute from; its text becomes the panel's state."""


class Job:
    """A compute request; `check()` raises `Superseded` if a newer one came or Stop was pressed."""

    def __init__(self, panel: "Worker", serial: int, state: dict[str, Any]):
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


class Worker(traitlets.HasTraits):
    """Runs `compute` in a thread for the newest values of the traits `inputs`, and hands its outcome to `_put`; `Panel` shows it."""

    inputs: tuple[str, ...] = ()
    state = traitlets.Unicode("ready")  # ready, busy, stale, error, empty

    def _prepare(self) -> None:
        self._wake = threading.Condition(threading.RLock())
        self._serial, self._done, self._stopped = 0, 0, -1
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._drawing = threading.RLock()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._threads = torch.get_num_threads()
        _live.add(self)

    # written by `Panel`
    def compute(self, job: Job, **inputs: Any) -> Any:
        """All that `draw` needs for these inputs; call `job.check()` or `job.progress(...)` now and then."""
        raise NotImplementedError

    def idle(self) -> bool:
        """One short piece of work done ahead while there is no request; False if none is left."""
        return False

    def appear(self) -> None:
        """Put the body on the page."""

    def guard(self, run: Callable[[], Any], *, mends: bool = True) -> Any:
        """Run a callback; an exception becomes the banner."""
        return run()

    def _put(self, outcome: Any) -> None:
        """Draw what `compute` returned."""

    def _gave_up(self) -> None:
        """Stop was pressed."""

    def _busy(self, text: str, share: float = 0.0) -> None:
        """Show that a request is being computed."""

    def _settle(self, state: str, text: str) -> None:
        """Show how a request ended."""

    def _show_error(self, error: Exception) -> None:
        """Show the banner."""

    def _hide_error(self) -> None:
        """Take the banner away."""

    # requests
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

    def within(self, call: Callable[[], Any], timeout: float = 600) -> Any:
        """What `call()` returns, run in the worker's thread once every request is done: nothing else uses the network then."""
        return call() if threading.current_thread() is self._thread else self.later(call).result(timeout)

    def later(self, call: Callable[[], Any]) -> Future:
        """`within` without waiting for it."""
        future: Future = Future()
        with self._wake:
            self._calls.append((call, future))
            self._work_on()
        return future

    def stop(self) -> None:
        """Give up what is being computed; the last result stays on the screen, marked as stale."""
        self._stopped = self._serial

    # the thread
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
            while self._calls:
                self._calls.popleft()[1].cancel()
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
        if job is None and self._calls:
            _answer(*self._calls.popleft())
            return True
        if job is None:
            return bool(self.guard(self.idle, mends=False))
        try:
            self._attempt(job)
        except Superseded:
            if self._stopped >= job.serial:
                self._gave_up()
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


def _answer(call: Callable[[], Any], future: Future) -> None:
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)


def _loop(panel: "weakref.ref[Worker]", wake: threading.Condition) -> None:
    """Work for a panel until it is closed, collected, or has had no request for `REST` seconds."""
    while True:
        own = panel()
        if own is None or own._thread is not threading.current_thread():
            return
        worked = own._turn()
        with wake:
            idle = not worked and own._job is None and not own._calls
            if idle and own._thread is threading.current_thread():  # else it was closed meanwhile
                own = None  # while it rests the thread holds no panel
                woken, own = wake.wait(REST), panel()
                if not woken and own is not None and own._job is None and not own._calls:
                    own._thread = None if own._thread is threading.current_thread() else own._thread
                    return
        own = None


@atexit.register
def _end_all() -> None:
    for panel in list(_live):
        panel._end()
