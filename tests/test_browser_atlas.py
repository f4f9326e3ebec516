"""The embedding atlas in a real JupyterLab and a real browser: hover, click, lasso, play, two encoders, no WebGL, themes."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from browser import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
ONE = """import explore as ex
panel = ex.panels.Atlas(ex.open_run("demo/clae"), points=300)
panel"""
TWO = """import explore as ex
panel = ex.panels.Atlas(ex.open_run("demo/simclr"), ex.open_run("demo/clae"), points=300, method="pca")
panel"""
AT = "([i, m]) => document.querySelector('.ex-fm').film.at(i, m)"
SHOWN = """() => { const el = document.querySelector('.ex-fm'), r = el.querySelector('input[type=range]');
  return { ...el.dataset, slider: +r.value, number: el.querySelector('.ex-fm-num span').textContent } }"""
WATCH = """() => { const el = document.querySelector('.ex-fm'), r = el.querySelector('input[type=range]'); window.seen = []; window.odd = [];
  const frame = () => { const eps = +el.dataset.eps; if (eps !== seen.at(-1)) seen.push(eps);
    if (Math.abs(+r.value - eps) > 1e-6) odd.push([+r.value, eps]); requestAnimationFrame(frame); };
  requestAnimationFrame(frame); }"""
NO_WEBGL = """(() => { const get = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...more) { return String(kind).startsWith('webgl') ? null : get.call(this, kind, ...more) } })()"""


def opened(lab, folder: Path, code: str) -> Notebook:
    """A notebook with this one cell and a look at the result."""
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("panel.result.table.head()")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "atlas.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return lab.open(path)


def asked(notebook: Notebook, expression: str):
    """What the kernel says, once nothing is outstanding."""
    return json.loads(notebook.execute(f"import json; panel.wait(); print(json.dumps({expression}))"))


def standing(notebook: Notebook) -> dict:
    """The film's own account once it stands and shows what the kernel has."""
    key = asked(notebook, "panel.film.meta['key']")
    notebook.page.wait_for_selector(f".ex-fm[data-stand='yes'][data-key='{key}']")
    shown = notebook.page.evaluate(SHOWN)
    assert float(shown["eps"]) == shown["slider"] == pytest.approx(float(shown["number"]), abs=0.051)
    return shown


def told(notebook: Notebook, name: str, wanted) -> None:
    """Wait until the kernel knows."""
    for _ in range(60):
        if asked(notebook, f"panel.{name}") == wanted:
            return
        notebook.page.wait_for_timeout(50)
    raise AssertionError(f"panel.{name} is {asked(notebook, f'panel.{name}')}, not {wanted}")


@pytest.fixture
def panel(lab, tmp_path):
    with opened(lab, tmp_path, ONE) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(".ex-fm[data-key]")
        standing(notebook)
        yield notebook


def lonely(notebook: Notebook) -> int:
    """A point with the most room about it, so that the mouse can mean no other."""
    code = "import torch; p = panel.result.frame(panel.eps); d = torch.cdist(p, p).fill_diagonal_(9e9).amin(1); print(json.dumps(d.argsort(descending=True)[:5].tolist()))"
    return json.loads(notebook.execute(f"import json; panel.wait(); {code}"))[2]


def test_the_panel_in_both_themes_and_widths(lab, tmp_path):
    folder = Path(os.environ.get("CLAE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, code in (("atlas", ONE), ("atlas-two", TWO)):
        with opened(lab, tmp_path, code.replace("300", "1000")) as panel:
            panel.run_all()
            panel.page.wait_for_selector(".ex-fm[data-key]")
            standing(panel)
            panel.execute("panel.wait(); panel.trails = 'all'; panel.picked = int(panel.result.moved[4].argsort()[-3])")
            panel.execute("panel.lasso = (panel.result.labels == 5).nonzero().flatten().tolist()" if name == "atlas" else "pass")
            panel.page.wait_for_selector(".ex-nn img")
            for width in (1000, 800):
                panel.fit(".ex", width, 1700)
                for dark in (False, True):
                    panel.theme(dark)
                    standing(panel)
                    path = folder / f"{name}-{'dark' if dark else 'light'}{'' if width == 1000 else '-800'}.png"
                    box = panel.page.locator(".ex").bounding_box()
                    clip = {"x": box["x"] - 8, "y": box["y"] - 4, "width": width + 16, "height": box["height"] + 8}
                    panel.page.screenshot(path=path, clip=clip)
                    wide = panel.page.evaluate(
                        "() => { const e = document.querySelector('.ex'); return e.scrollWidth - e.clientWidth }"
                    )
                    assert wide <= 0, f"the panel is {wide} px too wide at {width}"
                    assert path.stat().st_size > 20_000
            assert panel.errors() == []
