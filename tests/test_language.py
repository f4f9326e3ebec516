"""The lessons' language: words of the glossary are linked where a lesson first uses them, pictures have a text, links lead somewhere."""

import json
import re
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
GLOSSARY = LESSONS[0].with_name("glossary.md").read_text(encoding="utf-8")
ROW = re.compile(r'^\| <a id="([\w-]+)"></a>\*\*(.+?)\*\* \|', re.MULTILINE)
NO_PROSE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.+?\$\$|\$[^$\n]+\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|^(?:#|\||<summary>|\*\*Next:)[^\n]*$",
    re.DOTALL | re.MULTILINE,
)


def words(title: str) -> re.Pattern[str]:
    """The words of a glossary's row, also in the plural; those with a capital letter as they are written."""
    found = []
    for word in title.replace("ε (epsilon)", "ε").split(", "):
        word = re.sub(r" [hzτ]$", "", word)
        plural = (
            f"(?:{re.escape(word)}|{re.escape(word[:-1])}ies)" if word.endswith("y") else re.escape(word) + "(?:e?s)?"
        )
        found.append(plural if re.search("[A-ZN∞]", word) else f"(?i:{plural})")
    return re.compile(rf"(?<![\w-])(?:{'|'.join(found)})(?![\w-])")


TERMS = {name: words(title) for name, title in ROW.findall(GLOSSARY)}


def prose(text: str) -> str:
    """A Markdown text with spaces for what is no prose: code, formulas, links, headings, tables."""
    return NO_PROSE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def texts(path: Path) -> list[str]:
    """The Markdown cells of a lesson, without those that ask for a prediction: links would lead away from it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return [text for text in found if "**Predict" not in text]


def test_the_glossary_has_every_word_once_in_order():
    titles = [title.replace("ε (", "").lower() for _, title in ROW.findall(GLOSSARY)]
    assert len(titles) > 40 and titles == sorted(titles)
    assert len(TERMS) == len(titles) == GLOSSARY.count("\n| ") - 2


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_word_of_the_glossary_is_linked_where_a_lesson_first_uses_it(path):
    missing = {}
    for name, word in TERMS.items():
        for text in texts(path):
            if f"](glossary.md#{name})" in text:
                break
            if used := word.search(prose(text)):
                missing[name] = text[max(0, used.start() - 30) : used.end() + 30]
                break
    assert not missing, f"write [word](glossary.md#name) in {path.name}: {missing}"


@pytest.mark.parametrize("path", [*LESSONS, LESSONS[0].with_name("README.md")], ids=lambda p: p.stem)
def test_links_lead_somewhere_and_pictures_have_a_text(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\(((?:\.\./)*[\w./-]+\.(?:ipynb|md|svg|png)(?:#[\w-]*)?)\)", text):
        file, _, place = target.partition("#")
        assert (path.parent / file).is_file(), target
        assert not place or f'<a id="{place}">' in (path.parent / file).read_text(encoding="utf-8"), target
    assert not re.search(r"!\[\s*\]", text) and not re.search(r"<img(?![^>]* alt=)", text)
