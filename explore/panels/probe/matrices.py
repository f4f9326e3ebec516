"""HTML of the probe panel's confusion matrix: cells to pick, rows continued by the recall of one encoder or two. No widget here."""

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from ...figures import COLOURS, roles
from ...results import wilson
from ...results.probes import ProbeComparison
from ..perturbation.view import signed

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


def matrix(result: ProbeComparison, shown: str, order: Sequence[int] = ()) -> str:
    """The confusion matrix as a grid of cells to pick, `data-pick="true,predicted"`, each row continued by the class's recall."""
    kinds, classes, cells = roles(result.names), shown_classes(result, order), counts(result, shown)
    whose = 0 if shown == "A" or result.b is None else 1
    few = len(classes) < len(result.classes)
    size = min(56, WIDE // (len(classes) + few))
    names = [escape(result.classes[c]) for c in classes]
    heads = "".join(f'<th class="to" title="{name}"><span>{name}</span></th>' for name in [*names, *["other"] * few])
    keys = "".join(
        f'<span class="{kind}">{_mark(kind, 6, 8)}<span class="role">{escape(n)}</span></span>'
        for kind, n in zip(kinds, result.names, strict=True)
    )
    to = f"predicted by {possessive(result.names[whose])} probe →"
    if shown == "B − A" and result.b is not None:
        to = f"predicted: {possessive(result.names[1])} count minus {possessive(result.names[0])} →"
    if size * (len(classes) + few) < 200:
        to = "predicted →"
    low = _floor(result, classes)
    body = "".join(_row(result, shown, c, classes, few, cells, kinds, low, size) for c in classes)
    marks = "".join(f'<span style="left:{_x(t / 100, low):.1f}px">{t}</span>' for t in range(round(100 * low), 101, 25))
    across = len(classes) + few
    return (
        f'<div class="ex-cm" style="--cell:{size}px"><table role="grid" aria-label="{_alt(result, shown)}"><thead>'
        f'<tr class="what"><td></td><td colspan="{across}">{to}</td><td class="rec">right, %</td></tr>'
        f'<tr><th class="from">true class ↓</th>{heads}<td class="rec"><div class="keys">{keys}</div></td></tr></thead>'
        f'<tbody>{body}<tr class="axis"><td colspan="{across + 1}"></td><td class="rec"><div class="ex-ax">{marks}</div></td></tr>'
        "</tbody></table></div>"
    )


def note(result: ProbeComparison, shown: str) -> str:
    """How to read the matrix."""
    difference = shown == "B − A" and result.b is not None
    fill = (
        "Fill: share of the row, full at 30 %."
        if not difference
        else "Fill: change of the row’s share, full at 10 points."
    )
    if difference:
        a, b = (f'<span class="{k}"><span class="role">{escape(n)}</span></span>' for k, n in roled(result))
        fill += f" Colour: whose count is larger, {a} or {b}."
    few = f" The {MOST} most confused of {len(result.classes)} classes; ‘other’ holds the rest." * (
        len(result.classes) > MOST
    )
    return (
        f'<div class="ex-note ex-cm-note">{fill} The diagonal is boxed and left empty so that the errors carry the ink.{few} Intervals are '
        "Wilson’s, 95 %. Click a cell for its images; arrow keys move, Enter picks.</div>"
    )


def roled(result: ProbeComparison) -> list[tuple[str, str]]:
    """Role and name of every encoder."""
    return list(zip(roles(result.names), result.names, strict=True))


def possessive(name: str) -> str:
    """'CLAE’s', as HTML."""
    return f"{escape(name)}’s"


def points(share: float) -> str:
    """'83.0', a share in percent."""
    return f"{100 * share:.1f}"


def _row(
    result: ProbeComparison,
    shown: str,
    c: int,
    classes: list[int],
    few: bool,
    cells: Tensor,
    kinds: tuple,
    low: float,
    size: int,
) -> str:
    change = shown == "B − A" and result.b is not None
    total = max(1, int(result.a.confusion[c].sum()))
    own = kinds[0 if shown == "A" or result.b is None else 1]
    name = escape(result.classes[c])
    tds = []
    for j in classes:
        value = int(cells[c, j])
        text = "" if not value and (j != c or not change) else signed(value, 0) if change else f"{value:,}"
        hue = (kinds[1] if value > 0 else kinds[0]) if change else own
        alpha = 0.0 if j == c else 0.7 * min(1.0, abs(value) / total / (FULL_CHANGE if change else FULL))
        said = (
            f"{name}, right: {text or 0} of {total}"
            if j == c
            else f"{name} taken for {escape(result.classes[j])}: {text or 0} of {total}"
        )
        fill = f' style="background:{_rgba(hue, alpha)}"' if alpha else ""
        tds.append(
            f'<td role="gridcell" class="{"d" * (j == c)}" data-pick="{c},{j}" tabindex="-1" aria-selected="false" '
            f'aria-label="{said}"{fill}>{text}</td>'
        )
    if few:
        rest = int(cells[c].sum() - cells[c][classes].sum())
        tds.append(f'<td class="rest">{(signed(rest, 0) if change else rest) if rest else ""}</td>')
    recall = _recall(result, c, kinds, low, size)
    return f'<tr data-row><th class="from" scope="row" title="{name}">{name}</th>{"".join(tds)}<td class="rec">{recall}</td></tr>'


def _recall(result: ProbeComparison, c: int, kinds: tuple, low: float, size: int) -> str:
    """Recall of one class: a mark and whiskers an encoder, on the common axis."""
    lines = "".join(
        f'<line x1="{_x(t / 100, low):.1f}" x2="{_x(t / 100, low):.1f}" y1="0" y2="{size}" class="grid"/>'
        for t in (25, 50, 75, 100)
        if t / 100 > low
    )
    marks, said = "", []
    for i, (kind, name, s) in enumerate(zip(kinds, result.names, result.scores, strict=True)):
        n, right = int(s.confusion[c].sum()), int(s.confusion[c, c])
        if not n:
            continue
        share, (least, most) = right / n, wilson(right / n, n)
        y = size * (i + 1) / (len(kinds) + 1)
        whisker = (
            f'<line class="w" x1="{_x(max(least, low), low):.1f}" x2="{_x(most, low):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        marks += f'<g class="{kind}">{whisker}{_shape(kind, _x(share, low), y, 3.6 if size > 24 else 2.6)}</g>'
        said.append(f"{escape(name)} {points(share)} % ({points(least)} to {points(most)})")
    alt = f"{escape(result.classes[c])} right: {', '.join(said) or 'no test image'}"
    return f'<svg class="ex-rc" width="{REST}" height="{size}" role="img" aria-label="{alt}">{lines}{marks}</svg>'


def _shape(kind: str, x: float, y: float, r: float) -> str:
    if kind == "gauss":
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}"/>'
    if kind == "uniform":
        return f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l-{r + 1} {r + 1}l-{r + 1} -{r + 1}z"/>'
    if kind == "sign":
        return f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r + 1}h-{2 * r + 2}z"/>'
    opened = "open" if kind in ("clean", "ref") else ""
    return f'<circle class="{opened}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'


def _mark(kind: str, x: float, y: float) -> str:
    return f'<svg class="ex-rc" width="14" height="14" aria-hidden="true">{_shape(kind, x, y, 3.6)}</svg>'


def _alt(result: ProbeComparison, shown: str) -> str:
    true, predicted = largest(result, shown)
    value = int(counts(result, shown)[true, predicted])
    return escape(
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
