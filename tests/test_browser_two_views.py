"""The augmentation lab in a real JupyterLab and a real browser: knobs, draws, the matrix under mouse and keys, the temperature."""

import json

import pytest
from browser import Notebook, eventually, says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELL = """import explore as ex
panel = ex.panels.TwoViews("demo/simclr", n=8)
panel"""
LIBRARY = """
import json
from explore.results import to_pixels
panel.wait(); r = panel.result; row, column = map(int, panel.pair.split(","))
gray = lambda x: to_pixels(x[None])[0][..., 0].flatten().tolist()
print(json.dumps(dict(picture=panel.picture, seed=panel.seed, pair=panel.pair, cosine=float(r.cosine[row, column]), loss=float(r.loss.mean()),
    views=[gray(r.views[panel.picture]), gray(r.views[panel.picture + 8])], at=[gray(r.views[row]), gray(r.views[column])],
    box=r.boxes[panel.picture].tolist(), weight=float(r.weights[row, column]), recipe=panel.recipe)))"""


@pytest.fixture
def lesson(lab):
    """A notebook with the panel in it, run."""
    notebook = lab.show(CELL, "panel.result.table.head()")
    notebook.page.wait_for_selector(".ex-mx-map[data-at]")
    return notebook


def same(notebook: Notebook) -> dict:
    """Assert that the page comes to show the kernel's views, crop box and pair; returns the kernel's answer."""
    wanted = json.loads(notebook.execute(LIBRARY))

    def shows():
        large = [i for i in notebook.images(".ex-tv-pics img") if i["alt"].startswith("view ")]
        assert [img["rgba"][:, 0].tolist() for img in large] == wanted["views"]
        told = notebook.images(".ex-mx-pair img")
        assert [img["rgba"][:, 0].tolist() for img in told] == wanted["at"]
        words = notebook.page.locator(".ex-mx-pair p").inner_text().replace("−", "-")
        assert f"cosine {wanted['cosine']:.3f}" in words and f"weight {100 * wanted['weight']:.1f} %" in words
        assert f"{wanted['loss']:.2f} nats" in notebook.page.locator(".ex-reading[aria-live]").inner_text()

    eventually(shows)
    return wanted


def cell_of(notebook: Notebook, row: int, column: int) -> tuple[float, float]:
    """The middle of a cell of the matrix, on the screen."""
    box = notebook.page.locator(".ex-mx-map").bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / 16, box["y"] + (row + 0.5) * box["height"] / 16


def test_knobs_draws_and_the_matrix(lesson):
    page = lesson.page
    first = same(lesson)
    assert first["recipe"] == "the run's"  # what the sliders send back are the values that they were given
    page.get_by_role("button", name="Draw again").click()
    lesson.execute("assert panel.seed == 1")
    second = same(lesson)
    assert second["views"] != first["views"] and second["box"] != first["box"]
    page.locator(".ex-knob-brightness .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    says(page.locator(".ex-knob-brightness .widget-readout"), "0.75")
    third = same(lesson)
    assert third["box"] == second["box"] and third["views"] != second["views"]
    assert third["recipe"] == "changed by hand"
    page.locator(".ex-mx-map").scroll_into_view_if_needed()
    page.mouse.move(*cell_of(lesson, 2, 13))  # the mouse tells another pair, and picks nothing
    page.wait_for_selector(".ex-mx-map[data-at='2,13']")
    assert lesson.execute("print(panel.pair)") == "0,0"
    page.mouse.click(*cell_of(lesson, 5, 13))
    lesson.execute("assert panel.pair == '5,13' and panel.picture == 5")
    says(page.locator(".ex-mx-pair b"), "positive pair")
    same(lesson)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".ex-mx-map[data-at='5,12']")
    assert same(lesson)["pair"] == "5,12"
    before = page.locator(".ex-tv-hard").inner_text()
    page.locator(".ex-tau .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    says(page.locator(".ex-reading[aria-live]"), "At temperature 0.15")
    same(lesson)
    assert page.locator(".ex-tv-hard").inner_text() != before
    page.locator(".ex-see-strip [data-pick='2']").click()
    lesson.execute("assert panel.picture == 2")
    same(lesson)
    assert lesson.errors() == []


def test_the_panel_in_both_themes_and_widths(lesson, tmp_path):
    lesson.execute("panel.n = 32; panel.pair = '2,40'; panel.wait()")
    page = lesson.page
    eventually(lambda: same_size(page))
    lesson.pictures("two-views", tmp_path)
    lesson.fit(".ex", 480)
    assert page.evaluate("() => { const e = document.querySelector('.ex'); return e.scrollWidth - e.clientWidth }") <= 0
    assert lesson.errors() == []


def same_size(page) -> None:
    """The matrix of 64 views is a whole number of pixels a cell, and the chart has its points."""
    assert page.locator(".ex-mx-map canvas").get_attribute("width") == "384"
    assert page.locator(".ex-tv-right .points path").count() > 40
