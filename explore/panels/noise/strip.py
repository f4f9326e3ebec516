"""The pictures below the chart: one test image at every eps, one row per kind, each picture below its tick."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from ...attack_table import NOISE_NAMES
from ...random import seeded
from ...results import png, to_pixels
from ...studies import Batch, contrast_with
from ...training import contrast_settings
from ..html import Markup, join, tag
from ..session import Session
from .points import MATCHES, Choice, Kind

IMAGES, SIDE = 32, 64  # test images to choose from, attacked together; pixels of one on the screen
FILMED = ("adversary", *NOISE_NAMES)


@dataclass(frozen=True)
class Strip:
    """Test images at every eps of `ks`/255 and under every kind, attacked through one run's encoder."""

    run: str
    ks: tuple[float, ...]
    names: list[str]  # class of every image
    index: Tensor  # (32,) places in the test split
    frames: dict[str, Tensor] = field(repr=False)  # kind -> (len(ks), 32, c, h, w)

    def pixels(self, kind: str, image: int) -> np.ndarray:
        """One image of a kind at every eps, as on the screen: uint8 (len(ks), h, w, 3)."""
        return to_pixels(self.frames[kind][:, image])


class Strips:
    """Strips through a session's runs; the last four are kept."""

    def __init__(self, session: Session):
        self.session = session
        self._film = lru_cache(maxsize=4)(partial(film_of, session))

    def through(
        self, names: Sequence[str], dataset: str, choice: Choice, most: float, kinds: Sequence[str] = FILMED
    ) -> Strip | None:
        """Through the first of these runs that was trained on `dataset`, at the chart's nine ticks up to `most`; None where none was."""
        run = next((name for name in names if name and self.session.run(name).config.dataset == dataset), None)
        if run is None:
            return None
        self.session.set(dataset)  # refuses to download
        ks = tuple(min(most / 8 * i, 255.0) for i in range(9))
        match, variance = MATCHES[choice.match], choice.gaussian == "σ²"
        return self._film(run, ks, match=match, variance=variance, kinds=tuple(kinds))


def film_of(
    session: Session,
    run: str,
    ks: tuple[float, ...],
    *,
    match: str,
    variance: bool = False,
    kinds: Sequence[str] = FILMED,
) -> Strip:
    """The pictures, attacked through a run's encoder. `match`: the length noise shares with FGSM ('linf', 'l2'), 'plain' as drawn; `variance`: N(0, eps)
    with eps as its variance, where it is as drawn.
    """
    opened, images = session.run(run), f"{session.run(run).config.dataset} · test"
    split = session.split(images)
    index = torch.randperm(len(split), generator=seeded(0))[:IMAGES]
    x, y = split[index]
    objective = contrast_with(session.encoder(run), x, **contrast_settings(opened.config, session.set(images)))
    batch, eps = Batch(x, objective, match=match), [k / 255 for k in ks]
    names = {"adversary": "fgsm", "gaussian": "gaussian-variance" if variance and match == "plain" else "gaussian"}
    frames = {kind: batch.at(names.get(kind, kind), eps) for kind in kinds}
    return Strip(run, ks, [session.class_name(images, int(label)) for label in y], index, frames)


def strip(film: Strip, image: int, kinds: Iterable[Kind]) -> Markup:
    """The rows of pictures for one image; every picture carries `data-pick="kind,k"`."""
    rows, name = [], film.names[image]
    for kind in kinds:
        if kind.key in film.frames:
            frames = [
                tag.button(
                    picture(frame),
                    data_pick=f"{kind.key},{k:g}",
                    aria_label=f"{kind.name} at {k:g}/255: {name}",
                    title=f"{kind.name} at ε = {k:g}/255: click to pin its point",
                )
                for k, frame in zip(film.ks, film.pixels(kind.key, image), strict=True)
            ]
            dot = tag.span(tag.i(class_="dot"), class_="ex-film-l")
            row = (dot, tag.span(frames, data_row=True), tag.b(kind.name, class_="role"))
            rows.append(tag.div(row, class_=f"ex-film {kind.role} {kind.key}"))
    return join(rows)


def film_head(film: Strip, image: int, whiskers: str) -> Markup:
    """The line above the pictures: how to read the chart, what the pictures are, and arrows to other images."""
    turns = [
        tag.button(
            sign, data_pick=f"image:{(image + step) % len(film.names)}", aria_label=words, title=words.capitalize()
        )
        for step, sign, words in ((-1, "‹", "image before"), (1, "›", "next image"))
    ]
    said = tag.span(
        f"In the chart: line, mean; tick, one seed; whisker and band, {whiskers}.",
        tag.br(),
        f"{film.names[image].capitalize()}, a test image, at each ε above, attacked through {film.run}.",
    )
    return tag.div(said, tag.span(turns, class_="ex-page", data_row=True), class_="ex-film-h ex-note")


def picture(image: np.ndarray) -> Markup:
    """An image (h, w, 3) at the whole multiple of its pixels nearest to 64; a larger one is averaged over blocks first."""
    size = len(image)
    if size > SIDE:
        k = math.ceil(size / SIDE)
        cut = image[: size // k * k, : size // k * k].astype(np.float32)
        image = (cut.reshape(size // k, k, size // k, k, 3).mean((1, 3)) + 0.5).astype(np.uint8)
        size = len(image)
    wide = size * max(1, SIDE // size)
    return tag.img(src=png(image), width=wide, height=wide, alt="", decoding="sync")
