"""HTML of the augmentation lab, from a `results.Similarities`: the picture with its crops, reading, hardest negatives. No widget."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...losses import chance
from ...results import Similarities, to_pixels
from ..html import Markup, fill, heading, join, note, picture, tag


@dataclass(frozen=True)
class Drawn:
    """What the panel draws: the batch at a temperature, the embedded batch, the picture shown large with further draws."""

    result: Similarities
    batch: Similarities
    picture: int
    draws: Tensor  # (8, 3, s, s)
    names: list[str]  # (n,) of the images' classes


KNOB_LABELS = {
    "scale": "Crop, area",
    "flip": "Flip, probability",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "saturation": "Saturation",
    "hue": "Hue",
    "jitter_p": "Jitter, probability",
    "gray_p": "Gray, probability",
    "blur_p": "Blur, probability",
}
SIDE, SMALL, HARD, SHOWN = 192, 64, 64, 8  # pixels of the large pictures, of the draws, of negatives; negatives shown


def pictures(drawn: Drawn) -> Markup:
    """The picture with both crop boxes, the two views, and further draws."""
    result, i, n = drawn.result, drawn.picture, len(drawn.result.x)
    name = drawn.names[i]
    boxes = [_box(result.boxes[row].tolist(), f"v{v}") for v, row in ((1, i), (2, i + n))]
    over = tag.svg(boxes, viewBox="0 0 100 100", aria_hidden="true")
    original = tag.div(picture(to_pixels(result.x[i : i + 1])[0], SIDE, name), over, class_="ex-tv-box")
    views = to_pixels(result.views[[i, i + n]])
    large = [_figure("picture", name, original)]
    for v, row in ((1, i), (2, i + n)):
        area = f"{100 * float(result.boxes[row, 2] * result.boxes[row, 3]):.0f} % of it"
        more = f"{area}{', mirrored' if bool(result.flips[row]) else ''}"
        shown = picture(views[v - 1], SIDE, f"view {v} of the {name}: {more}")
        large.append(_figure(tag.span(tag.i(class_=f"v{v}"), f"view {v}"), more, shown))
    small = [picture(each, SMALL, f"another view of the {name}") for each in to_pixels(drawn.draws)]
    further = _figure("more draws", "", tag.div(small, class_="ex-tv-draws"))
    return tag.div(large, further, class_="ex-tv-pics")


def _box(box: list[float], kind: str) -> Markup:
    top, left, height, width = (100 * part for part in box)
    inset = 1 if kind == "v1" else 2.5  # two equal boxes stay visible
    size = {"width": f"{max(width - 2 * inset, 1):.2f}", "height": f"{max(height - 2 * inset, 1):.2f}"}
    return tag.rect(x=f"{left + inset:.2f}", y=f"{top + inset:.2f}", class_=kind, **size)


def _figure(word: object, more: str, shown: Markup) -> Markup:
    return tag.figure(tag.figcaption(tag.b(word), " ", more), shown)


def reading(result: Similarities) -> Markup:
    """The finding: loss against chance, what the hardest negatives carry, and how many of them are of one class."""
    n = len(result.x)
    text = fill("At temperature {:g} NT-Xent is <b>{:.2f}</b> nats", result.temperature, float(result.loss.mean()))
    text += fill(" (chance, ln {}: {:.2f}). The hardest tenth of the negatives has ", 2 * n - 1, chance(n))
    text += fill("<b>{:.0f}\xa0%</b> of their weight.", 100 * result.carried(0.1))
    near, every = result.same_class(5)
    if math.isnan(near):
        return text
    words = " Of the five hardest negatives of a view {:.0f}\xa0% show its own class, of all negatives {:.0f}\xa0%."
    return text + fill(words, 100 * near, 100 * every)


def matrix_head() -> Markup:
    """Title of the matrix, and how to read it."""
    return heading(
        "Cosines of all views", "first views, then second views; framed: positives; click or arrows choose an anchor"
    )


def key() -> Markup:
    """What the marks of the chart are."""
    marks = [
        tag.span(tag.i(class_=name), words)
        for name, words in (("pos", "positive"), ("same", "negative of its class"), ("neg", "negative"))
    ]
    return tag.div(marks, tag.span("line: softmax, slope 1 / temperature"), class_="ex-tv-key ex-note")


def hardest(drawn: Drawn, anchor: int) -> Markup:
    """The anchor's positive and its hardest negatives with their weights; of its own class underlined."""
    result, n = drawn.result, len(drawn.result.x)
    rows = [int(result.positive[anchor]), *result.hardest(anchor, SHOWN).tolist()]
    own = int(result.labels[anchor % n])
    views, most = to_pixels(result.views[[anchor, *rows]]), float(result.weights[anchor].max())
    cells = [_candidate(views[0], f"anchor, {drawn.names[anchor % n]}", "anchor", None, 1.0, False)]
    for place, (row, pixels) in enumerate(zip(rows, views[1:], strict=True)):
        same = place > 0 and own >= 0 and int(result.labels[row % n]) == own
        weight, name = float(result.weights[anchor, row]), drawn.names[row % n]
        word = "positive" if place == 0 else f"{float(result.cosine[anchor, row]):.2f}".replace("-", "−")
        cells.append(_candidate(pixels, f"{name}, weight {100 * weight:.1f} %", word, weight, most, same))
    title = heading(
        "Hardest negatives of this anchor", "cosine above, weight below; a line under one of the anchor's own class"
    )
    return join(title, tag.div(cells, class_="ex-tv-hard"))


def _candidate(pixels: np.ndarray, alt: str, word: str, weight: float | None, most: float, same: bool) -> Markup:
    bar = None if weight is None else tag.span(tag.i(style=f"width:{100 * weight / most:.0f}%"), class_="bar")
    said = note("" if weight is None else f"{100 * weight:.1f} %")
    return tag.div(note(word), picture(pixels, HARD, alt), bar, said, class_="same" if same else "")
