"""A class on one server: the same lesson in several kernels at once, beside one alone.

Every student is a process that runs all cells of the lesson in a kernel of its own, without a browser. Memory is the kernel's
largest resident set; pages that processes share (libraries) are counted in each.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from .timing import machine

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = ("00_start_here", "02_the_attack", "06_linear_probe")


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds of all cells and mebibytes of a kernel; CPU only."""
    figures: dict[str, object] = {}
    lessons, kernels = (LESSONS[:1], (1, 2)) if quick else (LESSONS, (1, 2, 4, 8))
    print(
        f"{'lesson':<18}{'kernels':>8}{'s first output':>16}{'s, slowest':>12}{'s each, median':>16}{'MB a kernel':>13}"
    )
    for lesson in lessons:
        for n in kernels:
            found = _at_once(lesson, n)
            first, every, memory = ([row[key] for row in found] for key in ("first", "seconds", "mb"))
            row = {"first": max(first), "slowest": max(every), "median": statistics.median(every), "mb": max(memory)}
            print(
                f"{lesson:<18}{n:>8}{row['first']:>16.1f}{row['slowest']:>12.1f}{row['median']:>16.1f}{row['mb']:>13.0f}",
                flush=True,
            )
            figures |= {f"{lesson}, {n}: {name}": value for name, value in row.items()}
    return {**figures, "quick": quick, **machine(torch.device("cpu"))}


def _at_once(lesson: str, n: int) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        code = f"from benchmarks.classroom import student; student({lesson!r})"
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        students = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code],
                env={**environment, "CLAE_RUNS": f"{folder}/{i}", "CLAE_CACHE": f"{folder}/{i}/cache"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(n)
        ]
        return [json.loads(each.communicate()[0].splitlines()[-1]) for each in students]


def student(lesson: str) -> None:
    """In a process of its own: run the lesson; print seconds to the first output, of all cells, and the kernel's MiB."""
    import resource  # not on Windows

    import nbformat
    from nbclient import NotebookClient

    began, first = time.perf_counter(), []

    def executed(cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict) -> None:
        if cell.get("outputs") and not first:
            first.append(time.perf_counter() - began)

    book = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    NotebookClient(
        book,
        timeout=1800,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_executed=executed,
    ).execute()
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"first": first[0] if first else seconds, "seconds": seconds, "mb": memory}))
