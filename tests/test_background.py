"""Trainings in a process of their own, without a browser: found by another handle, paused, stopped, killed, resumed, failed."""

import json
import os
import signal
import time

import pytest
import torch

import explore as ex
from explore.cli import main
from explore.experiments import background
from explore.experiments.background import KILLED, RunProcess, running, trained
from explore.experiments.follow import curves_of
from explore.monitor import MEASURED, Monitor, batch_of
from explore.runfolder import Run
from explore.serialization import load_tensors, write_text

TINY = ex.TrainConfig(
    dataset="emoji", image_size=16, width=4, batch_size=64, train_images=128, knn_images=100, epochs=2000
)
WORDS = ["--dataset=emoji", "--image-size=16", "--width=4", "--batch-size=64", "--train-images=128"]
WORDS += ["--knn-images=100", "--epochs=2000", "--threads=1"]

GONE = 999_999_999  # the number of no process


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place for runs; what a failed test leaves running is killed."""
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    yield tmp_path
    for own in running(tmp_path):
        background.system.kill(own._pid())
    for process in background._processes.values():
        process.wait(60)


def eventually(check, seconds=120):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def steps(own: RunProcess) -> int:
    rows = own.run.rows()
    return rows[-1]["step"] if rows else 0


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_tensors(run.path / "encoder.safetensors")[0]


def test_stopped_killed_and_resumed_it_is_what_it_had_been_without(root, capsys, monkeypatch):
    assert main(["train", *WORDS, "--name=own", "--background"]) == 0
    assert "own trains in the background" in capsys.readouterr().out
    own, other = RunProcess("own"), RunProcess("own")  # the second as another kernel has it
    assert own.state.alive and [each.name for each in running()] == ["own"]
    with monkeypatch.context() as patch:
        patch.setattr(background, "_processes", {})  # as a kernel sees it that has not started it
        assert other.state.alive
    with pytest.raises(ex.UserError, match=r"own' is (starting|running)"):
        other.resume()
    eventually(lambda: steps(own) > 2)
    if os.name == "posix":
        assert os.getsid(own._pid()) != os.getsid(0)  # so it goes on when kernel, JupyterLab or terminal end
        os.kill(own._pid(), signal.SIGSTOP)
        before = steps(own)
        assert other.state.name == "running" and other.state.alive
        os.kill(own._pid(), signal.SIGCONT)
        eventually(lambda: steps(own) > before)
        os.kill(own._pid(), signal.SIGSTOP)  # and is stopped while it is paused
    assert main(["jobs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["epochs"]) == ("own", "running", 2000) and 0 < row["share"] < 1
    assert main(["jobs", "stop", "own"]) == 0 and "own is stopped" in capsys.readouterr().out
    assert own.state.name == other.state.name == "stopped" and running() == []
    before = steps(own)
    other.resume(threads=1)
    eventually(lambda: steps(own) > before + 2)
    assert other.stop(patience=0).name == "stopped"  # at once: it goes on from the last saved epoch
    mine = load_tensors(own.run.path / "resume.safetensors")[1]
    saved = json.loads(mine["progress"])["step"]
    assert 0 < saved <= steps(own)
    last = saved + 3
    for run in (own.run, whole := Run.create(TINY, name="whole")):
        count = iter(range(saved + 1 if run is own.run else 1, 10**6))
        stop = {"should_stop": lambda count=count: next(count) == last}
        for _ in ex.train(TINY, run=run, threads=1, log_every=5, resume=run is own.run, **stop):
            pass
    assert own.run.status["step"] == whole.status["step"] == last
    mine, theirs = weights(own.run), weights(whole)
    assert mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)
    columns = ["step", "loss", "loss_adv", "knn", "lr"]
    assert curves_of(own.run).table[columns].equals(curves_of(whole).table[columns])
    pictures, step = batch_of(own.run)
    assert pictures.keys() == {"view1", "view2", "adversary"} and 0 < step <= last
    change = (pictures["adversary"] - pictures["view2"]).abs()
    assert 0 < change.max() <= 4 / 255 + 1e-6


def test_a_training_that_is_refused_leaves_its_folder_and_its_sentence(root, capsys):
    own = RunProcess(Run.create(TINY.with_(batch_size=500), name="refused"))
    assert main(["train", "--monitored", "--resume", "refused"]) == 2  # what the process does
    said = capsys.readouterr().err
    assert own.run.path.is_dir() and "A batch of 500 is larger than the 128 training images" in said
    own.log.write_text(said)
    write_text(own.run.path / "process.json", json.dumps({"pid": GONE, "began": 0.0, "before": own._status()}))
    assert own.state.name == "failed" and own.state.error.startswith("A batch of 500 is larger")
    again = RunProcess.start(TINY, root=root / "elsewhere")
    again.stop(patience=0)  # before it has begun
    assert again.state.name == "stopped" and steps(again) == 0


def of_an_ended_process(run: Run, log: bytes) -> RunProcess:
    """A handle on a run whose process has begun to train, and is gone."""
    about = {"pid": GONE, "began": time.time() - 9, "before": background.RunProcess(run)._status()}
    write_text(run.path / "process.json", json.dumps(about))
    run.set_status("running", pid=about["pid"])
    (run.path / "train.log").write_bytes(log)
    return RunProcess(run)


@pytest.mark.parametrize(
    "log, wanted",
    [
        (
            b"epoch 1/2\nerror: The disk that holds /runs is full; free some space.\n",
            "The disk that holds /runs is full; free some space.",
        ),
        (b"\xff\x00\xfe broken \x80", KILLED),
        (b"", KILLED),
        (b"Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n", "RuntimeError: out of memory"),
    ],
)
def test_what_an_ended_process_has_printed_says_why(root, log, wanted):
    state = of_an_ended_process(Run.create(TINY, name="ended"), log).state
    assert state.name == "failed" and wanted in state.error
    run = ex.open_run("ended")
    assert run.status["state"] == ("stopped" if wanted is KILLED else "failed")
    if wanted is not KILLED:
        assert wanted in run.status["why"] and wanted in ex.runs().set_index("run").why["ended"]


def test_runs_that_were_never_in_the_background_have_their_own_state(root):
    run = Run.create(TINY, name="new")
    assert RunProcess(run).state.name == "new" and not RunProcess(run).state.alive
    run.set_status("running")  # and its process is gone
    assert RunProcess(run).state.name == "stopped"
    assert RunProcess("demo/clae").state.name == "done"
    lock = run.hold()  # as a cell of a kernel trains it
    run.set_status("running")
    assert RunProcess(run).state.name == "running"
    with pytest.raises(ex.UserError, match=rf"trained by process {os.getpid()}, not in the background"):
        RunProcess(run).stop()
    lock.release()
    (root / "new" / "process.json").write_text("{damaged")
    (root / "new" / "status.json").write_text("{damaged")
    assert RunProcess(run).state.name == "new" and running() == []


def test_names_are_free_and_folders_closed_to_us_are_refused(root):
    label = TINY.label
    assert background.free_name(label, root) == label
    (root / label).mkdir()
    (root / f"{label}-2").mkdir()
    assert background.free_name(label, root) == f"{label}-3"
    (root / "file").touch()
    with pytest.raises(ex.UserError, match=r"cannot be written .*CLAE_RUNS"):
        RunProcess.start(TINY, root=root / "file" / "runs")


def test_a_trained_run_is_trained_once(root):
    config = TINY.with_(epochs=1)
    first = trained(config, "lesson/one")
    rows = first.rows()
    assert first.status["state"] == "done" and set(MEASURED) <= rows[0].keys()
    assert trained(config, "lesson/one").rows() == rows and ex.open_run("lesson/one").config == config
    with pytest.raises(ex.UserError, match="other settings"):
        trained(config.with_(seed=1), "lesson/one")


def test_a_monitor_measures_and_changes_nothing(encoder):
    data = ex.load("emoji", size=32)
    before = {name: tensor.clone() for name, tensor in encoder.train().state_dict().items()}
    monitor = Monitor(data, ex.Views())
    drawn = torch.random.get_rng_state()
    found = monitor(encoder)
    assert encoder.training and torch.random.get_rng_state().equal(drawn)
    assert all(tensor.equal(before[name]) for name, tensor in encoder.state_dict().items())
    z1, z2 = (ex.embed(encoder, view, "z")[0] for view in monitor.views)
    h = ex.embed(encoder, data.test[:256][0])[0]
    wanted = (ex.alignment(z1, z2), ex.uniformity(z1), ex.rankme(h))
    assert [found[name] for name in MEASURED] == pytest.approx([float(value) for value in wanted], rel=1e-3)


def test_rankme_is_the_number_of_directions():
    basis = torch.linalg.qr(torch.randn(64, 64, generator=ex.seeded(0)))[0]
    for rank in (1, 5, 32):
        assert float(ex.rankme(basis[:, :rank] @ basis[:rank])) == pytest.approx(rank, rel=1e-3)
    values = torch.tensor([3.0, 1.0])
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert float(ex.rankme(torch.diag(values))) == pytest.approx(float(entropy.exp()))
    assert float(ex.rankme(torch.zeros(4, 3))) == 1.0
