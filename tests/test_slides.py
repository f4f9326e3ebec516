"""The lecture's slides: the deck that is shipped, and one built from a small notebook, without a browser and a network."""

import io
import tarfile
import warnings

import pytest

import explore as ex
from explore import paths
from explore.site.slides import build_slides, read_slides

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nbformat

DECK = """# Two and two

Note: 1 min. Wait for an answer.
---
## A sum

The formula $a_i$ and its value:

![the number four](small.ipynb#sum)

[code](small.ipynb#sum)

Note: 3 min. Say **why**.
---
## A figure

![loss over gradients](small.ipynb#figure)

Note: 2 min.
"""
FIGURE = "import explore as ex\n\nex.figures.live(ex.figures.gradients_spent([('FGSM', 1, 4.2, 4.1, 4.3)], clean=3.9))"


def test_the_lecture_takes_45_minutes_and_shows_cells_that_there_are():
    slides = read_slides(paths.notebooks() / "slides.md")
    assert sum(slide.minutes for slide in slides) == 45 and 20 <= len(slides) <= 25
    assert len({slide.title for slide in slides}) == len(slides) and all(slide.note for slide in slides)
    shown = [each for slide in slides for each in slide.shown()]
    assert len(shown) > 15
    for lesson, cell, text in shown:
        book = nbformat.read(paths.notebooks() / f"{lesson}.ipynb", as_version=4)
        assert [own.cell_type for own in book.cells if own.id == cell] == ["code"], (lesson, cell)
        assert text


@pytest.fixture
def small(tmp_path):
    """A deck, its notebook, and an archive in place of reveal.js."""
    (tmp_path / "deck.md").write_text(DECK)
    cells = [nbformat.v4.new_code_cell("2 + 2", id="sum"), nbformat.v4.new_code_cell(FIGURE, id="figure")]
    cells.append(nbformat.v4.new_code_cell("1 / 0", id="never"))  # after the last that is shown
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "small.ipynb")
    with tarfile.open(tmp_path / "reveal.tgz", "w:gz") as archive:
        for name in ("reveal.css", "reveal.js", "plugin/notes.js"):
            text = f"/* {name} </script> */".encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_a_deck_becomes_one_page(small):
    page = build_slides(small / "out", small / "deck.md", reveal=small / "reveal.tgz").read_text()
    assert page.count("<section>") == 3 and page.count('<aside class="notes">') == 3
    assert "<pre>4</pre>" in page and 'aria-label="loss over gradients"><svg' in page and "$a_i$" not in page
    assert "3 min. Say <strong>why</strong>." in page and "Note:" not in page and "small.ipynb" not in page
    assert "/* reveal.js <\\/script> */" in page and "src=" not in page.replace("data-src=", "")


def test_a_deck_that_cannot_be_built_says_why(small):
    deck, build = small / "deck.md", {"reveal": small / "reveal.tgz"}
    with pytest.raises(ex.UserError, match="holds other files"):
        build_slides(small, deck, **build)
    deck.write_text(DECK.replace("#sum", "#sums"))
    with pytest.raises(ex.UserError, match=r"no cell sums, .* its cells are sum, figure"):
        build_slides(small / "out", deck, **build)
    deck.write_text(DECK.replace("small.ipynb", "large.ipynb"))
    with pytest.raises(ex.UserError, match="no such file"):
        build_slides(small / "out", deck, **build)
    deck.write_text(DECK.replace("Note: 2 min.", ""))
    with pytest.raises(ex.UserError, match="'## A figure' has none"):
        build_slides(small / "out", deck, **build)
