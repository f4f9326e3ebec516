"""The notebooks and the panels in a real JupyterLab and a real browser."""

import base64
import json

import numpy as np
import pytest
from browser import EXECUTE, ROOT, Notebook, eventually, says
from lesson_numbers import CHARTS, disagreements

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
LAB = """import explore as ex
run = ex.open_run("demo/clae")
panel = ex.panels.Perturbation(run)   # move epsilon; the next cell reads what you chose
panel"""
CANVAS = """(ids) => ids.map((id) => {
  const c = document.querySelector(`canvas[data-id="${id}"]`), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return [...d].filter((_, i) => i % 4 < 3) })"""
LIBRARY = """
import base64, json
from explore.results import to_pixels
result, i = panel.result, panel.picked
own = ex.Attack.fgsm(panel.k / 255)(result.x, ex.contrast(run.encoder(), panel._outcome.study.reference, temperature=run.config.temperature))
shown = dict(k=panel.k, eps=result.eps * 255, image=int(result.index[i]), loss=float(result.loss[1, i]), attack=result.attack)
for kind in ("clean", "adversary", "gaussian", "uniform", "sign"):
    shown[kind] = base64.b64encode(result.pixels(kind)[i].tobytes()).decode()
shown["fgsm"] = base64.b64encode(to_pixels(own)[i].tobytes()).decode()
print(json.dumps(shown))"""
LESSONS = [
    path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem != "11_scorecard"
]  # it has a file
IDS = {"clean": "clean", "adversary": "adv-p", "gaussian": "gauss-p", "uniform": "uniform-p", "sign": "sign-p"}


@pytest.fixture
def panel(lab):
    """A notebook with the perturbation lab in it, run."""
    notebook = lab.show(LAB, "panel.result.table.head()")
    notebook.page.wait_for_selector(".ex-t")
    return notebook


def on_screen(notebook: Notebook) -> dict[str, np.ndarray]:
    """Bytes of the large canvases, by kind."""
    data = notebook.page.evaluate(CANVAS, list(IDS.values()))
    return {kind: np.array(row, np.uint8) for kind, row in zip(IDS, data, strict=True)}


def in_library(notebook: Notebook) -> dict:
    """What the library says for the panel's state."""
    return json.loads(notebook.execute(LIBRARY))


def same(notebook: Notebook, attack: str = "fgsm") -> dict:
    """Assert that the screen comes to show the library's bytes for the panel's state; returns the library's answer."""
    wanted = in_library(notebook)
    assert wanted["attack"] == attack and wanted["eps"] == pytest.approx(wanted["k"])
    assert attack != "fgsm" or wanted["adversary"] == wanted["fgsm"]

    def shows():
        for kind, pixels in on_screen(notebook).items():
            assert base64.b64encode(pixels.tobytes()).decode() == wanted[kind], f"{kind} at {wanted['k']}/255"

    eventually(shows)
    return wanted


def at(notebook: Notebook, k: int) -> None:
    """Wait until the picture of k is on the screen."""
    notebook.page.wait_for_selector(f".ex-pixels[data-k='{k}']:not(.waiting)")


def test_the_slider_by_key_drag_and_readout(panel):
    page, handle = panel.page, panel.page.locator(".ex-eps .noUi-handle")
    readout = page.locator(".ex-eps .widget-readout")
    at(panel, 8)
    same(panel)
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    at(panel, 3)
    says(readout, "3")
    assert readout.inner_text() == "3" and handle.get_attribute("aria-valuetext") == "3"
    same(panel)
    box, track = handle.bounding_box(), page.locator(".ex-eps .noUi-target").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] + 5, box["y"] + 5, steps=12)
    page.mouse.up()
    at(panel, 16)
    same(panel)
    readout.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("0")
    page.keyboard.press("Enter")
    at(panel, 0)
    wanted = same(panel)
    assert wanted["adversary"] == wanted["clean"]
    says(page.locator(".ex-reading").first, "nothing is added")
    assert panel.errors() == []


def test_the_kernel_is_asked_once_it_has_heard_all_that_was_done(panel, tmp_path):
    """Of the harness: eight keys while a callback waits, of which ipywidgets sends the first and, when that is done, the last."""
    gate = tmp_path / "open"
    panel.execute(
        f"import time, pathlib; gate = pathlib.Path({str(gate)!r})\n"
        "def wait(_):\n    while not gate.exists(): time.sleep(0.02)\n"
        "panel.observe(wait, 'k')"
    )
    panel.page.locator(".ex-eps .noUi-handle").focus()
    for _ in range(8):
        panel.page.keyboard.press("ArrowRight")
    panel.page.evaluate(f"(code) => {{ window.early = ({EXECUTE})(code) }}", "print(panel.k)")  # asked at once
    gate.touch()
    assert panel.page.evaluate("() => window.early")["text"].strip() != "16"
    assert panel.execute("print(panel.k)") == "16"


def test_another_image_another_attack_another_length(panel):
    page = panel.page
    first = in_library(panel)
    page.locator(".ex-th").nth(5).click()
    page.wait_for_function("() => document.querySelectorAll('.ex-th')[5].getAttribute('aria-selected') === 'true'")
    second = same(panel)
    assert second["image"] != first["image"]
    says(page.locator(".ex-reading").first, f"{second['loss']:.2f}")
    page.keyboard.press("ArrowRight")  # the strip is one stop; arrows move, Enter picks
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.ex-th')[6].getAttribute('aria-selected') === 'true'")
    assert same(panel)["image"] not in (first["image"], second["image"])
    page.get_by_role("button", name="L2").click()
    panel.execute("panel.wait(); assert panel.result.match == 'l2'")
    same(panel)
    page.get_by_label("Attack", exact=True).select_option("PGD")
    panel.execute("panel.wait(); assert panel.result.attack == 'pgd'")
    same(panel, "pgd")
    page.locator(".ex-eps .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    at(panel, 9)
    assert same(panel, "pgd")["k"] == 9
    page.get_by_label("later images").click()
    page.wait_for_function("() => document.querySelector('.ex-page .ex-k').textContent.startsWith('33–64')")
    panel.execute("panel.wait()")
    same(panel, "pgd")
    assert panel.errors() == []


def test_a_fault_in_a_callback_becomes_a_banner(panel):
    panel.execute(
        "panel.shelf._encoders.clear(); panel.shelf.encoder = lambda name: 1 / 0; panel.seed = 3; panel.wait()"
    )
    banner = panel.page.locator(".ex-error")
    banner.wait_for(state="visible")
    assert "ZeroDivisionError" in banner.inner_text() and "Traceback" not in banner.inner_text()
    assert any(text.startswith("banner: ") for text in panel.errors())
    panel.page.get_by_role("button", name="Show details").click()
    panel.page.get_by_text("Traceback").wait_for()
    says(panel.page.locator(".ex-state"), "shows demo/clae")


def test_the_panel_in_both_themes_and_widths(panel, tmp_path):
    panel.execute("import time\nwhile panel._complete is not panel._outcome: time.sleep(0.1)")
    panel.pictures("perturbation-lab", tmp_path)
    assert panel.errors() == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_notebooks_run_without_an_error(lab, path):
    notebook = lab.lesson(path)
    notebook.ran_well()
    assert disagreements(path.stem, notebook.cells(), notebook.page.evaluate(CHARTS)) == []
