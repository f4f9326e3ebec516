"""The command line as its users type it."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import explore as ex
from explore.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


TINY = ["--width=8", "--epochs=1", "--batch-size=64", "--train-images=256", "--knn-images=200"]


def test_smoke_then_runs(root, capsys):
    assert main(["train", "--smoke"]) == 0
    out = capsys.readouterr().out
    assert "kNN of the untrained encoder" in out and "untrained" in out.splitlines()[-3] and "open_run" in out
    assert main(["train", "--smoke"]) == 0  # again: a smoke run replaces the last
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in rows if r["run"].startswith("smoke-")] == ["done"]
    assert main(["runs"]) == 0
    assert "smoke-fashion" in capsys.readouterr().out


def test_a_name_that_exists_is_kept(root, capsys):
    assert main(["train", *TINY]) == 0
    metrics = next(root.glob("*/metrics.jsonl"))
    before = metrics.read_bytes()
    capsys.readouterr()
    assert main(["train", *TINY]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["train", *TINY, "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert metrics.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--eps", "8"], "Did you mean 8/255?"),
        (["--eps", "x"], "written as 8/255"),
        (["--attack", "fgsn"], "Did you mean fgsm"),
        (["--dataset", "fasion"], "fashion"),
        (["--dataset", "folder:/nowhere/at/all"], "/nowhere/at/all"),
        (["--device", "cuda:77"], "cuda"),
        (["--epochs", "many"], "invalid int value"),
        (["--flip", "perhaps"], "yes or no"),
        (["--epoch", "3", "--nonsense"], "--nonsense"),
        (["--resume", "no-such-run"], "There is no run"),
        (["--lr", "0"], "lr must be"),
        (["--loss", "ifm", "--feature-eps", "-1"], "feature_eps must be 0 or more"),
        (["--train-images", "100", "--batch-size", "128"], "larger than the 100 training images"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(root, capsys, words, sentence):
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert not list(root.glob("*/config.json"))


def test_no_command_is_one_sentence(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_settings_do_not_resume(root, capsys):
    assert main(["train", *TINY, "--name", "a"]) == 0
    lr = ex.open_run("a").config.lr
    assert main(["train", *TINY, "--resume", "a"]) == 0  # the same settings
    assert main(["train", "--lr", "1", "--resume", "a"]) == 2
    said = capsys.readouterr().err
    assert f"other settings (lr {lr})" in said
    words = shlex.split(said[said.index("python -m explore train") :])[3:]
    assert main(words) == 0 and ex.open_run("a-2").config == ex.open_run("a").config.with_(lr=1.0)


def test_ctrl_c_and_a_closed_terminal_stop_cleanly_and_resume_goes_on(root, capsys):
    words = [sys.executable, "-m", "explore", "train", *TINY, "--epochs", "400", "--name", "long"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        rows = root / "long" / "metrics.jsonl"
        began = time.monotonic()
        while not (rows.exists() and rows.read_text().count("\n") > 2):
            assert process.poll() is None and time.monotonic() - began < 90
            time.sleep(0.1)
        assert ex.open_run("long").status["state"] == "running"
        before = rows.read_text()
        assert main(["train", "--resume", "long"]) == 2  # it has a writer
        assert f"is being trained by another process ({process.pid})" in capsys.readouterr().err
        assert rows.read_text().startswith(before)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "go on with: python -m explore train --resume long" in out
    assert json.loads((root / "long" / "status.json").read_text())["state"] == "stopped"
    stopped_at = json.loads((root / "long" / "status.json").read_text())["step"]
    with subprocess.Popen(
        [*words[:4], "--resume", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        began = time.monotonic()
        while json.loads(rows.read_text().splitlines()[-1])["step"] <= stopped_at + 8:
            assert process.poll() is None and time.monotonic() - began < 90
            time.sleep(0.1)
        process.send_signal(getattr(signal, "SIGHUP", signal.SIGTERM))
        process.communicate(timeout=60)
    assert process.returncode == 130 and ex.open_run("long").status["state"] == "stopped"
    steps = [json.loads(line)["step"] for line in rows.read_text().splitlines()]
    assert steps == sorted(set(steps))  # no row twice, none lost


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full (Linux)")
def test_a_full_disk_is_one_sentence(root, capsys, monkeypatch):
    from explore import runfolder

    real = runfolder.save_tensors

    def on_a_full_disk(path, tensors, metadata=None):
        import builtins

        opened = builtins.open
        monkeypatch.setattr(
            builtins, "open", lambda p, *a, **k: opened("/dev/full" if str(p).endswith(".tmp") else p, *a, **k)
        )
        try:
            real(path, tensors, metadata)
        finally:
            monkeypatch.setattr(builtins, "open", opened)

    monkeypatch.setattr(runfolder, "save_tensors", on_a_full_disk)
    assert main(["train", *TINY, "--name", "full"]) == 2
    err = capsys.readouterr().err
    assert "is full" in err and "--resume" in err
    assert (root / "full" / "metrics.jsonl").exists()  # what was there stays


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("Python", "torch", "device", "data", "runs", "folders", "widgets", "lab", "server", "browser"):
        assert f" {word} " in out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_doctor_says_what_to_do(monkeypatch):
    from explore import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    report = doctor.diagnose()
    assert report.ok  # a machine that trains needs neither widgets nor a browser
    assert "– widgets" in str(report) and 'pip install "clae-explorer[notebooks]"' in str(report)
    assert "– lab" in str(report) and 'pip install "clae-explorer[lab]"' in str(report)
    assert "– browser" in str(report) and "Copy the address" in report._repr_html_()
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "anywidget" else "1.0")
    report = doctor.diagnose()
    assert not report.ok and "✕ widgets" in str(report) and "For lessons and panels anywidget: " in str(report)


def test_doctor_finds_a_jupyter_of_another_environment(tmp_path, monkeypatch):
    """One process that another environment's Python runs, named by a file as a Jupyter server writes it."""
    from explore import doctor

    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").symlink_to(sys.executable)
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert "none found in another environment" in str(doctor._servers())
    wait = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([other / "bin" / "python", "-c", wait], stdin=-1, stdout=-1, env={}) as server:
        server.stdout.readline()
        (tmp_path / f"jpserver-{server.pid}.json").write_text("{}")
        found = doctor._servers()
        assert not found.ok and not found.needed and "pip install anywidget" in found.todo and str(other) in found.found
        (other / "share" / "jupyter" / "labextensions" / "anywidget").mkdir(parents=True)
        assert doctor._servers().ok and str(other) in doctor._servers().found
        server.stdin.close()


def test_doctor_names_the_variable_of_a_folder_that_cannot_be_written(monkeypatch):
    from explore import doctor

    monkeypatch.setenv("CLAE_CACHE", os.path.join(os.devnull, "cache"))
    assert "Name another folder in CLAE_CACHE." in str(doctor.diagnose())


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"clae-explorer {ex.__version__}\n"
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ex.__version__}\n" in citation and "arXiv:2010.12050" in citation


def test_lab_command():
    from explore.lab import lab_command

    command, env = lab_command("00_start_here.ipynb", port=9000, browser=False)
    assert "--ip=127.0.0.1" in command and "--no-browser" in command and "--port=9000" in command
    assert any(word.endswith("/lab/tree/notebooks/00_start_here.ipynb") for word in command)
    assert not any("token=" in word for word in command)  # Jupyter's own random token stays on
    settings = Path(env["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0]) / "labconfig"
    assert json.loads((settings / "page_config.json").read_text())["disabledExtensions"]
    assert main(["lab", "99_nothing.ipynb"]) == 2


@pytest.mark.parametrize("interrupts, status", [(0, 5), (2, 0)])
def test_ctrl_c_leaves_jupyterlab_the_time_to_end_its_kernels(monkeypatch, interrupts, status):
    """Ctrl-C reaches JupyterLab as well: it asks, and takes a second one for yes; it is waited for and never killed."""
    waits = iter([KeyboardInterrupt] * interrupts)

    class Server(contextlib.nullcontext):
        def wait(self, timeout=None):
            for interrupt in waits:
                raise interrupt
            return 5

        def kill(self):
            raise AssertionError("its kernels are left behind")

    server = Server()
    server.enter_result = server
    monkeypatch.setattr("subprocess.Popen", lambda command, env: server)
    assert main(["lab", "--no-browser"]) == status


def test_help_does_not_wait_for_torch(tmp_path):
    code = """import contextlib, sys
from explore.cli import main
assert main(["lessons", sys.argv[1]]) == 0
with contextlib.suppress(SystemExit):
    main(["train", "--help"])
assert "torch" not in sys.modules and "pandas" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lessons")], cwd=ROOT, check=True, capture_output=True)
