"""Saved panels, still pictures and the site, without a browser."""

import base64
import dataclasses
import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

import explore as ex
from explore import figures, panels
from explore.panels.page.content import Packed
from explore.site.formulas import set_formulas

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nbformat


@pytest.fixture(scope="module")
def claims():
    panel = panels.Scorecard()
    panel.wait()
    yield panel
    panel.close()


def test_what_cannot_be_saved_is_refused_in_a_sentence(claims, tmp_path):
    with pytest.raises(ex.UserError, match=r"ends in \.html"):
        claims.save(tmp_path / "claims.pdf")
    with pytest.raises(ex.UserError, match="no folder"):
        claims.save(tmp_path / "none" / "claims.html")
    with pytest.raises(ex.UserError, match="no chart"):
        claims.figure()
    empty = panels.Perturbation()
    try:
        with pytest.raises(ex.UserError, match="no result yet"):
            empty.save(tmp_path / "lab.html")
    finally:
        empty.close()


def test_a_saved_page_names_nothing_outside_itself(claims, tmp_path):
    text = claims.save(tmp_path / "claims.html").read_text()
    asked = re.findall(r'(?:src|href)="([^"]*)"|url\("?([^")]*)', text)
    assert all(a.startswith("data:") or b.startswith("data:") for a, b in asked)
    assert "default-src 'none'" in text and "fetch(" not in text
    assert claims.result.claim(1).title in text  # what is on the screen is there without a script too


def test_a_still_picture_has_the_panels_words_and_no_script(claims):
    text = claims.still()
    assert "<script" not in text and "run this cell" in text
    assert all(claim.title in text for claim in claims.result.claims)


def test_tables_hold_what_python_draws_for_every_value(claims):
    packed = Packed(claims, claims.content())
    (table,) = (packed._rows(table) for table in claims.content().tables)
    assert table["axes"] == {"claim": list(range(1, len(claims.result.claims) + 1))}
    shown = []
    for row, number in zip(table["rows"], table["axes"]["claim"], strict=True):
        claims.claim = number
        shown.append(row == [claims.detail.html])
    assert all(shown)


def test_a_call_runs_in_the_workers_thread_and_its_error_comes_back(claims):
    assert claims.within(threading.current_thread) is not threading.current_thread()

    def fails():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        claims.within(fails)
    assert claims.within(lambda: 3) == 3


def test_a_figure_is_drawn_where_its_numbers_are(tmp_path):
    rows = [("FGSM", 1, 4.0, 3.5, 4.5), ("FGSM", 3, 6.0, 5.5, 6.5)]
    figure = figures.gradients_spent(rows, clean=2.0, width=640, height=280)
    path = figures.write_image(figure, tmp_path / "loss.svg")
    root = ET.fromstring(path.read_text())
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in root.iter(space + "text")]
    assert {"FGSM", "clean", "contrastive loss, nats", "gradients taken for an image"} <= set(texts)
    places = [node.get("transform") for node in root.iter(space + "path") if node.get("transform")]
    xs, ys = zip(*(map(float, re.findall(r"[-\d.]+", place)[:2]) for place in places), strict=True)
    left, right, low, high = 56, 640 - 128, 0.5, 3.5  # the plot's sides, and the axis
    assert xs == pytest.approx([left + (right - left) * (n - low) / (high - low) for n in (1, 3)], abs=0.01)
    assert ys[1] < ys[0]  # the greater loss stands higher
    with pytest.raises(ex.UserError, match="one of these endings"):
        figures.write_image(figure, "loss.jpg")


def test_a_png_without_kaleido_or_chrome_says_what_to_do(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ValueError("Image export requires the kaleido package")

    monkeypatch.setattr(go.Figure, "write_image", missing)
    with pytest.raises(ex.UserError, match=r"write a \.svg, which needs neither"):
        figures.write_image(go.Figure(go.Scatter(x=[1], y=[2])), tmp_path / "loss.png")


def test_axes_of_a_figure(tmp_path):
    figure = go.Figure(go.Scatter(x=[1, 10, 100], y=["a", "b", "a"], mode="markers"))
    figure.update_layout(width=640, height=280, margin={"l": 0, "r": 40, "t": 0, "b": 80})
    figure.update_xaxes(type="log", range=[0, 2], tickvals=[1, 100], ticktext=["one", "hundred"])
    text = figures.svg(figure)
    assert [float(x) for x in re.findall(r"translate\(([\d.]+) ", text)] == pytest.approx([0, 300, 600])
    assert {"one", "hundred", "a", "b"} <= set(re.findall(r">([^<>]+)</text>", text))
    hostile = go.Figure(go.Scatter(x=[1], y=[2], text=["<script>x</script>&"], mode="text"))
    assert "<script" not in figures.svg(hostile)
    named = figures.svg(figures.gradients_spent([("<img src=x>", 1, 4.0, 3.5, 4.5)], clean=2.0))
    assert "<img" not in named and "&lt;img src=x&gt;" in named  # a name is text
    assert not figures.drawable(go.Figure(go.Heatmap(z=[[1]])))
    assert not figures.drawable(go.Figure(go.Bar(x=[1], y=[2])))


def test_pictures_in_a_figure_are_drawn_without_a_browser():
    """An image and a heatmap: their pixels and colours, at their places, the first row on top where the axis says so."""
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    figure = figures.blank(400, 100, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    figure.add_trace(go.Image(z=rgb)).add_trace(go.Image(z=rgb, yaxis="y3"))
    own = {"colorscale": [[0, "#000000"], [1, "rgba(200,100,0,0.2)"]], "zmin": -1, "zmax": 1, "showscale": False}
    figure.add_trace(go.Heatmap(z=np.array([[-1.0, 0.0, 5.0]]), xaxis="x2", yaxis="y2", **own))
    figure.update_layout(
        xaxis={"domain": [0, 0.5], "range": [-0.5, 2.5]}, yaxis={"range": [1.5, -0.5]}, yaxis3={"range": [-0.5, 1.5]}
    )
    figure.update_layout(
        xaxis2={"domain": [0.5, 1], "range": [-0.5, 2.5], "anchor": "y2"}, yaxis2={"range": [-0.5, 0.5]}
    )
    assert figures.drawable(figure)
    text = figures.svg(figure)
    places = [tuple(map(float, each)) for each in re.findall(r'<image x="(\S+)" y="(\S+)" width="(\S+)" height', text)]
    assert places == [(0, 0, 200), (0, 0, 200), (200, 0, 200)]
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in re.findall(r'base64,([^"]+)', text)]
    assert (drawn[0] == rgb).all() and (drawn[1] == rgb[::-1]).all()
    assert drawn[2].tolist() == [[[0, 0, 0, 255], [100, 50, 0, 153], [200, 100, 0, 51]]]


def test_a_figure_of_ours_keeps_its_picture_where_nbconvert_drops_plotlys(monkeypatch):
    """Shown as it is, not by `figures.live`: the picture is in the page that nbconvert writes."""
    from nbconvert import HTMLExporter

    shown = []
    monkeypatch.setattr(figures.chart, "display", lambda bundle, **_: shown.append(bundle))
    monkeypatch.setattr(figures.base, "get_ipython", lambda: SimpleNamespace(kernel=1))
    figures.gradients_spent([("FGSM", 1, 4.2, 4.1, 4.3)], clean=3.9)._ipython_display_()
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in shown]
    cell = nbformat.v4.new_code_cell("figure", outputs=outputs)
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert re.search(r'<div class="ex-still-\w+">.*<svg .*>FGSM</text>', page, re.DOTALL)
    assert "run this cell" in page


def test_formulas_are_set_and_code_is_left_alone():
    text = set_formulas("cost `$5`, $x_i$ and\n```\n$y$\n```\n$$a*b$$")
    assert "`$5`" in text and "$y$" in text and "$x_i$" not in text and "$$" not in text
    assert "_" not in text and "*" not in text.replace("$y$", "")  # nothing that Markdown would read


def test_a_site_refuses_what_it_would_overwrite(tmp_path):
    from explore.site import build

    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ex.UserError, match="holds other files"):
        build(tmp_path)
    with pytest.raises(ex.UserError, match=r"There is no notebook 'none\.ipynb'"):
        build(tmp_path / "site", ["none.ipynb"])


def test_every_control_of_a_page_is_bound_or_says_why(claims):
    body = Packed(claims, claims.content()).body
    for field in re.findall(r"<(?:select|input)[^>]*>", body):
        assert "data-control" in field or ("disabled" in field and "needs Python" in field)
    assert dataclasses.is_dataclass(claims.content())


class Slow(panels.Scorecard):
    """A scorecard that is computed when `go` is set."""

    go = threading.Event()

    def compute(self, job, **inputs):
        assert self.go.wait(60)
        return super().compute(job, **inputs)


@pytest.mark.parametrize("front_end", [False, True])
def test_a_cells_output_is_complete_without_a_front_end_and_completed_with_one(front_end, monkeypatch):
    """Executed by a tool, a cell waits for its panel; beside a page, it does not, and the picture follows."""
    from explore.panels.page import outputs

    shown, updated = [], threading.Event()

    class Handle:
        def update(self, data, raw):
            shown[-1] = data["text/html"]
            updated.set()

    def display(data, **_):
        shown.append(data.get("text/html", data))
        return Handle()

    monkeypatch.setattr(outputs, "display", display)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    (monkeypatch.setenv if front_end else monkeypatch.delenv)(
        "JPY_SESSION_NAME", *(["a.ipynb"] if front_end else [False])
    )
    Slow.go.clear()
    panel = Slow()
    try:
        if front_end:
            outputs.show(panel)
            assert shown[-1] == ""
        else:
            threading.Timer(0.1, Slow.go.set).start()
            outputs.show(panel)
        Slow.go.set()
        assert not front_end or updated.wait(60)
        assert "application/vnd.jupyter.widget-view+json" in shown[0]
        assert len(shown) == 2 and panel.result.claim(2).title in shown[1] and "computing" not in shown[1]
        assert f"ex-still-{panel._status.key}" in shown[1]  # by this name the live widget hides the picture
        assert not re.search(r'class="(?:[^"]* )?ex-(?!still)', shown[1])  # and shares no class with it
    finally:
        panel.close()
