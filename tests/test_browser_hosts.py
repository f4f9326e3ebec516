"""What a page shows when its kernel is gone, when a chart is opened late, and where the front end is not JupyterLab."""

import base64
import re
from importlib.util import find_spec

import pytest
from browser import eventually, says

from explore import figures

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
        self.said.value = f'<p class="ex-reading">k is {k}</p>'
panel = Small()
panel"""
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
GONE = "The kernel of this panel is gone; run this cell again to use it."
ICONS = """() => [...document.querySelectorAll(':is(.ex, .ex *).jupyter-widgets-disconnected')].filter(
  (e) => getComputedStyle(e, '::before').content !== 'none').length"""


def opened(notebook):
    """The panel's sentence is on the screen, and no still picture beside it."""
    says(notebook.page.locator(".ex-reading"), "k is 3")
    assert not notebook.page.locator(".exs-ex-still:visible").count()


def dead(notebook) -> None:
    """The panel says so, once, and takes neither keys nor clicks."""
    page = notebook.page
    says(page.locator(".ex-gone"), GONE)
    page.wait_for_selector(".ex-dead")
    assert page.evaluate(ICONS) == 0
    assert not page.locator(".ex-state").is_visible()  # 'up to date' would be a second truth
    handle = page.locator(".ex-small .noUi-handle")
    assert handle.evaluate("(e) => { e.focus(); return document.activeElement !== e }")
    assert handle.get_attribute("aria-valuenow") == "3.0"


def test_a_dead_kernel_is_said_and_running_again_helps(lab):
    with lab.open(lab.write(SMALL)) as notebook:
        page = notebook.page
        notebook.run_all()
        opened(notebook)
        kept = "from ipywidgets.widgets.widget import _instances\nprint(len(_instances))"
        widgets = notebook.execute(kept)
        for _ in range(2):
            notebook.run_all()
            opened(notebook)
        assert notebook.execute(kept) == widgets and page.locator(".ex:visible").count() == 1
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


CHARTS = """import ipywidgets as w
from IPython.display import display
import explore as ex
def bars(n, **more):
    figure = ex.figures.blank(640, 200, **more)
    return figure.add_bar(x=list(range(n)), y=[1] * n, customdata=[f"bar {i}" for i in range(n)])
clicked = []
early, hidden, gone = (ex.figures.live(bars(0), picked=clicked.append) for _ in range(3))
panel = w.VBox([early, hidden])
hidden.layout.display = "none"
display(panel)
for n in range(1, 9):
    early.show(bars(n))
    hidden.show(bars(n))"""
LATE = """for n in range(1, 6):
    gone.show(bars(n))
gone.mark(title={"text": "five"})
gone"""
PLACE = """() => { const gd = document.querySelector('.ex-chart > .js-plotly-plot'), box = gd.getBoundingClientRect();
  const { xaxis, yaxis } = gd._fullLayout;
  return [box.left + xaxis._offset + xaxis.l2p(1), box.top + yaxis._offset + yaxis.l2p(0.5)] }"""
BARS = "() => [...document.querySelectorAll('.ex-chart > .js-plotly-plot')].map((e) => e.querySelectorAll('.bars .point').length)"


def test_a_chart_is_complete_however_late_it_is_opened(lab):
    """Shown while its content changes, in a hidden place, after its content; again after a reload and in a second tab."""
    notebook = lab.show(CHARTS, LATE)
    page = notebook.page
    page.wait_for_function(f"() => ({BARS})().join() === '8,8,5'")
    page.wait_for_function("() => document.querySelector('.gtitle')?.textContent === 'five'")
    notebook.execute("hidden.layout.display = None")
    wide = "() => [...document.querySelectorAll('.ex-chart > .js-plotly-plot')].map((e) => e._fullLayout.width === Math.min(960, e.clientWidth))"
    page.wait_for_function(f"() => ({wide})().every(Boolean)")  # as wide as its place, to 960 px
    x, y = page.evaluate(PLACE)
    page.mouse.move(x - 9, y)
    page.mouse.move(x, y, steps=3)
    page.wait_for_selector(".hovertext")
    page.mouse.click(x, y)
    assert notebook.execute("print(clicked)") == "['bar 1']"
    page.evaluate("async () => await jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function(f"() => ({BARS})().join() === '8,8,5'")
    with lab.browser.new_context() as context:
        second = context.new_page()
        second.goto(f"{lab.url}/lab/tree/{notebook.name}?token={lab.token}")
        second.wait_for_function(f"() => ({BARS})().join() === '8,8,5'", timeout=120_000)
    assert notebook.complaints == []


HURRY = """() => { const wait = AbortSignal.timeout.bind(AbortSignal);
  AbortSignal.timeout = (ms) => (ms === 2000 ? wait(0) : wait(ms));
  window.calm = () => { AbortSignal.timeout = wait } }"""
PICKED = """from explore.panels.widgets.html import ClickableHTML
panel = ClickableHTML(html="<p class='ex-said'>first</p>")
panel"""


def test_a_page_that_loads_a_widgets_script_late_misses_nothing(lab):
    """anywidget waits two seconds for a script, here none, and drops later messages; no chart was drawn then."""
    notebook = lab.show("1", "1")
    notebook.page.evaluate(HURRY)
    try:
        lab.show(CHARTS, LATE)
        notebook.page.wait_for_function(f"() => ({BARS})().join() === '8,8,5'")
        lab.show(PICKED, "panel.html = \"<p class='ex-said'>second</p>\"")
        says(notebook.page.locator(".ex-said"), "second")
        notebook.execute("panel.html = \"<p class='ex-said'>third</p>\"")
        says(notebook.page.locator(".ex-said"), "third")
    finally:
        notebook.page.evaluate("() => window.calm()")


EVERY = """import explore as ex
import ipywidgets as w
p = ex.panels
few = {"points": 60, "method": "pca"}
every = [p.Perturbation("demo/clae"), p.NoiseOrAdversary(), p.Probe("demo/simclr", "demo/clae")]  # FourAttacks: as Noise
every += [p.Atlas("demo/clae", **few), p.Atlas("demo/simclr", "demo/clae", **few), p.WhatItSees("demo/clae", method="saliency")]
every += [p.Scorecard(), p.TwoViews("demo/simclr", n=8), p.BatchMates("demo/clae", n=8), p.Training(), p.Upload("emoji")]
panel = w.VBox([each.view for each in every])
panel"""
CUT = """() => [...document.querySelectorAll('.ex')].flatMap((panel) => {
  const cut = (e) => { // beyond the side of what clips it, and nothing between that scrolls
    const box = e.getBoundingClientRect();
    for (let up = e.parentElement; ; up = up.parentElement) {
      const style = getComputedStyle(up), own = up.getBoundingClientRect();
      if (up !== panel && ['auto', 'scroll'].includes(style.overflowX)) return false;
      if ((up === panel || style.overflowX !== 'visible') && style.textOverflow !== 'ellipsis' && (box.right > own.right + 1 || box.left < own.left - 1)) return true;
      if (up === panel) return false;
    } };
  return [...panel.querySelectorAll('*')].filter((e) => e.offsetWidth && e.offsetHeight && e.checkVisibility({ visibilityProperty: true })
    && !e.closest('.ex-sr, .ex-fm-map, .ex-mx-map') && cut(e)).map((e) => `${panel.querySelector('.ex-head b').textContent}: ${e.tagName} ${e.className}`) })"""


def test_no_part_of_any_panel_is_cut_off_without_a_way_to_reach_it(lab):
    """At 1000 and at 480 pixels, and beside the open file browser in a window of 800."""
    notebook = lab.show(EVERY, "for each in every: each.wait(300)")
    page = notebook.page
    assert set(notebook.execute("print(*(type(each).__name__ for each in every))").split()) | {
        "FourAttacks",
        "Panel",
    } == set(notebook.execute("print(*ex.panels.__all__)").split())
    for part in (".ex-t", ".ex-sweep .scatterlayer .point", ".ex-cm", ".ex-fm-side .ex-truths", ".ex-see-t", ".ex-fp"):
        page.wait_for_selector(part, state="attached")
    for part in (".ex-mx-map canvas", ".ex-bm-t", ".ex-acts", ".ex-up"):
        page.wait_for_selector(part, state="attached")
    for width in (1000, 480):
        notebook.fit(".ex >> nth=0", width)
        eventually(lambda: uncut(page), 30)
    page.evaluate("() => jupyterapp.shell.expandLeft()")
    page.set_viewport_size({"width": 800, "height": 1400})
    page.wait_for_function("() => document.querySelector('.ex').clientWidth < 540")
    eventually(lambda: uncut(page), 30)
    page.evaluate("() => jupyterapp.shell.collapseLeft()")
    notebook.execute("for each in every: each.close()")
    assert notebook.errors() == []


def uncut(page) -> None:
    assert page.evaluate(CUT) == []


def test_a_front_end_without_the_widgets_says_what_to_install(lab):
    """JupyterLab in another environment than the kernel: without anywidget, and without any widgets."""
    kernel = lab.show("import explore.panels", "1").kernel()
    for missing, shown in (("anywidget", 1), ("@jupyter-widgets/jupyterlab-manager", 0)):
        with lab.open(lab.write(SMALL), kernel=kernel, without=missing) as notebook:
            notebook.run_all()
            note = notebook.page.locator(".exs-ex-still")
            note.wait_for(state="visible")
            said = note.inner_text()
            assert "pip install anywidget" in said and "run this cell" in said and "k is 3" in said
            assert notebook.page.locator(".ex").count() == shown
            outputs = notebook.cells()[0]["outputs"]
            assert outputs[0]["data"]["text/plain"] == "Small" and "k is 3" in outputs[1]["data"]["text/html"]


FRAME = """async ({ esm, state, zipped }) => {
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" })), heard = [];
  const el = document.body.appendChild(document.createElement("div")), { default: widget } = await import(url);
  const bytes = Uint8Array.from(atob(zipped), (c) => c.charCodeAt(0));
  const model = { get: (name) => state[name], set() {}, save_changes() {}, off() {}, on: (event, run) => heard.push([event, run]),
    send: () => heard.filter(([event]) => event === "msg:custom").forEach(([, run]) => run({ what: "script" }, [bytes])) };
  await widget.render({ model, el });
  return [typeof window.jupyterapp, el.querySelectorAll(".bars .point").length, Math.round(el.querySelector(".main-svg").clientWidth)] }"""


def test_a_chart_is_drawn_in_a_frame_of_another_origin_without_jupyterlab(lab):
    """As in VS Code: a sandboxed frame, no JupyterLab object, no manager that gives other widgets' models; and so slow a page
    that each try at plotly.js outlasts its time: the first that comes is taken.
    """
    figure = figures.blank(640, 200).add_bar(x=[1, 2, 3], y=[3, 4, 5])
    chart = figures.live(figure)
    state = {name: value for name, value in chart.get_state().items() if isinstance(value, str)}
    assert "TRY = 30;" in state["_esm"]
    given = {"esm": state["_esm"].replace("TRY = 30;", "TRY = 0.01;"), "state": state}
    given["zipped"] = base64.b64encode(chart.script.zipped).decode()
    with lab.browser.new_page() as page:
        page.set_default_timeout(120_000)
        page.set_content('<iframe sandbox="allow-scripts" srcdoc="<body></body>" width="700" height="300"></iframe>')
        page.wait_for_selector("iframe")
        frame = page.query_selector("iframe").content_frame()
        frame.wait_for_selector("body", state="attached")
        kind, bars, wide = frame.evaluate(FRAME, given)
    assert (kind, bars) == ("undefined", 3) and 320 <= wide <= 700


HOSTS = {"Notebook 7": ("notebook", "/notebooks/"), "Voila": ("voila", "/voila/render/")}
THREE = (
    """import explore as ex
ex.panels.Perturbation(ex.open_run("demo/clae"))""",
    """ex.panels.NoiseOrAdversary()""",
    """ex.panels.Atlas("demo/clae", points=200, method="pca")""",
)


def moves(slider) -> None:
    """One key moves a slider by one step; Notebook takes the focus away while cells run, and the key is pressed again."""

    def value() -> str:
        return slider.evaluate("(e) => e.getAttribute('aria-valuetext')")

    def moved() -> None:
        if value() == before:
            slider.press("ArrowRight")
        assert value() != before

    before = value()
    eventually(moved)


def runs_all(page) -> None:
    """Choose Run All Cells; before the page has its kernel that does nothing, or asks which kernel, and is chosen again."""
    begun = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]"))
    asked = page.locator(".jp-Dialog .jp-mod-accept")
    if asked.count():
        asked.first.click(timeout=5000)
    if not begun.count():
        page.get_by_text("Run", exact=True).first.click(timeout=5000)
        page.get_by_text("Run All Cells", exact=True).click(timeout=5000)
        page.wait_for_timeout(500)
    assert begun.count()


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_draws_the_panels_and_moves_them(lab, host):
    package, path = HOSTS[host]
    if find_spec(package) is None:
        pytest.skip(f"{host} is not installed: pip install {package}")
    book = lab.write(*THREE)
    (lab.root / book.name).write_text(book.read_text())
    with lab.pages.new_page() as page:
        page.set_default_timeout(120_000)
        page.goto(f"{lab.url}{path}{book.name}?token={lab.token}")
        if host == "Notebook 7":
            eventually(lambda: runs_all(page))
        for part in (".ex-t", ".ex .scatterlayer .point", ".ex-fm[data-eps] canvas"):
            page.wait_for_selector(part, state="attached")  # all three are drawn
        for slider in (".ex-eps .noUi-handle", ".ex-at .noUi-handle", ".ex-fm input[type=range]"):
            moves(page.locator(slider).first)
        page.wait_for_selector(".ex-pixels[data-k='9']:not(.waiting)")
        says(page.locator(".ex-sweep-says"), "ε = 9/255")
        assert page.locator(".exs-ex-still:visible").count() == 0
    for session in lab.api("GET", "/api/sessions"):
        if session["path"] == book.name:
            lab.api("DELETE", f"/api/sessions/{session['id']}")
