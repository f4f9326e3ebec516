"""HTML of the perturbation lab's reading and table, from a `results.Perturbation`. No widget, no torch work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...losses import chance, chance_words
from ...results import Perturbation
from ...studies import PerturbationStudy
from ..html import Axis, Markup, Thumb, dotted, fill, image, join, note, scale, signed, tag, ticks


@dataclass(frozen=True)
class Page:
    """What the lab draws: a page of images with their study, and the result at one eps (None until it is measured)."""

    study: PerturbationStudy
    k: int
    names: list[str]  # of the images' classes
    attack: str
    first: int  # place of the first image
    total: int  # images in the split
    result: Perturbation | None = None


ROWS = (("clean", "clean"), ("adv", "adversary"), ("gauss", "Gaussian"), ("uniform", "uniform"), ("sign", "sign noise"))
KINDS = ("clean", "adversary", "gaussian", "uniform", "sign")  # of `Perturbation.perturbed`, in the order of ROWS


def reading(result: Perturbation, i: int, attack: str) -> Markup:
    """The finding for image i in one or two sentences."""
    loss, kept, length = (
        result.loss[:, i].tolist(),
        result.kept()[:, i].tolist(),
        "L∞" if result.match == "linf" else "L2",
    )
    of = result.neighbours.shape[2]
    if result.eps == 0:
        return fill("At ε = 0 nothing is added: the loss stays {:.2f}.", loss[0])
    verb = "lifts" if loss[1] > loss[0] else "lowers"
    text = fill("{} {} the loss from {:.2f} to <b>{:.2f}</b>", attack, verb, loss[0], loss[1])
    text += fill(" and keeps <b>{} of {}</b> neighbours", kept[1], of) if of else ""
    text += f". Noise of equal {length}: at most {max(loss[2:]):.2f}"
    least, most = min(kept[2:]), max(kept[2:])
    if of:
        between = f"{least}" if least == most else f"{least} {'or' if most - least == 1 else 'to'} {most}"
        text += ", and " + f"{between} of {of} kept".replace(" ", "\xa0")
    return text + "."


def chance_of(about: Mapping[str, Any], n: int) -> float:
    """The chance level of the loss that a study's provenance tells of, for n images."""
    return chance(n, about["loss"], about["temperature"], **about.get("loss_options", {}))


def span(values: np.ndarray, level: float) -> Axis:
    """An axis of losses that holds `values` and chance with a little air."""
    low, high = min(float(np.nanmin(values)), level), max(float(np.nanmax(values)), level)
    air = 0.04 * (high - low) or 0.1
    return low - air, high + air


def table(result: Perturbation, i: int, axis: Axis, thumb: Thumb, pool: int, attack: str) -> Markup:
    """The table for image i: its dot among the ticks of all images, numbers, neighbours; then the gradient's split.

    `thumb(j)` gives the picture and the class of the pool's image j.
    """
    low, high = axis
    n = result.loss.shape[1]

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    line = at(chance_of(result.provenance, n))
    head = _head(chance_words(n, result.provenance["loss"]), line, pool)
    body = [_row(result, i, row, at, line, thumb) for row in range(len(ROWS))]
    numbers = scale((f"{t:.{_digits(axis)}f}", at(t)) for t in ticks(axis))
    key = join(tag.span(class_="new-k"), "not among the clean five")
    last = tag.tr(
        tag.td(),
        tag.td(numbers, class_="pl"),
        tag.td(f"dot: this image; ticks below it: all {n}", colspan=5, class_="ex-note l"),
        tag.td(key, class_="l ex-note", colspan=2),
        class_="axis",
    )
    columns = [tag.col(class_=c) for c in ("c0", "c1", "c2", "c2", "c2", "c2", "c3", "c4", "c5")]
    caption = f"Loss, lengths and neighbours of one image: clean, {attack} adversary and three noises"
    rows = tag.tbody(body, last, _steered(float(result.share[i])))
    return tag.table(tag.colgroup(columns), head, rows, class_="ex-t", aria_label=caption)


def _head(level: str, line: str, pool: int) -> Markup:
    far = "" if 58 <= float(line[:-1]) <= 84 else " far"  # beside the axis title or past the plot: a key in the corner
    label = tag.span(level, class_=f"ex-chance{far}", style=f"left:{line}")
    loss = tag.div(tag.span("contrastive ", class_="at1000"), "loss, nats", label, class_="ex-over")
    names = ("loss", "change", Markup("L∞<br>/255"), "L2", Markup("cosine<br>to clean"))
    return tag.thead(
        tag.tr(
            tag.th("added to the image"),
            tag.th(loss, class_="l pl"),
            [tag.th(name) for name in names],
            tag.th(f"five nearest of {pool:,}, in h", class_="l"),
            tag.th("kept"),
        )
    )


def _row(result: Perturbation, i: int, row: int, at: Callable, line: str, thumb: Thumb) -> Markup:
    role, name = ROWS[row]
    loss, clean = float(result.loss[row, i]), float(result.loss[0, i])
    path = "".join(f"M{float(at(v)[:-1]) * 2.5:.1f} 0V7" for v in result.loss[row].tolist())
    left, right = sorted((clean, loss))
    dots = tag.div(
        tag.svg(tag.path(d=path), viewBox="0 0 250 7", preserveAspectRatio="none", aria_hidden="true"),
        tag.u(style=f"left:{line}"),
        tag.s(style=f"left:{at(clean)}"),
        tag.b(style=f"left:{at(left)};width:calc({at(right)} - {at(left)})"),
        tag.i(style=f"left:{at(loss)}"),
        class_=f"ex-dp {role}",
    )
    if row == 0:
        numbers = [tag.td(f"{loss:.2f}"), *(tag.td(zero, class_="dim") for zero in (0, 0, 0, 1))]
    else:
        delta = (result.perturbed[KINDS[row]][i] - result.x[i]).flatten()
        values = (f"{loss:.2f}", signed(loss - clean), f"{float(delta.abs().max()) * 255:.1f}")
        numbers = [tag.td(v) for v in (*values, f"{float(delta.norm()):.2f}", f"{float(result.cosine[row, i]):.3f}")]
    own = set(result.neighbours[0, i].tolist())
    pictures = [_neighbour(j, j not in own, thumb) for j in result.neighbours[row, i].tolist()]
    of = result.neighbours.shape[2]
    return tag.tr(
        tag.td(dotted(role, name)),
        tag.td(dots, class_="pl"),
        numbers,
        tag.td(pictures, class_="l nn"),
        tag.td(f"{int(result.kept()[row, i])} of {of}" if row and of else ""),
        class_=role,
    )


def _neighbour(j: int, new: bool, thumb: Thumb) -> Markup:
    picture, name = thumb(j)
    return tag.span(image(picture, 32, f"{name}, new" if new else name, title=True), class_="new" if new else "")


def _steered(share: float) -> Markup:
    positive, negative = f"{share:.0%}".replace("%", " %"), f"{1 - share:.0%}".replace("%", " %")
    label = f"share of the L2 norm of the gradient: positive pair {positive}, negatives {negative}"
    words = fill(
        "<b>{}</b> away from its positive, <b>{}</b> towards the negatives {}",
        positive,
        negative,
        note("\xa0 share of ", tag.span("the gradient’s ", class_="at1000"), "L2 norm"),
    )
    if share < 0.005:
        words = Markup("<b>by the negatives alone</b>: against its own embedding the positive part is 0")
    bar = tag.div(tag.i(style=f"width:{share:.1%}"), tag.b(), class_="ex-sb", role="img", aria_label=label)
    return tag.tr(tag.td("steered by"), tag.td(bar, class_="pl"), tag.td(words, colspan=7, class_="l"), class_="adv sb")


def _digits(axis: Axis) -> int:
    marks = ticks(axis)
    step = marks[1] - marks[0] if len(marks) > 1 else 1
    return 0 if step == int(step) else 1 if round(step * 10, 6) == int(round(step * 10, 6)) else 2


def gain_scale(gain: int) -> Markup:
    """The difference's grey scale in words and as a strip."""
    end = f"{127 / gain:.1f}"
    words = ("Difference, each channel:", f"−{end}"), (f"+{end} /255", "grey is unchanged")
    before, after = ([tag.span(text) for text in side] for side in words)
    return tag.div(before, tag.i(), after, class_="ex-key-in ex-note")
