"""HTML of the panel of your own images, from a `datasets.Data`: what was read, resized and left
out. No widget.
"""

from dataclasses import dataclass

import torch

from ...datasets import Data, Split
from ...results import png, to_pixels
from ..html import Markup, image, join, note, tag

CLASSES, EACH, SIDE = 30, 8, 40  # classes that are shown, pictures of each, and their pixels on the screen
NAMED = 20  # of the files that were left out


@dataclass(frozen=True)
class Row:
    """A class: its name, its images to train and to test on, the first pictures to train on."""

    name: str
    train: int
    test: int
    pictures: tuple[str, ...]  # data URIs


@dataclass(frozen=True)
class Preview:
    """What the panel draws: the data set as `result`, a row for each class."""

    result: Data
    rows: tuple[Row, ...]


def preview(data: Data) -> Preview:
    """The classes of a data set, with their first pictures."""
    names = [*enumerate(data.classes)] or [(-1, "no class")]
    parts = [split.labels.cpu() for split in (data.train, data.test)]
    rows: list[Row] = []
    for label, name in names:
        train, test = (int((labels == label).sum()) for labels in parts)
        shown = _pictures(data.train, (parts[0] == label).nonzero()[:EACH, 0]) if len(rows) < CLASSES else ()
        rows.append(Row(name, train, test, shown))
    return Preview(data, tuple(rows))


def _pictures(split: Split, rows: torch.Tensor) -> tuple[str, ...]:
    return tuple(map(png, to_pixels(split[rows][0]))) if len(rows) else ()


def reading(data: Data) -> Markup:
    """The finding: how many images, of which size, and what was done to their size."""
    classes = f"{len(data.classes):,} classes" if data.classes else "no classes"
    counts = f"{len(data.train):,} images to train on and {len(data.test):,} to test on"
    text = join(tag.b(counts), f", {classes}, at {data.size} x {data.size} pixels.")
    if not (sides := data.provenance.get("sides")):
        return text
    low, high = sides
    of = f"{low}" if low == high else f"{low} to {high}"
    done = "as they are" if low == high == data.size else f"scaled to {data.size}"
    return join(text, f" Short sides of the files: {of} pixels, {done}; of each the middle square was taken.")


def left_out(data: Data) -> Markup:
    """The warnings, and the files that could not be read."""
    skipped = data.provenance.get("skipped", [])
    more = [f"{len(skipped) - NAMED:,} more"] if len(skipped) > NAMED else []
    named = tag.details(
        tag.summary("Files that were left out"), tag.ul(map(tag.li, [*skipped[:NAMED], *more]), class_="mono")
    )
    told = tag.ul(map(tag.li, data.warnings)) if data.warnings else tag.p("Nothing was left out.", class_="ex-note")
    return tag.div(told, named if skipped else None, class_="ex-left")


def classes(shown: Preview) -> Markup:
    """A table: a row a class, with its counts and first pictures."""
    head = tag.tr(*(tag.th(word, scope="col") for word in ("class", "train", "test", "the first of them")))
    rows = [
        tag.tr(
            tag.th(row.name, scope="row"),
            tag.td(f"{row.train:,}"),
            tag.td(f"{row.test:,}"),
            tag.td([image(uri, SIDE, f"{row.name}, image {i + 1}") for i, uri in enumerate(row.pictures)]),
        )
        for row in shown.rows[:CLASSES]
    ]
    table = tag.table(tag.thead(head), tag.tbody(rows), class_="ex-up", aria_label="Classes")
    over = len(shown.rows) - CLASSES
    return join(table, note(f"and {over:,} more classes") if over > 0 else None)
