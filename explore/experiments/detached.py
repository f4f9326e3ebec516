"""Processes that go on when the kernel or the terminal that started them ends."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def launch(module: str, words: Sequence[str], log: Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Run `python -m module words` by itself, with this very library; what it prints goes to `log`.

    `extra`: environment variables besides this process's own. OSError where the log cannot be
    written.
    """
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            **_detached(),
        )


def _detached() -> dict[str, Any]:
    """Arguments of `Popen` with which neither Ctrl-C nor the end of kernel or terminal reaches it."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | 0x08000000}  # without a window
    return {"start_new_session": True}
