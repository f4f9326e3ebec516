"""The lessons as a static site: run, with panels that go on working in the browser; nothing is
loaded from elsewhere.
"""

import html
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import paths
from ..errors import UserError, extra
from ..figures import script
from ..lab import copy_lessons, lessons
from ..serialization import write_text
from .formulas import set_formulas

PLOTLY = "application/vnd.plotly.v1+json"
FRAMES = """addEventListener("message", ({ source, data }) => {
  for (const frame of document.querySelectorAll("iframe")) if (frame.contentWindow === source && data.height) frame.style.height = `${data.height}px`; });"""


@dataclass(frozen=True)
class Page:
    """A lesson of the site: its file, its title and first sentence, and what it weighs with its
    panels, in bytes.
    """

    file: Path
    title: str
    about: str
    size: int


def build(
    out: str | Path, notebooks: Sequence[str | Path] = (), *, tell: Callable[[str], None] = lambda _: None
) -> list[Page]:
    """Run lessons and write them into the folder `out` as a site with an index; returns its pages.

    `notebooks`: file names of lessons, or paths of notebooks; all lessons unless given. `tell` is
    called with a line for each.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "index.html").is_file())):
        raise UserError(
            f"A site is written into a new folder or an earlier site's, and {out} holds other files; name another."
        )
    with tempfile.TemporaryDirectory() as place:
        copy_lessons(place)
        books = [_there(each, Path(place)) for each in notebooks or [n for n in lessons() if n.endswith(".ipynb")]]
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "plotly.js", script())
        for picture in Path(place).glob("*.svg"):
            shutil.copy(picture, out)
        write_text(out / "glossary.html", _glossary((Path(place) / "glossary.md").read_text(encoding="utf-8")))
        found = []
        for book in books:
            began = time.perf_counter()
            found.append(_lesson(book, out, Path(place)))
            tell(f"{book.stem}: {found[-1].size / 1e6:.1f} MB, {time.perf_counter() - began:.0f} s")
    entries = [
        f'<li><a href="{quote(p.file.name)}">{html.escape(p.title)}</a><p>{html.escape(p.about)}</p></li>'
        for p in found
    ]
    write_text(out / "index.html", _document("Lessons", f"<h1>Lessons</h1><ol>{''.join(entries)}</ol>"))
    return found


def _there(name: str | Path, place: Path) -> Path:
    """The notebook of this name: a path of one's own, or a lesson's copy."""
    for path in (Path(name).expanduser(), place / Path(name).name):
        if path.is_file() and path.suffix == ".ipynb":
            return path.resolve()
    known = ", ".join(n for n in lessons() if n.endswith(".ipynb"))
    raise UserError(f"There is no notebook '{name}'; name a file, or one of the lessons {known}.")


def _lesson(path: Path, out: Path, place: Path) -> Page:
    """Run one notebook and write its page, with its panels in a folder of its own."""
    with extra("A site"):
        import nbformat
        from nbconvert import HTMLExporter

    panels = out / "panels" / path.stem
    shutil.rmtree(panels, ignore_errors=True)
    panels.mkdir(parents=True)
    book = nbformat.read(path, as_version=4)
    _run(book, path, panels, place)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = set_formulas(cell.source)
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                output["data"] = {"text/html": _chart(output["data"][PLOTLY])}
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(book)
    first = next((c.source for c in book.cells if c.cell_type == "markdown"), path.stem)
    title, about = _heading(first, path.stem)
    file = out / f"{path.stem}.html"
    write_text(
        file, _document(title, f'<p><a href="index.html">All lessons</a></p>{_linked(body)}<script>{FRAMES}</script>')
    )
    size = file.stat().st_size + sum(each.stat().st_size for each in panels.iterdir())
    return Page(file, title, about, size)


def _run(book: Any, path: Path, panels: Path, place: Path) -> None:
    """Run a notebook's cells in a kernel of their own; panels are saved into `panels`."""
    with extra("A site"):
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    own = {paths.PAGES: str(panels), "PLOTLY_RENDERER": "plotly_mimetype", "CLAE_RUNS": str(place / "runs")}
    resources = {"metadata": {"path": str(place)}}
    client = NotebookClient(book, timeout=None, kernel_name="python3", resources=resources, store_widget_state=False)
    try:
        client.execute(env={**os.environ, **own})
    except CellExecutionError as error:
        raise UserError(
            f"{path.name} stopped with {error.ename}: {error.evalue}; run it in Jupyter to see where."
        ) from error


def _glossary(markdown: str) -> str:
    with extra("A site"):
        from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return _document("Glossary", f'<p><a href="index.html">All lessons</a></p>{markdown2html_mistune(markdown)}')


def _linked(body: str) -> str:
    """A page's HTML, its links to notebooks and Markdown files as links to their pages."""
    return re.sub(r'href="([\w./-]+)\.(?:ipynb|md)(#[^"]*)?"', r'href="\1.html\2"', body)


def _chart(figure: Any) -> str:
    """A figure that draws itself with the site's plotly.js."""
    name = f"chart-{abs(hash(json.dumps(figure, sort_keys=True, default=str))):x}"
    parts = json.dumps([name, figure["data"], figure["layout"], {"displayModeBar": False}]).replace("<", "\\u003c")
    return f'<div id="{name}" class="chart"></div><script>Plotly.newPlot(...{parts})</script>'


def _heading(markdown: str, otherwise: str) -> tuple[str, str]:
    """A lesson's title and its first sentence, as plain text."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`_]", r"\1", markdown)
    lines = [line.strip() for line in plain.splitlines() if line.strip() and not line.startswith(("<", "!", "$"))]
    titles = [line.lstrip("# ") for line in lines if line.startswith("#")]
    texts = [line for line in lines if not line.startswith("#")]
    return (titles or [otherwise])[0], re.split(r"(?<=[.?!])\s", (texts or [""])[0])[0]


def _document(title: str, body: str) -> str:
    style = (Path(__file__).parent / "site.css").read_text(encoding="utf-8")
    top = head(title, style) + '<script src="plotly.js" defer></script>'
    body = body.replace("<script>Plotly.newPlot", '<script type="module">Plotly.newPlot')  # modules wait for plotly.js
    return f'<!doctype html>\n<html lang="en"><head>{top}</head><body><main>{body}</main></body></html>\n'


def head(title: str, style: str) -> str:
    """What stands in a page's head: its title, the colours of code, and a style of its own."""
    with extra("A site"):
        from pygments.formatters import HtmlFormatter

    code = HtmlFormatter().get_style_defs(".highlight")
    return (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{code}\n{style}</style>"
    )
