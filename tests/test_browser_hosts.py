"""What a page shows when its kernel is gone, when a chart is opened late, and where the front end is not JupyterLab."""

import pytest
from browser import says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
SMALL = """import ipywidgets as w, traitlets
from explore.panels import Panel
class Small(Panel):
    title, inputs = "Small", ("k",)
    k = traitlets.Int(3, min=0, max=9, help="a number")
    def controls(self):
        slider = w.IntSlider(min=0, max=9).add_class("ex-small")
        self.connect(slider, "k")
        return [slider]
    def body(self):
        self.said = w.HTML()
        return [self.said]
    def compute(self, job, k):
        return k
    def draw(self, k):
        self.said.value = f"<p class='ex-reading'>k is {k}</p>"
panel = Small()
panel"""
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
GONE = "The kernel of this panel is gone; run this cell again to use it."
ICONS = """() => [...document.querySelectorAll('.ex .jupyter-widgets-disconnected')].filter(
  (e) => getComputedStyle(e, '::before').content !== 'none').length"""


def opened(notebook):
    """The panel's sentence is on the screen, and no note beside it."""
    says(notebook.page.locator(".ex-reading"), "k is 3")
    assert not notebook.page.locator("[class^='ex-note-']:visible").count()


def dead(notebook) -> None:
    """The panel says so, once, and takes neither keys nor clicks."""
    page = notebook.page
    says(page.locator(".ex-gone"), GONE)
    assert page.locator(".ex-dead").count() == 1 and page.evaluate(ICONS) == 0
    assert not page.locator(".ex-state").is_visible()  # 'up to date' would be a second truth
    handle = page.locator(".ex-small .noUi-handle")
    assert handle.evaluate("(e) => { e.focus(); return document.activeElement !== e }")
    assert handle.get_attribute("aria-valuenow") == "3.0"


def test_a_dead_kernel_is_said_and_running_again_helps(lab):
    with lab.open(lab.write(SMALL)) as notebook:
        page = notebook.page
        notebook.run_all()
        opened(notebook)
        page.evaluate(f"async () => await {KERNEL}.restart()")
        dead(notebook)
        notebook.run_all()
        opened(notebook)
        assert page.locator(".ex-dead").count() == 0
        page.evaluate(f"() => {{ {KERNEL}.requestExecute({{ code: 'import os; os._exit(1)' }}) }}")  # as out of memory
        dead(notebook)
        page.wait_for_function(f"() => {KERNEL}?.status === 'idle'")  # the server has started another
        notebook.run_all()
        opened(notebook)
        page.evaluate("async () => await jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        dead(notebook)
