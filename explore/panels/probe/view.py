"""HTML of the probe panel around its matrix, from a `results.ProbeComparison`: reading, a cell's images, bar, foot. No widget."""

import math
from html import escape

import numpy as np

from ...config import show_eps
from ...results.probes import Cell, ProbeComparison
from ..perturbation.view import marks, png, signed
from .matrices import points, possessive, roled

PAGE = 20  # images of a cell
NUMBERS = ("no", "one", "two", "three", "four", "five")


def reading(result: ProbeComparison) -> str:
    """The finding in one sentence: how much more often one encoder's probe is right, and whether that is settled."""
    where = f"With {percent(result.share)} of the labels"
    if result.test != "clean":
        what = "sign noise" if result.test == "noise" else str(result.provenance.get("attack", "")).upper()
        where += f" and {what} of ε = {show_eps(result.eps)} on the test images"
    draws = result.differences()
    label = f"{_count(len(draws))} draws of labels: {_range(draws)}" if len(draws) > 1 else "one draw of labels"
    if result.test != "clean" or result.b is None:
        label = "one draw of labels"
    if result.b is None or result.paired is None:
        low, high = result.a.interval
        return (
            f"{where} {possessive(result.names[0])} probe is right on <b>{points(result.a.top1)} %</b> of {result.a.n:,} images "
            f"(95 % interval {points(low)} to {points(high)}, {label})."
        )
    a, b = (escape(name) for name in result.names)
    difference, (low, high) = result.paired.difference, result.paired.interval
    more = "more often" if difference >= 0 else "less often"
    size = f"{abs(100 * difference):.1f} points"
    if low <= 0 <= high:
        interval = f"95 % interval {signed(100 * low, 1)} to {signed(100 * high, 1)}; {label}"
        said = (
            f"{possessive(b)} probe is right {size} {more} than {possessive(a)}"
            if difference
            else "both probes are right equally often"
        )
        return f"{where} {said}: <b>not settled</b> by {result.a.n:,} images ({interval})."
    least, most = (low, high) if difference > 0 else (-high, -low)
    interval = f"95 % interval {100 * least:.1f} to {100 * most:.1f}; {label}"
    return f"{where} {possessive(b)} probe is right <b>{size}</b> {more} than {possessive(a)} ({interval})."


def percent(share: float) -> str:
    """'10 %', '0.3 %'."""
    return f"{100 * share:g} %"


def gallery(result: ProbeComparison, cell: Cell, images: np.ndarray, key: tuple[int, int], page: int) -> str:
    """One page of a cell's images, marked where the other encoder's probe says otherwise; `data-pick` turns the page."""
    true, predicted = (escape(result.classes[c]) for c in key)
    right, n = key[0] == key[1], len(cell)
    title = f"{true}, taken for what it is" if right else f"{true}, taken for {predicted}"
    both, whose = result.b is not None, result.names.index(cell.encoder)
    differs = cell.table["other_right"] != right if both else None
    rows = slice(page * PAGE, (page + 1) * PAGE)
    kind, other = roled(result)[1 - whose] if both else ("", "")
    verdict = "wrong" if right else "right"
    figures = []
    for i, (image, row) in enumerate(zip(images, cell.table[rows].itertuples(), strict=True)):
        marked = differs is not None and bool(differs.iloc[rows.start + i])
        alt = f"image {row.image}: {true} taken for {predicted}, confidence {row.confidence:.2f}"
        alt += f"; {escape(other)}’s probe gets it {verdict}" if marked else ""
        figures.append(f'<span class="{"new" if marked else ""}">{_picture(image, alt)}</span>')
    small = f"{n or 'none':{',' if n else ''}} of {cell.of:,}"
    small += {"clean": ", surest first" * (n > 1), "attacked": ", attacked", "noise": ", noisy"}[result.test]
    key_note = ""
    if differs is not None and n:
        many = f"{int(differs.sum())} of {n:,}"
        key_note = f'<span class="ex-under-k"></span>{possessive(other)} probe gets it {verdict} ({many})'
    pager = ""
    if n > PAGE:
        back, ahead = (f'data-pick="{p}"' for p in (max(page - 1, 0), min(page + 1, (n - 1) // PAGE)))
        pager = (
            f'<span class="ex-page" data-row><span class="ex-k">{rows.start + 1}–{min(n, rows.stop)}</span>'
            f'<button aria-label="earlier images" {back} {"disabled" * (page == 0)}>‹</button>'
            f'<button aria-label="later images" {ahead} {"disabled" * (rows.stop >= n)}>›</button></span>'
        )
    return (
        f'<div class="ex-h">{title} <small>{small}</small></div><div class="ex-cell {kind}" data-key="{key[0]},{key[1]}">'
        f'{"".join(figures)}</div><div class="ex-note ex-cell-note {kind}"><span>{key_note}</span>{pager}</div>'
    )


def bar(result: ProbeComparison) -> str:
    """McNemar's table as one bar: both right, only A, only B, neither."""
    if result.paired is None:
        return ""
    p, named = result.paired, roled(result)
    words = [("both", "both right"), (named[0][0], f"only {escape(named[0][1])}")]
    words += [(named[1][0], f"only {escape(named[1][1])}"), ("neither", "neither")]
    values = (p.both, p.only_a, p.only_b, p.neither)
    parts = "".join(f'<i class="{kind}" style="flex:{v}"></i>' for (kind, _), v in zip(words, values, strict=True) if v)
    grow = ("both", "neither")
    labels = "".join(
        f'<span class="{kind}" style="flex:{v if kind in grow else "none"}"><span>{word}<br><b>{v:,}</b></span></span>'
        for (kind, word), v in zip(words, values, strict=True)
    )
    alt = ", ".join(f"{word} {v:,}" for (_, word), v in zip(words, values, strict=True))
    chance = f"p = {p.p:.2g}" if p.p >= 0.001 else "p &lt; 0.001"
    return (
        f'<div class="ex-h">The same {p.n:,} images <small>McNemar {chance}</small></div>'
        f'<div class="ex-mc" role="img" aria-label="{alt}">{parts}</div><div class="ex-mc-l">{labels}</div>'
        '<div class="ex-note">Two encoders, one training run each: no verdict on the methods.</div>'
    )


def curve_head(result: ProbeComparison) -> str:
    """Title of the curve, and its numbers for those who cannot see it."""
    said = "; ".join(
        f"{escape(str(name))} "
        + ", ".join(f"{percent(s)}: {100 * v:.1f}" for s, v in own.groupby("share").accuracy.mean().items())
        for name, own in result.curve.groupby("encoder", sort=False)
    )
    n, clean = result.curve.n.iloc[0], "clean; " * (result.test != "clean")
    return (
        f'<div class="ex-h">Share of labels <small>{clean}% of {n:,} right, 95 % interval</small></div>'
        f'<span class="ex-sr">{said}; the table is panel.result.curve</span>'
    )


def foot(result: ProbeComparison) -> str:
    """Checks as measured, how l2 was chosen, and where the result came from."""
    chosen = any(s.provenance.get("held_out") for s in result.scores)
    values = " and ".join(f"{v:,.0f}" if v >= 10 else f"{v:.2g}" for v in result.l2)
    how = "chosen on a held-out fifth" if chosen else "too few labels to choose it"
    p = result.provenance
    who = ", ".join(" ".join(str(v) for v in (e.get("encoder"), e.get("commit")) if v) for e in p["encoders"])
    words = [who, f"seed {p['seed']}", str(p["device"]), f"torch {str(p['torch']).split('+')[0]}"]
    return (
        f'<div class="ex-foot">{marks(result.checks)}<span>l2 {values}, {how}</span>'
        f'<span class="prov mono">{escape(" · ".join(words))}</span></div>'
    )


def _picture(image: np.ndarray, alt: str) -> str:
    """An image at a whole multiple of its pixels near 64; a larger one is averaged over whole blocks first."""
    size = len(image)
    if size > 64:
        k = math.ceil(size / 64)
        cut = image[: size // k * k, : size // k * k].astype(np.float32)
        image = (cut.reshape(size // k, k, size // k, k, 3).mean((1, 3)) + 0.5).astype(np.uint8)
        size = len(image)
    wide = size * max(1, 64 // size)
    return (
        f'<img src="{png(image)}" width="{wide}" height="{wide}" alt="{alt}" title="{alt}" class="pic" decoding="sync">'
    )


def _count(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def _range(draws: dict[int, float]) -> str:
    return f"{signed(100 * min(draws.values()), 1)} to {signed(100 * max(draws.values()), 1)}"
