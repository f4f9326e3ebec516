"""Folders of lessons, shipped data, downloads and runs."""

import os
from pathlib import Path

PAGES = "CLAE_PAGES"  # names the folder that panels are saved to while a site is made
_package = Path(__file__).resolve().parent
_checkout = _package.parent if (_package.parent / "pyproject.toml").is_file() else None


def checkout() -> Path | None:
    """The source checkout this package runs from, or None for an installed wheel."""
    return _checkout


def shipped() -> Path:
    """Folder of shipped data: `data/` of the checkout, or its copy in an installed wheel."""
    return _checkout / "data" if _checkout else _package / "_data"


def notebooks() -> Path:
    """Folder of the lessons: `notebooks/` of the checkout, or its copy in an installed wheel."""
    return _checkout / "notebooks" if _checkout else _package / "_notebooks"


def cache() -> Path:
    """Where downloads go: $CLAE_CACHE, else ~/.cache/clae-explorer."""
    return Path(os.environ.get("CLAE_CACHE") or Path.home() / ".cache" / "clae-explorer")


def runs_root() -> Path:
    """Where runs are written: $CLAE_RUNS, else runs/ in the checkout (or in the current folder)."""
    return Path(os.environ.get("CLAE_RUNS") or (_checkout or Path.cwd()) / "runs")


def writable(folder: Path) -> bool:
    """True if files can be written in a folder, or if it can be made."""
    while not os.path.exists(folder) and folder != folder.parent:  # False, too, in a folder that is closed to us
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
