"""The training panel in a real JupyterLab and a real browser: start, see a curve, stop, resume, a new kernel finds the run."""

import json
import re

import numpy as np
import pytest
from browser import eventually, says

from explore.experiments.background import running

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CELLS = """import os, explore as ex
os.environ["CLAE_RUNS"] = {runs!r}
tiny = ex.TrainConfig(dataset="emoji", image_size=16, width=4, batch_size=64, train_images=256, knn_images=100, warmup_epochs=0)
panel = ex.panels.Training(base=tiny.with_(epochs=2000))
panel"""
NEW = """from explore.experiments import background
panel.close()
kept = background._processes.copy()  # a new kernel has started no process
background._processes.clear()"""
DRAWN = """() => { const p = document.querySelector('.ex-train .js-plotly-plot');
  return (p?._fullData ?? []).filter((t) => t.x?.length > 1).map((t) => Math.max(...t.x)) }"""


@pytest.fixture
def runs(tmp_path):
    """A place for runs; what a failed test leaves running is ended."""
    yield tmp_path
    for own in running(tmp_path):
        own.stop(patience=0)


def test_a_training_is_started_watched_stopped_and_resumed(lab, runs, tmp_path):
    notebook = lab.show(CELLS.format(runs=str(tmp_path)), "panel.shown")
    page = notebook.page
    button = {
        name: page.locator(".ex-acts").get_by_role("button", name=name, exact=True)
        for name in ("Start", "Stop", "Resume")
    }
    says(page.locator(".ex-acts"), "2000 epochs")
    assert button["Start"].is_enabled() and button["Stop"].is_disabled() and button["Resume"].is_disabled()
    assert list(tmp_path.iterdir()) == []  # opening starts nothing
    page.get_by_label("Seed", exact=True).fill("3")
    page.get_by_label("Seed", exact=True).press("Tab")
    button["Start"].click()
    says(page.locator(".ex-state"), "running in a process of its own")
    page.wait_for_function(f"() => (({DRAWN})()).length >= 3")  # clean loss, the adversary's, kNN
    assert button["Start"].is_disabled()
    eventually(lambda: pictures(notebook))
    notebook.pictures("training", tmp_path / "pictures")
    notebook.execute(NEW)
    notebook.run_all()  # the panel finds what is being trained
    says(page.locator(".ex-state"), "running in a process of its own")
    found = json.loads(
        notebook.execute("import json; print(json.dumps([panel.process.state.name, panel.run.config.seed]))")
    )
    assert found == ["running", 3]
    button["Stop"].click()
    says(page.locator(".ex-state"), "stopped at epoch")
    epoch = float(re.search(r"epoch ([\d.]+)", page.locator(".ex-state").inner_text())[1])
    button["Resume"].click()
    page.wait_for_function(f"(epoch) => Math.max(0, ...({DRAWN})()) > epoch", arg=epoch + 0.5)
    button["Stop"].click()
    says(page.locator(".ex-state"), "stopped at epoch")
    assert notebook.errors() == []


def pictures(notebook):
    """Four rows of four pictures; the adversary differs from view 2 by at most ε, the last row shows ten times that."""
    images = [img["rgba"][:, :3].astype(int) for img in notebook.images(".ex-b-row img")]
    assert len(images) == 16
    _, clean, adversary, difference = (np.stack(images[i : i + 4]) for i in (0, 4, 8, 12))
    change = adversary - clean
    assert 1 <= np.abs(change).max() <= 5  # ε = 4/255, and both are rounded
    assert np.abs(difference - (127.5 + 10 * change).clip(0, 255)).max() <= 11
