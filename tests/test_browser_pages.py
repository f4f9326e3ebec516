"""Saved panels in a browser without a network: they work, load nothing, complain of nothing, and run no script of a name."""

import base64
import json
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from browser import eventually, says
from hostile_runs import hostile_runs

from explore import panels
from explore.results import to_pixels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nbformat

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
HOSTILE = "<img src=x onerror='window.ran=1'></script><script>window.ran=1</script>"
PIXELS = """(id) => { const c = document.querySelector(`canvas[data-id="${id}"]`), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return [...d].filter((_, i) => i % 4 < 3) }"""
IDS = {"clean": "clean", "adversary": "adv-p", "gaussian": "gauss-p", "uniform": "uniform-p", "sign": "sign-p"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of a tiny encoder, few images, and classes with hostile names."""
    return hostile_runs(tmp_path, monkeypatch, [f"run{i}{HOSTILE.replace('/', '')}" for i in range(2)], [HOSTILE])


@contextmanager
def opened(lab, path, ready="body[data-ready]", **context):
    """The page, opened from disk with the network off; at its end nothing may have been said or asked for."""
    own = lab.browser.new_context(offline=True, viewport={"width": 1040, "height": 1100}, **context)
    page, said = own.new_page(), []
    page.set_default_timeout(120_000)
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda asked: said.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
    try:
        page.goto(path.as_uri())
        page.wait_for_selector(ready)
        yield page
        assert said == [] and [frame.evaluate("window.ran ?? 0") for frame in page.frames] == [0] * len(page.frames)
    finally:
        own.close()


TRAINING = """import os
import explore as ex
os.environ.update(CLAE_RUNS={root!r}, CLAE_CACHE={root!r})
name, other = {names!r}
panel = ex.panels.Training(name, overlay=other)
panel"""
FIGURES = """from IPython.display import HTML, display
spent = ex.figures.gradients_spent([(name, 1, 4.0, 3.5, 4.5)], clean=2.0)
display(HTML(ex.figures.svg(spent)), ex.figures.live(spent))
print(panel.save(os.path.join(os.environ["CLAE_RUNS"], "page.html")))"""


def failed(run):
    """Make a run's folder that of a training in the background which ended with a hostile sentence."""
    for step in (1, 2, 3):
        row = {"step": step, "epoch": step / 3, "loss": 4.0 - step, "chance": 5.5, "knn": 0.1 * step, "seconds": step}
        run.append(row)
    run.set_status("new")
    (run.path / "train.log").write_text(f"error: There is no {HOSTILE}; make it, {HOSTILE}.")
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "process.json").write_text(json.dumps({"pid": 0, "began": 0, "before": status}))


def test_hostile_names_run_nothing_in_the_training_panel_its_page_and_figures(lab, runs, tmp_path):
    for run in runs:
        failed(run)
    notebook = lab.show(TRAINING.format(root=str(tmp_path / "runs"), names=[run.name for run in runs]), FIGURES)
    page, name, asked = notebook.page, runs[0].name, []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    told = page.locator(".ex-error[role=alert]")
    eventually(lambda: held(f"There is no {HOSTILE}. Make it, {HOSTILE}.", told.text_content()), 30)
    held(name, page.locator(".ex-foot .prov").first.text_content())
    held(name, "".join(page.locator(".ex-shown option").all_text_contents()).replace("\xa0", " "))
    page.wait_for_selector(".ex-train .js-plotly-plot .point")
    eventually(
        lambda: same([name in text for text in page.locator("svg .annotation").all_text_contents()].count(True), 1)
    )
    held(name, "".join(page.locator(".jp-RenderedHTML svg").all_text_contents()))
    point = page.locator(".ex-chart").last.locator(".point").first
    point.scroll_into_view_if_needed()

    def hovered():
        box = point.bounding_box()
        page.mouse.move(0, 0)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
        held(name, page.locator(".hoverlayer .hovertext").first.text_content(timeout=2000))

    eventually(hovered, 30)
    assert page.evaluate("window.ran ?? 0") == 0 and asked == []
    assert [error for error in notebook.errors() if not error.startswith("banner: There is no <img")] == []
    with opened(lab, tmp_path / "runs" / "page.html") as saved:
        says(saved.locator(".ex-error[role=alert]"), f"There is no {HOSTILE}")
        saved.wait_for_selector(".js-plotly-plot .point")
    panel = panels.BatchMates(runs[0], n=4)
    try:
        with opened(lab, panel.save(tmp_path / "mates.html")) as saved:
            held(HOSTILE, saved.locator("body").text_content())
    finally:
        panel.close()


def held(text, place):
    assert text in place


def test_the_saved_lab_draws_the_librarys_bytes_at_every_eps(lab, runs, tmp_path):
    panel = panels.Perturbation(runs[0])
    try:
        path = panel.save(tmp_path / "lab.html")
        results = {k: panel._outcome.study.at(k) for k in (0, 5, 16)}
        assert f"seed: {panel.seed}" in path.read_text() and path.stat().st_size < 3e6
    finally:
        panel.close()
    with opened(lab, path) as page:
        slider = page.locator(".ex-eps input")

        def shows(k, i):
            wanted, page_text = results[k], page.locator(".ex-numbers").inner_text()
            for kind, name in IDS.items():
                pixels = base64.b64encode(np.array(page.evaluate(PIXELS, name), np.uint8).tobytes())
                own = to_pixels(wanted.x if kind == "clean" else wanted.perturbed[kind])[i]
                assert pixels == base64.b64encode(own.tobytes()), f"{kind} at {k}/255"
            assert all(f"{float(loss):.2f}" in page_text for loss in wanted.loss[:, i])
            assert HOSTILE.lower() in page.locator(".ex-tri .name").inner_text().lower()

        slider.fill("5")
        eventually(lambda: shows(5, 0))
        slider.press("End")
        page.locator(".ex-th").nth(7).click()
        eventually(lambda: shows(16, 7))
        assert page.locator(".ex-eps .widget-readout").inner_text() == "16"
        slider.fill("0")
        eventually(lambda: shows(0, 7))
        assert "At ε = 0 nothing is added" in page.locator(".ex-pixels .ex-reading").inner_text()
        page.locator(".ex-gain select").select_option("× 40")
        eventually(lambda: page.locator(".ex-key").get_by_text("−3.2").wait_for())
        assert page.locator(".ex-row select").first.is_disabled()  # another run needs Python, and that is said
        assert "needs Python" in page.locator(".ex-row select").first.get_attribute("title")


def test_the_page_follows_the_readers_theme_and_its_own_switch(lab, runs, tmp_path):
    panel = panels.Perturbation(runs[0], attack="PGD", steps=1)
    try:
        path = panel.save(tmp_path / "lab.html")
        wanted = to_pixels(panel._outcome.study.at(3).x_adv)[0]
    finally:
        panel.close()
    with opened(lab, path, color_scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        assert dark == "rgb(17, 17, 17)" != page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator(".ex-eps input").fill("3")  # an attack of several steps comes as one frame an eps
        page.wait_for_selector(".ex-pixels[data-k='3']")
        assert page.evaluate(PIXELS, "adv-p") == wanted.flatten().tolist()


def test_the_saved_atlas_plays_and_shows_its_points(lab, runs, tmp_path):
    panel = panels.Atlas(runs[0], points=40, method="pca")
    try:
        path, study = panel.save(tmp_path / "atlas.html"), panel.study
        kept = panels.atlas.view.reading(panel.result, None, 16, [""])
    finally:
        panel.close()
    with opened(lab, path) as page:
        film = page.locator(".ex-fm")
        film.locator("[data-act=start]").click()
        page.wait_for_selector(".ex-fm[data-eps='0'][data-stand='yes']")
        film.locator("[data-act=play]").click()
        page.wait_for_selector(".ex-fm[data-eps='16'][data-stand='yes']")
        says(page.locator(".ex-fm-read"), kept.striptags().replace("\xa0", " "))
        page.mouse.move(*page.evaluate("document.querySelector('.ex-fm').film.at(7)"))
        eventually(lambda: page.locator(".ex-fm-tip img:visible").wait_for())
        i = int(page.locator(".ex-fm-tip").get_attribute("data-i"))
        page.mouse.down()
        page.mouse.up()
        then, now = study.neighbours(i, 16)
        wanted = [str(row) for row in (*then.tolist(), *now.tolist())]
        found = "(nodes) => nodes.map((node) => node.dataset.pick)"
        eventually(lambda: same(page.locator(".ex-fm-side .ex-nn button").evaluate_all(found), wanted))


def same(found, wanted):
    assert found == wanted


def test_the_other_saved_panels_open_what_they_hold(lab, runs, tmp_path):
    probe, noise, claims = panels.Probe(*runs), panels.NoiseOrAdversary(), panels.Scorecard()
    try:
        paths = [panel.save(tmp_path / f"{i}.html") for i, panel in enumerate((probe, noise, claims))]
        fitted, third = probe.result, claims.result.claim(3)
        point = next(p for (kind, k), p in noise._outcome.scene.points.items() if kind == "adversary" and k == 4)
    finally:
        for panel in (probe, noise, claims):
            panel.close()
    with opened(lab, paths[0]) as page:
        page.locator(".ex-of-shown").get_by_text("A", exact=True).click()
        page.locator(".ex-cm [data-pick='1,1']").click()
        says(page.locator(".ex-gallery"), f"{len(fitted.cell(1, 1, encoder='a')) or 'none'} of")
    with opened(lab, paths[1]) as page:
        page.wait_for_selector(".js-plotly-plot .main-svg")
        page.locator(".ex-film [data-pick='adversary,4']").click()
        says(page.locator(".ex-cards").first, f"{100 * point.mean:.1f} %")
        assert page.locator(".ex-chip input").first.is_disabled()
    with opened(lab, paths[2]) as page:
        page.locator("[data-pick='3']").click()
        says(page.locator(".ex-cards").first, third.title)


def test_a_site_works_from_disk_with_no_network(lab, tmp_path, monkeypatch):
    from explore.site import build

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    first = "# A *small* lesson\nOne question. Its formula is $x_i$: [next](other.ipynb)."
    code = ["import explore as ex\npanel = ex.panels.Scorecard()\npanel"]
    code += [f"name = {HOSTILE!r}\nprint(name)\nex.figures.gradients_spent([(name, 1, 4.0, 3.5, 4.5)], clean=2.0)"]
    code += ["import pandas\npandas.DataFrame({name: [name]})"]
    cells = [nbformat.v4.new_markdown_cell(first), *map(nbformat.v4.new_code_cell, code)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells), book := tmp_path / f"{HOSTILE.replace('/', '')} 100% #1.ipynb"
    )
    (page,) = build(tmp_path / "site", [book])
    assert (page.title, page.about) == ("A small lesson", "One question.") and page.size < 10e6
    assert 'href="other.html"' in page.file.read_text() and "$x_i$" not in page.file.read_text()
    with opened(lab, tmp_path / "site" / "index.html", ready="ol a") as site:
        site.locator("ol a").click()
        site.wait_for_selector(".chart .main-svg")
        assert site.locator(".chart").text_content().count(HOSTILE) == 1
        inner = site.frame_locator("iframe")
        inner.locator("[data-pick='5']").click()
        says(inner.locator(".ex-cards"), "Transfer")
        eventually(lambda: same(site.locator("iframe").evaluate("(f) => f.style.height.endsWith('px')"), True))
