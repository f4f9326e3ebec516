"""HTML of the panel 'what it sees', from a `results.Seen` of one image: strip, reading, pictures, table. No widget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...config import show_eps
from ...figures import COLOURS
from ...results import Attribution, Seen, png, to_pixels
from ...studies.attribution import AttributionStudy
from ..html import Markup, fill, signed, tag


@dataclass(frozen=True)
class Look:
    """What the panel draws: the result of one image, and the study of its page."""

    result: Seen
    study: AttributionStudy


BIG, MID, SMALL, TINY = 192, 160, 96, 64  # pixels on the screen: four pictures at 1000 and at 800, two beside them
UNITS = {"similarity": "cosine", "loss": "loss, nats", "logit": "logit"}
SAYS = {
    "similarity": "its cosine to the other view",
    "loss": "its contrastive loss",
    "logit": "the probe’s logit for its class",
}
HEAD = (
    Markup("at the<br>baseline"),
    Markup("sum of<br>the map"),
    Markup("completeness<br>delta"),
    Markup("in the top<br>10 % of pixels"),
    Markup("ρ to the<br>clean map"),
    Markup("ρ of absolute<br>values"),
)


def strip(images: np.ndarray, names: Sequence[str], words: str = "Pick an image.") -> Markup:
    """Images to pick from under a line of words, `data-pick="i"`."""
    cells = [
        tag.button(tag.img(src=png(image), width=32, height=32, alt=""), data_pick=i, aria_label=name)
        for i, (image, name) in enumerate(zip(images, names, strict=True))
    ]
    return tag.div(words, class_="ex-k") + tag.div(cells, class_="ex-see-strip", data_row=True)


def reading(result: Seen, attack: str) -> Markup:
    """The finding in one or two sentences."""
    before, after = float(result.clean.value[0]), float(result.perturbed.value[0])
    what, rho = SAYS[result.provenance["target"]], float(result.correlation[0])
    if result.eps == 0:
        text = "At ε = 0 nothing is added: {} stays <b>{}</b>, and the two maps are one."
        return fill(text, what, number(before))
    flat = math.isnan(rho)
    maps = "its map is flat" if flat else fill("the rank correlation of the two maps is <b>{}</b>", signed(rho))
    verb = "lifts" if after > before else "lowers"
    return fill("{} {} {} from {} to <b>{}</b>; {}.", attack, verb, what, number(before), number(after), maps)


def number(value: float) -> str:
    """'0.34', '−1.26'."""
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def rgba(values: Tensor, end: float) -> np.ndarray:
    """A map (h, w) as uint8 (h, w, 4): blue below zero, orange above, the stronger the less transparent, so each theme shows through."""
    colour = np.array([[int(COLOURS[role][i : i + 2], 16) for i in (1, 3, 5)] for role in ("clean", "adv")], np.uint8)
    strength = (values.abs() / end).clamp(0, 1)
    picture = np.zeros((*values.shape, 4), np.uint8)
    picture[..., :3] = colour[(values > 0).long().numpy()]
    picture[..., 3] = (strength * 255).round().to(torch.uint8).numpy()
    return picture


def pictures(result: Seen, name: str) -> Markup:
    """Clean | map | perturbed | map, large; the other view and the map of randomised weights beside them."""
    end, method = result.scale(0), result.clean.method.replace("_", " ")
    maps = [rgba(fitted(a.maps)[0], end) for a in (result.clean, result.perturbed)]
    random = fitted(result.randomised.maps)[0]
    own = float(random.abs().max()) or 1.0
    clean, moved = (to_pixels(fitted(a.x))[0] for a in (result.clean, result.perturbed))
    eps = f"ε = {show_eps(result.eps)}"
    large = [
        _figure("clean", "clean", name, clean, "clean", f"{name}, clean", "big"),
        _figure("map", "", "what adds to it", maps[0], "clean-map", f"map of the clean image by {method}", "big"),
        _figure("perturbed", "adv", eps, moved, "perturbed", f"{name}, perturbed", "big"),
        _figure(
            "map", "", "the same scale", maps[1], "perturbed-map", f"map of the perturbed image by {method}", "big"
        ),
    ]
    small = []
    if result.reference is not None:
        view = to_pixels(fitted(result.reference))[0]
        small.append(_figure("other view", "", "", view, "reference", f"another view of the {name}", "small"))
    alt = f"map by {method} of the clean image through randomised weights, on its own scale"
    small.append(_figure("random weights", "", "", rgba(random, own), "random-map", alt, "small"))
    sizes = {"big": BIG, "mid": MID, "small": SMALL, "tiny": TINY}
    style = ";".join(f"--{size}:{_times(result.clean.x.shape[-1], most)}px" for size, most in sizes.items())
    return tag.div(tag.div(large, class_="ex-tri"), tag.div(small, class_="ex-see-small"), class_="ex-see", style=style)


def _figure(word: str, role: str, more: str, picture: np.ndarray, key: str, alt: str, size: str) -> Markup:
    dot = tag.i(class_="dot") if role else None
    caption = tag.figcaption(dot, tag.b(word, class_="role"), " ", more)
    shown = tag.img(class_=f"{size} pic", data_id=key, src=png(picture), alt=alt, decoding="sync")
    return tag.figure(caption, shown, class_=role)


def fitted(x: Tensor) -> Tensor:
    """Images or maps no larger than the screen's picture: a larger one is averaged over blocks."""
    k = math.ceil(max(x.shape[-2:]) / MID)
    if k == 1:
        return x
    four = x if x.dim() == 4 else x[:, None]
    return torch.nn.functional.avg_pool2d(four, k).view(*x.shape[:-2], x.shape[-2] // k, x.shape[-1] // k)


def _times(size: int, most: int) -> int:
    """The largest whole multiple of an image's pixels up to `most`, once at least."""
    size //= math.ceil(size / MID)
    return size * max(1, most // size)


def scale(result: Seen) -> Markup:
    """The colour scale of both large maps."""
    end = f"{result.scale(0):.2g}"
    unit = UNITS[result.provenance["target"]].split(",")[0]
    per = f"{unit} a unit of pixel" if result.clean.method == "saliency" else f"{unit} a pixel"
    return tag.div(
        tag.span(f"−{end}"),
        tag.i(class_="ex-see-scale"),
        tag.span(f"+{end} {per}"),
        tag.span("blue takes from it, orange adds to it; random weights on their own scale"),
        class_="ex-key ex-key-in ex-note",
    )


def table(result: Seen) -> Markup:
    """One row a kind: the number, at the baseline, what the map adds up to, completeness delta, focus, rank correlation."""
    head = tag.tr(tag.th(name) for name in ("seen", UNITS[result.provenance["target"]], *HEAD))
    body = (
        _row("clean", "clean", result.clean, 1.0, 1.0),
        _row("adv", "perturbed", result.perturbed, float(result.correlation[0]), None),
        _row("ref", "clean, random weights", result.randomised, float(result.sanity[0]), float(result.sanity_size[0])),
    )
    numbers = tag.table(tag.thead(head), tag.tbody(body), class_="ex-see-t", aria_label="Numbers of the three maps")
    return tag.div(numbers, class_="ex-scroll")


def _row(role: str, name: str, found: Attribution, rho: float, size: float | None) -> Markup:
    own = {name: float(entry) for name, entry in found.table.iloc[0].items()}
    cells = [
        number(own["value"]),
        number(own["at_baseline"]) if found.baseline else "",
        number(own["sum"]) if found.delta is not None else "",
        "" if math.isnan(own["delta"]) else f"{signed(own['delta'], 3)} ({100 * own['error']:.1f} %)",
        f"{100 * own['top']:.0f} %",
        _rho(rho),
        "" if size is None else _rho(size),
    ]
    first = tag.td(tag.i(class_="dot"), tag.b(name, class_="role"))
    return tag.tr(first, [tag.td(cell) for cell in cells], class_=role)


def _rho(value: float) -> str:
    return "none: a flat map" if math.isnan(value) else signed(value)
