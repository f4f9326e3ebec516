"""Threads by what is free: who is at work, the number chosen, what the user set, what a training keeps."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

import explore as ex
from explore import doctor, threads
from explore.cli import main
from explore.runfolder import Run
from explore.threads import _Folder, _Watch, at_work, choose
from explore.training import train

TINY = {"dataset": "emoji", "width": 4, "batch_size": 64, "train_images": 128, "epochs": 2}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="libgomp and /proc")
HOLD = """
import sys
from pathlib import Path
from explore.threads import _Folder
folder = _Folder(Path(sys.argv[1]))
folder.enter()
print("at work", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of one's own for who is at work, where the user has set nothing."""
    own = _Folder(tmp_path / "at-work")
    monkeypatch.setattr(threads, "_folder", own)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return own


@pytest.fixture
def machine(folder, monkeypatch):
    """A pretended machine of 8 cores; others use none."""

    def use(cores: int = 8, used: float | None = 0.0, programs: int = 0) -> None:
        monkeypatch.setattr(threads.system, "cores", lambda: cores)
        monkeypatch.setattr(_Watch, "used_by_others", lambda self, wait: used)
        monkeypatch.setattr(folder, "others", lambda: programs)

    use()
    return use


@pytest.fixture
def other(folder):
    """Starts another program at work; it is ended with the test."""
    begun = []

    def start() -> subprocess.Popen:
        words = [sys.executable, "-c", HOLD, str(folder.path)]
        begun.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout.readline() == "at work\n"
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_programs_at_work_see_each_other_and_a_dead_one_does_not_count(folder, other):
    assert folder.others() == 0
    first, second = other(), other()
    folder.enter()
    assert folder.others() == 2  # not oneself
    first.kill()
    first.wait()
    assert len(list(folder.path.iterdir())) == 3 and folder.others() == 1  # its file is there, its lock is not
    second.communicate("\n")
    assert folder.others() == 0
    folder.leave()
    old = time.time() - 1000
    for file in folder.path.iterdir():
        os.utime(file, (old, old))
    assert folder.others() == 0 and not list(folder.path.iterdir())  # swept up


def test_no_folder_to_write_in_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    none = _Folder(tmp_path / "file" / "below")
    none.enter()
    assert none.others() == 0
    none.leave()


@pytest.mark.parametrize(
    "state, most, expected",
    [
        ({}, 8, 8),
        ({"used": 0.3}, 8, 8),  # a browser's blinking
        ({"programs": 1}, 8, 4),
        ({"programs": 1, "used": None}, 8, 4),  # where the system does not tell
        ({"programs": 3}, 8, 2),
        ({"programs": 40}, 8, 1),
        ({"used": 1.0}, 8, 7),  # another program with one thread
        ({"used": 7.9}, 8, 4),  # another with all of them: half
        ({"programs": 1, "used": 1.0}, 8, 7),  # one of ours, on one thread
        ({"programs": 1, "used": 1.0}, 2, 2),  # the most that was asked for
        ({"cores": 2, "programs": 1, "used": 2.0}, 2, 1),
        ({"cores": 2, "used": 0.9}, 2, 1),
        ({"cores": 1, "programs": 5, "used": 1.0}, 1, 1),
    ],
)
def test_the_number_chosen(machine, state, most, expected):
    machine(**state)
    assert choose(most).threads == expected


def test_what_the_user_set_wins(machine, monkeypatch):
    machine(programs=3, used=8.0)
    assert choose(8).threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert choose(6) == threads.Share(6, "OMP_NUM_THREADS is set")
    with at_work(5) as share:
        assert share.threads == torch.get_num_threads() == 5


def test_at_work_sets_the_number_and_sets_it_back(machine, folder):
    machine(cores=8, programs=3)
    before = torch.get_num_threads()
    with at_work(most=8):
        assert torch.get_num_threads() == 2 and len(list(folder.path.iterdir())) == 1
        with at_work(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2 and len(list(folder.path.iterdir())) == 1
    assert torch.get_num_threads() == before and not list(folder.path.iterdir())
    with pytest.raises(ex.UserError), at_work(0):
        pass


def test_a_training_keeps_its_number_and_a_resumed_one_has_it_again(machine, tmp_path):
    machine(cores=2, programs=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data, seen = ex.load("emoji"), []
        run = Run.create(ex.TrainConfig(**TINY), root=tmp_path)
        for row in train(run.config, data, run=run, log_every=1, should_stop=lambda: len(seen) > 2):
            seen.append((torch.get_num_threads(), row["step"]))
            machine(cores=2)  # the other has ended: no change in the middle
        assert {number for number, _ in seen} == {1} and Run(run.path).env["threads"] == 1
        assert torch.get_num_threads() == 2
        rest = [torch.get_num_threads() for _ in train(run.config, data, run=Run(run.path), resume=True)]
        assert rest and set(rest) == {1} and Run(run.path).env["threads"] == 1
        alone = Run.create(ex.TrainConfig(**TINY), name="alone", root=tmp_path)
        next(iter(train(alone.config, data, run=alone)))
        assert Run(alone.path).env["threads"] == 2
    finally:
        torch.set_num_threads(before)


def test_the_command_line_takes_a_number(tmp_path, capsys):
    assert main(["train", "--smoke", "--threads", "1", "--runs-dir", str(tmp_path)]) == 0
    assert json.loads(next(tmp_path.glob("*/env.json")).read_text())["threads"] == 1
    assert main(["train", "--smoke", "--threads", "0", "--runs-dir", str(tmp_path)]) == 2
    assert "threads" in capsys.readouterr().err


def test_doctor_says_what_was_chosen(machine):
    machine(cores=8, programs=3)
    before = torch.get_num_threads()
    found = next(check for check in doctor.diagnose().checks if check.name == "threads")
    assert found.ok and found.found.startswith(f"{min(before, 2)}: 3 of this project's programs at work")


@LINUX
def test_waiting_threads_sleep_while_others_want_the_cores(folder, monkeypatch):
    monkeypatch.setattr(threads, "_own_spinning", lambda: True)
    watch = _Watch()
    for want, used, number in [(False, 0.1, 2), (True, 1.5, 2), (True, 2.0, 2), (False, 0.0, 2), (False, 2.0, 1)]:
        monkeypatch.setattr(threads.system, "cores", lambda: 2)
        watch._decide(number, used)
        assert watch.sleepers.on == want
    watch._decide(2, None)  # unknown, and no other program of ours
    assert not watch.sleepers.on
    watch.close()


def test_waiting_is_left_alone_where_the_user_set_it(monkeypatch):
    for name, value in (("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "77")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not threads._own_spinning()


@LINUX
def test_sleepers_are_more_threads_than_cores_and_go_again():
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    torch.ones(1_000_000).add_(1)
    before, sleepers = count(), threads._Sleepers()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(threads, "_own_spinning", lambda: True)
    sleepers.begin(2, 2)
    monkey.undo()
    assert count() >= before + 2
    begun = count()
    sleepers.end()
    end = time.monotonic() + 60
    while count() > begun - 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert count() <= begun - 2


@LINUX
def test_sleeping_changes_no_bit():
    x, w = torch.rand(64, 16, 32, 32), torch.rand(16, 16, 3, 3)
    before = torch.nn.functional.conv2d(x, w).sum()
    sleepers = threads._Sleepers()
    sleepers.begin(2, 2)
    try:
        assert torch.equal(torch.nn.functional.conv2d(x, w).sum(), before)
    finally:
        sleepers.end()
