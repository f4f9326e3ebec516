"""A cell that is run again closes what its earlier runs made, and nothing else."""

import gc
import weakref

import pytest
from ipywidgets.widgets.widget import _instances

from explore.figures import base, cells
from explore.figures.chart import _shared_script
from explore.panels.base import Panel


class Nothing(Panel):
    def compute(self, job):
        return "nothing"


@pytest.fixture
def shell(monkeypatch):
    """IPython as a notebook's kernel has it: every cell comes in a message."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr(cells, "get_ipython", lambda: shell)
    monkeypatch.setattr(cells, "_made", [])
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    shell.kernel = True
    _shared_script()  # of all charts, kept while the kernel lives

    def run(code, cell=None):
        shell.get_parent = lambda: {"metadata": {"cellId": cell} if cell else {}, "content": {"code": code}}
        shell.run_cell(code, store_history=True).raise_error()

    shell.push({"Panel": Nothing, "blank": base.blank})
    yield run, shell.user_ns
    shell.history_manager.end_session()


@pytest.mark.parametrize("cell", [None, "a"])
def test_a_cell_that_is_run_again_closes_the_panels_of_its_earlier_run(shell, cell, capsys):
    run, names = shell
    run("panel = Panel()\npanel", cell)
    first = weakref.ref(names["panel"])
    widgets = len(_instances)
    for _ in range(3):
        run("panel = Panel()\npanel", cell)
    gc.collect()
    assert len(_instances) == widgets and first() is None
    assert [value for value in names["Out"].values() if isinstance(value, Panel)] == [names["panel"]]
    run("1 + 1")
    assert 2 in names["Out"].values()


def test_what_a_variable_holds_and_what_another_cell_made_stays_open(shell, capsys):
    run, names = shell
    run("kept = []")
    for _ in range(2):
        run("kept.append(Panel())", "a")
    run("panel = Panel()\nfirst = panel", "b")
    run("panel = Panel()", "b")
    run("third = Panel()", "c")
    assert all(
        panel.view.comm is not None for panel in [*names["kept"], names["first"], names["panel"], names["third"]]
    )
    for panel in (*names["kept"], names["first"], names["panel"], names["third"]):
        panel.close()


def test_a_chart_that_a_cell_shows_again_takes_the_first_ones_place(shell, capsys):
    run, _ = shell
    run("blank(300, 200)", "a")
    before = len(_instances)
    run("blank(300, 200)", "a")
    assert len(_instances) == before
    run("blank(300, 200)", "b")
    assert len(_instances) > before
    run("1", "b")
    assert len(_instances) == before
