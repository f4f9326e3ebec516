"""The augmentation lab: every setting of SimCLR's views, two views of a picture, and the contrastive loss of a batch of them."""

import io
import math
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch
import traitlets
from torch import Tensor
from traitlets import Enum, Float, Int, Unicode

from ... import figures
from ...datasets.decode import read_image
from ...errors import UserError
from ...random import seeded
from ...results import Similarities, to_pixels
from ...runfolder import Run
from ...studies import similarities
from ...training import make_views
from ...views import Views
from ..attribution.view import strip
from ..base import Job, NothingToCompute, Panel
from ..encoder_panel import no_run
from ..html import finding, foot, scale
from ..session import LRU, Session, encoders
from ..widgets.html import ClickableHTML
from ..widgets.matrix import Matrix
from . import view

TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
DRAWS = 8  # further views of the picture
KEPT = 12  # batches
KNOBS = ("scale", "flip", "brightness", "contrast", "saturation", "hue", "jitter_p", "gray_p", "blur_p")
RECIPES = {  # the values of KNOBS
    "SimCLR, CIFAR-10": ((0.08, 1.0), 0.5, 0.4, 0.4, 0.4, 0.1, 0.8, 0.2, 0.0),
    "SimCLR, ImageNet": ((0.08, 1.0), 0.5, 0.8, 0.8, 0.8, 0.2, 0.8, 0.2, 0.5),
    "crops alone": ((0.08, 1.0), 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "colours alone": ((1.0, 1.0), 0.0, 0.8, 0.8, 0.8, 0.2, 1.0, 0.0, 0.0),
    "nothing": ((1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}
OF_RUN, CUSTOM = "the run's", "changed by hand"


def _strength(what: str, most: float = 1.0) -> Float:
    return Float(0.0, min=0.0, max=most, help=what)


class TwoViews(Panel):
    """`TwoViews(run)`: change the augmentation, the batch, the temperature; `panel.result` is a `results.Similarities`.

    `own`: an image of your own, as a path or the bytes of a file; it takes the first place of the batch.
    """

    title = "Two views"
    inputs = ("run", "images", "n", "seed", "own", "picture", "temperature", *KNOBS)
    run = Unicode("", help="The run whose encoder embeds the views")
    images = Unicode("", help="The images: a data set and its test or training side, like 'fashion · test'")
    n = Enum([8, 16, 32, 64], 32, help="Images of the batch; each has two views")
    seed = Int(0, min=0, help="Seed of the views: the same seed draws the same views")
    own = traitlets.Any(None, help="An image of your own, in the first place of the batch")
    recipe = Enum([OF_RUN, *RECIPES, CUSTOM], OF_RUN, help="Known settings of the views; a slider changes them")
    scale = traitlets.Tuple(
        Float(), Float(), default_value=(0.2, 1.0), help="Share of the image's area that a crop keeps: from, to"
    )
    flip = _strength("Probability that a view is mirrored")
    brightness = _strength("Brightness is multiplied by a factor from 1 − strength to 1 + strength")
    contrast = _strength("Contrast is multiplied by a factor from 1 − strength to 1 + strength")
    saturation = _strength(
        "Saturation is multiplied by a factor from 1 − strength to 1 + strength; a gray image has none"
    )
    hue = _strength("The hue is shifted by up to this part of the colour circle, either way", 0.5)
    jitter_p = _strength("Probability that a view's colours change at all")
    gray_p = _strength("Probability that a view loses its colours")
    blur_p = _strength("Probability that a view is blurred")
    temperature = Enum(list(TEMPERATURES), 0.5, help="Cosines are divided by it before the softmax")
    picture = Int(0, min=0, help="The image of the batch that is shown large")
    pair = Unicode("0,0", help="The cell of the matrix: anchor, candidate")

    def __init__(self, run: Run | str | None = None, **traits: Any):
        name = run.name if isinstance(run, Run) else run or ""
        self.shelf = Session(*([run] if isinstance(run, Run) else []))
        self._offered, self._batches = self.shelf.sides(name), LRU(KEPT)
        self._loaded: Similarities | None = None  # whose pictures are on the page
        given = {"run": name, "images": self._offered[0], **traits}
        super().__init__(**{**self._first(given), **given})
        self.observe(lambda _: self._follow_run(), names=["run", "images"])
        self.observe(lambda change: self._use(change["new"]), names=["recipe"])
        self.observe(lambda _: self.set_trait("recipe", self._named()), names=list(KNOBS))
        self.observe(lambda _: self._show_pair(), names=["pair"])
        self.set_trait("recipe", self._named())

    def _first(self, given: dict[str, Any]) -> dict[str, Any]:
        """The knobs and the temperature that a new panel starts with: the run's, or those of the recipe that was asked for."""
        if not given["run"]:
            return dict(zip(KNOBS, RECIPES["SimCLR, CIFAR-10"], strict=True))
        recipe = given.get("recipe", OF_RUN)
        knobs = RECIPES.get(recipe) or self._knobs_of(given["run"], given["images"])
        near = min(TEMPERATURES, key=lambda t: abs(math.log(t / self.shelf.run(given["run"]).config.temperature)))
        return {**dict(zip(KNOBS, knobs, strict=True)), "temperature": near}

    def _knobs_of(self, run: str, images: str) -> tuple:
        views = make_views(self.shelf.run(run).config, self.shelf.set(images))
        return _plain((views.scale, views.flip, *views.jitter, views.jitter_p, views.gray_p, views.blur_p))

    @traitlets.validate("run", "images")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {"run": self.shelf.run, "images": self.shelf.split}, "choose")

    @traitlets.validate("scale")
    def _a_range(self, proposal: Any) -> tuple[float, float]:
        low, high = proposal["value"]
        if not 0 < low <= high <= 1:
            raise UserError(f"A crop's scale is a range within 0 to 1, got {low:g} to {high:g}; 0.08 to 1 is SimCLR's.")
        return float(low), float(high)

    # recipes
    def _values(self) -> tuple:
        return _plain(tuple(getattr(self, name) for name in KNOBS))

    def _named(self) -> str:
        known = {**({OF_RUN: self._knobs_of(self.run, self.images)} if self.run else {}), **RECIPES}
        if known.get(self.recipe) == self._values():
            return self.recipe
        return next((name for name, values in known.items() if values == self._values()), CUSTOM)

    def _use(self, recipe: str) -> None:
        values = self._knobs_of(self.run, self.images) if recipe == OF_RUN and self.run else RECIPES.get(recipe)
        if values is not None and values != self._values():
            with self.hold_trait_notifications():
                for name, value in zip(KNOBS, values, strict=True):
                    setattr(self, name, value)

    def _follow_run(self) -> None:
        if self.recipe == OF_RUN:
            self.guard(lambda: self._use(OF_RUN))

    # widgets
    def controls(self) -> list[w.Widget]:
        choose = [] if self.run else [("choose", "")]
        images = [(name, name) for name in dict.fromkeys([self.images, *self._offered])]
        row = self.row(
            [
                ("Run", w.Dropdown(options=[*choose, *((name, name) for name in encoders(self.run))]), "run", "116px"),
                ("Images", w.Dropdown(options=images), "images", "120px"),
                ("Batch", w.Dropdown(options=[8, 16, 32, 64]), "n", "52px"),
                ("Views", w.Dropdown(options=[OF_RUN, *RECIPES, CUSTOM]), "recipe", "136px"),
                ("Seed", w.BoundedIntText(min=0, max=10**6), "seed", "48px"),
            ]
        )
        again = self._button("Draw again", lambda: self.set_trait("seed", self.seed + 1), "ex-tv-again")
        again.tooltip = "Draw new views: the next seed"
        upload = w.FileUpload(
            accept="image/*", description="Own picture", tooltip="Put a picture of yours in the first place"
        )
        upload.observe(lambda change: self.guard(lambda: self._take_file(change["new"])), names=["value"])
        row.children = [*row.children, again, upload.add_class("ex-tv-own")]
        knobs = self.row([(label, _slider(name), name, "auto") for name, label in view.KNOB_LABELS.items()], "ex-knob-")
        return [row, knobs.add_class("ex-knobs")]

    def body(self) -> list[w.Widget]:
        self._reading, self._pictures, self._hard, self._foot = (w.HTML() for _ in range(4))
        self.strip, self.matrix = ClickableHTML(picked=str(self.picture)).add_class("ex-see-pick"), Matrix()
        self.strip.observe(lambda change: self._take(change["new"]), names=["picked"])
        traitlets.link((self, "pair"), (self.matrix, "picked"))
        slider = (
            w.SelectionSlider(options=[(f"{t:g}", t) for t in TEMPERATURES]).add_class("ex-eps").add_class("ex-tau")
        )
        self.connect(slider, "temperature")
        places = [(f"{t:g}", f"{100 * i / (len(TEMPERATURES) - 1):.2f}%") for i, t in enumerate(TEMPERATURES)]
        ruler = w.HTML(scale(places, "ex-ticks ex-short", aria_hidden="true")).add_class("ex-ruler")
        self._chart = figures.live(figures.softmax_weights(_blank()))
        right = w.VBox([w.VBox([slider, ruler]).add_class("ex-tv-tau"), self._chart, w.HTML(view.key())]).add_class(
            "ex-tv-right"
        )
        grid = w.Box([w.VBox([w.HTML(view.matrix_head()), self.matrix]), right]).add_class("ex-tv-grid")
        return [self.strip, self._pictures, self._reading, grid, self._hard, self._foot]

    def empty(self) -> list[w.Widget]:
        return no_run(self)

    def _take(self, key: str) -> None:
        if key and int(key) != self.picture:
            self.pair = f"{key},{key}"

    def _take_file(self, files: Any) -> None:
        if files:
            self.own = bytes(files[0]["content"])

    def _show_pair(self) -> None:
        anchor = int(self.pair.split(",")[0]) % self.n
        if self.picture != anchor:
            self.picture = anchor
        else:
            self.redraw()

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Drawn:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        about = tuple((key, inputs[key]) for key in inputs if key not in ("temperature", "picture"))
        views = self._views(inputs)
        batch: Similarities = self._batches.make(about, lambda: self._embed(job, views, **inputs))
        job.check()
        i = min(inputs["picture"], len(batch.x) - 1)
        draws = views(batch.x[[i]].expand(DRAWS, -1, -1, -1), seeded(inputs["seed"] + 1))
        names = [self.shelf.class_name(inputs["images"], int(y)) for y in batch.labels]
        if inputs["own"]:
            names[0] = "your picture"
        return view.Drawn(batch.at(inputs["temperature"]), batch, i, draws, names)

    def _views(self, inputs: dict[str, Any]) -> Views:
        data, config = self.shelf.set(inputs["images"]), self.shelf.run(inputs["run"]).config
        jitter = tuple(inputs[name] for name in ("brightness", "contrast", "saturation", "hue"))
        own = {name: inputs[name] for name in ("scale", "flip", "jitter_p", "gray_p", "blur_p")}
        views = Views(size=data.size, jitter=jitter, crop=config.crop, **own)  # type: ignore[arg-type]
        return views.for_gray() if data.gray and not inputs["own"] else views

    def _embed(self, job: Job, views: Views, **inputs: Any) -> Similarities:
        job.busy("embedding")
        run, images, n = inputs["run"], inputs["images"], inputs["n"]
        split, data = self.shelf.split(images), self.shelf.set(images)
        index = torch.randperm(len(split), generator=seeded(0))[:n]
        x, y = split[index]
        if inputs["own"]:
            x, y, index = x.clone(), y.clone(), index.clone()
            x[0], y[0], index[0] = _read(inputs["own"], data.size), -1, -1
        about = {"run": run, "commit": self.shelf.run(run).env.get("commit"), "images": images}
        found = {"labels": y, "index": index, "classes": data.classes, "provenance": about}
        return similarities(self.shelf.encoder(run), x, views=views, seed=inputs["seed"], **found)

    # pictures
    def draw(self, drawn: view.Drawn) -> None:
        result = drawn.result
        if drawn.batch is not self._loaded:
            self.strip.html = strip(to_pixels(result.x), drawn.names)
            self._loaded = drawn.batch
        self.strip.picked = str(drawn.picture)
        self.matrix.load(result, drawn.names)
        anchor, _ = self._cell(result)
        self._pictures.value = view.pictures(drawn)
        self._reading.value = finding(view.reading(result))
        self._hard.value = view.hardest(drawn, anchor)
        figures.follow(self._chart, figures.softmax_weights(result, anchor))
        self._foot.value = foot(result, result.provenance["images"], "eval mode")

    def _cell(self, result: Similarities) -> tuple[int, int]:
        row, column = (min(int(part), len(result.cosine) - 1) for part in self.pair.split(","))
        return row, column

    def label(self, result: Similarities) -> str:
        return f"{result.provenance['run']}, {len(result.x)} images, seed {result.provenance['seed']}"


def _plain(values: tuple) -> tuple:
    """Values of KNOBS without the last bits that a slider in the browser adds."""
    low, high = values[0]
    return ((round(low, 4), round(high, 4)), *(round(value, 4) for value in values[1:]))


def _slider(name: str) -> w.Widget:
    if name == "scale":
        return w.FloatRangeSlider(min=0.02, max=1.0, step=0.01, readout_format=".2f")
    return w.FloatSlider(min=0.0, max=0.5 if name == "hue" else 1.0, step=0.05, readout_format=".2f")


def _read(own: str | bytes | Path, size: int) -> Tensor:
    """An image file as (3, size, size) in [0, 1]; UserError where it cannot be read."""
    found = read_image(io.BytesIO(own) if isinstance(own, bytes) else own, size)
    if isinstance(found, str):
        what = "The picture" if isinstance(own, bytes) else f"The picture {own}"
        raise UserError(f"{what} cannot be read: {found}; give a PNG or JPEG file.")
    return torch.from_numpy(found).float() / 255


def _blank() -> Similarities:
    """What the chart shows before the first result."""
    x, n = torch.zeros(2, 3, 1, 1), 4
    return Similarities(
        x,
        x,
        torch.zeros(n, 4),
        torch.zeros(n, dtype=torch.bool),
        torch.eye(n),
        0.5,
        torch.arange(2),
        torch.full((2,), -1),
    )
