"""The film in a real browser: frames a second while it plays and while the slider is dragged, key to paint, click and lasso.

Synthetic points (ten clusters, nine eps) on one map of 640 x 470 pixels in a window of 1280 x 800. A frame counts when the eps that was drawn is another than
in the frame before; a click and a lasso end when the kernel has it and the browser has shown it.
"""

import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from explore.errors import UserError

CELL = """import ipywidgets as w, numpy as np
from explore.panels.base import STYLE
from explore.panels.widgets.scatter import ScatterPlayer
r, n = np.random.default_rng(0), {n}
groups, middles = r.integers(0, 10, n), 4 * r.normal(size=(10, 2))
begin, end = (middles[g] + 0.8 * r.normal(size=(n, 2)) for g in (groups, r.integers(0, 10, n)))
xy = np.stack([begin + t * (end - begin) for t in np.linspace(0, 0.6, 9)])[None]
film = ScatterPlayer()
film.show(xy, range(0, 17, 2), key="bench", groups=groups, names=[str(c) for c in range(10)])
w.VBox([w.HTML(f"<style>{{STYLE}}</style>"), film], layout={{"width": "650px"}}).add_class("ex")"""
COUNT = """() => { const el = document.querySelector(".ex-fm"); window.drawn = []; let last = el.dataset.eps;
  const frame = () => { if (el.dataset.eps !== last) { last = el.dataset.eps; drawn.push(performance.now()); } requestAnimationFrame(frame); };
  requestAnimationFrame(frame); }"""
FPS = "() => { const d = window.drawn; return d.length > 1 ? 1000 * (d.length - 1) / (d.at(-1) - d[0]) : 0 }"
TIMED = """() => { const el = document.querySelector(".ex-fm"), after = new MessageChannel(); window.paints = []; let began = null, was;
  const state = () => [el.dataset.eps, el.dataset.picked, el.dataset.chosen].join();
  for (const event of ["keydown", "pointerup"]) document.addEventListener(event, () => { began = performance.now(); was = state(); }, true);
  after.port1.onmessage = () => { if (began !== null && state() !== was) { paints.push(performance.now() - began); began = null; } };
  const frame = () => { after.port2.postMessage(0); requestAnimationFrame(frame); };
  frame(); }"""


def run(quick: bool, device: str) -> dict[str, object]:
    """Frames a second and milliseconds; nothing is computed, so `device` does not matter."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import browser

    executable = browser.chromium()
    if executable is None:
        raise UserError("This benchmark needs a Chromium: apt-get install chromium, or set CLAE_CHROMIUM.")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lab = browser.Lab(Path(folder), executable)
        try:
            for n in (2000, 20000) if quick else (2000, 10000, 20000):
                found |= _measure(lab, n, rounds=3 if quick else 9)
        finally:
            lab.close()
    for name, value in found.items():
        print(f"{name:<22}{value:>8.1f}")
    return {**found, "machine": platform.machine(), "quick": quick}


def _measure(lab: Any, n: int, rounds: int) -> dict[str, float]:
    cell = nbformat.v4.new_code_cell(CELL.format(n=n))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = lab.folder / "film.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    with lab.open(path, height=800) as notebook:  # a laptop's window; software rendering pays for every pixel of it
        page, tag = notebook.page, f"{n // 1000}k"
        notebook.run_all()
        page.wait_for_selector(f".ex-fm[data-n='{n}']")
        page.wait_for_timeout(1000)
        page.evaluate(COUNT)
        found = {f"fps_{tag}": _play(page), f"drag_fps_{tag}": _drag(page)}
        page.evaluate(TIMED)
        found[f"key_ms_{tag}"] = _keys(page, 3 * rounds)
        if n == 20000:
            found[f"click_ms_{tag}"] = _asked(notebook, rounds, _click, "picked")
            found[f"lasso_ms_{tag}"] = _asked(notebook, rounds, _lasso, "lasso")
        assert notebook.errors() == [], notebook.errors()
        return found


def _play(page: Any) -> float:
    page.evaluate("() => { window.drawn = [] }")
    page.locator("[data-act=play]").click()
    page.wait_for_timeout(4000)
    page.locator("[data-act=play]").click()
    page.wait_for_selector(".ex-fm[data-stand='yes']")
    return page.evaluate(FPS)


def _drag(page: Any) -> float:
    box = page.locator(".ex-fm input[type=range]").bounding_box()
    y, left, wide = box["y"] + 10, box["x"] + 12, box["width"] - 24
    page.mouse.move(left, y)
    page.mouse.down()
    page.evaluate("() => { window.drawn = [] }")
    for i in range(90):
        page.mouse.move(left + wide * abs((2 * i / 90) % 2 - 1), y)
        page.wait_for_timeout(16)
    fps = page.evaluate(FPS)
    page.mouse.up()
    page.wait_for_selector(".ex-fm[data-stand='yes']")
    return fps


def _keys(page: Any, presses: int) -> float:
    page.locator(".ex-fm input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".ex-fm[data-stand='yes'][data-eps='0']")
    page.evaluate("() => { window.paints = [] }")
    for i in range(presses):
        page.keyboard.press("ArrowRight" if i % 12 < 6 else "ArrowLeft")
        page.wait_for_function(f"() => window.paints.length > {i}")
        page.wait_for_selector(".ex-fm[data-stand='yes']")
    return statistics.median(page.evaluate("() => window.paints"))


def _asked(notebook: Any, rounds: int, act: Any, trait: str) -> float:
    """Median of the time from the mouse button's release to the paint that shows what the kernel has been told."""
    page = notebook.page
    page.evaluate("() => { window.paints = [] }")
    for i in range(rounds):
        act(page, i)
        page.wait_for_function(f"() => window.paints.length > {i}")
    page.wait_for_timeout(300)
    said = notebook.execute(f"print(film.{trait} if isinstance(film.{trait}, int) else len(film.{trait}))")
    assert int(said) > 0, f"the kernel never heard of {trait}"
    return statistics.median(page.evaluate("() => window.paints"))


def _click(page: Any, i: int) -> None:
    page.mouse.click(*page.evaluate("(i) => document.querySelector('.ex-fm').film.at(i, 0)", 100 + 997 * i))


def _lasso(page: Any, i: int) -> None:
    box = page.locator(".ex-fm-map").bounding_box()
    middle, half = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), 150 + 8 * i
    page.mouse.move(middle[0] - half, middle[1] - half)
    page.mouse.down()
    for x, y in ((1, -1), (1, 1), (-1, 1), (-1, -0.9)):
        page.mouse.move(middle[0] + x * half, middle[1] + y * half, steps=8)
    page.mouse.up()
