"""HTML of the probe panel around its matrix, from a `results.ProbeComparison`: reading, a cell's images, bar, foot. No widget."""

import math
from dataclasses import dataclass

import numpy as np

from ...attack_table import TABLE
from ...config import show_eps
from ...results import png
from ...results.probes import Cell, ProbeComparison
from ...studies.probing import Probing
from ..html import Markup, fill, heading, image, join, marks, origin, signed, tag
from .matrices import points, possessive, roled


@dataclass(frozen=True)
class Fitted:
    """What the panel draws: the result, and the study that continues its curve, with the encoders' names in it."""

    result: ProbeComparison
    study: Probing
    keys: tuple[str, ...]


PAGE = 20  # images of a cell
NUMBERS = ("no", "one", "two", "three", "four", "five")


def reading(result: ProbeComparison) -> Markup:
    """The finding in one sentence: how much more often one encoder's probe is right, and whether that is settled."""
    where = f"With {percent(result.share)} of the labels"
    if result.test != "clean":
        what = "sign noise" if result.test == "noise" else _title(result.provenance.get("attack", ""))
        where += f" and {what} of ε = {show_eps(result.eps)} on the test images"
    draws = result.differences()
    label = f"{_count(len(draws))} draws of labels: {_range(draws)}" if len(draws) > 1 else "one draw of labels"
    if result.test != "clean" or result.b is None:
        label = "one draw of labels"
    if result.b is None or result.paired is None:
        low, high = result.a.interval
        return fill(
            "{} {} probe is right on <b>{} %</b> of {:,} images (95 % interval {} to {}, {}).",
            *(where, possessive(result.names[0]), points(result.a.top1), result.a.n, points(low), points(high), label),
        )
    a, b = (possessive(name) for name in result.names)
    difference, (low, high) = result.paired.difference, result.paired.interval
    more = "more often" if difference >= 0 else "less often"
    size = f"{abs(100 * difference):.1f} points"
    if low <= 0 <= high:
        interval = f"95 % interval {signed(100 * low, 1)} to {signed(100 * high, 1)}; {label}"
        said = f"{b} probe is right {size} {more} than {a}" if difference else "both probes are right equally often"
        return fill("{} {}: <b>not settled</b> by {:,} images ({}).", where, said, result.a.n, interval)
    least, most = (low, high) if difference > 0 else (-high, -low)
    interval = f"95 % interval {100 * least:.1f} to {100 * most:.1f}; {label}"
    return fill("{} {} probe is right <b>{}</b> {} than {} ({}).", where, b, size, more, a, interval)


def _title(attack: str) -> str:
    return TABLE[attack].title if attack in TABLE else attack.upper()


def percent(share: float) -> str:
    """'10 %', '0.3 %'."""
    return f"{100 * share:g} %"


def gallery(result: ProbeComparison, cell: Cell, images: np.ndarray, key: tuple[int, int], page: int) -> Markup:
    """One page of a cell's images, marked where the other encoder's probe says otherwise; `data-pick` turns the page."""
    true, predicted = (result.classes[c] for c in key)
    right, n = key[0] == key[1], len(cell)
    both, whose = result.b is not None, result.names.index(cell.encoder)
    differs = cell.table["other_right"] != right if both else None
    kind, other = roled(result)[1 - whose] if both else ("", "")
    gets = f"{possessive(other)} probe gets it {'wrong' if right else 'right'}"
    rows = slice(page * PAGE, (page + 1) * PAGE)
    figures = []
    for i, (pixels, row) in enumerate(zip(images, cell.table[rows].itertuples(), strict=True)):
        marked = differs is not None and bool(differs.iloc[rows.start + i])
        alt = f"image {row.image}: {true} taken for {predicted}, confidence {row.confidence:.2f}"
        picture = _picture(pixels, f"{alt}; {gets}" if marked else alt)
        figures.append(tag.span(picture, class_="new" if marked else ""))
    small = f"{n or 'none':{',' if n else ''}} of {cell.of:,}"
    small += {"clean": ", surest first" * (n > 1), "attacked": ", attacked", "noise": ", noisy"}[result.test]
    many = None
    if differs is not None and n:
        many = join(tag.span(class_="ex-under-k"), f"{gets} ({int(differs.sum())} of {n:,})")
    return join(
        heading(f"{true}, taken for {'what it is' if right else predicted}", small),
        tag.div(figures, class_=f"ex-cell {kind}", data_key=f"{key[0]},{key[1]}"),
        tag.div(tag.span(many), _pager(page, n) if n > PAGE else None, class_=f"ex-note ex-cell-note {kind}"),
    )


def _pager(page: int, n: int) -> Markup:
    """Which of a cell's n images are shown, and buttons that turn the page."""
    first, last = page * PAGE, min(n, (page + 1) * PAGE)
    return tag.span(
        tag.span(f"{first + 1}–{last}", class_="ex-k"),
        tag.button("‹", aria_label="earlier images", data_pick=max(page - 1, 0), disabled=page == 0),
        tag.button("›", aria_label="later images", data_pick=min(page + 1, (n - 1) // PAGE), disabled=last >= n),
        class_="ex-page",
        data_row=True,
    )


def bar(result: ProbeComparison) -> Markup:
    """McNemar's table as one bar: both right, only A, only B, neither."""
    if result.paired is None:
        return Markup("")
    p, ((role_a, a), (role_b, b)) = result.paired, roled(result)
    parts = (
        ("both", "both right", p.both),
        (role_a, f"only {a}", p.only_a),
        (role_b, f"only {b}", p.only_b),
        ("neither", "neither", p.neither),
    )
    drawn = [tag.i(class_=kind, style=f"flex:{v}") for kind, _, v in parts if v]
    labels = [
        tag.span(
            tag.span(word, tag.br(), tag.b(f"{v:,}")),
            class_=kind,
            style=f"flex:{v if kind in ('both', 'neither') else 'none'}",
        )
        for kind, word, v in parts
    ]
    alt = ", ".join(f"{word} {v:,}" for _, word, v in parts)
    return join(
        heading(f"The same {p.n:,} images", f"McNemar {f'p = {p.p:.2g}' if p.p >= 0.001 else 'p < 0.001'}"),
        tag.div(drawn, class_="ex-mc", role="img", aria_label=alt),
        tag.div(labels, class_="ex-mc-l"),
        tag.div("Two encoders, one training run each: no verdict on the methods.", class_="ex-note"),
    )


def curve_head(result: ProbeComparison) -> Markup:
    """Title of the curve, and its numbers for those who cannot see it."""
    said = "; ".join(
        f"{name} " + ", ".join(f"{percent(s)}: {100 * v:.1f}" for s, v in own.groupby("share").accuracy.mean().items())
        for name, own in result.curve.groupby("encoder", sort=False)
    )
    n, clean = result.curve.n.iloc[0], "clean; " * (result.test != "clean")
    title = heading("Share of labels", f"{clean}% of {n:,} right, 95 % interval")
    return title + tag.span(f"{said}; the table is panel.result.curve", class_="ex-sr")


def foot(result: ProbeComparison) -> Markup:
    """Checks as measured, how l2 was chosen, and where the result came from."""
    chosen = any(s.provenance.get("held_out") for s in result.scores)
    values = " and ".join(f"{v:,.0f}" if v >= 10 else f"{v:.2g}" for v in result.l2)
    how = "chosen on a held-out fifth" if chosen else "too few labels to choose it"
    p = result.provenance
    who = ", ".join(" ".join(str(v) for v in (e.get("encoder"), e.get("commit")) if v) for e in p["encoders"])
    words = [who, f"seed {p['seed']}", str(p["device"]), f"torch {str(p['torch']).split('+')[0]}"]
    return tag.div(marks(result.checks), tag.span(f"l2 {values}, {how}"), origin(words), class_="ex-foot")


def _picture(pixels: np.ndarray, alt: str) -> Markup:
    """An image at a whole multiple of its pixels near 64; a larger one is averaged over whole blocks first."""
    size = len(pixels)
    if size > 64:
        k = math.ceil(size / 64)
        cut = pixels[: size // k * k, : size // k * k].astype(np.float32)
        pixels = (cut.reshape(size // k, k, size // k, k, 3).mean((1, 3)) + 0.5).astype(np.uint8)
        size = len(pixels)
    return image(png(pixels), size * max(1, 64 // size), alt, title=True)


def _count(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def _range(draws: dict[int, float]) -> str:
    return f"{signed(100 * min(draws.values()), 1)} to {signed(100 * max(draws.values()), 1)}"
