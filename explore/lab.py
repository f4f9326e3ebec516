"""Open the notebooks in JupyterLab: loopback, token, no news popup."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from . import paths
from .errors import UserError, nearest


def lab_command(notebook: str, *, port: int = 8888, browser: bool = True) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that open one of the notebooks."""
    root = paths.checkout()
    if root is None:
        raise UserError("The notebooks come with the source checkout; clone the project and run `make lab` in it.")
    if find_spec("jupyterlab") is None:
        raise UserError(
            "JupyterLab is not installed in this Python; run `make setup`, or `pip install -e .` in the checkout."
        )
    known = [p.name for p in sorted((root / "notebooks").glob("*.ipynb"))]
    if Path(notebook).name not in known:
        raise UserError(f"There is no notebook '{notebook}'.{nearest(notebook, known)} There are: {', '.join(known)}.")
    command = [
        *[sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={root}"],
        f"--LabApp.default_url=/lab/tree/notebooks/{Path(notebook).name}",
    ]
    command += [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    settings = str(Path(__file__).parent / "lab_settings")
    folders = [settings, *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    return command, {"GOMP_SPINCOUNT": "10000", **os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(folders)}


def open_lab(notebook: str, *, port: int = 8888, browser: bool = True) -> int:
    """Run JupyterLab until it is closed; returns its exit status."""
    command, environment = lab_command(notebook, port=port, browser=browser)
    try:
        return subprocess.call(command, env=environment)
    except KeyboardInterrupt:
        return 0
