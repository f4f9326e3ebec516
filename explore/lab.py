"""The lessons: a copy of one's own, and JupyterLab on them: loopback, token, no news popup."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from . import paths, system
from .errors import UserError, install, nearest

FOLDER = "clae-lessons"  # where a wheel's lessons go if no folder is named
_JUPYTER = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
)


@dataclass(frozen=True)
class Lessons:
    """A folder with the lessons: the names written now, and those kept because they had changed."""

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.folder}: files of the lessons written: {len(self.written)}"
        if self.kept:
            text += f"; kept as they are, since they were changed: {', '.join(self.kept)}"
            text += " (rename one to have the original beside it)"
        return text + "."


def copy_lessons(folder: str | Path) -> Lessons:
    """Copy the lessons to a folder, which is made where it is missing; a file that is there is
    never overwritten.
    """
    folder, written, kept = Path(folder).expanduser(), [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in lessons():
            ours, theirs = (paths.notebooks() / name).read_bytes(), folder / name
            try:
                with open(theirs, "xb") as file:  # with the user's permissions, also from a read-only installation
                    file.write(ours)
                written.append(name)
            except FileExistsError:
                if not theirs.is_file() or theirs.read_bytes() != ours:
                    kept.append(name)
    except OSError as error:
        raise UserError(
            f"The lessons cannot be written to {folder} ({error.strerror or error}); name another: "
            "clae-explorer lessons FOLDER, or clae-explorer lab --folder FOLDER."
        ) from error
    return Lessons(folder, tuple(written), tuple(kept))


def lessons() -> list[str]:
    """File names of the lessons, of their pictures and of the glossary."""
    return sorted(
        p.name for p in paths.notebooks().iterdir() if p.suffix in (".ipynb", ".svg") or p.name == "glossary.md"
    )


def lab_command(
    notebook: str, *, folder: str | Path | None = None, port: int = 8888, browser: bool = True
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that open one of the notebooks, in the checkout or copied to
    `folder`.
    """
    if find_spec("jupyterlab") is None:
        raise UserError(
            f"JupyterLab is not installed in this Python; {install('lab')}, or in a checkout run: make setup."
        )
    name = Path(notebook).name
    known = [file for file in lessons() if file.endswith(".ipynb")]
    if name not in known:
        raise UserError(f"There is no notebook '{notebook}'.{nearest(notebook, known)} There are: {', '.join(known)}.")
    root = paths.checkout()
    if root is not None and folder is None:
        page = f"notebooks/{name}"
    else:
        here = folder is None and Path(name).is_file()  # started within a folder of lessons
        copied = copy_lessons(Path.cwd() if here else folder or FOLDER)
        print(copied, file=sys.stderr)
        root, page = copied.folder.resolve(), name
    command = [
        *[sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={root}"],
        f"--LabApp.default_url=/lab/tree/{page}",
    ]
    command += [] if browser else ["--no-browser"]
    if system.is_root():
        command.append("--allow-root")
    settings = str(Path(__file__).parent / "lab_settings")
    folders = [settings, *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    environment = {"GOMP_SPINCOUNT": "10000", **_own_folders(), **os.environ}
    return command, environment | {"JUPYTER_CONFIG_PATH": os.pathsep.join(folders)}


def _own_folders() -> dict[str, str]:
    """Temporary folders for what Jupyter keeps at home, where the home cannot be written."""
    if paths.writable(Path.home()):
        return {}
    place = tempfile.mkdtemp(prefix="clae-jupyter-")
    print(f"{Path.home()} cannot be written: JupyterLab keeps its settings in {place} this time.", file=sys.stderr)
    return {name: os.path.join(place, name.lower()) for name in _JUPYTER}


def open_lab(notebook: str, *, folder: str | Path | None = None, port: int = 8888, browser: bool = True) -> int:
    """Run JupyterLab until it is closed; returns its exit status, 0 after Ctrl-C.

    The terminal sends Ctrl-C to JupyterLab too, which asks whether to end and then ends its
    kernels; killed before that, it would leave them behind.
    """
    command, environment = lab_command(notebook, folder=folder, port=port, browser=browser)
    interrupted = False
    with subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                status = process.wait()
                return 0 if interrupted else status
            except KeyboardInterrupt:
                interrupted = True
