"""Slides of a lecture: a Markdown file whose pictures are the outputs of lessons' cells, as one page
with reveal.js in it; nothing is loaded from elsewhere.

Slides are separated by lines of `---`. `![what it shows](02_the_attack.ipynb#attack-04)` is the output
of that cell, `[code](02_the_attack.ipynb#attack-15)` its source. Of a panel, a title such as
`"1.4 .ex-pics"` shows the parts of these classes only, 1.4 times as large. What follows
`Note: 2 min.` is for the speaker's window (key S).
"""

import html
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..datasets.download import Unreachable, fetch
from ..errors import UserError, extra
from ..figures import Figure, drawable, script, svg
from ..lab import copy_lessons
from ..serialization import write_text
from . import PLOTLY, _run, head
from .formulas import set_formulas

REVEAL = "https://registry.npmjs.org/reveal.js/-/reveal.js-6.0.2.tgz", "280913220f4862dce84cb2e1c57f7fe8"
SHOWN = re.compile(r'^(!\[([^\]]*)\]|\[code\])\(([\w-]+)\.ipynb#([\w-]+)(?: "([\d.]+) ([^"]+)")?\)$', re.MULTILINE)
NOTE = re.compile(r"^Note: (\d+) min\. ?(.*)", re.MULTILINE | re.DOTALL)
START = (
    'Reveal.initialize({width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t", '
    'transition: "none", plugins: [RevealNotes]}).then(() => { document.body.dataset.ready = "yes" })'
)


@dataclass(frozen=True)
class Slide:
    """One slide: Markdown, what to say, and in how many minutes."""

    text: str
    note: str
    minutes: int

    @property
    def title(self) -> str:
        return self.text.lstrip("# ").split("\n")[0]

    def shown(self) -> list[tuple[str, str, str]]:
        """Lesson, cell and text for those who cannot see it, of each output and source on it."""
        return [
            (found[3], found[4], found[2] if found[2] is not None else "code") for found in SHOWN.finditer(self.text)
        ]


def read_slides(deck: str | Path) -> list[Slide]:
    """The slides of a Markdown file; each needs its note with the minutes."""
    slides = []
    for part in re.split(r"^---$", Path(deck).read_text(encoding="utf-8"), flags=re.MULTILINE):
        note = NOTE.search(part)
        if note is None:
            first = part.strip().split("\n")[0]
            raise UserError(f"A slide ends with a line 'Note: 2 min. What to say.', and '{first}' has none; add it.")
        slides.append(Slide(part[: note.start()].strip(), note[2].strip(), int(note[1])))
    return slides


def build_slides(
    out: str | Path,
    deck: str | Path | None = None,
    *,
    reveal: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run the cells that a deck shows and write it as `out`/index.html, with its panels beside it;
    returns that path.

    `deck`: a Markdown file beside its notebooks; the course's lecture unless given. `reveal`:
    reveal.js's npm archive, where it cannot be downloaded. `tell` is called with a line for each
    lesson.
    """
    out, deck = Path(out).expanduser(), Path(deck or paths.notebooks() / "slides.md").expanduser()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "plotly.js").is_file())):
        raise UserError(
            f"Slides are written into a new folder or earlier slides', and {out} holds other files; name another."
        )
    slides = read_slides(deck)
    library = _reveal(reveal)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plotly.js", script())  # of the panels
    shutil.rmtree(out / "panels", ignore_errors=True)
    cells: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory() as place:
        copy_lessons(place)
        asked = [each for slide in slides for each in slide.shown()]
        for lesson in sorted({lesson for lesson, *_ in asked}):
            book = deck.with_name(f"{lesson}.ipynb")
            wanted = {cell: text == "code" for own, cell, text in asked if own == lesson}
            cells |= {(lesson, cell.id): cell for cell in _cells(book, wanted, out, Path(place))}
            tell(lesson)
        for picture in Path(place).glob("*.svg"):
            shutil.copy(picture, out)
    views = _Views(out, cells)
    body = "".join(_section(slide, views) for slide in slides)
    for file in (out / "panels").rglob("panel-*.html"):
        file.unlink()  # the slides' own copies are there
    sheets = library["reveal.css"] + (Path(__file__).parent / "slides.css").read_text(encoding="utf-8")
    scripts = "".join(f"<script>{text}</script>" for text in (library["reveal.js"], library["notes.js"], START))
    page = f'<!doctype html>\n<html lang="en"><head>{head(slides[0].title, sheets)}</head><body>'
    page += f'<div class="reveal"><div class="slides">{body}</div></div>{scripts}</body></html>\n'
    write_text(out / "index.html", page)
    return out / "index.html"


def _cells(path: Path, wanted: dict[str, bool], out: Path, place: Path) -> list[Any]:
    """The wanted cells of a notebook, run up to the last whose output is wanted (`wanted`: cell ->
    whether its source alone is)."""
    with extra("Slides"):
        import nbformat

    if not path.is_file():
        raise UserError(f"The slides show cells of {path.name}, and there is no such file beside them; mend its name.")
    book = nbformat.read(path, as_version=4)
    names = [cell.id for cell in book.cells]
    if missing := sorted(wanted.keys() - set(names)):
        raise UserError(
            f"{path.name} has no cell {missing[0]}, which the slides show; its cells are {', '.join(names)}."
        )
    chosen = [cell for cell in book.cells if cell.id in wanted]
    last = max((names.index(name) for name, source in wanted.items() if not source), default=-1)
    if last >= 0:
        panels = out / "panels" / path.stem
        panels.mkdir(parents=True)
        book.cells = book.cells[: last + 1]
        _run(book, path, panels, place)
    return chosen


def _reveal(archive: str | Path | None) -> dict[str, str]:
    """The texts of reveal.js's files, from its npm archive; scripts as they may stand in a page."""
    url, md5 = REVEAL
    file = Path(archive).expanduser() if archive else paths.cache() / url.rpartition("/")[2]
    if not file.is_file() and archive is None:
        try:
            fetch([url], file, md5, lambda *_: None)
        except Unreachable as error:
            raise UserError(
                f"reveal.js cannot be downloaded ({error}); name its archive: --reveal FILE, from {url}."
            ) from None
    found = {}
    with tarfile.open(file) as files:
        for name in ("reveal.css", "reveal.js", "plugin/notes.js"):
            member = files.extractfile(f"package/dist/{name}")
            assert member is not None
            text = member.read().decode()
            found[Path(name).name] = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return found


class _Views:
    """HTML of cells' outputs; a panel's page is copied with a style that leaves some of its parts."""

    def __init__(self, out: Path, cells: dict[tuple[str, str], Any]):
        self.out, self.cells, self.count = out, cells, 0

    def output(self, lesson: str, cell: str, alt: str, zoom: str | None, parts: str | None) -> str:
        made = "".join(self._one(each, alt, zoom, parts) for each in self.cells[lesson, cell].outputs)
        return f'\n\n<div class="output">{made}</div>\n\n'

    def _one(self, output: Any, alt: str, zoom: str | None, parts: str | None) -> str:
        data = output.get("data", {})
        if PLOTLY in data:
            figure = Figure(data[PLOTLY])
            if not drawable(figure):
                raise UserError(f"The figure '{alt}' cannot be drawn without a browser; show another on a slide.")
            return f'<div class="figure" role="img" aria-label="{html.escape(alt)}">{svg(figure)}</div>'
        if "image/png" in data:
            return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data["image/png"]}">'
        frame = re.search(r'src="(panels/[^"]+)/panel-(\d+)\.html"', data.get("text/html", ""))
        if frame:
            self.count += 1
            own = f"{frame[1]}/slide-{self.count}.html"
            text = (self.out / frame[1] / f"panel-{frame[2]}.html").read_text(encoding="utf-8")
            write_text(self.out / own, text.replace("</head>", f"<style>{_only(zoom, parts)}</style></head>", 1))
            return f'<iframe data-src="{own}" title="{html.escape(alt)}"></iframe>'
        text = data.get("text/html") or f"<pre>{html.escape(output.get('text') or data.get('text/plain', ''))}</pre>"
        return re.sub(r"\n\s*", "\n", text)  # Markdown would read an indented line as code

    def code(self, lesson: str, cell: str) -> str:
        return f"\n```python\n{self.cells[lesson, cell].source}\n```\n"


def _only(zoom: str | None, parts: str | None) -> str:
    """A style for a panel's page: these parts alone, so many times as large."""
    if not parts:
        return ""
    keep = f":is({parts})"
    return (
        f"body{{zoom:{zoom};overflow:hidden}}.ex-sheet{{padding:0}}:is(.ex-top,.ex-end){{display:none}}"
        f".ex :not({keep},{keep} *,:has({keep}),style){{display:none!important}}"
    )


def _section(slide: Slide, views: _Views) -> str:
    with extra("Slides"):
        from nbconvert.filters.markdown_mistune import markdown2html_mistune

    def shown(found: re.Match) -> str:
        if found[2] is None:
            return views.code(found[3], found[4])
        return views.output(found[3], found[4], found[2], found[5], found[6])

    made = markdown2html_mistune(SHOWN.sub(shown, set_formulas(slide.text)))
    made = re.sub(r'<a class="anchor-link".*?</a>', "", made)
    note = f"{slide.minutes} min. {slide.note}"
    return (
        f'<section><div class="slide">{made}</div><aside class="notes">{markdown2html_mistune(note)}</aside></section>'
    )
