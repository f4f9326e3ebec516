"""The panel 'batch mates' in a real JupyterLab and a real browser: exchange a mate, choose a cell, the page's pictures are the kernel's."""

import json

import pytest
from browser import Notebook, eventually, says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELL = """import explore as ex
panel = ex.panels.BatchMates("demo/clae", n=8)
panel"""
LIBRARY = """
import json
panel.wait(); r = panel.result
gray = lambda s: ((s[0] + 1) * 127.5).int().flatten().tolist()
print(json.dumps(dict(mate=r.mate, spare=panel.spare, anchor=r.anchor, coupling=panel.coupling, differs=[f"{100 * v:.1f} %" for v in r.differs.tolist()],
    signs=[gray(s) for s in r.signs[:, panel.coupling]])))"""


@pytest.fixture
def lesson(lab):
    """A notebook with the panel in it, run."""
    notebook = lab.show(CELL, "panel.result.table")
    notebook.page.wait_for_selector(".ex-bm-t")
    return notebook


def same(notebook: Notebook) -> dict:
    """Assert that the page comes to show the kernel's signs and shares; returns the kernel's answer."""
    wanted = json.loads(notebook.execute(LIBRARY))

    def shows():
        pictures = [
            i["rgba"][:, 0].tolist() for i in notebook.images(".ex-bm-pics img") if i["alt"].startswith("signs")
        ]
        assert pictures == wanted["signs"]
        cells = notebook.page.locator(".ex-bm-t [data-pick] b").all_inner_texts()
        assert [text.replace("\xa0", " ") for text in cells] == wanted["differs"]

    eventually(shows)
    return wanted


def test_a_mate_is_exchanged(lesson):
    page = lesson.page
    first = same(lesson)
    page.locator(".ex-see-strip").nth(0).locator("[data-pick='4']").click()
    lesson.execute("assert panel.mate == 5")  # the anchor is not in the strip
    second = same(lesson)
    assert second["mate"] == 5 and second["signs"][0] == first["signs"][0] and second["signs"][1] != first["signs"][1]
    page.locator(".ex-see-strip").nth(1).locator("[data-pick='0']").focus()
    page.keyboard.press("ArrowRight")  # the strip is one stop: arrows walk, Enter picks
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    lesson.execute("assert panel.spare == 2")
    third = same(lesson)
    assert third["signs"][1] != second["signs"][1]
    page.locator(".ex-bm-t [data-pick='2']").click()
    says(page.locator(".ex-bm-pics"), "0.0 %")
    assert same(lesson)["coupling"] == 2
    page.get_by_label("Picture", exact=True).fill("5")
    page.keyboard.press("Enter")
    lesson.execute("panel.wait(); assert panel.result.anchor == 5 and panel.result.mate == 6")
    same(lesson)
    assert lesson.errors() == []


def test_the_panel_in_both_themes_and_widths(lesson, tmp_path):
    lesson.execute("panel.n = 16; panel.wait()")
    same(lesson)
    lesson.pictures("batch-mates", tmp_path)
    lesson.fit(".ex", 480)
    wide = "() => { const e = document.querySelector('.ex'); return e.scrollWidth - e.clientWidth }"
    assert lesson.page.evaluate(wide) <= 0
    assert lesson.errors() == []
