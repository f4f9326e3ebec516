"""The training panel without a browser: nothing starts by itself, its price, what it says of runs in every state, overlays."""

import shlex
import time

import pytest

import explore as ex
from explore import TrainConfig, figures
from explore.cli import _parser
from explore.cli.shared import given_settings
from explore.experiments.background import RunProcess, RunState, trained
from explore.experiments.command import command
from explore.experiments.follow import curves_of, progress_of
from explore.monitor import batch_of
from explore.panels.training import view

TINY = ex.TrainConfig(
    dataset="emoji", image_size=16, width=4, batch_size=64, train_images=128, knn_images=100, epochs=2, warmup_epochs=0
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A runs folder with a finished CLAE run and a SimCLR run of equal epochs, both monitored."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_RUNS", str(place))
        trained(TINY, "a/clae")
        trained(TINY.with_(attack="none"), "a/simclr")
    return place


@pytest.fixture
def runs(root, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(root))
    return root


@pytest.fixture
def panel(runs):
    own = ex.panels.Training(base=TINY)
    yield own
    own.close()


def eventually(check, seconds=120):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def seen_of(name: str, state: RunState, **changes) -> view.Seen:
    run = ex.open_run(name)
    own = {"result": curves_of(run), "run": run, "state": state, "progress": progress_of(run), "batch": batch_of(run)}
    return view.Seen(**{**own, **changes})


def test_a_panel_that_opens_starts_nothing_and_tells_the_price(panel, runs):
    before = {path.name for path in runs.iterdir()}
    assert panel.wait() and panel.state == "empty" and panel.run is None
    eventually(lambda: "on this machine" in panel._price.value)
    assert {path.name for path in runs.iterdir()} == before
    assert not panel._start_button.disabled and panel._stop_button.disabled and panel._resume_button.disabled


def test_the_controls_make_the_settings(panel):
    assert panel.config == TINY
    with panel.hold_trait_notifications():
        panel.method, panel.noise, panel.k, panel.epochs, panel.seed = "noise", "uniform", 8, 3, 5
    wanted = TINY.with_(attack="uniform", eps=8 / 255, epochs=3, seed=5)
    assert panel.config == wanted
    panel.method = "SimCLR"
    assert panel.config == TINY.with_(attack="none", epochs=3, seed=5) and panel.config.eps == 0
    panel.images, panel.folder = "folder", " /my/images "
    assert panel.config.dataset == "folder:/my/images"
    with pytest.raises(ex.UserError, match="/my/images"):
        panel.start()
    panel.folder = ""
    with pytest.raises(ex.UserError, match="No folder is named"):
        panel.start()


def test_two_runs_are_overlaid_in_one_figure(panel):
    panel.shown = "a/clae"
    panel.overlay = "a/simclr"
    result = panel.result
    assert result.runs == ("a/clae", "a/simclr") and panel.error is None
    drawn = figures.training_curves(result)
    for i, name in enumerate(result.runs):
        rows = ex.open_run(name).rows()
        clean, adversarial, knn = drawn.data[3 * i : 3 * i + 3]
        assert list(clean.y) == [row["loss"] for row in rows if "loss" in row]
        assert list(adversarial.y) == [row["loss_adv"] for row in rows if "loss_adv" in row]
        assert list(knn.y) == pytest.approx([100 * row["knn"] for row in rows if row["knn"] is not None])
    level = drawn.layout.shapes[0]
    assert level.y0 == level.y1 == pytest.approx(ex.chance(64)) and "ln 127" in str(drawn.layout.annotations)
    assert [list(t.y or ()) for t in panel._chart.data] == [list(t.y or ()) for t in drawn.data]
    assert "One seed each: no verdict" in panel._reading.value and "a/simclr" in panel._reading.value
    assert panel.run.name == "a/clae" and "finished" in panel._state.value
    panel.overlay = "demo/simclr"  # of another data set and batch size: neither kNN nor loss compares
    assert panel.wait() and "verdict" not in panel._reading.value
    assert f"Chance is {ex.chance(128):.2f} for demo/simclr" in panel._reading.value
    panel.overlay = "a/clae"
    assert panel.wait() and "nothing to compare" in str(panel.error)


def test_start_shows_the_new_run_until_it_is_finished(panel):
    run = panel.start()
    assert panel.shown == run.name and panel.wait()
    with pytest.raises(ex.UserError, match="being trained"):
        panel.start()
    other = ex.panels.Training()  # of another kernel: it finds what is being trained
    assert other.shown == run.name
    other.close()
    assert panel.process.wait(120).name == "done"
    eventually(lambda: "finished" in panel._state.value)
    eventually(lambda: panel._reading.value.count("At epoch 2.0") == 1 and "RankMe" in panel._facts.value)
    assert panel.result.of(run.name).rankme.notna().sum() == 3  # the untrained network, and each epoch
    assert not panel._start_button.disabled and panel._stop_button.disabled and panel._resume_button.disabled


def test_a_failed_start_says_so_and_the_last_result_stays(panel, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "file" / "runs"))
    panel._start_button.click()
    assert "cannot be written" in str(panel.error) and "CLAE_RUNS" in str(panel.error) and panel.shown == ""


def test_the_panel_says_what_state_a_run_is_in(runs):
    assert view.state_words(seen_of("a/clae", RunState("done"))) == "finished"
    assert "epoch 2.0 of 2" in view.state_words(seen_of("a/clae", RunState("stopped")))
    assert "process of its own" in view.state_words(seen_of("a/clae", RunState("running", silent=1)))
    slept = view.state_words(seen_of("a/clae", RunState("running", silent=7200)))
    assert slept.startswith("paused: no step for 2 h 0 min")
    full = RunState("failed", "The disk that holds /x is full, so <a> was not written; free some space.")
    told = str(view.alert(seen_of("a/clae", full)))
    assert "&lt;a&gt;" in told and 'role="alert"' in told and "Free some space." in told
    config = TINY.with_(eps=8 / 255, seed=2, data_dir="/own images")
    words = _parser().parse_args(shlex.split(command(config))[3:])
    assert TrainConfig.clae(**given_settings(words)) == config
    unmonitored = seen_of("demo/clae", RunState("done"))
    assert (
        unmonitored.batch is None
        and str(view.batch(unmonitored)) == ""
        and "RankMe" not in str(view.facts(unmonitored))
    )


def test_a_pause_changes_neither_speed_nor_time_left(runs):
    run = ex.open_run("a/clae")
    rows = [{"step": 0, "epoch": 0, "knn": 0.1, "seconds": 1.0}]
    seconds = 1.0
    for step in range(1, 41):
        seconds += 3600 if step == 20 else 0.5  # an hour in which the lid was closed
        rows.append({"step": step, "epoch": step / 40, "loss": 1.0, "knn": None, "seconds": seconds})
    run.rows = lambda: rows
    now = progress_of(run)
    assert now.images_a_second == pytest.approx(64 / 0.5)
    assert now.seconds_left == pytest.approx(40 * 0.5, abs=5) and now.share == 0.5


def test_a_process_is_needed_to_stop_or_resume(panel):
    with pytest.raises(ex.UserError, match="No run is shown"):
        panel.process
    panel.shown = "a/clae"
    panel._resume_button.click()
    assert "is finished" in str(panel.error)
    assert RunProcess("a/clae").stop().name == "done"
