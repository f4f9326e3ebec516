"""Notebook 11 in a real JupyterLab and a real browser: claims by click and key, the evidence drawn, themes and widths."""

import json
import os
from pathlib import Path

import pytest
from browser import ROOT, Notebook, eventually
from lesson_numbers import CHARTS, disagreements

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CLAIM = """
import json
c = panel.result.claim(panel.claim)
print(json.dumps(dict(number=c.number, says=c.says, source=c.source, command=c.command, verdict=c.verdict,
    means=[f.mean for f in c.findings])))"""
POINTS = """() => { const p = [...document.querySelectorAll('.js-plotly-plot')].find((e) => e._fullData?.some((t) => t.error_x?.visible));
  return p._fullData.filter((t) => t.name !== 'seeds').flatMap((t) => [...t.x]).sort((a, b) => a - b) }"""


@pytest.fixture(scope="module")
def lesson(lab):
    """Notebook 11, run from top to bottom."""
    notebook = lab.lesson(ROOT / "notebooks" / "11_scorecard.ipynb")
    notebook.page.wait_for_selector(".ex-cd", state="attached")
    assert not notebook.page.locator(".ex-cd").is_visible()  # a prediction comes first
    notebook.page.locator(".jp-OutputArea:has(.ex-cd) .clae-fold summary").click()
    notebook.page.wait_for_selector(".ex-cd")
    notebook.page.evaluate("() => document.querySelectorAll('.clae-fold').forEach((fold) => (fold.open = true))")
    return notebook


def shown(notebook: Notebook, number: int) -> dict:
    """Assert that claim `number` is open with what the library says of it; returns that."""
    page = notebook.page
    page.wait_for_selector(f".ex-cd[data-claim='{number}']")
    wanted = json.loads(notebook.execute(CLAIM))
    assert wanted["number"] == number

    def shows():
        text = page.locator(".ex-cd").inner_text()
        for part in ("says", "source", "verdict"):
            assert wanted[part] in text
        assert page.locator(".ex-cd [data-copy]").get_attribute("data-copy") == wanted["command"]
        assert page.locator(".ex-fd").count() == len(wanted["means"])
        assert page.locator(".ex-cl [aria-selected='true']").get_attribute("data-pick") == str(number)

    eventually(shows)
    return wanted


def test_the_lesson_runs_and_draws_every_difference(lesson):
    lesson.page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot').length >= 2")
    wanted = lesson.execute(
        "print(json.dumps(sorted(f.mean for c in card.claims for f in c.findings if f.unit == 'points')))"
    )

    def shows():
        assert lesson.page.evaluate(POINTS) == pytest.approx(json.loads(wanted))

    eventually(shows)
    lesson.ran_well()
    assert disagreements("11_scorecard", lesson.cells(), lesson.page.evaluate(CHARTS)) == []


def test_claims_are_picked_by_click_and_by_key(lesson):
    page = lesson.page
    page.locator(".ex-cl [data-pick='3']").click()
    third = shown(lesson, 3)
    page.keyboard.press("ArrowDown")
    assert page.evaluate("() => document.activeElement.dataset.pick") == "4"
    assert lesson.execute("print(panel.claim)") == "3"  # arrows move, Enter picks
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    fifth = shown(lesson, 5)
    assert fifth["command"] != third["command"] and page.locator(".ex-cl [tabindex='0']").count() == 1
    marks = page.locator(".ex-fd i").evaluate_all("all => all.map((e) => parseFloat(e.style.left))")
    order = sorted(range(len(marks)), key=marks.__getitem__)
    assert order == sorted(range(len(marks)), key=fifth["means"].__getitem__)  # one axis: the larger, the further right
    page.keyboard.press("Tab")  # to the button that copies
    assert page.evaluate("() => document.activeElement.dataset.copy") == fifth["command"]
    assert lesson.errors() == []


def test_a_tier_that_was_run_in_part_says_so(lesson):
    page = lesson.page
    page.get_by_label("Tier", exact=True).select_option("gpu")
    page.wait_for_function("() => document.querySelector('.ex-reading').textContent.includes('10 were not run')")

    def shows():
        assert page.locator(".ex-cl .ex-v").all_inner_texts().count("–not run") == 10
        assert "make reproduce TIER=gpu" in page.locator(".ex-cd").inner_text()

    eventually(shows)
    page.get_by_label("Tier", exact=True).select_option("cpu")
    page.wait_for_function("() => !document.querySelector('.ex-reading').textContent.includes('10 were not run')")
    assert lesson.errors() == []


def test_the_panel_in_both_themes_and_widths(lesson, tmp_path):
    inks, folder = [], Path(os.environ.get("CLAE_SCREENSHOTS") or tmp_path)
    figure = lesson.page.locator(".jp-OutputArea-output .js-plotly-plot")

    def look():
        inks.append(lesson.page.evaluate("() => getComputedStyle(document.querySelector('.ex-cl .holds')).color"))
        for i, name in enumerate(("forest", "training-eps")):
            figure.nth(i).screenshot(path=folder / f"scorecard-{name}-{'dark' if len(inks) % 2 == 0 else 'light'}.png")
        lesson.page.locator(".ex").first.scroll_into_view_if_needed()

    lesson.execute("panel.claim = 3")
    shown(lesson, 3)
    lesson.pictures("scorecard", tmp_path, look=look)
    assert inks[0] != inks[1]  # verdicts follow the theme
    assert lesson.errors() == []
