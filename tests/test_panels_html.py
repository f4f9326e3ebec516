"""Names of runs, data sets, classes and files never become part of a panel's HTML; no view writes a tag by an f-string."""

import ast
import dataclasses
import gc
import time
import weakref
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hostile_runs import hostile_runs

import explore as ex
from explore import panels
from explore.datasets import from_arrays
from explore.experiments.jobs import BackgroundTraining, TrainingProgress
from explore.figures.chart import _shared_script
from explore.panels import html
from explore.panels.atlas import cache
from explore.panels.noise import cards
from explore.results import Check, Sweep

HOSTILE = "<img src=x onerror=alert(1)>"
CLOSING = '"><script>alert(2)</script>'
ROOMS = (
    "attribution",
    "atlas",
    "batch_mates",
    "noise",
    "perturbation",
    "probe",
    "scorecard",
    "training",
    "two_views",
    "upload",
)


class Elements(HTMLParser):
    """Every element with its attributes; text and the values of attributes are kept as one string."""

    def __init__(self, source: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(str(source))
        self.close()

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))
        self.text += " ".join(value or "" for _, value in attributes)

    def handle_data(self, data):
        self.text += data


def shown(panel) -> list[str]:
    """All HTML of a panel's widgets."""
    found, todo = [], [panel.view]
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        for name in ("value", "html", "reading", "heads"):
            value = getattr(widget, name, "") if name != "value" or isinstance(widget, panels.base.w.HTML) else ""
            found += list(value) if isinstance(value, (list, tuple)) else [value]
    return [text for text in found if text and not text.startswith("<style")]


def check(source: str) -> str:
    """The text of some HTML, in which no hostile name became an element or an attribute."""
    page = Elements(source)
    for name, attributes in page.found:
        assert name != "script" and not any(key.startswith("on") for key in attributes), source[:300]
        assert name != "img" or attributes.get("src", "").startswith("data:image/png;base64,"), source[:300]
    return page.text


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs with hostile names; every data set has hostile names of classes."""
    monkeypatch.setattr(cache.Stages, "give_probe", lambda *_: None)
    names = (HOSTILE, "a" + CLOSING.replace("/", ""))
    return hostile_runs(tmp_path, monkeypatch, names, [HOSTILE, CLOSING], test=150)


MAKERS = {
    "perturbation": lambda a, b: panels.Perturbation(a),
    "attribution": lambda a, b: panels.WhatItSees(a, method="saliency"),
    "atlas": lambda a, b: panels.Atlas(a, points=60, method="pca"),
    "two atlases": lambda a, b: panels.Atlas(a, b, points=60, method="pca"),
    "probe": lambda a, b: panels.Probe(a, b),
    "batch mates": lambda a, b: panels.BatchMates(a, n=4),
    "two views": lambda a, b: panels.TwoViews(a, n=8),
}


@pytest.mark.parametrize("which", MAKERS)
def test_hostile_names_stay_text_in_every_panel(which, runs):
    panel = MAKERS[which](*runs)
    try:
        assert panel.wait(120) and panel.error is None, panel.error
        if "atlas" in which:
            panel.picked, panel.lasso = 3, [1, 2, 3, 5]
        text = "".join(check(source) for source in shown(panel))
        assert HOSTILE.lower() in text.lower() and "onerror" in text  # the names are on the page, as text
        panel.stop()
        panel._settle("stale", panel._stale_tag())
        assert HOSTILE in check(panel._state.value)
        with pytest.raises(ValueError):
            panel.images = HOSTILE
        panel._show_error(ex.UserError(f"There is no file {CLOSING}; choose another than {HOSTILE}."))
        assert CLOSING in check(panel._message.value) and CLOSING in check(panel._trace.value)
    finally:
        panel.close()


def test_hostile_texts_stay_text_in_the_scorecard():
    panel = panels.Scorecard()
    try:
        card = panel.result
        claims = tuple(
            dataclasses.replace(c, title=HOSTILE, says=CLOSING, source=HOSTILE, why=CLOSING, command=f"--a {HOSTILE}")
            for c in card.claims
        )
        panel.draw(dataclasses.replace(card, claims=claims, provenance={"commit": HOSTILE}))
        text = "".join(check(source) for source in shown(panel))
        assert HOSTILE in text and CLOSING in text
    finally:
        panel.close()


def hostile_sweep():
    """Trainings whose network, runs, devices and origin have hostile names."""
    about = {"dataset": "fashion", "arch": CLOSING, "match": "plain", "n": 100, "device": CLOSING, "metric": "probe"}
    about |= {"epochs": 4, "cost": 36, "seconds": 9, "value": 0.8, "low": 0.7, "high": 0.9}
    rows = [
        {**about, "method": method, "attack": attack, "k": k, "eps": k / 255, "seed": 0, "cell": attack, "run": run}
        for method, attack, k, run in (("SimCLR", "none", 0, HOSTILE), ("CLAE (fgsm)", "fgsm", 8, CLOSING))
    ]
    return Sweep.of(rows, {"command": HOSTILE, "commit": CLOSING})


class Failed(BackgroundTraining):
    """A background job with a hostile name that ended by a hostile error."""

    def __init__(self):
        self.name, self.study = CLOSING, None

    @property
    def state(self):
        return {"state": "failed", "error": HOSTILE}

    def progress(self):
        return TrainingProgress(1, 1, 1, 1, 0.5, None)


@pytest.mark.parametrize("which", ["NoiseOrAdversary", "FourAttacks"])
def test_hostile_names_stay_text_in_the_noise_panel(which, runs, monkeypatch):
    panel = getattr(panels, which)(hostile_sweep(), runs[0])
    try:
        assert panel.wait(120) and panel.error is None, panel.error
        assert HOSTILE in panel._outcome.film.names[0] or CLOSING in panel._outcome.film.names[0]
        text = "".join(check(source) for source in shown(panel))
        assert text.count(HOSTILE) > 3 and CLOSING in text and "test image, at each ε above" in text
        for trace in panel._chart.data:
            for said in trace.hovertext or ():
                check(said)
        kind = panel._outcome.scene.kinds["adversary"]
        job = Failed()
        assert HOSTILE in check(cards.under_way(kind, 8, job)) and CLOSING in check(cards.under_way(kind, 8, job))
        missing = cards.missing(kind, 8, act=CLOSING, price=HOSTILE)
        assert HOSTILE in check(missing) and CLOSING in check(missing)
        with pytest.raises(ValueError, match="There is no run"):
            panel.encoder = "no " + HOSTILE
        panel._show_error(ex.UserError(f"There is no file {CLOSING}; choose another than {HOSTILE}."))
        assert CLOSING in check(panel._message.value) and CLOSING in check(panel._trace.value)
    finally:
        panel.close()


def test_hostile_names_stay_text_in_the_panel_of_own_images():
    data = from_arrays(torch.rand(8, 3, 8, 8), [0, 1] * 4, classes=[HOSTILE, CLOSING], name=HOSTILE)
    data.warnings.append(CLOSING)
    data.provenance["skipped"] = [HOSTILE]
    panel = panels.Upload(data)
    try:
        assert panel.wait(120) and panel.error is None, panel.error
        text = "".join(check(source) for source in shown(panel))
        assert text.count(HOSTILE) > 3 and text.count(CLOSING) > 3
        panel.images = CLOSING
        assert panel.wait(120) and CLOSING in check(panel._message.value)
    finally:
        panel.close()


def test_the_kit_escapes_what_is_not_markup():
    assert html.tag.div(HOSTILE, title=CLOSING).count("<") == 2
    assert html.fill("<b>{}</b>", HOSTILE) == f"<b>{html.escape(HOSTILE)}</b>"
    assert html.join("a<", html.tag.b("c"), [html.tag.i(), None]) == "a&lt;<b>c</b><i></i>"
    assert (
        html.tag.td(0, class_="", hidden=False, data_row=True, data_pick="1,2") == '<td data-row data-pick="1,2">0</td>'
    )
    assert html.tag.img(src="x") == '<img src="x">' and html.tag.path(d="M0") == '<path d="M0"/>'
    check(html.marks([Check(HOSTILE, False, CLOSING), Check(CLOSING, True, HOSTILE)]))


def test_no_view_writes_a_tag_by_an_f_string():
    folder = Path(panels.__file__).parent
    for path in [*folder.glob("*.py"), *(p for room in ROOMS for p in (folder / room).glob("*.py"))]:
        if path.name == "html.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                assert "</" not in text or "<style>" in text, f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Markup", "fill"):
                assert not isinstance(node.args[0], ast.JoinedStr), f"{path}:{node.lineno}: a template is a literal"


INTERACTIVE = tuple(
    getattr(panels.base.w, name)
    for name in (
        "Dropdown",
        "ToggleButtons",
        "BoundedIntText",
        "IntSlider",
        "FloatSlider",
        "FloatRangeSlider",
        "SelectionSlider",
        "Checkbox",
        "Button",
        "FileUpload",
        "Text",
        "BoundedFloatText",
    )
)


@pytest.mark.parametrize(
    "which",
    [
        "Perturbation",
        "WhatItSees",
        "Atlas",
        "NoiseOrAdversary",
        "FourAttacks",
        "Probe",
        "Scorecard",
        "Training",
        "TwoViews",
        "BatchMates",
        "Upload",
    ],
)
def test_every_control_has_a_tooltip(which, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    panel = getattr(panels, which)()
    try:
        todo, found = list(panel.view.children), 0
        while todo:
            widget = todo.pop()
            if widget in (panel._body, panel._banner, panel._empty):
                continue
            todo += getattr(widget, "children", ())
            if isinstance(widget, INTERACTIVE):
                found += 1
                assert widget.tooltip and widget.tooltip[0].isupper(), f"{which}: {widget.description} has no tooltip"
        assert found > 2
    finally:
        panel.close()


OWN = {"own images": lambda a, b: panels.Upload("emoji")}


@pytest.mark.parametrize("which", [*MAKERS, *OWN])
def test_a_closed_panel_is_collected_and_leaves_no_widget(which, runs):
    from ipywidgets.widgets import widget

    _shared_script()  # of all charts, kept while the kernel lives
    before = set(widget._instances)
    panel = (MAKERS | OWN)[which](*runs)
    assert panel.wait(120) and panel.error is None, panel.error
    gone = weakref.ref(panel)
    panel.close()
    del panel
    end = time.monotonic() + 60  # work done ahead of the slider is finished first
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert gone() is None and set(widget._instances) == before


def test_the_foot_says_what_was_found_about_an_encoder_from_elsewhere(runs):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    own = ex.run_of(network, "emoji", name=CLOSING, mean=(0.5,) * 3, std=(0.25,) * 3)
    panel = panels.TwoViews(own, n=8)
    try:
        assert panel.wait(120) and panel.error is None, panel.error
        text = check(panel._elsewhere.value)
        assert f"{CLOSING}: images of 32 x 32 pixels (found by trying)" in text
        assert "std (0.25, 0.25, 0.25) (given)" in text and "maps of 30 x 30 places, averaged" in text
    finally:
        panel.close()
    panel = panels.TwoViews(runs[0], n=8)
    try:
        assert panel.wait(120) and panel._elsewhere.value == ""
    finally:
        panel.close()
