"""The linear-probe panel in a real JupyterLab and a real browser: cells by click and key, images, curve, slider, themes."""

import contextlib
import json

import pytest
from browser import Notebook, eventually, says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELL = """import explore as ex
panel = ex.panels.Probe(ex.open_run("demo/simclr"), ex.open_run("demo/clae"))
panel"""
LIBRARY = """
import json
from explore.results import to_pixels
from explore.panels.probe.view import PAGE
result = panel.result
i, j = (int(k) for k in panel.matrix.picked.split(","))
whose = "a" if panel.shown == "A" else "b"
cell = result.cell(i, j, whose)
own = (result.a, result.b)[whose == "b"]
by_hand = [k for k in range(own.n) if int(own.labels[k]) == i and int(own.predicted[k]) == j]  # rows of the test images
by_hand.sort(key=lambda k: -float(own.confidence[k]))
rows = by_hand[panel.page * PAGE : (panel.page + 1) * PAGE]
clean = ex.load("fashion").test[result.index[rows]][0]
pixels = to_pixels(clean) if not result.seen else result.seen[whose][rows].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
other = (result.b, result.a)[whose == "b"]
print(json.dumps(dict(cell=[i, j], page=panel.page, n=len(by_hand), images=result.index[rows].tolist(), test=result.test,
    pixels=[p.flatten().tolist() for p in pixels], other=[bool(other.right[k]) for k in rows],
    clean=[p.flatten().tolist() for p in to_pixels(clean)])))"""
PLACE = """() => { const p = document.querySelector('.ex .js-plotly-plot'), l = p._fullLayout,
  t = p._fullData.filter((d) => d.name === 'CLAE')[0], r = p.getBoundingClientRect();
  return [r.left + l.xaxis._offset + l.xaxis.d2p(t.x[0]), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[0])] }"""
READY = "import time\nwhile not (panel.state == 'ready' and len(panel._result.curve) >= 14): time.sleep(0.1)"


@pytest.fixture
def probe(lab):
    """A notebook with the probe panel in it, run."""
    notebook = lab.show(CELL, "panel.result.table")
    notebook.page.wait_for_selector(".ex-cm td.on")
    return notebook


def same(notebook: Notebook) -> dict:
    """Assert that the page comes to show the library's images for the picked cell; returns the library's answer."""
    wanted = json.loads(notebook.execute(LIBRARY))
    i, j = wanted["cell"]
    marked = [right if i != j else not right for right in wanted["other"]]
    notebook.page.wait_for_selector(f".ex-cell[data-key='{i},{j}']")

    def shows():
        shown = notebook.images(".ex-cell img")
        assert [int(img["alt"].split(":")[0].removeprefix("image ")) for img in shown] == wanted["images"]
        assert [img["rgba"][:, :3].flatten().tolist() for img in shown] == wanted["pixels"]
        assert [img["parent"] == "new" for img in shown] == marked

    eventually(shows)
    return wanted


def cell(notebook: Notebook, i: int, j: int):
    return notebook.page.locator(f".ex-cm [data-pick='{i},{j}']")


def test_a_clicked_cell_shows_its_images(probe):
    first = same(probe)
    assert first["cell"] != [0, 0] and first["n"] > 5
    cell(probe, 2, 4).click()
    probe.page.wait_for_selector(".ex-cell[data-key='2,4']")
    second = same(probe)
    assert second["cell"] == [2, 4] and second["images"] != first["images"]
    probe.page.wait_for_selector(".ex-cm [data-pick='2,4'][aria-selected='true']")
    assert probe.execute("print(panel.cell)") == "2,4"
    cell(probe, 8, 8).click()  # the diagonal: many pages
    probe.page.wait_for_selector(".ex-cell[data-key='8,8']")
    whole = same(probe)
    assert whole["n"] > 100
    probe.page.get_by_label("later images").click()
    probe.page.wait_for_function("() => document.querySelector('.ex-page .ex-k').textContent === '21–40'")
    assert same(probe)["page"] == 1
    probe.page.get_by_label("earlier images").click()
    probe.page.wait_for_function("() => document.querySelector('.ex-page .ex-k').textContent === '1–20'")
    assert same(probe)["images"] == whole["images"]
    probe.page.get_by_role("button", name="A", exact=True).click()
    probe.page.wait_for_function("() => document.querySelector('.ex-cm .what').textContent.includes('SimCLR')")
    assert same(probe)["cell"] == [8, 8]
    assert probe.errors() == []


def test_the_matrix_by_keyboard(probe):
    page = probe.page
    assert page.locator(".ex-cm [tabindex='0']").count() == 1  # one stop
    cell(probe, 2, 4).click()
    order = page.evaluate(
        "() => [...document.querySelectorAll('.ex-cm [data-row]')].map((r) => r.querySelector('.d').dataset.pick.split(',')[0])"
    )
    at = [order.index("2"), order.index("4")]
    page.keyboard.press("ArrowDown" if at[0] < 9 else "ArrowUp")
    page.keyboard.press("ArrowRight" if at[1] < 9 else "ArrowLeft")
    row, column = at[0] + (1 if at[0] < 9 else -1), at[1] + (1 if at[1] < 9 else -1)
    wanted = f"{order[row]},{order[column]}"
    assert page.evaluate("() => document.activeElement.dataset.pick") == wanted
    assert probe.execute("print(panel.cell)") == "2,4"  # arrows move, Enter picks
    page.keyboard.press("Enter")
    page.wait_for_selector(f".ex-cell[data-key='{wanted}']")
    assert probe.execute("print(panel.cell)") == wanted
    page.keyboard.press("Home")
    assert page.evaluate("() => document.activeElement.dataset.pick") == f"{order[row]},{order[0]}"
    page.keyboard.press("ArrowLeft")  # at the edge: it stays
    assert page.evaluate("() => document.activeElement.dataset.pick") == f"{order[row]},{order[0]}"
    page.keyboard.press("Tab")
    assert not page.evaluate("() => !!document.activeElement.closest('.ex-cm')")
    assert (
        page.evaluate("() => jupyterapp.shell.currentWidget.content.activeCellIndex") == 0
    )  # Lab did not take the arrows
    assert probe.errors() == []


def test_the_share_of_labels_by_key_and_from_the_curve(probe):
    from playwright.sync_api import TimeoutError

    page, handle = probe.page, probe.page.locator(".ex-share .noUi-handle")
    says(page.locator(".ex-share .widget-readout"), "10")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    says(page.locator(".ex-share .widget-readout"), "3")
    page.wait_for_function("() => document.querySelector('.ex-range').textContent.startsWith('300 of 10,000')")
    assert probe.execute("print(panel.result.labels)") == "300"
    says(page.locator(".ex-reading").first, "With 3 % of the labels")
    probe.execute("panel.share = 0.1; panel.wait()")
    probe.execute(READY)
    page.locator(".ex-gallery").scroll_into_view_if_needed()
    asked = "() => document.querySelector('.ex-range').textContent.startsWith('100 of 10,000')"
    for _ in range(6):  # a chart that is being redrawn just then moves, and does not hear a click
        spot = eventually(lambda: page.evaluate(PLACE))
        page.mouse.move(spot[0] - 30, spot[1] - 20)
        page.mouse.move(*spot, steps=4)
        with contextlib.suppress(TimeoutError):
            page.wait_for_selector(".ex .hovertext:has-text('100 labels')", timeout=10_000)
            page.mouse.click(*spot, delay=50)
            page.wait_for_function(asked, timeout=10_000)
            break
    page.wait_for_function(asked)
    assert probe.execute("print(panel.share)") == "0.01"
    assert probe.errors() == []


def test_attacked_images_are_shown_as_attacked(probe):
    probe.page.get_by_role("button", name="attacked").click()
    probe.execute("panel.wait(300); assert panel.result.test == 'attacked', panel.state")
    probe.page.wait_for_function(
        "() => document.querySelector('.ex-cm .what') && document.querySelector('.ex-of-k').offsetWidth > 0"
    )
    wanted = same(probe)
    assert wanted["test"] == "attacked" and wanted["pixels"] != wanted["clean"]
    change = max(
        abs(a - b) for p, q in zip(wanted["pixels"], wanted["clean"], strict=True) for a, b in zip(p, q, strict=True)
    )
    assert 0 < change <= 2  # eps = 2/255
    says(probe.page.locator(".ex-reading").first, "PGD of ε = 2/255")
    assert probe.errors() == []


def test_a_fault_becomes_a_banner(probe):
    probe.page.get_by_label("Encoder B", exact=True).select_option("demo/simclr")
    banner = probe.page.locator(".ex-error")
    banner.wait_for(state="visible")
    says(banner, "A and B are both demo/simclr")
    assert "Traceback" not in banner.inner_text()
    probe.page.get_by_label("Encoder B", exact=True).select_option("none")
    banner.wait_for(state="hidden")
    probe.page.wait_for_function("() => !document.querySelector('.ex-mc')")
    assert probe.errors() == []


def test_the_panel_in_both_themes_and_widths(probe, tmp_path):
    probe.execute(READY)
    inks = []

    def look():
        rows = "() => new Set([...document.querySelectorAll('.ex-probe-row > *')].map((e) => e.offsetTop)).size"
        assert probe.page.evaluate(rows) <= 2
        inks.append(probe.page.evaluate("() => getComputedStyle(document.querySelector('.ex .xtick text')).fill"))

    probe.pictures("linear-probe", tmp_path, look=look)
    assert inks[0] != inks[1]  # plotly's ticks follow the theme
    assert probe.errors() == []
