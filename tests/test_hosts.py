"""What a panel and a chart give to a front end, without a browser: text, note, one message, no name of one host."""

import json
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest
import traitlets
from anywidget import AnyWidget

import explore as ex
from explore import figures
from explore.figures.widget import Widget
from explore.panels import Panel
from explore.panels.page import outputs

ROOT = Path(__file__).resolve().parent.parent


class Small(Panel):
    title, inputs = "Small", ("k",)
    k = traitlets.Int(3, help="A number")

    def compute(self, job, k):
        return k


@pytest.fixture
def shown(monkeypatch):
    """The bundles that a cell's output is given."""
    bundles = []
    monkeypatch.setattr(outputs, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles


def test_a_panels_output_is_the_live_view_with_its_title_and_a_still_picture(shown):
    panel = Small()
    try:
        panel._ipython_display_()  # no front end here, so it waits for the result
        view, picture = shown
        assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.view.model_id
        assert view["text/plain"] == "Small"
        assert panel._status.key in picture["text/html"] and "run this cell" in picture["text/html"]
        text = panel._repr_mimebundle_()["text/plain"]
        assert "pip install anywidget" in text and "<style>" not in text
    finally:
        panel.close()


def test_colab_is_told_once_to_take_widgets(monkeypatch):
    """anywidget does it when a widget of its kind is made; every panel has one."""
    told, output = [], types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: told.append("on")
    colab = types.ModuleType("google.colab")
    colab.output = output
    for name, module in (
        ("google", types.ModuleType("google")),
        ("google.colab", colab),
        ("google.colab.output", output),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    for _ in range(2):
        Small().close()
    assert told == ["on"]


def test_scripts_name_no_host_and_no_address():
    """They run in VS Code, Colab and offline: no JupyterLab object, no loader of a host, nothing from the network."""
    scripts = sorted((ROOT / "explore").rglob("*.js"))
    assert len(scripts) > 5
    for path in scripts:
        text = path.read_text()
        assert not re.search(r"jupyterapp|require\(|requirejs|window\.Jupyter|IPython", text), path.name
        assert not [url for url in re.findall(r"https?://[\w./-]+", text) if "www.w3.org" not in url], path.name


def test_every_script_hears_the_kernel_however_late_it_was_loaded():
    """`hear` is what stands between a busy page and a widget that never changes; tests/test_browser_hosts.py shows it at work."""
    scripts = [widget._esm for widget in Widget.__subclasses__() if "_esm" in vars(widget)]
    assert len(scripts) > 5 and {AnyWidget} == {*Widget.__bases__}
    assert all(
        "hear(model)" in text.split("async function hear(model)")[1] for text in map(str, scripts) if "render" in text
    )
    ours = [path for path in (ROOT / "explore").rglob("*.py") if "(anywidget.AnyWidget)" in path.read_text()]
    assert [path.name for path in ours] == ["widget.py"]


def test_a_chart_sends_its_whole_state_in_one_message(monkeypatch):
    clicked = []
    figure = figures.blank(300, 250).add_bar(x=[1, 2], y=[3, 4], customdata=["a", "b"])
    chart = figures.live(figures.blank(300, 200), picked=clicked.append)
    sent = []
    monkeypatch.setattr(chart, "send_state", lambda key: sent.append({key} if isinstance(key, str) else set(key)))
    figures.follow(chart, figure)
    assert sent == [{"data_json", "layout_json"}]
    state = chart.get_state()
    assert json.loads(state["data_json"])[0]["customdata"] == ["a", "b"] and chart.data[0].y == (3, 4)
    assert state["script"] == f"IPY_MODEL_{figures.live(figure).script.model_id}"  # one script for all charts
    chart.mark(shapes=[figures.upright(4)])
    assert json.loads(chart.layout_json)["shapes"][0]["x0"] == 4 and sent[1:] == [{"layout_json"}]
    chart._handle_custom_msg({"points": [[0, 1]]}, [])
    assert clicked == ["b"]
    assert "pip install anywidget" in chart._repr_mimebundle_()[0]["text/plain"]
    chart.script.close()
    assert figures.live(figure).script.comm is not None  # sent anew where somebody has closed it


def test_the_figures_that_lessons_show_are_charts():
    book = "".join(path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert "figures.live(" in book and isinstance(ex.figures.live(figures.blank(300, 200)), figures.Chart)


def test_each_lesson_begins_with_a_cell_that_speaks_only_where_the_library_is_missing(monkeypatch):
    """Colab, Kaggle, a hub: one sentence says what to install; where all is there, nothing happens."""
    cells = [json.loads(path.read_text())["cells"][1] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    code = "".join(cells[0]["source"])
    assert len(cells) > 10 and {(cell["id"], "".join(cell["source"])) for cell in cells} == {("set-up", code)}
    exec(code, {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"no CLAE Explorer.*%pip install .*\.whl\[notebooks\]"):
        exec(code, {})


def test_a_torch_that_is_there_is_left_alone():
    """Colab and Kaggle bring their own for their GPU: pip takes it, as no version above the least is excluded."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("torch", "torchvision", "numpy"):
        (own,) = [need for need in needs if re.split(r"\W", need)[0] == name]
        assert re.fullmatch(rf"{name}>=[\d.]+", own)


def test_devcontainer_and_binder_install_what_the_lessons_need():
    """Both install the checkout with the extra `all`, on a Python that the project takes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    binder = (ROOT / ".binder" / "requirements.txt").read_text().split()
    assert "all" in project["optional-dependencies"] and "-e '.[all]'" in container["postCreateCommand"]
    assert binder[-2:] == ["-e", ".[all]"]
    for python in (container["image"].split(":")[1], (ROOT / ".binder" / "runtime.txt").read_text().strip()[7:]):
        assert f"Programming Language :: Python :: {python}" in project["classifiers"]
