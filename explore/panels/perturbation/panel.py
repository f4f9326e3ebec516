"""The perturbation lab: what an adversary and equally long noise do to an image, to its loss, to its neighbours."""

from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w
import numpy as np
import torch
import traitlets
from traitlets import Enum, Int

from ...attack_table import ATTACK_MENU as ATTACKS
from ...attack_table import TABLE
from ...config import k_of, show_eps
from ...errors import UserError
from ...random import seeded
from ...results import KINDS
from ...results import Perturbation as Result
from ...runfolder import Run
from ...studies import GRID, PerturbationStudy
from ...training import contrast_settings
from ..base import Job, NothingToCompute, Superseded
from ..encoder_panel import EncoderPanel, of_range
from ..html import Axis, foot
from ..page import Change, Content, Table
from ..session import LRU
from ..widgets.pixels import Pixels, study_frame
from . import view

BATCH = 32
REFERENCES = {"the other view": "view", "itself": "self"}
LENGTHS = {"L∞": "linf", "L2": "l2"}
PICTURE_FIRST = 0.06  # seconds that the browser has to itself before the numbers are computed
KEPT = 6  # studies, about 10 MB each


class Perturbation(EncoderPanel):
    """`Perturbation(run)`: move eps; `panel.result` is a `results.Perturbation` of the 32 images on the page."""

    title = "Perturbation lab"
    inputs = ("run", "images", "attack", "steps", "seed", "reference", "match", "page", "k")
    attack = Enum(list(ATTACKS), "FGSM", help="How the adversary is made: one gradient step, or several (PGD)")
    steps = Int(3, help="Gradient steps of PGD", min=1, max=100)
    seed = Int(0, min=0, help="Seed of the other view, the noises and random starts")
    reference = Enum(
        list(REFERENCES),
        "the other view",
        help="The embedding that the adversary pushes an image away from: another view of it (Algorithm 1), or its own",
    )
    match = Enum(
        list(LENGTHS),
        "L∞",
        help="Noise is made as long as the adversary: L∞, the largest change of a pixel, or L2, the length of all changes together",
    )
    page = Int(0, min=0)
    picked = Int(0, min=0, max=BATCH - 1)
    gain = Int(10, help="The difference is shown this many times larger")

    def __init__(self, run: Run | str | None = None, **traits: Any):
        self.pixels = Pixels()
        self._studies = LRU(KEPT)
        self._outcome: view.Page | None
        self._loaded: PerturbationStudy | None = None  # what the browser holds ...
        self._loads = 0  # ... and its name
        self._axis: Axis | None = None
        self._complete: view.Page | None = None  # whose study knows every eps
        super().__init__(run, **traits)

    # widgets
    def controls(self) -> list[w.Widget]:
        by_run, of_images = self.choices()
        steps = w.BoundedIntText(min=1, max=100)
        row = self.row(
            [
                ("Run", by_run, "run", "148px"),
                ("Images", of_images, "images", "136px"),
                ("Attack", w.Dropdown(options=list(ATTACKS)), "attack", "96px"),
                ("Steps", steps, "steps", "52px"),
                ("Seed", w.BoundedIntText(min=0, max=10**6), "seed", "56px"),
                ("Pushed away from", w.Dropdown(options=list(REFERENCES)), "reference", "140px"),
                ("Noise of equal", w.ToggleButtons(options=list(LENGTHS)).add_class("ex-seg"), "match", "auto"),
            ]
        )
        traitlets.dlink((self, "attack"), (steps, "disabled"), lambda name: not TABLE[ATTACKS[name]].steps)
        slider, hero = self.slider()
        self._unseen.append(w.jsdlink((slider, "value"), (self.pixels, "k")))
        return [row, hero]

    def body(self) -> list[w.Widget]:
        gain = w.Dropdown(options=[(f"× {g}", g) for g in (1, 5, 10, 20, 40)])
        gain.add_class("ex-gain")
        self.connect(gain, "gain")
        self._scale, self._table, self._foot = w.HTML(), w.HTML().add_class("ex-numbers"), w.HTML()
        for name in ("picked", "page", "gain"):
            traitlets.link((self, name), (self.pixels, name))
        self.observe(lambda _: self.redraw(), names=["picked", "gain"])
        self.observe(lambda _: self.set_trait("page", 0), names=["images"])
        self.observe(self._freeze, names=["state"])
        self.pixels.on_hello = self._resend
        return [self.pixels, w.HBox([gain, self._scale]).add_class("ex-key"), self._table, self._foot]

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Page:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        k, steps, images = inputs.pop("k"), inputs["steps"], inputs["images"]
        study = self._studies.make(tuple(inputs.items()), lambda: self._new_study(job, **inputs))
        if study.single_step:
            study.adversary(k)
        else:
            study.adversary(k, lambda done: job.progress(f"PGD, {steps} steps", done, steps))
        job.check()
        names = [self.shelf.class_name(images, int(y)) for y in study.labels]
        page = view.Page(study, k, names, inputs["attack"], inputs["page"] * BATCH, len(self.shelf.split(images)))
        job.show(lambda: self._draw_pictures(page))
        job.pause(PICTURE_FIRST)
        if study.pool is None:
            study.set_pool(self.shelf.pool(inputs["run"], images), study.index)
        return replace(page, result=study.at(k))

    def _new_study(self, job: Job, *, run: str, images: str, page: int, **inputs: Any) -> PerturbationStudy:
        job.busy("computing")
        split, opened = self.shelf.split(images), self.shelf.run(run)
        index = torch.randperm(len(split), generator=seeded(0))[page * BATCH : (page + 1) * BATCH]
        if not len(index):
            pages = -(-len(split) // BATCH)
            raise UserError(
                f"{images} has pages 0 to {pages - 1} of {BATCH} images, and page {page} is asked for; "
                "go back some pages."
            )
        x, y = split[index]
        return PerturbationStudy(
            self.shelf.encoder(run),
            x,
            attack=ATTACKS[inputs["attack"]],
            steps=inputs["steps"],
            seed=inputs["seed"],
            reference=REFERENCES[inputs["reference"]],
            match=LENGTHS[inputs["match"]],
            **contrast_settings(opened.config, self.shelf.set(images)),
            index=index,
            labels=y,
            classes=tuple(self.shelf.set(images).classes),
            provenance={"run": run, "commit": opened.env.get("commit"), "images": images, "page": page},
        )

    def idle(self) -> bool:
        """Ahead of the slider: the study's adversaries, losses and neighbours at the other eps, the nearest first."""
        page = self._outcome
        if page is None or page is self._complete or self.state != "ready":
            return False
        study = page.study
        for k in sorted(GRID, key=lambda k: (k not in (self.k, GRID[-1]), abs(k - self.k))):
            for kind in KINDS:
                if not study.known(kind, k):
                    try:
                        study.adversary(k, self._yield)
                        self.pixels.send_frame(study, k)
                        study.measure(kind, k)
                    except Superseded:
                        pass
                    return True
        self._complete = page
        self.redraw()
        return False

    def _yield(self, _done: int) -> None:
        if self._job is not None:
            raise Superseded

    # pictures
    def _draw_pictures(self, page: view.Page) -> None:
        """Send the browser what it draws pictures from: they need no result."""
        if page.study is not self._loaded:
            self._loads += 1
            about: dict[str, Any] = {
                "names": page.names,
                "attack": page.attack,
                "first": page.first,
                "total": page.total,
            }
            self.pixels.load(page.study, str(self._loads), **about)
            self._loaded, self._axis = page.study, None
        self.pixels.send_frame(page.study, page.k)

    def draw(self, page: view.Page) -> None:
        study, result = page.study, page.result
        assert result is not None and study.pool is not None
        self._draw_pictures(page)
        i = min(self.picked, len(result.x) - 1)
        axis = self._axis or (0.0, 0.0)
        if page is self._complete or not axis[0] <= float(result.loss.min()) <= float(result.loss.max()) <= axis[1]:
            axis = self._axis = view.span(study.losses(), view.chance_of(result.provenance, len(result.x)))
        self.pixels.rises = study.rises(GRID).astype(np.float32).tobytes()
        for widget, name, text in self._words(result, i, axis, len(study.pool)):
            setattr(widget, name, text)
        self._scale.value = view.gain_scale(self.gain)

    def _words(self, result: Result, i: int, axis: Axis, pool: int) -> list[Change]:
        """Sentence, table and foot for image i."""
        thumb, attack = partial(self.shelf.thumb, result.provenance["images"]), self._name(result)
        return [
            (self.pixels, "reading", view.reading(result, i, attack)),
            (self._table, "value", view.table(result, i, axis, thumb, pool, attack)),
            (self._foot, "value", foot(result)),
        ]

    def content(self) -> Content:
        """Pictures, sentence, table and foot for every image of the page at every k, and the scale of every gain."""
        page = self._outcome
        assert page is not None and page.study.pool is not None
        study, pool = page.study, len(page.study.pool)
        found = [study.at(k) for k in GRID]
        self.idle()  # all is known now: the bars of every k, and the axis
        axis = self._axis or (0.0, 1.0)
        gains = [value for _, value in self._fields["gain"][0].options]
        hello = [study_frame(study, self.pixels.meta, k) for k in GRID if not study.single_step]
        return Content(
            tables=[
                Table({"k": GRID, "picked": range(len(study.x))}, lambda k, i: self._words(found[k], i, axis, pool)),
                Table({"k": GRID}, lambda k: [(self._of_range, "value", of_range(k))]),
                Table({"gain": gains}, lambda gain: [(self._scale, "value", view.gain_scale(gain))]),
            ],
            links=[(name, self.pixels, name) for name in ("k", "picked", "gain")],
            replies={self.pixels: {'{"type":"hello"}': hello}},
        )

    def label(self, result: Result) -> str:
        return f"{result.provenance['run']}, {self._name(result)}, ε = {show_eps(result.eps)}"

    def _name(self, result: Result) -> str:
        return next(shown for shown, name in ATTACKS.items() if name == result.attack)

    def _resend(self) -> None:
        if self._loaded is not None and not self._loaded.single_step:
            self.refresh()

    def _freeze(self, change: Any) -> None:
        """A stale or failed panel keeps the picture of its last good result, wherever the slider is."""
        kept = change["new"] in ("stale", "error") and self._result is not None
        self.pixels.hold = round(k_of(self._result.eps)) if kept else -1
