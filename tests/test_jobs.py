"""Trainings in the background by the command line: started, listed, waiting for their turn, stopped, lost, forgotten."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from explore.cli import main
from explore.experiments import jobs
from explore.experiments.jobs import BackgroundTraining, trainings
from explore.results import Sweep
from explore.runfolder import Run

UNIX = pytest.mark.skipif(os.name == "nt", reason="kills processes by Unix signals")
WORDS = ["sweep", "--dataset=emoji", "--width=4", "--batch-size=64", "--train-images=128", "--seeds=1"]
WORDS += ["--methods=fgsm", "--eps=8/255", "--threads=1"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place for runs; what a failed test leaves running is killed."""
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    yield tmp_path
    for spec, process in jobs._processes.items():
        if tmp_path in spec.parents:
            process.kill()
            process.wait()


def started(capsys, *words) -> BackgroundTraining:
    assert main([*WORDS, *words, "--background", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    return jobs.training_named(Path(said["out"]), said["job"])


def eventually(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def listed(capsys) -> dict[str, dict]:
    assert main(["jobs", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


@UNIX
def test_a_second_job_waits_until_the_first_is_terminated_and_writes_its_table(root, capsys):
    first = started(capsys, "--epochs=2000")
    eventually(lambda: first.state["state"] == "running" and first.progress().epoch > 1)
    second = started(capsys, "--epochs=1")
    begun = second.state["beat"]
    eventually(lambda: second.state["beat"] > begun + 2.5)  # it runs, and has found the folder taken
    rows = listed(capsys)
    assert list(rows) == [first.name, second.name]
    assert [row["state"] for row in rows.values()] == ["running", "waiting"]
    now = rows[first.name]
    assert (now["cell"], now["cells"], now["epochs"], now["study"]) == (2, 2, 2000, "train-eps")
    assert 1 < now["epoch"] < 2000 and 0 < now["share"] < 1
    assert main(["jobs", "forget", first.name]) == 2 and "stop it first" in capsys.readouterr().err
    jobs._processes[first.spec].send_signal(signal.SIGTERM)
    assert first.wait(60) == "stopped" and second.wait(120) == "done"
    run = Run(root / "sweeps" / "runs" / first.run_names[1])
    assert run.status["state"] == "stopped" and 0 < run.status["step"] < 4000  # the finished step is kept
    found = Sweep.load(root / "sweeps" / "train-eps")
    assert set(found.table.method) == {"untrained", "CLAE (fgsm)"} and found.provenance["missing"] == 0
    assert main(["jobs"]) == 0
    out = capsys.readouterr().out
    assert "stopped" in out and "done     100%" in out
    for job in (first, second):
        assert main(["jobs", "forget", job.name]) == 0
    capsys.readouterr()
    assert main(["jobs"]) == 0 and "no jobs in" in capsys.readouterr().out
    assert list((root / "sweeps" / "jobs").iterdir()) == []


@UNIX
def test_stop_ends_a_job_and_a_killed_one_is_lost(root, capsys):
    out = ["--out", str(root / "elsewhere")]
    assert main([*WORDS, "--epochs=2000", "--background", *out]) == 0
    [job] = trainings(root / "elsewhere")
    said = capsys.readouterr().out
    assert said.startswith(f"2 cells run in the background as job {job.name}; follow") and said.count("\n") == 1
    assert f"python -m explore jobs stop {job.name} --out {root / 'elsewhere'}" in said
    eventually(lambda: job.state["state"] == "running")
    assert main(["jobs", "stop", job.name, *out]) == 0
    assert job.wait(60) == "stopped"
    assert main(["jobs", "stop", job.name, *out]) == 2 and "it is stopped" in capsys.readouterr().err
    again = job.again()
    assert again.name != job.name and again.cells == job.cells and again.study == "train-eps"
    eventually(lambda: again.state["state"] == "running")
    jobs._processes[again.spec].kill()
    eventually(lambda: not again.alive)
    assert main(["jobs", *out]) == 0
    said = capsys.readouterr().out
    assert f"{again.name}  lost" in said and f"{again.name}: The process ended without a report" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["jobs", "stop"], "takes the name of a job, got none"),
        (["jobs", "stop", "nothing"], "there are none"),
        (["jobs", "halt", "x"], "invalid choice"),
        (["sweep", "--smoke", "--background"], "leave --background away"),
        (["sweep", "--study=loss-eps", "--background"], "belongs to the studies train-eps"),
        ([*WORDS, "--batch-size=512", "--background"], "larger than the 128 training images"),
        ([*WORDS, "--workers=0", "--background"], "1 or more"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(root, capsys, words, sentence):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith("error: ") and err.count("\n") == 1
    assert trainings(root / "sweeps") == [] and not jobs._processes.keys() & set(root.rglob("*.json"))


def test_names_of_jobs_are_ordered_by_their_time_within_a_second():
    names = []
    for _ in range(50):
        names.append(jobs._new_name())
        time.sleep(1e-5)
    assert names == sorted(names) and len(set(names)) == 50
