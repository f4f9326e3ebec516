"""What another machine gets: the core without extras, the wheel with the lessons, folders that cannot be written."""

import json
import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import explore as ex
from explore import lab, paths
from explore.cli import main
from explore.errors import EXTRAS, extra

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = os.path.join(os.devnull, "folder")  # cannot be made, not even by root
BLOCK = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Blocker())
"""


def python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_extras_all_names_but_panels_and_figures_load_and_a_missing_one_is_named(tmp_path):
    code = (
        BLOCK
        + """
import explore as ex, torch
for name in ex.__all__:
    if name not in ("panels", "figures"):
        getattr(ex, name)
from explore.cli import main
from explore.maps import fit_map
for words in (["knn", "demo/simclr", "--dataset", "emoji"], ["embed", "demo/clae", "--images=60", "--map=pca", "--out=OUT"]):
    assert main([w.replace("OUT", sys.argv[1] if len(sys.argv) > 1 else "OUT") for w in words]) == 0
run = ex.open_run("demo/clae")
x = ex.load("fashion").test[:2][0]
for wanted in (
    lambda: ex.panels,
    lambda: ex.figures,
    lambda: fit_map(torch.rand(40, 8), method="umap"),
    lambda: ex.attribute(run.encoder(), x, ex.similarity(run.encoder(), x.flip(3)), method="saliency"),
):
    try:
        wanted()
    except ex.UserError as error:
        print(error)
    else:
        raise SystemExit("no UserError")
"""
    )
    code = code.replace("--out=OUT", f"--out={tmp_path / 'map.csv'}")
    said = python(code, CLAE_RUNS=str(tmp_path), CLAE_CACHE=str(tmp_path)).splitlines()[-4:]
    for line, what, package in zip(
        said, ("A panel", "A figure", "UMAP", "Attribution"), ("", "plotly", "umap", "captum"), strict=True
    ):
        assert line.startswith(f"{what} needs {package}") and line.count(".") == 1
        assert line.endswith('install it with: pip install "clae-explorer[notebooks]".')


def test_another_missing_module_stays_what_it_is():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), extra("A panel"):
        import_module("no_such_module")


def test_lessons_are_copied_and_never_overwritten(tmp_path, capsys):
    folder = tmp_path / "new" / "lessons"
    assert main(["lessons", str(folder)]) == 0
    assert {p.name for p in folder.iterdir()} == set(lab.lessons()) >= {"00_start_here.ipynb", "method.svg"}
    assert f"clae-explorer lab --folder {folder}" in capsys.readouterr().out
    (folder / "02_the_attack.ipynb").write_text("my work")
    (folder / "method.svg").unlink()
    copied = lab.copy_lessons(folder)
    assert copied.written == ("method.svg",) and copied.kept == ("02_the_attack.ipynb",)
    assert (folder / "02_the_attack.ipynb").read_text() == "my work" and "02_the_attack.ipynb" in str(copied)


def test_lessons_can_be_written_where_the_installation_cannot(tmp_path, monkeypatch):
    """The copy of a read-only file can be written."""
    source = tmp_path / "installed"
    source.mkdir()
    (source / "00_start_here.ipynb").write_text("{}")
    (source / "00_start_here.ipynb").chmod(0o444)
    monkeypatch.setattr(paths, "notebooks", lambda: source)
    lab.copy_lessons(tmp_path / "mine")
    assert (tmp_path / "mine" / "00_start_here.ipynb").stat().st_mode & 0o200


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys, monkeypatch):
    assert main(["lessons", NOWHERE]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: The lessons cannot be written to {NOWHERE} (") and err.count("\n") == 1
    monkeypatch.setenv("CLAE_RUNS", NOWHERE)
    assert main(["train", "--smoke"]) == 2
    err = capsys.readouterr().err
    assert "CLAE_RUNS" in err and NOWHERE in err and err.count("\n") == 1
    monkeypatch.setenv("CLAE_CACHE", NOWHERE)
    with pytest.raises(ex.UserError, match="CLAE_CACHE"):
        ex.open_encoder("untrained/resnet10")


def test_features_and_maps_go_on_without_a_cache(monkeypatch):
    import torch

    from explore.maps import kept_map

    monkeypatch.setenv("CLAE_CACHE", NOWHERE)
    encoder, _ = ex.open_encoder("demo/clae")
    with pytest.warns(UserWarning, match="name another folder in the environment variable CLAE_CACHE"):
        h, _ = ex.embed(encoder, ex.load("fashion").test.take(20), cache=True)
    assert len(h) == 20
    with pytest.warns(UserWarning, match="CLAE_CACHE"):
        assert kept_map(torch.rand(30, 8), n_neighbors=5).xy.shape == (30, 2)


def test_lab_without_a_checkout_copies_the_lessons_and_opens_them_there(tmp_path, monkeypatch):
    home = paths.notebooks()
    monkeypatch.setattr(paths, "_checkout", None)
    monkeypatch.setattr(paths, "notebooks", lambda: home)
    monkeypatch.chdir(tmp_path)
    command, _ = lab.lab_command("02_the_attack.ipynb", browser=False)
    assert f"--ServerApp.root_dir={tmp_path.resolve() / lab.FOLDER}" in command
    assert "--LabApp.default_url=/lab/tree/02_the_attack.ipynb" in command
    assert (tmp_path / lab.FOLDER / "02_the_attack.ipynb").is_file()
    monkeypatch.chdir(tmp_path / lab.FOLDER)  # once more, from within
    command, _ = lab.lab_command("02_the_attack.ipynb", browser=False)
    assert f"--ServerApp.root_dir={tmp_path.resolve() / lab.FOLDER}" in command


def test_lab_with_a_home_that_cannot_be_written_gives_jupyter_folders(monkeypatch, capsys):
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setenv("USERPROFILE", NOWHERE)
    for name in lab._JUPYTER:
        monkeypatch.delenv(name, raising=False)
    _, environment = lab.lab_command("00_start_here.ipynb")
    assert all("clae-jupyter-" in environment[name] for name in lab._JUPYTER)
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_holds_lessons_and_data(tmp_path):
    """Built, unpacked and used from an empty folder."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    build = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
    name = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert name.startswith(f"clae_explorer-{ex.__version__}-py3-none-any")
    with zipfile.ZipFile(tmp_path / name) as wheel:
        inside = wheel.namelist()
        wheel.extractall(tmp_path / "site")
    shipped = subprocess.run(["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert {f"explore/_data/{file.removeprefix('data/')}" for file in shipped} <= set(inside)
    assert {f"explore/_notebooks/{file}" for file in lab.lessons()} <= set(inside)
    assert "explore/py.typed" in inside and "explore/lab_settings/labconfig/page_config.json" in inside
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "explore", "lessons", "here"],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "empty" / "here" / "00_start_here.ipynb").read_text())["cells"]
    code = "import explore as ex; print(ex.__file__, len(ex.load('fashion').test), ex.open_run('demo/clae').method)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert str(tmp_path / "site") in done.stdout and "CLAE" in done.stdout, done.stderr
