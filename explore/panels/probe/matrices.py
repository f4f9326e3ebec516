"""HTML of the probe panel's confusion matrix: cells to pick, rows continued by the recall of one encoder or two. No widget here."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...figures import COLOURS, roles
from ...results import wilson
from ...results.probes import ProbeComparison
from ..html import Markup, fill, named, scale, signed, tag

SHOWN = ("A", "B", "B − A")
MOST = 20  # classes in the matrix; of more, those that are confused most often
FULL, FULL_CHANGE = 0.3, 0.1  # share of a row at which a cell's fill is full
WIDE = 400  # pixels of the matrix
REST = 102  # pixels of the recall axis


def shown_classes(result: ProbeComparison, order: Sequence[int] = ()) -> list[int]:
    """The classes of the matrix in their order: all, or of more than `MOST` those that are confused most often."""
    order = list(order or result.order)
    if len(order) <= MOST:
        return order
    wrong = sum((s.confusion for s in result.scores[1:]), result.a.confusion).clone()
    wrong.fill_diagonal_(0)
    pairs = (wrong + wrong.T).triu()
    kept: list[int] = []
    for flat in pairs.flatten().argsort(descending=True, stable=True).tolist():
        kept += [c for c in divmod(flat, len(order)) if c not in kept]
        if len(kept) >= MOST:
            break
    return [c for c in order if c in kept[:MOST]]


def counts(result: ProbeComparison, shown: str) -> Tensor:
    """(C, C) what the cells hold: A's counts, B's, or B's minus A's."""
    if shown == "B − A" and result.b is not None:
        return result.b.confusion - result.a.confusion
    return result.a.confusion if shown == "A" or result.b is None else result.b.confusion


def largest(result: ProbeComparison, shown: str) -> tuple[int, int]:
    """The most confused pair (true, predicted) among the classes of the matrix; in B − A that of the largest change."""
    classes = shown_classes(result)
    part = counts(result, shown)[classes][:, classes].abs().clone().fill_diagonal_(-1)
    row, column = divmod(int(part.argmax()), len(classes))
    return classes[row], classes[column]


def matrix(result: ProbeComparison, shown: str, order: Sequence[int] = ()) -> Markup:
    """The confusion matrix as a grid of cells to pick, `data-pick="true,predicted"`, each row continued by the class's recall."""
    classes = shown_classes(result, order)
    few = len(classes) < len(result.classes)
    across = len(classes) + few
    size, low = min(56, WIDE // across), _floor(result, classes)
    names = [*(result.classes[c] for c in classes), *["other"] * few]
    heads = [tag.th(tag.span(name), class_="to", title=name) for name in names]
    keys = [tag.span(_mark(kind, 6, 8), tag.span(n, class_="role"), class_=kind) for kind, n in roled(result)]
    what = tag.td(_axis_title(result, shown, size * across), colspan=across)
    body = [_row(result, shown, c, classes, low, size) for c in classes]
    numbers = scale((t, f"{_x(t / 100, low):.1f}px") for t in range(round(100 * low), 101, 25))
    return tag.div(
        tag.table(
            tag.thead(
                tag.tr(tag.td(), what, tag.td("right, %", class_="rec"), class_="what"),
                tag.tr(
                    tag.th("true class ↓", class_="from"), heads, tag.td(tag.div(keys, class_="keys"), class_="rec")
                ),
            ),
            tag.tbody(body, tag.tr(tag.td(colspan=across + 1), tag.td(numbers, class_="rec"), class_="axis")),
            role="grid",
            aria_label=_alt(result, shown),
        ),
        class_="ex-cm",
        style=f"--cell:{size}px",
    )


def _axis_title(result: ProbeComparison, shown: str, wide: int) -> str:
    if wide < 200:
        return "predicted →"
    if _change(result, shown):
        return f"predicted: {possessive(result.names[1])} count minus {possessive(result.names[0])} →"
    whose = 0 if shown == "A" or result.b is None else 1
    return f"predicted by {possessive(result.names[whose])} probe →"


def _change(result: ProbeComparison, shown: str) -> bool:
    """Whether the cells hold B's counts minus A's."""
    return shown == "B − A" and result.b is not None


def note(result: ProbeComparison, shown: str) -> Markup:
    """How to read the matrix."""
    fill_words = Markup("Fill: share of the row, full at 30 %.")
    if _change(result, shown):
        both = (named(kind, name) for kind, name in roled(result))
        fill_words = fill(
            "Fill: change of the row’s share, full at 10 points. Colour: whose count is larger, {} or {}.", *both
        )
    few = f" The {MOST} most confused of {len(result.classes)} classes; ‘other’ holds the rest."
    return tag.div(
        fill_words,
        " The diagonal is boxed and left empty so that the errors carry the ink.",
        few if len(result.classes) > MOST else None,
        " Intervals are Wilson’s, 95 %. Click a cell for its images; arrow keys move, Enter picks.",
        class_="ex-note ex-cm-note",
    )


def roled(result: ProbeComparison) -> list[tuple[str, str]]:
    """Role and name of every encoder."""
    return list(zip(roles(result.names), result.names, strict=True))


def possessive(name: str) -> str:
    """'CLAE’s'."""
    return f"{name}’s"


def points(share: float) -> str:
    """'83.0', a share in percent."""
    return f"{100 * share:.1f}"


def _row(result: ProbeComparison, shown: str, c: int, classes: list[int], low: float, size: int) -> Markup:
    cells, change, name = counts(result, shown), _change(result, shown), result.classes[c]
    tds = [_cell(result, shown, cells, c, j) for j in classes]
    if len(classes) < len(result.classes):
        rest = int(cells[c].sum() - cells[c][classes].sum())
        tds.append(tag.td((signed(rest, 0) if change else rest) if rest else "", class_="rest"))
    recall = tag.td(_recall(result, c, low, size), class_="rec")
    return tag.tr(tag.th(name, class_="from", scope="row", title=name), tds, recall, data_row=True)


def _cell(result: ProbeComparison, shown: str, cells: Tensor, c: int, j: int) -> Markup:
    """Class c taken for class j: how often, in the colour of whose count it is."""
    change, kinds, value = _change(result, shown), roles(result.names), int(cells[c, j])
    total = max(1, int(result.a.confusion[c].sum()))
    text = "" if not value and (j != c or not change) else signed(value, 0) if change else f"{value:,}"
    hue = kinds[value > 0] if change else kinds[0 if shown == "A" or result.b is None else 1]
    alpha = 0.0 if j == c else 0.7 * min(1.0, abs(value) / total / (FULL_CHANGE if change else FULL))
    what = "right" if j == c else f"taken for {result.classes[j]}"
    return tag.td(
        text,
        role="gridcell",
        class_="d" if j == c else "",
        data_pick=f"{c},{j}",
        tabindex="-1",
        aria_selected="false",
        aria_label=f"{result.classes[c]}{',' if j == c else ''} {what}: {text or 0} of {total}",
        style=f"background:{_rgba(hue, alpha)}" if alpha else None,
    )


def _recall(result: ProbeComparison, c: int, low: float, size: int) -> Markup:
    """Recall of one class: a mark and whiskers an encoder, on the common axis."""
    drawn = [
        tag.line(x1=f"{_x(t / 100, low):.1f}", x2=f"{_x(t / 100, low):.1f}", y1=0, y2=size, class_="grid")
        for t in (25, 50, 75, 100)
        if t / 100 > low
    ]
    said = []
    for i, ((kind, name), s) in enumerate(zip(roled(result), result.scores, strict=True)):
        n, right = int(s.confusion[c].sum()), int(s.confusion[c, c])
        if not n:
            continue
        share, (least, most) = right / n, wilson(right / n, n)
        y = size * (i + 1) / (len(result.scores) + 1)
        x1, x2 = (f"{_x(end, low):.1f}" for end in (max(least, low), most))
        whisker = tag.line(class_="w", x1=x1, x2=x2, y1=f"{y:.1f}", y2=f"{y:.1f}")
        drawn.append(tag.g(whisker, _shape(kind, _x(share, low), y, 3.6 if size > 24 else 2.6), class_=kind))
        said.append(f"{name} {points(share)} % ({points(least)} to {points(most)})")
    alt = f"{result.classes[c]} right: {', '.join(said) or 'no test image'}"
    return tag.svg(drawn, class_="ex-rc", width=REST, height=size, role="img", aria_label=alt)


def _shape(kind: str, x: float, y: float, r: float) -> Markup:
    if kind == "gauss":
        return tag.rect(x=f"{x - r:.1f}", y=f"{y - r:.1f}", width=2 * r, height=2 * r)
    if kind == "uniform":
        return tag.path(d=f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l-{r + 1} {r + 1}l-{r + 1} -{r + 1}z")
    if kind == "sign":
        return tag.path(d=f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r + 1}h-{2 * r + 2}z")
    opened = "open" if kind in ("clean", "ref") else ""
    return tag.circle(class_=opened, cx=f"{x:.1f}", cy=f"{y:.1f}", r=r)


def _mark(kind: str, x: float, y: float) -> Markup:
    return tag.svg(_shape(kind, x, y, 3.6), class_="ex-rc", width=14, height=14, aria_hidden="true")


def _alt(result: ProbeComparison, shown: str) -> str:
    true, predicted = largest(result, shown)
    value = int(counts(result, shown)[true, predicted])
    return (
        f"confusion matrix, rows true, columns predicted; most often {result.classes[true]} taken for {result.classes[predicted]}: "
        f"{value}; panel.result.a.confusion and .b.confusion hold the counts"
    )


def _floor(result: ProbeComparison, classes: list[int]) -> float:
    """Where the recall axis starts: a quarter below the lowest recall."""
    shares = torch.cat([s.per_class[classes] for s in result.scores])
    least = float(shares[~shares.isnan()].min()) if not bool(shares.isnan().all()) else 0.0
    return min(0.75, math.floor(max(0.0, least - 0.06) * 4) / 4)


def _x(share: float, low: float) -> float:
    return 6 + (REST - 12) * (share - low) / (1 - low)


def _rgba(kind: str, alpha: float) -> str:
    red, green, blue = (int(COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:.2f})"
