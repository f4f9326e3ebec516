"""HTML around the map, from `results.Atlas`: the reading, what the map cannot show, the picked image, the lasso. No widget."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...results import Atlas, png, to_pixels
from ...studies import AtlasStudy
from ..html import Markup, Thumb, dotted, fill, heading, join, note, origin, tag


@dataclass(frozen=True)
class Maps:
    """What the panel draws: the atlas of one encoder or of two, what two share, and the studies behind them."""

    result: Atlas
    beside: Atlas | None
    agreement: dict[str, Any]
    studies: list[AtlasStudy]

    @property
    def atlases(self) -> list[Atlas]:
        return [self.result, *([self.beside] if self.beside is not None else [])]


GALLERY, GAIN = 24, 10
MEASURES = (  # of Atlas.figures: words, how a number is written, the sparkline's scale (None: that of its numbers)
    ("kept", "ten nearest kept", "percent", (0.0, 1.0)),
    ("moved", "cosine moved", "cosine", None),
    ("knn", "class by ten nearest", "percent", (0.0, 1.0)),
    ("trustworthiness", "trustworthiness", "cosine", (0.5, 1.0)),
    ("alignment", "alignment", "decimal", None),
    ("uniformity", "uniformity", "decimal", None),
)


def nearest_k(atlas: Atlas, k: float) -> float:
    """The measured eps nearest to k, in k/255."""
    return min(atlas.ks, key=lambda each: abs(each - k))


def figure(atlas: Atlas, name: str, k: float, kind: str = "adversary") -> float:
    """One of `Atlas.figures` at k/255."""
    rows = atlas.figures[(atlas.figures.kind == kind) & ((atlas.figures.k - k).abs() < 1e-6)]
    return float(rows[name].iloc[0])


def written(value: float, how: str) -> str:
    """'47 %', '0.0054', '−3.41'; a dash where there is none."""
    if np.isnan(value):
        return "–"
    if how == "percent":
        return f"{100 * value:.0f}\xa0%"
    digits = 2 if how == "decimal" else 4 if abs(value) < 0.01 and value else 3
    return f"{value:.{digits}f}".replace("-", "−")


def reading(a: Atlas, b: Atlas | None, k: float, names: Sequence[str]) -> Markup:
    """The finding at k/255 in one sentence; where k is not measured, that is said."""
    at = nearest_k(a, k)
    between = Markup("") if abs(at - k) < 1e-3 else " " + note(f"On the way: the figures are those of ε = {at:g}/255.")
    if at == 0:
        return join("At ε = 0 every point stands where it was fitted, and every neighbour is kept.", between)
    one, first = names[0], figure(a, "kept", at)
    if b is None:
        return fill(
            "At ε = {:g}/255 the adversary leaves <b>{}</b> of the ten nearest neighbours in place; "
            "Gaussian noise (σ = ε) leaves {}.{}",
            at,
            written(first, "percent"),
            written(figure(a, "kept", at, "gaussian"), "percent"),
            between,
        )
    two, second = names[1], figure(b, "kept", at)
    if written(first, "percent") == written(second, "percent"):
        text = "At ε = {:g}/255 both keep <b>{}</b> of the ten nearest neighbours.{}"
        return fill(text, at, written(first, "percent"), between)
    if first > second:
        one, two, first, second = two, one, second, first
    return fill(
        "At ε = {:g}/255 the same kind of step changes {}’s neighbourhoods more: it keeps <b>{}</b> of the "
        "ten nearest, {} keeps <b>{}</b>.{}",
        at,
        one,
        written(first, "percent"),
        two,
        written(second, "percent"),
        between,
    )


def spark(
    ks: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float]]],
    k: float,
    scale: tuple[float, float] | None,
    wide: int = 72,
) -> Markup:
    """Curves over eps as a small svg: (role, values) each, a dot on each at k."""
    values = np.array([line for _, line in lines], float)
    if np.isnan(values).all():
        return Markup("")
    low, high = scale or (float(np.nanmin(values)), float(np.nanmax(values)))
    x = [4 + (wide - 8) * (each - ks[0]) / (ks[-1] - ks[0] or 1) for each in ks]
    y = 27 - 24 * ((values - low) / (high - low or 1)).clip(0, 1)
    now = list(ks).index(k)
    drawn = [tag.path(class_="cur", d=f"M{x[now]:.1f} 0V30")]
    for (role, _), row in zip(lines, y, strict=True):
        way = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, row, strict=True))
        drawn += [
            tag.path(class_=role, d=f"M{way}"),
            tag.circle(class_=role, cx=f"{x[now]:.1f}", cy=f"{row[now]:.1f}", r=3),
        ]
    return tag.svg(drawn, class_="ex-sp", viewBox=f"0 0 {wide} 30", width=wide, height=30, aria_hidden="true")


def truths(atlas: Atlas, k: float, whose: str = "") -> Markup:
    """The table of what is true in h, whatever the map looks like."""
    at = nearest_k(atlas, k)
    kinds = {kind: rows for kind, rows in atlas.figures.groupby("kind")}
    body = []
    for name, words, how, scale in MEASURES:
        lines = [("gauss", kinds["gaussian"][name].tolist()), ("adv", kinds["adversary"][name].tolist())]
        adversary, noise = (written(figure(atlas, name, at, kind), how) for kind in ("adversary", "gaussian"))
        numbers = [
            tag.td(tag.span(text, class_="role"), class_=c) for c, text in (("adv", adversary), ("gauss", noise))
        ]
        body.append(tag.tr(tag.td(words), tag.td(spark(atlas.ks, lines, at, scale), class_="l"), numbers))
    over = tag.th(f"ε, {atlas.ks[0]:g} to {atlas.ks[-1]:g}", class_="l")
    head = tag.thead(tag.tr(tag.th("measure"), over, tag.th("adversary"), tag.th("Gaussian")))
    title = f"{whose}: what the map cannot show" if whose else "What the map cannot show"
    return heading(title, f"at ε = {at:g}/255, in h") + tag.table(head, tag.tbody(body), class_="ex-truths")


def _row(role: str, words: str, rows: Tensor, new: set[int], thumb: Thumb) -> Markup:
    circle = tag.circle(cx=6, cy=6, r=3.5 if role == "clean" else 5)
    ring = tag.svg(circle, class_="gl", viewBox="0 0 12 12", aria_hidden="true")
    pictures = [_pick(i, *thumb(i), new=i in new) for i in rows.tolist()]
    label = tag.span(ring, f" {words}", class_="lab")
    return tag.div(label, tag.span(pictures, class_="nn", data_row=True), class_=f"ex-nn {role}")


def _pick(i: int, source: str, name: str, new: bool = False) -> Markup:
    """A picture that picks its image, marked where it is a new neighbour."""
    title = f"{name}, new" if new else name
    picture = tag.img(src=source, width=32, height=32, alt=title, class_="pic")
    return tag.button(picture, class_="new" if new else "", data_pick=i, title=title)


def neighbours(atlas: Atlas, i: int, k: float, then: Tensor, now: Tensor, thumb: Thumb) -> Markup:
    """The picked image's five nearest clean images, of it as it is and of it as it is now."""
    at = nearest_k(atlas, k)
    new = set(now.tolist()) - set(then.tolist())
    moved = written(float(atlas.moved[atlas.ks.index(at), i]), "cosine")
    kept = fill("kept <b>{} of its {} nearest</b> \xa0 cosine moved <b>{}</b>", len(now) - len(new), len(now), moved)
    rows = _row("clean", "nearest, clean", then, set(), thumb) + _row("adv", "nearest, now", now, new, thumb)
    return rows + tag.div(kept, class_="ex-line")


def card(atlas: Atlas, i: int, k: float, clean: Tensor, moved: Tensor, words: str) -> Markup:
    """The picked image: clean, difference, perturbed."""
    at = nearest_k(atlas, k)
    difference = (0.5 + GAIN * (moved - clean)).clamp(0, 1)
    size = clean.shape[-1] * max(1, 96 // clean.shape[-1])
    parts = (
        ("clean", "clean", clean, f"{words}, clean"),
        ("adv", f"difference × {GAIN}", difference, f"{words}: the difference times {GAIN}; grey is unchanged"),
        ("adv", "perturbed", moved, f"{words}, perturbed at {at:g}/255"),
    )
    figures = [
        tag.figure(
            tag.img(src=png(to_pixels(x[None])[0]), width=size, height=size, alt=alt, class_="pic"),
            tag.figcaption(tag.i(class_="dot"), caption, class_=role),
        )
        for role, caption, x, alt in parts
    ]
    return heading(words, f"picked, ε = {at:g}/255") + tag.div(figures, class_="ex-trio")


def named_neighbours(words: str, source: str, rows: Markup, k: float) -> Markup:
    """The picked image with its neighbours, without what only a network can make."""
    picture = tag.img(src=source, width=64, height=64, alt="the picked image", class_="pic")
    return heading(words, f"picked, ε = {k:g}/255") + tag.div(picture, class_="ex-trio") + rows


def pairs(cells: Sequence[str]) -> Markup:
    """Two columns, one an encoder."""
    return tag.div([tag.div(cell) for cell in cells], class_="ex-pairs")


def pair(rows: str, source: str, words: str) -> Markup:
    """The picked image beside its neighbours in one of two encoders."""
    picture = tag.img(src=source, width=64, height=64, alt="the picked image", class_="pic")
    caption = tag.figcaption(words, tag.br(), note("picked in both"))
    return tag.div(tag.div(rows), tag.figure(picture, caption), class_="ex-pair")


def shown_name(run: str) -> str:
    """'CLAE' for demo/clae; another run by its own name."""
    last = run.split("/")[-1]
    return {"simclr": "SimCLR", "clae": "CLAE"}.get(last, last)


def nobody(n: int) -> Markup:
    """Stands where the picked image would."""
    text = (
        f"Click one of the {n:,} points: its picture, the difference and its neighbours in h, then and now, "
        "appear here. Draw around some to see them together."
    )
    return heading("No image picked") + tag.p(text, class_="ex-note")


def gallery(atlas: Atlas, rows: Sequence[int], k: float, thumb: Thumb) -> Markup:
    """What the lasso holds: how many of each class, what became of them, and those that moved farthest."""
    if not rows:
        return Markup("")
    at = nearest_k(atlas, k)
    e, chosen = atlas.ks.index(at), torch.tensor(list(rows))
    order = chosen[atlas.moved[e, chosen].argsort(descending=True)][:GALLERY]
    kept, moved = float(atlas.kept[e, chosen].mean()), float(atlas.moved[e, chosen].mean())
    which = "all" if len(rows) <= GALLERY else f"{len(order)}, the farthest moved first"
    return join(
        heading(
            f"{len(rows):,} selected",
            f"ten nearest kept: {written(kept, 'percent')}, cosine moved {written(moved, 'cosine')}",
        ),
        _counts(atlas, chosen),
        tag.div(which, class_="ex-note"),
        tag.div([_pick(i, *thumb(i)) for i in order.tolist()], class_="ex-gallery", data_row=True),
    )


def _counts(atlas: Atlas, chosen: Tensor) -> Markup:
    """How many of the chosen are of each class, as bars: the six most frequent."""
    counts = Counter(atlas.labels[chosen].tolist()).most_common()
    bars = [
        tag.div(
            tag.span(atlas.classes[y] if 0 <= y < len(atlas.classes) else "no class"),
            tag.i(style=f"width:{88 * c / counts[0][1]:.0f}px"),
            tag.b(f"{c:,}"),
        )
        for y, c in counts[:6]
    ]
    rest = f"and {sum(c for _, c in counts[6:]):,} of {len(counts) - 6} other classes"
    return tag.div(bars, tag.div(rest, class_="ex-note") if len(counts) > 6 else None, class_="ex-counts")


def heads(atlases: Sequence[Atlas], names: Sequence[str], k: float) -> list[str]:
    """Above each of two maps: whose it is, and the share of neighbours kept."""
    if len(atlases) < 2:
        return []
    at = nearest_k(atlases[0], k)
    return [
        dotted(role, name) + " " + tag.small("ten nearest kept: ", tag.b(written(figure(atlas, "kept", at), "percent")))
        for role, name, atlas in zip(("clean", "adv"), names, atlases, strict=True)
    ]


def agreement(a: Atlas, b: Atlas, names: Sequence[str], k: float, figures: dict[str, Any]) -> Markup:
    """Two encoders: both curves of neighbours kept, the neighbourhoods they share, what no turn of the map explains."""
    at = nearest_k(a, k)
    curves = [(role, x.figures[x.figures.kind == "adversary"].kept.tolist()) for role, x in (("clean", a), ("adv", b))]
    keys = [
        tag.div(
            tag.i(class_="dot"),
            tag.span(name, class_="role"),
            " ",
            written(figure(x, "kept", at), "percent"),
            class_=role,
        )
        for role, name, x in zip(("clean", "adv"), names, (a, b), strict=True)
    ]
    shared, chance = (written(figures[name], "percent") for name in ("shared_neighbours", "chance"))
    facts = (
        (fill("neighbourhoods that both<br>encoders share, clean<br>by chance {}", chance), shared),
        (Markup("second map turned onto the<br>first (Procrustes), residual"), f"{figures['residual']:.2f}"),
    )
    numbers = [tag.span(note(words), tag.span(value, class_="ex-fact")) for words, value in facts]
    words = fill("ten nearest kept,<br>ε from {:g} to {:g}/255", a.ks[0], a.ks[-1])
    curve = tag.span(note(words), spark(a.ks, curves, at, (0.0, 1.0), 140))
    return tag.div(curve, tag.div(keys), numbers, class_="ex-agree")


def foot(atlases: Sequence[Atlas]) -> Markup:
    """What holds for the map, and where it came from."""
    about, pca = atlases[0].provenance["map"], atlases[0].method == "pca"
    runs = [" ".join(str(p) for p in (a.provenance.get("run"), a.provenance.get("commit")) if p) for a in atlases]
    held = f" · axes hold {100 * about['variance']:.0f} % of the variance" if pca else ""
    name = "PCA" if pca else f"PCA {about['axes']}, UMAP {about['n_neighbors']}/{about['min_dist']:g}"
    return tag.div(
        tag.span("map fitted once, on clean points", class_="ex-ok"),
        tag.span(f"placed in it, seed {about['seed']}", class_="ex-ok"),
        tag.span(f"distances on a map are not distances in h{held}"),
        origin([", ".join(runs), name]),
        class_="ex-foot",
    )


def selected(atlas: Atlas, rows: Sequence[int], k: float) -> pd.DataFrame:
    """The rows of `atlas.table` of the selected images at the measured eps nearest to k."""
    at, n = nearest_k(atlas, k), len(atlas.index)
    begin = atlas.ks.index(at) * n
    return atlas.table.iloc[[begin + i for i in rows]].reset_index(drop=True)
