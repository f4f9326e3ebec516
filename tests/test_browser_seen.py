"""'What the model sees' in a real JupyterLab and a real browser: choose, slide, pick; the page's pixels are the kernel's."""

import json

import pytest
from browser import Notebook, eventually, says

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELL = """import explore as ex
panel = ex.panels.WhatItSees(ex.open_run("demo/clae"))
panel"""
ROWS = "() => new Set([...document.querySelectorAll('.ex-row > *')].filter((e) => e.offsetWidth).map((e) => e.offsetTop)).size"
LIBRARY = """
import json
r = panel.result
alpha = lambda part: (part.maps[0].abs() / r.scale(0) * 255).round().int().flatten().tolist()
gray = lambda part: (part.x[0, 0] * 255 + .5).floor().int().flatten().tolist()
print(json.dumps(dict(eps=r.eps * 255, index=int(r.index[0]), method=r.clean.method, target=r.provenance["target"], layer=r.clean.layer,
    picked=panel.picked, clean=gray(r.clean), perturbed=gray(r.perturbed), clean_map=alpha(r.clean), perturbed_map=alpha(r.perturbed),
    value=float(r.perturbed.value[0]), state=panel.state)))"""


@pytest.fixture
def seen(lab):
    """A notebook with the panel in it, run."""
    notebook = lab.show(CELL, "panel.result.table")
    notebook.page.wait_for_selector(".ex-see img")
    return notebook


def same(notebook: Notebook) -> dict:
    """Assert that the page comes to show the kernel's pictures and maps; returns the kernel's answer."""
    wanted = json.loads(notebook.execute(LIBRARY))
    assert wanted["state"] == "ready"

    def shows():
        assert f"ε = {round(wanted['eps'])}/255" in notebook.page.locator(".ex-see").inner_text().replace("\xa0", " ")
        shown = {img["id"]: img for img in notebook.images(".ex-see img")}
        for key in ("clean", "perturbed"):
            assert shown[key]["rgba"][:, 0].tolist() == wanted[key]
            assert shown[f"{key}-map"]["rgba"][:, 3].tolist() == wanted[f"{key}_map"]
        whole_multiples(notebook)

    eventually(shows)
    return wanted


def whole_multiples(notebook: Notebook) -> None:
    """Pictures are drawn at whole multiples of their pixels."""
    assert all(img["wide"] % img["natural"] == 0 for img in notebook.images(".ex-see img"))


def test_choose_slide_and_pick(seen):
    page = seen.page
    first = same(seen)
    assert (first["eps"], first["picked"], first["method"]) == (8, 0, "integrated_gradients")
    handle = page.locator(".ex-eps .noUi-handle")
    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('.ex-see').textContent.includes('ε = 4/255')")
    second = same(seen)
    assert (
        second["eps"] == 4 and second["clean_map"] != first["clean_map"] and second["perturbed"] != first["perturbed"]
    )
    assert seen.execute("print(panel.k)") == "4"
    page.locator(".ex-see-strip [data-pick='5']").click()
    seen.execute("panel.wait()")
    third = same(seen)
    assert third["picked"] == 5 and third["index"] != first["index"] and third["clean"] != first["clean"]
    page.wait_for_selector(".ex-see-strip .on[data-pick='5']")
    page.keyboard.press("ArrowRight")  # the strip is one stop: arrows walk, Enter picks
    page.keyboard.press("Enter")
    seen.execute("panel.wait()")
    assert same(seen)["picked"] == 6
    page.get_by_label("By", exact=True).select_option("GradCAM")
    seen.execute("panel.wait()")
    page.get_by_label("Layer", exact=True).select_option("layer2, 8 px")
    seen.execute("panel.wait()")
    fourth = same(seen)
    assert (fourth["method"], fourth["layer"]) == ("gradcam", "trunk.layer2")
    page.get_by_label("Explain", exact=True).select_option("probe’s logit")
    seen.execute("panel.wait(300)")
    page.wait_for_function("() => document.querySelector('.ex .ex-reading').textContent.includes('logit')")
    assert same(seen)["target"] == "logit"
    says(page.locator(".ex-foot"), "randomised weights: ρ")
    assert seen.errors() == []


def test_a_fault_becomes_a_banner(seen):
    seen.execute("panel.shelf.split = None")
    seen.page.get_by_label("Images", exact=True).select_option("emoji · test")
    banner = seen.page.locator(".ex-error")
    banner.wait_for(state="visible")
    says(banner, "stopped")
    assert "Traceback" not in banner.inner_text()
    seen.execute("del panel.shelf.split")
    seen.page.get_by_label("Images", exact=True).select_option("fashion · test")
    banner.wait_for(state="hidden")
    seen.execute("panel.wait()")
    same(seen)
    assert seen.errors() == []


def test_the_panel_in_both_themes_and_widths(seen, tmp_path):
    inks = []

    def look():
        assert seen.page.evaluate(ROWS) == 1
        seen.execute("panel.method = 'GradCAM'; panel.wait()")  # with the layer's menu
        seen.page.wait_for_function("() => document.querySelector('.ex-layer').offsetWidth > 0")
        assert seen.page.evaluate(ROWS) == 1
        seen.execute("panel.method = 'integrated gradients'; panel.wait()")
        eventually(lambda: whole_multiples(seen))
        inks.append(seen.page.evaluate("() => getComputedStyle(document.querySelector('.ex .ex-reading')).color"))

    seen.pictures("what-it-sees", tmp_path, look=look)
    assert inks[0] != inks[1]
    assert seen.errors() == []
