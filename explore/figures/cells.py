"""A cell that is run again: panels and charts of its earlier run are closed, unless a variable
still holds one.

ipywidgets keeps every widget until it is closed, and IPython what a cell has shown, so a notebook
that is run again and again would otherwise keep the panels of each run, with their images.
"""

import contextlib
import itertools
import weakref
from typing import Any

from IPython import get_ipython

from ..system import release_memory

_made: list[tuple[Any, int, "weakref.ref[Any]"]] = []  # cell, which run of a cell, panel or chart
_runs = itertools.count()
_run = next(_runs)
_watched: "weakref.WeakSet[Any]" = weakref.WeakSet()  # shells


def made_in_a_cell(panel: Any) -> None:
    """Note the cell that makes a panel or chart; nothing outside of a notebook."""
    shell = get_ipython()
    if (cell := _cell_of(shell)) is None:
        return
    if shell not in _watched:
        _watched.add(shell)
        shell.events.register("post_run_cell", _close_earlier)
    _made.append((cell, _run, weakref.ref(panel)))


def _cell_of(shell: Any) -> Any:
    """What tells the running cell from others: the id that the front end sends, or its code."""
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        message = shell.get_parent()
        return message.get("metadata", {}).get("cellId") or message["content"]["code"]
    return None


def _close_earlier(_result: Any) -> None:
    """After a cell has run: close what its earlier runs made."""
    global _run
    shell = get_ipython()
    cell, closed = _cell_of(shell), False
    for each in list(_made):
        where, run, found = each
        panel = found()
        if panel is None or (where == cell and run < _run and not _held(shell.user_ns, panel)):
            _made.remove(each)
            if panel is not None:
                panel.close()
                _forget(shell, panel)
                closed = True
            del panel
    if closed:
        release_memory()
    _run = next(_runs)


def _held(names: dict[str, Any], panel: Any) -> bool:
    """Whether a variable, or a list, tuple, set or dict in one, holds the panel; what IPython keeps
    by itself does not count.
    """
    for name, value in list(names.items()):
        if name in ("Out", "_oh") or name.strip("_0123456789") == "":
            continue
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        if value is panel or any(one is panel for one in list(inside)):
            return True
    return False


def _forget(shell: Any, panel: Any) -> None:
    """Drop what IPython keeps of the cell that showed the panel: `Out[n]`, `_n`, `_`."""
    for kept in (shell.user_ns, shell.user_ns_hidden, shell.user_ns.get("_oh", {})):
        for name in [name for name, value in list(kept.items()) if value is panel]:
            del kept[name]
    for name in ("_", "__", "___"):
        if getattr(shell.displayhook, name, None) is panel:
            setattr(shell.displayhook, name, None)
