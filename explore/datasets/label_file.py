"""Labels in a file beside the images: file names and classes, or one number a line."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".txt")
LARGEST = 50_000_000  # bytes of a file that is read
LABEL_COLUMNS = ("label", "labels", "class", "classes", "class_name", "category", "target", "breed", "predictionstring")
WORDNET = re.compile(r"(n\d{8})( -?\d+)*")  # a class of ImageNet, with the boxes that its validation list adds
MOST = 0.9  # of the images that a table must know to be taken as theirs


def labels_beside(names: list[str], folders: Iterable[Path]) -> tuple[dict[str, str], Path] | None:
    """The class of every image that a table in `folders` names, and the table; None without one.

    `names`: the images, relative paths. A table has a column of file names, with or without folders
    and endings, and one of classes; one number a line is of the images in alphabetical order.
    """
    for folder in dict.fromkeys(folders):
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()):
            if path.stat().st_size <= LARGEST and (found := _labels(names, path)):
                return found, path
    return None


def _labels(names: list[str], path: Path) -> dict[str, str]:
    rows = _rows(path.read_text("utf-8-sig", "replace"))
    if len(rows) == len(names) and all(len(row) == 1 and row[0].isdigit() for row in rows):
        return {name: row[0] for name, row in zip(sorted(names), rows, strict=True)}
    own: dict[str, str] = {}
    for name in names:
        place = Path(name)
        own |= {place.stem: name, place.name: name, name: name}
    width = min((len(row) for row in rows), default=0)
    counts = [sum(row[c] in own for row in rows) for c in range(min(width, 8))]
    if width < 2 or max(counts) < MOST * len(names):
        return {}
    files = counts.index(max(counts))
    head = [word.lower() for word in rows[0]] if rows[0][files] not in own else []
    label = next((i for i, word in enumerate(head) if word in LABEL_COLUMNS and i != files), int(files == 0))
    found = {own[row[files]]: _class(row[label]) for row in rows if row[files] in own and label < len(row)}
    return {name: word for name, word in found.items() if word}


def _rows(text: str) -> list[list[str]]:
    """Lines that are not empty, in columns by tab, comma, semicolon or spaces."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = next((mark for mark in "\t,;" if lines and mark in lines[0]), None)
    try:
        rows = list(csv.reader(lines, delimiter=mark)) if mark else [line.split(maxsplit=1) for line in lines]
    except csv.Error:
        return []
    return [[word.strip() for word in row] for row in rows]


def _class(word: str) -> str:
    wordnet = WORDNET.fullmatch(word)
    return wordnet[1] if wordnet else word
