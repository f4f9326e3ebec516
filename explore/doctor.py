"""Check torch, device, data, runs, widgets and browser, and say what to do if one is missing."""

import contextlib
import importlib
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from html import escape
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import paths
from .errors import UserError, install

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "firefox")
WIDGETS = ("ipywidgets", "anywidget", "plotly", "captum", "umap-learn")


@dataclass(frozen=True)
class Check:
    """One finding: its subject, whether it is fine, what was found, what to do."""

    name: str
    ok: bool
    found: str
    todo: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Report:
    """All findings; prints as text, and as a table in a notebook."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """True if nothing required is missing."""
        return all(c.ok or not c.needed for c in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [asdict(c) for c in self.checks]}

    def __str__(self) -> str:
        lines = [
            f"{'✓' if c.ok else '✕' if c.needed else '–'} {c.name:<9} {c.found}{'  ->  ' + c.todo if c.todo else ''}"
            for c in self.checks
        ]
        end = "All that is needed is here." if self.ok else "Something needed is missing: see the lines marked ✕."
        return "\n".join([*lines, end])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✓' if c.ok else '✕' if c.needed else '–'}</td><td style='text-align:left'>{escape(c.name)}</td>"
            f"<td style='text-align:left'>{escape(c.found)}{'<br><b>' + escape(c.todo) + '</b>' if c.todo else ''}</td></tr>"
            for c in self.checks
        )
        return f"<table><tbody>{rows}</tbody></table>"


def diagnose() -> Report:
    """Check this machine and report what works (`doctor` on the command line)."""
    checks = [
        _python(),
        _torch(),
        _threads(),
        _device(),
        _data(),
        _runs(),
        _folders(),
        _widgets(),
        _jupyterlab(),
        _servers(),
        _browser(),
    ]
    return Report(checks)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return Check("Python", good, platform.python_version(), "" if good else "Use Python 3.11 or newer.")


def _torch() -> Check:
    try:
        import torch
        import torchvision
    except Exception as error:
        return Check(
            "torch",
            False,
            f"does not import ({error})",
            "Install torch and torchvision together: pip install torch torchvision",
        )
    return Check(
        "torch",
        True,
        f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    )


def _threads() -> Check:
    from .threads import choose

    try:
        share = choose()
    except Exception:
        return Check("threads", False, "unknown without torch")
    return Check("threads", True, f"{share.threads}: {share.why}")


def _device() -> Check:
    try:
        import torch
    except Exception:
        return Check("device", False, "unknown without torch")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("device", True, f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB; training uses it with bf16")
    return Check(
        "device", True, f"no CUDA GPU: everything runs on {os.cpu_count()} CPU cores; the lessons are made for that"
    )


def _data() -> Check:
    from . import datasets

    try:
        data = datasets.load("fashion")
    except (UserError, OSError) as error:
        return Check("data", False, str(error), "The shipped images are damaged: clone the project again.")
    text = (
        f"{data.name}: {len(data.train):,} + {len(data.test):,} images, shipped; downloads go to {_home(paths.cache())}"
    )
    return Check("data", True, text)


def _runs() -> Check:
    from .runfolder import runs

    table = runs()
    demo = [name for name in table.get("run", []) if name.startswith("demo/")]
    own = sum(not name.startswith(("demo/", "cifar10/")) for name in table.get("run", []))
    text = f"{', '.join(demo) or 'no shipped run'}; {own} of your own in {_home(paths.runs_root())}"
    return Check(
        "runs",
        bool(demo),
        text,
        "" if demo else "The shipped runs are missing: clone the project again, or run `make demo`.",
    )


def _folders() -> Check:
    places = {"CLAE_CACHE": paths.cache(), "CLAE_RUNS": paths.runs_root()}
    closed = {variable: _home(path) for variable, path in places.items() if not paths.writable(path)}
    found = f"{', '.join(closed.values())} cannot be written" if closed else "cache and runs can be written"
    return Check(
        "folders", not closed, found, f"Name another folder in {' and '.join(closed)}." if closed else "", needed=False
    )


def _widgets() -> Check:
    """The extra 'notebooks': a machine that only trains does without, half of it helps nobody."""
    have = {name: _version(name) for name in WIDGETS}
    missing = [name for name, version in have.items() if version is None]
    found = ", ".join(f"{name} {version}" for name, version in have.items() if version)
    todo = f"For lessons and panels {', '.join(missing)}: {install('notebooks')}" if missing else ""
    return Check("widgets", not missing, found or "none", todo, needed=bool(found))


def _jupyterlab() -> Check:
    version = _version("jupyterlab")
    todo = "" if version else f"Where it is to run from this Python, {install('lab')}"
    return Check("lab", bool(version), f"jupyterlab {version}" if version else "none", todo, needed=False)


def _servers() -> Check:
    """Running Jupyter servers of other environments than this Python's; they need anywidget."""
    todo = "in the environment that JupyterLab runs in: pip install anywidget; then restart the server, reload the page"
    try:
        paths_of, psutil = importlib.import_module("jupyter_core.paths"), importlib.import_module("psutil")
    except ImportError:  # both come with a kernel
        return Check("server", True, f"unknown; where panels stay empty, {todo}", needed=False)
    extension = "share/jupyter/labextensions/anywidget"
    users = Path(paths_of.jupyter_data_dir(), "labextensions", "anywidget").is_dir()
    found = []
    for file in sorted(Path(paths_of.jupyter_runtime_dir()).glob("jpserver-*.json")):
        with contextlib.suppress(psutil.Error, ValueError):
            found.append(Path(psutil.Process(int(file.stem.split("-")[1])).cmdline()[0]).parent.parent)
    others = [prefix for prefix in found if prefix.is_absolute() and prefix != Path(sys.prefix)]
    lacking = [prefix for prefix in others if not users and not (prefix / extension).is_dir()]
    if lacking:
        return Check(
            "server", False, f"Jupyter in {_home(lacking[0])} has no anywidget", f"Panels need it {todo}.", False
        )
    where = (
        f"Jupyter in {_home(others[0])} has anywidget"
        if others
        else f"none found in another environment; where panels stay empty, {todo}"
    )
    return Check("server", True, where, needed=False)


def _browser() -> Check:
    found = find_browser()
    if found is None:
        return Check(
            "browser",
            False,
            "none found by name",
            "Copy the address that `make lab` prints into your browser.",
            needed=False,
        )
    ring = " (and playwright: `make test` drives it)" if find_spec("playwright") else ""
    return Check("browser", True, _home(found) + ring)


def find_browser(names: tuple[str, ...] = BROWSERS) -> str | None:
    """Path of a browser: $CLAE_BROWSER, the first of `names` on the PATH, macOS' Chrome."""
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    named = os.environ.get("CLAE_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    return named or (mac if os.path.exists(mac) else None)


def _home(path: Any) -> str:
    text, home = str(path), os.path.expanduser("~")
    return "~" + text[len(home) :] if text.startswith(home + os.sep) else text
