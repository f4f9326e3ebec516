"""A long day in one kernel: a slider moved thousands of times, panels opened and closed, a lesson run again and again.

Memory is the resident set of the process. A rerun is all cells of the lesson once more in the same kernel, as by Run All: its
panels are made again under the same names, and nobody closes the old ones.
"""

import itertools
import statistics
import time
from pathlib import Path

import psutil
import torch
from ipywidgets.widgets.widget import _instances

import explore as ex

from .timing import machine

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "02_the_attack.ipynb"
Row = tuple[int, float, float, int]


def run(quick: bool, device: str) -> dict[str, object]:
    """MiB and seconds early and late; CPU only."""
    n = 3 if quick else 50
    parts = {
        "moves of a slider": (moves(40 * n), "ms each"),
        "panels opened and closed": (panels(n), "s each"),
        "reruns of lesson 02": (reruns(n), "s each"),
    }
    figures: dict[str, object] = {}
    print(f"{'':<28}{'after':>8}{'MiB':>8}{'time':>10}{'widgets':>10}")
    for name, (rows, unit) in parts.items():
        for after, mb, spent, widgets in rows:
            print(f"{name:<28}{after:>8}{mb:>8.0f}{spent:>10.3g}{widgets:>10}  {unit}")
            figures[f"{name}, after {after}"] = [round(mb), round(spent, 4), widgets]
    return {**figures, "quick": quick, **machine(torch.device("cpu"))}


def moves(n: int) -> list[Row]:
    """Every step of the slider, up and down, until n moves were drawn: a row every tenth part of them."""
    lab = ex.panels.Perturbation("demo/clae")
    lab.wait(300)
    ks = [*range(17), *range(15, 0, -1)]
    rows, spent = [], []
    for i, k in enumerate(itertools.islice(itertools.cycle(ks), n), 1):
        began = time.perf_counter()
        lab.k = k
        lab.wait(60)
        spent.append(1000 * (time.perf_counter() - began))
        if i % (n // 10) == 0:
            rows.append((i, _mib(), statistics.median(spent), _widgets()))
            spent.clear()
    lab.close()
    return rows


def panels(n: int) -> list[Row]:
    """The perturbation lab and the atlas, opened and closed in turn."""
    rows = []
    for i in range(1, n + 1):
        began = time.perf_counter()
        for panel in (ex.panels.Perturbation("demo/clae"), ex.panels.Atlas("demo/clae", points=100, method="pca")):
            panel.wait(300)
            panel.close()
        if i in (1, 2, n // 2, n):
            rows.append((i, _mib(), time.perf_counter() - began, _widgets()))
    return rows


def reruns(n: int) -> list[Row]:
    """The lesson in one kernel, all cells n times."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(LESSON, as_version=4)
    ask = "import psutil; from ipywidgets.widgets import widget; print(psutil.Process().memory_info().rss, len(widget._instances))"
    book.cells.append(nbformat.v4.new_code_cell(ask))
    client = NotebookClient(book, timeout=1800, kernel_name="python3", resources={"metadata": {"path": LESSON.parent}})
    rows = []
    with client.setup_kernel():
        for i in range(1, n + 1):
            began = time.perf_counter()
            for index, cell in enumerate(book.cells):
                client.execute_cell(cell, index)
            if i in (1, 2, n // 2, n):
                rss, widgets = book.cells[-1].outputs[-1]["text"].splitlines()[-1].split()
                rows.append((i, int(rss) / 2**20, time.perf_counter() - began, int(widgets)))
    return rows


def _mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _widgets() -> int:
    return len(_instances)
