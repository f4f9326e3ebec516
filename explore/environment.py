"""Where a result came from: versions, machine, commit and arguments, as they are now."""

import os
import platform
import shutil
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from typing import Any

import torch

from . import paths


def environment() -> dict[str, Any]:
    """Versions, machine, commit and arguments, as they are now; what every result carries."""
    names = ("torch", "torchvision", "numpy", "pandas", "scipy")
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "time": now(),
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "argv": [a for a in sys.argv[1:] if not os.path.isabs(a)],
    }


@cache
def commit() -> str | None:
    """The checkout's commit, with '+' where files differ from it; None outside a checkout. Asked once: a process runs what it has loaded."""
    root, git = paths.checkout(), shutil.which("git")
    if not (root and git):
        return None

    def ask(*words: str) -> str:
        return subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True).stdout.strip()

    head = ask("rev-parse", "--short=7", "HEAD")
    return (head + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")) if head else None


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
