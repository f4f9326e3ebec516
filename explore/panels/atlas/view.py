"""HTML around the film, from `results.Atlas`: the reading, what the map cannot show, the picked image, the lasso. No widget."""

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...results import Atlas, to_pixels
from ..perturbation.view import png

Thumb = Callable[[int], tuple[str, str]]  # row -> picture, words
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
        return f"{100 * value:.0f}&nbsp;%"
    digits = 2 if how == "decimal" else 4 if abs(value) < 0.01 and value else 3
    return f"{value:.{digits}f}".replace("-", "−")


def reading(a: Atlas, b: Atlas | None, k: float, names: Sequence[str]) -> str:
    """The finding at k/255 in one sentence; where k is not measured, that is said."""
    at = nearest_k(a, k)
    between = (
        ""
        if abs(at - k) < 1e-3
        else f' <span class="ex-note">On the way: the figures are those of ε = {at:g}/255.</span>'
    )
    first = figure(a, "kept", at)
    if at == 0:
        return f"At ε = 0 every point stands where it was fitted, and every neighbour is kept.{between}"
    if b is None:
        noise = figure(a, "kept", at, "gaussian")
        return (
            f"At ε = {at:g}/255 the adversary leaves <b>{written(first, 'percent')}</b> of the ten nearest neighbours in place; "
            f"Gaussian noise (σ = ε) leaves {written(noise, 'percent')}.{between}"
        )
    second = figure(b, "kept", at)
    one, two = (escape(name) for name in names)
    if written(first, "percent") == written(second, "percent"):
        return f"At ε = {at:g}/255 both keep <b>{written(first, 'percent')}</b> of the ten nearest neighbours.{between}"
    if first > second:
        one, two, first, second = two, one, second, first
    return (
        f"At ε = {at:g}/255 the same kind of step changes {one}’s neighbourhoods more: it keeps <b>{written(first, 'percent')}</b> of the "
        f"ten nearest, {two} keeps <b>{written(second, 'percent')}</b>.{between}"
    )


def spark(
    ks: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float]]],
    k: float,
    scale: tuple[float, float] | None,
    wide: int = 72,
) -> str:
    """Curves over eps as a small svg: (role, values) each, a dot on each at k."""
    values = np.array([line for _, line in lines], float)
    if np.isnan(values).all():
        return ""
    low, high = scale or (float(np.nanmin(values)), float(np.nanmax(values)))
    x = [4 + (wide - 8) * (each - ks[0]) / (ks[-1] - ks[0] or 1) for each in ks]
    y = 27 - 24 * ((values - low) / (high - low or 1)).clip(0, 1)
    now = list(ks).index(k)
    drawn = "".join(
        f'<path class="{role}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, row, strict=True))}"/>'
        f'<circle class="{role}" cx="{x[now]:.1f}" cy="{row[now]:.1f}" r="3"/>'
        for (role, _), row in zip(lines, y, strict=True)
    )
    return (
        f'<svg class="ex-sp" viewBox="0 0 {wide} 30" width="{wide}" height="30" aria-hidden="true">'
        f'<path class="cur" d="M{x[now]:.1f} 0V30"/>{drawn}</svg>'
    )


def truths(atlas: Atlas, k: float, whose: str = "") -> str:
    """The table of what is true in h, whatever the map looks like."""
    at = nearest_k(atlas, k)
    kinds = {kind: rows for kind, rows in atlas.figures.groupby("kind")}
    body = ""
    for name, words, how, scale in MEASURES:
        lines = [("gauss", kinds["gaussian"][name].tolist()), ("adv", kinds["adversary"][name].tolist())]
        adversary, noise = (written(figure(atlas, name, at, kind), how) for kind in ("adversary", "gaussian"))
        body += (
            f"<tr><td>{words}</td><td class='l'>{spark(atlas.ks, lines, at, scale)}</td>"
            f'<td class="adv"><span class="role">{adversary}</span></td><td class="gauss"><span class="role">{noise}</span></td></tr>'
        )
    return (
        f'<div class="ex-h">{f"{escape(whose)}: what" if whose else "What"} the map cannot show <small>at ε = {at:g}/255, in h</small></div><table class="ex-truths"><thead><tr><th>measure</th>'
        f'<th class="l">ε, {atlas.ks[0]:g} to {atlas.ks[-1]:g}</th><th>adversary</th><th>Gaussian</th></tr></thead><tbody>{body}</tbody></table>'
    )


def _row(role: str, words: str, rows: Tensor, new: set[int], thumb: Thumb) -> str:
    ring = '<svg class="gl" viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="{}"/></svg>'.format(
        3.5 if role == "clean" else 5
    )
    pictures = ""
    for i in rows.tolist():
        source, name = thumb(i)
        title = escape(f"{name}, new" if i in new else name)
        pictures += (
            f'<button class="{"new" if i in new else ""}" data-pick="{i}" title="{title}"><img src="{source}" width="32" height="32" '
            f'alt="{title}" class="pic"></button>'
        )
    return f'<div class="ex-nn {role}"><span class="lab">{ring} {words}</span><span class="nn" data-row>{pictures}</span></div>'


def neighbours(atlas: Atlas, i: int, k: float, then: Tensor, now: Tensor, thumb: Thumb) -> str:
    """The picked image's five nearest clean images, of it as it is and of it as it is now."""
    at = nearest_k(atlas, k)
    new = set(now.tolist()) - set(then.tolist())
    moved = float(atlas.moved[atlas.ks.index(at), i])
    return (
        _row("clean", "nearest, clean", then, set(), thumb)
        + _row("adv", "nearest, now", now, new, thumb)
        + f'<div class="ex-line">kept <b>{len(now) - len(new)} of {len(now)}</b> &nbsp; cosine moved <b>{written(moved, "cosine")}</b></div>'
    )


def card(atlas: Atlas, i: int, k: float, clean: Tensor, moved: Tensor, words: str) -> str:
    """The picked image: clean, difference, perturbed."""
    at = nearest_k(atlas, k)
    difference = (0.5 + GAIN * (moved - clean)).clamp(0, 1)
    size = clean.shape[-1] * max(1, 96 // clean.shape[-1])
    name = escape(words)
    parts = (
        ("clean", "clean", clean, f"{name}, clean"),
        ("adv", f"difference × {GAIN}", difference, f"{name}: the difference times {GAIN}; grey is unchanged"),
        ("adv", "perturbed", moved, f"{name}, perturbed at {at:g}/255"),
    )
    figures = "".join(
        f'<figure><img src="{png(to_pixels(x[None])[0])}" width="{size}" height="{size}" alt="{alt}" class="pic"><figcaption class="{role}">'
        f'<i class="dot"></i>{caption}</figcaption></figure>'
        for role, caption, x, alt in parts
    )
    return f'<div class="ex-h">{name} <small>picked, ε = {at:g}/255</small></div><div class="ex-trio">{figures}</div>'


def pairs(cells: Sequence[str]) -> str:
    """Two columns, one an encoder."""
    return f'<div class="ex-pairs">{"".join(f"<div>{cell}</div>" for cell in cells)}</div>'


def pair(rows: str, source: str, words: str) -> str:
    """The picked image beside its neighbours in one of two encoders."""
    return (
        f'<div class="ex-pair"><div>{rows}</div><figure><img src="{source}" width="64" height="64" alt="the picked image" class="pic">'
        f'<figcaption>{escape(words)}<br><span class="ex-note">picked in both</span></figcaption></figure></div>'
    )


def shown_name(run: str) -> str:
    """'CLAE' for demo/clae; another run by its own name."""
    last = run.split("/")[-1]
    return {"simclr": "SimCLR", "clae": "CLAE"}.get(last, last)


def nobody(n: int) -> str:
    """Stands where the picked image would."""
    return (
        f'<div class="ex-h">No image picked</div><p class="ex-note">Click one of the {n:,} points: its picture, the difference and its neighbours '
        "in h, then and now, appear here. Draw around some to see them together.</p>"
    )


def gallery(atlas: Atlas, rows: Sequence[int], k: float, thumb: Thumb) -> str:
    """What the lasso holds: how many of each class, what became of them, and those that moved farthest."""
    if not rows:
        return ""
    at = nearest_k(atlas, k)
    e, chosen = atlas.ks.index(at), torch.tensor(list(rows))
    counts = Counter(atlas.labels[chosen].tolist()).most_common()
    most = counts[0][1]
    bars = "".join(
        f'<div><span>{escape(atlas.classes[y] if 0 <= y < len(atlas.classes) else "no class")}</span><i style="width:{88 * c / most:.0f}px"></i><b>{c:,}</b></div>'
        for y, c in counts[:6]
    )
    rest = (
        f'<div class="ex-note">and {sum(c for _, c in counts[6:]):,} of {len(counts) - 6} other classes</div>'
        if len(counts) > 6
        else ""
    )
    order = chosen[atlas.moved[e, chosen].argsort(descending=True)][:GALLERY]
    pictures = "".join(
        '<button data-pick="{0}" title="{2}"><img src="{1}" width="32" height="32" alt="{2}" class="pic"></button>'.format(
            i, *map(escape, thumb(i))
        )
        for i in order.tolist()
    )
    which = "all" if len(rows) <= GALLERY else f"{len(order)}, the farthest moved first"
    return (
        f'<div class="ex-h">{len(rows):,} selected <small>kept {written(float(atlas.kept[e, chosen].mean()), "percent")}, cosine moved '
        f'{written(float(atlas.moved[e, chosen].mean()), "cosine")}</small></div><div class="ex-counts">{bars}{rest}</div>'
        f'<div class="ex-note">{which}</div><div class="ex-gallery" data-row>{pictures}</div>'
    )


def heads(atlases: Sequence[Atlas], names: Sequence[str], k: float) -> list[str]:
    """Above each of two maps: whose it is, and the share of neighbours kept."""
    if len(atlases) < 2:
        return []
    at = nearest_k(atlases[0], k)
    return [
        f'<span class="{role}"><i class="dot"></i><span class="role">{escape(name)}</span></span> <small>ten nearest kept: <b>'
        f"{written(figure(atlas, 'kept', at), 'percent')}</b></small>"
        for role, name, atlas in zip(("clean", "adv"), names, atlases, strict=True)
    ]


def agreement(a: Atlas, b: Atlas, names: Sequence[str], k: float, figures: dict[str, Any]) -> str:
    """Two encoders: both curves of neighbours kept, the neighbourhoods they share, what no turn of the map explains."""
    at = nearest_k(a, k)
    curves = [(role, x.figures[x.figures.kind == "adversary"].kept.tolist()) for role, x in (("clean", a), ("adv", b))]
    keys = "".join(
        f'<div class="{role}"><i class="dot"></i><span class="role">{escape(name)}</span> {written(figure(x, "kept", at), "percent")}</div>'
        for role, name, x in zip(("clean", "adv"), names, (a, b), strict=True)
    )
    chance = f"<br>by chance {written(figures['chance'], 'percent')}"
    facts = (
        (
            f"neighbourhoods that both<br>encoders share, clean{chance}",
            written(figures["shared_neighbours"], "percent"),
        ),
        ("second map turned onto the<br>first (Procrustes), residual", f"{figures['residual']:.2f}"),
    )
    numbers = "".join(
        f'<span><span class="ex-note">{words}</span><span class="ex-fact">{value}</span></span>'
        for words, value in facts
    )
    curve = f'<span class="ex-note">ten nearest kept,<br>ε from {a.ks[0]:g} to {a.ks[-1]:g}/255</span>{spark(a.ks, curves, at, (0.0, 1.0), 140)}'
    return f'<div class="ex-agree"><span>{curve}</span><div>{keys}</div>{numbers}</div>'


def foot(atlases: Sequence[Atlas]) -> str:
    """What holds for the map, and where it came from."""
    about = atlases[0].provenance["map"]
    words = [" ".join(str(p) for p in (a.provenance.get("run"), a.provenance.get("commit")) if p) for a in atlases]
    held = f" · axes hold {100 * about['variance']:.0f} % of the variance" if atlases[0].method == "pca" else ""
    name = (
        "PCA"
        if atlases[0].method == "pca"
        else f"PCA {about['axes']}, UMAP {about['n_neighbors']}/{about['min_dist']:g}"
    )
    return (
        '<div class="ex-foot"><span class="ex-ok">map fitted once, on clean points</span>'
        f'<span class="ex-ok">placed in it, seed {about["seed"]}</span><span>distances on a map are not distances in h{held}</span>'
        f'<span class="prov mono">{escape(", ".join(words))} · {name}</span></div>'
    )


def selected(atlas: Atlas, rows: Sequence[int], k: float) -> pd.DataFrame:
    """The rows of `atlas.table` of the selected images at the measured eps nearest to k."""
    at, n = nearest_k(atlas, k), len(atlas.index)
    begin = atlas.ks.index(at) * n
    return atlas.table.iloc[[begin + i for i in rows]].reset_index(drop=True)
