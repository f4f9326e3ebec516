"""The perturbation lab: what an adversary and equally long noise do to an image, to its loss, to its neighbours."""

from collections import OrderedDict
from functools import partial
from typing import Any

import ipywidgets as w
import numpy as np
import torch
import traitlets
from traitlets import Enum, Int

from ...attack_table import ATTACK_MENU as ATTACKS
from ...attack_table import TABLE
from ...errors import UserError
from ...random import seeded
from ...results import KINDS
from ...results import Perturbation as Result
from ...runfolder import Run
from ...studies import GRID, PerturbationStudy
from ...training import contrast_settings
from ..base import Job, NothingToCompute, Superseded
from ..encoder_panel import EncoderPanel
from ..html import Axis, foot
from ..widgets.pixels import Pixels
from . import view

BATCH = 32
REFERENCES = {"the other view": "view", "itself": "self"}
LENGTHS = {"L∞": "linf", "L2": "l2"}
PICTURE_FIRST = 0.06  # seconds that the browser has to itself before the numbers are computed
KEPT = 6  # studies, about 10 MB each


class Perturbation(EncoderPanel):
    """`Perturbation(run)`: move eps; `panel.result` is a `results.Perturbation` of the 32 images on the page."""

    title = "Perturbation lab"
    inputs = ("run", "images", "attack", "steps", "seed", "reference", "match", "page", "eps")
    attack = Enum(list(ATTACKS), "FGSM")
    steps = Int(3, help="of PGD", min=1, max=100)
    seed = Int(0, min=0)
    reference = Enum(list(REFERENCES), "the other view", help="what the adversary pushes an image away from")
    match = Enum(list(LENGTHS), "L∞", help="the length that noises share with the adversary")
    page = Int(0, min=0)
    picked = Int(0, min=0, max=BATCH - 1)
    gain = Int(10, help="the difference is shown this many times larger")

    def __init__(self, run: Run | str | None = None, **traits: Any):
        self.pixels = Pixels()
        self._studies: OrderedDict[tuple, PerturbationStudy] = OrderedDict()
        self._shown: PerturbationStudy | None = None
        self._loaded = 0  # names what the browser holds
        self._axis: Axis | None = None
        self._ahead = False  # every eps is known
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
        w.jsdlink((slider, "value"), (self.pixels, "k"))
        return [row, hero]

    def body(self) -> list[w.Widget]:
        gain = w.Dropdown(options=[(f"× {g}", g) for g in (1, 5, 10, 20, 40)], tooltip="difference shown times")
        gain.add_class("ex-gain")
        traitlets.link((self, "gain"), (gain, "value"))
        self._scale, self._table, self._foot = w.HTML(), w.HTML().add_class("ex-numbers"), w.HTML()
        for name in ("picked", "page", "gain"):
            traitlets.link((self, name), (self.pixels, name))
        self.observe(lambda _: self.redraw(), names=["picked", "gain"])
        self.observe(lambda _: self.set_trait("page", 0), names=["images"])
        self.observe(self._freeze, names=["state"])
        self.pixels.on_hello = self._resend
        return [self.pixels, w.HBox([gain, self._scale]).add_class("ex-key"), self._table, self._foot]

    # work
    def compute(self, job: Job, **inputs: Any) -> Result:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        eps, steps = inputs.pop("eps"), inputs["steps"]
        study = self._study(job, **inputs)
        if study.single_step:
            study.adversary(eps)
        else:
            study.adversary(eps, lambda done: job.progress(f"PGD, {steps} steps", done, steps))
        job.check()
        if study is not self._shown:
            names = [self.shelf.class_name(inputs["images"], int(y)) for y in study.labels]
            first, total = inputs["page"] * BATCH, len(self.shelf.split(inputs["images"]))
            self._loaded += 1
            self.pixels.load(study, str(self._loaded), names=names, attack=inputs["attack"], first=first, total=total)
            self._shown, self._axis = study, None
        self.pixels.send_frame(study, eps)
        job.pause(PICTURE_FIRST)
        if study.pool is None:
            study.set_pool(self.shelf.pool(inputs["run"], inputs["images"]), study.index)
        self._ahead = False
        return study.at(eps)

    def _study(self, job: Job, **inputs: Any) -> PerturbationStudy:
        key = tuple(inputs.items())
        if key not in self._studies:
            job.busy("computing")
            self._studies[key] = self._new_study(**inputs)
            while len(self._studies) > KEPT:
                self._studies.popitem(last=False)
        self._studies.move_to_end(key)
        return self._studies[key]

    def _new_study(self, *, run: str, images: str, page: int, **inputs: Any) -> PerturbationStudy:
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
        study = self._shown
        if study is None or self._ahead or self.state != "ready":
            return False
        for k in sorted(GRID, key=lambda k: (k not in (self.eps, GRID[-1]), abs(k - self.eps))):
            for kind in KINDS:
                if not study.known(kind, k):
                    try:
                        study.adversary(k, self._yield)
                        self.pixels.send_frame(study, k)
                        study.measure(kind, k)
                    except Superseded:
                        pass
                    return True
        self._ahead = True
        self.redraw()
        return False

    def _yield(self, _done: int) -> None:
        if self._job is not None:
            raise Superseded

    # pictures
    def draw(self, result: Result) -> None:
        study, images = self._shown, result.provenance["images"]
        if study is None or study.pool is None:
            return
        i, attack = min(self.picked, len(result.x) - 1), self._name(result)
        axis = self._axis or (0.0, 0.0)
        if self._ahead or not axis[0] <= float(result.loss.min()) <= float(result.loss.max()) <= axis[1]:
            axis = self._axis = view.span(study.losses(), len(result.x))
        self.pixels.rises = study.rises(GRID).astype(np.float32).tobytes()
        self.pixels.reading = view.reading(result, i, attack)
        thumb = partial(self.shelf.thumb, images)
        self._table.value = view.table(result, i, axis, thumb, len(study.pool), attack)
        self._foot.value = foot(result)
        self._scale.value = view.gain_scale(self.gain)

    def label(self, result: Result) -> str:
        return f"{result.provenance['run']}, {self._name(result)}, ε = {result.eps * 255:g}/255"

    def _name(self, result: Result) -> str:
        return next(shown for shown, name in ATTACKS.items() if name == result.attack)

    def _resend(self) -> None:
        if self._shown is not None and not self._shown.single_step:
            self.refresh()

    def _freeze(self, change: Any) -> None:
        """A stale or failed panel keeps the picture of its last good result, wherever the slider is."""
        kept = change["new"] in ("stale", "error") and self._result is not None
        self.pixels.hold = round(self._result.eps * 255) if kept else -1
