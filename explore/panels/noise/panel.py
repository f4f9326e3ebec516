"""Noise or adversary: accuracy and loss over eps, in training and at test, with seeds and intervals; missing points are computed here.

Trainings run in processes of their own (`experiments.jobs`), sweeps over test images in the panel's worker.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch
import traitlets
from traitlets import Enum, Float, Int

from ... import figures
from ...attacks import ATTACKS
from ...errors import UserError
from ...experiments.cost import duration
from ...experiments.jobs import BackgroundTraining
from ...results import Sweep
from ...runfolder import Run
from ..base import Job, NothingToCompute
from ..html import Markup, finding, join, note, tag
from ..page import Change, Content, Table
from ..session import Session
from ..widgets.html import ClickableHTML
from . import cards, charts
from .controls import Controls
from .missing import MissingPoints
from .points import KINDS, LEVELS, RIVALS, Choice, Scene, scene_of
from .sidebar import Look, sidebar
from .source import SweepSource, written
from .strip import IMAGES, Strip, Strips, film_head, strip
from .verdicts import absent, reading, whiskers

ALT = tag.span("The numbers of the chart are in panel.result.table.", class_="ex-sr")
ASK = 10.0  # seconds: the time of longer measurements is shown before they start, where a click chose them
DEMOS = (
    "demo/clae",
    "demo/simclr",
    "demo/gaussian",
)  # runs whose encoder attacks the pictures below the chart, where none was given


@dataclass(frozen=True)
class View:
    """All that is drawn except the slider's value and the jobs. `here`: runs whose encoder is on this machine."""

    result: Sweep
    scene: Scene
    film: Strip | None
    here: set[str]
    look: Look


class NoiseOrAdversary(Controls):
    """`NoiseOrAdversary(sweep, run)`: shipped results at once, missing points computed here; `panel.result` is the `Sweep` on the screen."""

    title = "Noise or adversary"
    inputs = ("show", "against", "match", "gaussian", "judge", "spread", "kinds", "encoder", "images")
    k = Float(8, min=0, max=255, help="The ε = k/255 that the sentence and the cards are about")
    kind = Enum(list(KINDS), "adversary", help="The curve whose point is pinned")
    picture = Int(0, min=0, max=IMAGES - 1, help="Which of the test images is shown below the chart")

    def __init__(self, sweep: Any = None, run: Run | str | None = None, **traits: Any):
        self.source = SweepSource(sweep)
        self.session = Session(*([run] if isinstance(run, Run) else []))
        self._run = run.name if isinstance(run, Run) else run or ""
        if self._run:
            self.session.run(self._run)
        if traits.get("show") == "loss":
            traits.setdefault("against", "test ε")  # anything else is refused
        self._matches = {"training ε": "ε", "test ε": "L∞"}
        traits.setdefault("match", self._matches[traits.get("against", "training ε")])
        self._unpriced: set[str] = set()
        self._extra: dict[str, set[float]] = {}  # encoder -> eps beyond the usual ones
        self._films = Strips(self.session)
        self._closed, self._marked = False, ""
        self._drawn: tuple[Any, ...] = (None, [], 0.0)  # scene, jobs and eps of the chart on the screen
        first = self._run or next(iter(sorted(self.source.methods, key=lambda m: m != "SimCLR")), "demo/simclr")
        self.missing = MissingPoints(self.source, self.offers, torch.get_num_threads(), self._jobs_changed)
        super().__init__(**{"encoder": first, **traits})

    # widgets
    def body(self) -> list[w.Widget]:
        self._reading, self._saved = w.HTML().add_class("ex-sweep-says"), ""
        self._chart = figures.live(
            figures.empty_curves(*charts.ROOM), picked=lambda key: self.guard(lambda: self._pin(key))
        )
        self._slider = w.FloatSlider(min=0, max=16, step=1, readout=False).add_class("ex-at")
        self.connect(self._slider, "k")
        self.film = ClickableHTML()
        self.film.observe(lambda change: self._pin(change["new"]), names=["picked"])
        self.cards, self._foot = (
            cards.Cards(lambda act: self.guard(lambda: self._act(*act.split(":", 1)))).add_class("ex-cards")
            for _ in range(2)
        )
        self.observe(lambda _: self.redraw(), names=["k", "kind", "picture"])
        main = w.VBox([self._chart, self._slider, self.film]).add_class("ex-plot")
        return [self._reading, w.Box([main, self.cards]).add_class("ex-sweep"), self._foot]

    # work
    def compute(self, job: Job, **inputs: Any) -> View:
        encoder, kinds, images = (inputs.pop(name) for name in ("encoder", "kinds", "images"))
        choice, run = Choice(**inputs, rivals=len(self.attacks) > 1), None
        self.missing.jobs.watch()
        if choice.training:
            rows = self.source.trained()
        elif encoder in self.source.methods:
            rows = self.source.looked_at(choice, encoder, images, (), job.progress, self.attacks)
        else:
            run = self.session.run(encoder)
            self.session.set(run.config.dataset)  # refuses to download
            job.busy("opening the encoder")
            if encoder in self._unpriced:
                self._tell_price(job, choice, run, images)
            extra = sorted(self._extra.get(encoder, ()))
            rows = self.source.looked_at(choice, run, images, extra, job.progress, self.attacks)
        job.check()
        scene = scene_of(choice, rows, kinds, self.source.base)
        names = [encoder if run is not None else "", self._run, *DEMOS]
        film = self._films.through(
            names,
            run.config.dataset if run else self.source.dataset,
            choice,
            charts.most(scene),
            [key for key in self.offers if key not in (*LEVELS, "probe")],
        )
        result = Sweep(scene.sweep.table, {**scene.sweep.provenance, "shown": {**asdict(choice), "kinds": kinds}})
        here = self.source.here(result.table.run.unique())
        return View(result, scene, film, here, Look(encoder, encoder in self.source.methods, images))

    def _tell_price(self, job: Job, choice: Choice, run: Run, images: int) -> None:
        """Raise `NothingToCompute` where measuring a run takes long: the time is shown, with a button."""
        data = self.session.set(run.config.dataset)
        about = (choice, run, self.session.encoder(run.name), images, self.attacks, data)
        seconds = self.source.seconds_to_look(*about)
        if seconds > ASK:
            said = (
                f"{run.name} has not been measured over test ε with these settings: {images:,} test images at nine ε take "
                f"about {duration(seconds)} on this machine."
            )
            job.show(lambda: self._price.set_trait("value", finding(said)))
            raise NothingToCompute("not measured yet")

    def empty(self) -> list[w.Widget]:
        self._price = w.HTML()

        def accepted() -> None:
            self._unpriced.discard(self.encoder)
            self.refresh()

        return [self._price, self._button("Measure it", accepted, style="primary")]

    def idle(self) -> bool:
        """Measure how long a training takes here, once, when a card needs it."""
        if not self.missing.measure(self.session):
            return False
        self.redraw()
        return True

    # points that are not there yet
    def compute_point(self, kind: str, k: float) -> BackgroundTraining | None:
        """Compute a missing point: train the seeds it lacks in the background (the job), or measure a run at one more eps (None)."""
        self.wait()
        return self._order(kind, k)

    def _order(self, kind: str, k: float) -> BackgroundTraining | None:
        if self._outcome is None:
            raise UserError("There is no figure yet to add a point to; wait until it is drawn.")
        scene = self._outcome.scene
        if kind not in scene.kinds:
            raise UserError(f"There is no curve '{kind}' on the screen; it has {', '.join(scene.kinds)}.")
        if scene.choice.training:
            job = self.missing.start(scene, kind, k)
            self._jobs_changed(False)
            return job
        if self.encoder in self.source.methods:
            raise UserError(f"The encoders of '{self.encoder}' are not on this machine; choose a run.")
        self._extra.setdefault(self.encoder, set()).add(float(k))
        self.refresh()
        return None

    def _jobs_changed(self, ended: bool) -> None:
        """Show the progress of the jobs; `ended`: there are new points."""
        if self._closed:
            return
        if ended:
            self.source.stale = True
            self.refresh()
        else:
            self.redraw()
            if self.state == "ready":
                self._settle(*self._ended)

    def _act(self, verb: str, what: str = "") -> None:
        """Handle a card's button."""
        if verb == "save":
            self.export()
        elif verb == "open":
            self._unpriced.add(what)
            with self.hold_trait_notifications():
                self.encoder, self.against = what, "test ε"
        elif verb == "compute":
            kind, k = what.split(",")
            self._order(kind, float(k))
        else:
            self.missing.act(verb, what)
            self.redraw()

    def _pin(self, key: str) -> None:
        """Handle a click on a point or picture ('gaussian,8') or on the arrows to another image ('image:3')."""
        if key.startswith("image:"):
            self.picture = int(key[6:])
        elif key and key != self._marked:
            kind, k = key.split(",")
            with self.hold_trait_notifications():
                self.kind, self.k = kind, (self.k if kind in LEVELS else float(k))

    def export(self) -> Path:
        """Write what is shown as CSV, parquet and JSON into the current folder, under a name that is free."""
        if self._outcome is None:
            raise UserError("There is no table yet; wait until the figure is drawn.")
        path, self._saved = written(self._outcome.result, self.label(self._outcome.result))
        self.redraw()
        return path

    # pictures
    def draw(self, view: View) -> None:
        scene, film = view.scene, view.film
        self._slider.max = max(charts.most(scene), self.k)
        self._reading.value = _says(scene, self.k)
        under_way = self.missing.under_way(scene)
        if (
            self._drawn[0] is not scene or self._drawn[1] != under_way
        ):  # an unchanged figure is not sent again: an open tooltip stays
            figures.follow(self._chart, charts.chart(scene, self.k, under_way))
        elif self._drawn[2] != self.k:
            self._chart.mark(shapes=[figures.upright(self.k)])
        self._drawn = (scene, under_way, self.k)
        image = min(self.picture, len(film.names) - 1) if film else 0
        key = self._pinned(scene)
        self.film.html = (
            join(film_head(film, image, whiskers(scene)), strip(film, image, scene.kinds.values())) if film else ""
        )
        self._marked = self.film.picked = f"{key},{self.k:g}"
        self.cards.html = sidebar(scene, key, self.k, self.missing, view.here, view.look)
        self._foot.html = cards.foot(scene, self.source.base, f"{view.look.images:,} test images", self._saved)

    def content(self) -> Content:
        """The sentence and the cards of every point at every whole k of the slider, and the line at k in the chart."""
        assert self._outcome is not None
        scene, here, look = self._outcome.scene, self._outcome.here, self._outcome.look

        def cards_of(kind: str, k: float) -> list[Change]:
            key = kind if kind in scene.kinds else self._pinned(scene)
            return [(self.cards, "html", sidebar(scene, key, k, self.missing, here, look))]

        def at(k: float) -> list[Change]:
            return [(self._reading, "value", _says(scene, k)), (self._chart, "shapes", [figures.upright(k)])]

        ks = sorted({*range(int(self._slider.max) + 1), self.k, *(p.k for p in scene.points.values())})
        tables = [Table({"kind": list(scene.kinds), "k": ks}, cards_of), Table({"k": ks}, at)]
        return Content(tables, [("kind,k", self.film, "picked"), ("kind,k", self._chart, "click")])

    def _pinned(self, scene: Scene) -> str:
        """The kind whose point is pinned: the chosen one, or the first that is ticked where the chosen one is not."""
        return self.kind if self.kind in scene.kinds else next(iter(scene.kinds), "")

    def label(self, result: Sweep) -> str:
        shown = result.provenance["shown"]
        return f"{shown['show']} over {shown['against']}"

    def close(self) -> None:
        """Close the panel; trainings in the background continue."""
        self._closed = True
        super().close()

    def remark(self) -> str:
        if self._outcome is None:
            return ""
        n, running = self._outcome.result.table.run.nunique(), self.missing.running()
        return f" · {n} run{'s' * (n != 1)}" + (f", {running} running" if running else "")


def _says(scene: Scene, k: float) -> Markup:
    """The sentence at eps = k/255, and what is not there to be drawn."""
    lacks = absent(scene)
    return join(finding(reading(scene, k)), note(lacks) if lacks else None, ALT)


class FourAttacks(NoiseOrAdversary):
    """`FourAttacks(sweep, run)`: FGSM, R-FGSM, F-FGSM and PGD, and beside them sign noise of their size; all else as its base."""

    title = "Four attacks"
    offers = (*RIVALS, "sign", *LEVELS)
    attacks = tuple(ATTACKS)
    kinds = traitlets.List(traitlets.Enum(list(KINDS)), list(offers))
