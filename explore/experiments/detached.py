"""Processes that go on when the kernel or the terminal that started them ends."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import system


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
            env={
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                **(extra or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            **system.detached(),
        )
