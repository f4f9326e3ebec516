"""What the model sees: which pixels make two views alike, clean and attacked, and whether the map is about what was learnt."""

from typing import Any

import ipywidgets as w
import torch
import traitlets
from traitlets import Enum, Int, Unicode

from ...attribution import BASELINES, feature_layers
from ...config import k_of, show_eps
from ...random import seeded
from ...results import Seen, to_pixels
from ...runfolder import Run
from ...studies.attribution import AttributionStudy
from ...studies.probing import Probing
from ...training import contrast_settings
from ..base import Job, NothingToCompute
from ..encoder_panel import EncoderPanel
from ..html import finding, foot
from ..page import Change, Content, Table
from ..session import LRU
from ..widgets.html import ClickableHTML
from . import view

BATCH = 32  # images of a page; the attack and the contrastive loss couple them
TARGETS = {"similarity to a view": "similarity", "contrastive loss": "loss", "probe’s logit": "logit"}
METHODS = {
    "integrated gradients": "integrated_gradients",
    "saliency": "saliency",
    "occlusion": "occlusion",
    "GradCAM": "gradcam",
}
LABELS = 0.1  # share of the labels that the probe is fitted on
KEPT = 6  # batches


class WhatItSees(EncoderPanel):
    """`WhatItSees(run)`: name a number, move eps, pick an image; `panel.result` is a `results.Seen` of that image."""

    title = "What the model sees"
    inputs = ("run", "images", "target", "method", "layer", "baseline", "seed", "k", "picked")
    target = Enum(list(TARGETS), "similarity to a view", help="The number that the map explains")
    method = Enum(list(METHODS), "integrated gradients", help="How the map is computed")
    layer = Unicode("", help="The layer that GradCAM explains; automatic: the last with 4 x 4 pixels or more")
    baseline = Enum(
        list(BASELINES),
        "black",
        help="The image without content: integrated gradients start from it, occlusion puts it over a patch",
    )
    seed = Int(0, min=0, help="Seed of the page of images, the other views and the randomised weights")
    picked = Int(0, min=0, max=BATCH - 1)

    def __init__(self, run: Run | str | None = None, **traits: Any):
        self._studies, self._heads, self._layers = LRU(KEPT), LRU(KEPT), LRU(KEPT)
        self._drawn: AttributionStudy | None = None  # whose strip is on the screen
        self._layers_of = ""  # whose layers the dropdown lists
        super().__init__(run, **traits)

    # widgets
    def controls(self) -> list[w.Widget]:
        by_run, of_images = self.choices()
        self._layer = w.Dropdown(options=[("automatic", ""), *([(self.layer, self.layer)] if self.layer else [])])
        baseline = w.Dropdown(options=list(BASELINES))
        row = self.row(
            [
                ("Run", by_run, "run", "116px"),
                ("Images", of_images, "images", "120px"),
                ("Explain", w.Dropdown(options=list(TARGETS)), "target", "160px"),
                ("By", w.Dropdown(options=list(METHODS)), "method", "164px"),
                ("Layer", self._layer, "layer", "112px"),
                ("Baseline", baseline, "baseline", "76px"),
                ("Seed", w.BoundedIntText(min=0, max=10**6), "seed", "56px"),
            ]
        )
        traitlets.dlink((self, "method"), (self._layer.layout, "display"), lambda m: "" if m == "GradCAM" else "none")
        shows = ("integrated gradients", "occlusion")
        traitlets.dlink((self, "method"), (baseline.layout, "display"), lambda m: "" if m in shows else "none")
        return [row, self.slider()[1]]

    def body(self) -> list[w.Widget]:
        self.strip = ClickableHTML(picked=str(self.picked)).add_class("ex-see-pick")
        self._reading, self._pictures, self._scale, self._table, self._foot = (w.HTML() for _ in range(5))
        self.strip.observe(lambda change: self._take(change["new"]), names=["picked"])
        self.observe(lambda change: self.strip.set_trait("picked", str(change["new"])), names=["picked"])
        return [self.strip, self._reading, self._pictures, self._scale, self._table, self._foot]

    def _take(self, key: str) -> None:
        if key:
            self.picked = int(key)

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Look:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        run, about = inputs["run"], (inputs["run"], inputs["images"], TARGETS[inputs["target"]], inputs["seed"])
        study = self._studies.make(about, lambda: self._new_study(job, *about))
        layers = self._layers.make(run, lambda: _layers(study))
        job.check()
        job.show(lambda: self._list_layers(run, layers))  # also where the layer asked for is none of them
        job.busy(inputs["method"])
        row = min(inputs["picked"], len(study.x) - 1)
        how = {"layer": inputs["layer"] or None, "baseline": inputs["baseline"]}
        result = study.look(inputs["k"], METHODS[inputs["method"]], rows=[row], **how)
        return view.Look(result, study)

    def _new_study(self, job: Job, run: str, images: str, target: str, seed: int) -> AttributionStudy:
        job.busy("computing")
        opened, split = self.shelf.run(run), self.shelf.split(images)
        index = torch.randperm(len(split), generator=seeded(seed))[:BATCH]
        x, y = split[index]
        return AttributionStudy(
            self.shelf.encoder(run),
            x,
            target=target,
            reference="view",
            **contrast_settings(opened.config, self.shelf.set(images)),
            head=self._head(job, run, images) if target == "logit" else None,
            labels=y,
            seed=seed,
            index=index,
            classes=tuple(self.shelf.set(images).classes),
            provenance={"run": run, "commit": opened.env.get("commit"), "images": images},
        )

    def _head(self, job: Job, run: str, images: str) -> Any:
        """A linear probe on a share of the set's training labels; fitted once a run and set."""

        def fit() -> Any:
            job.busy("fitting the probe")
            probing = Probing(self.shelf.set(images))
            name = probing.add(self.shelf.run(run), self.shelf.encoder(run))
            return probing.probe(name, LABELS, 0, job.progress)

        return self._heads.make((run, images.split(" · ")[0]), fit)

    # pictures
    def _list_layers(self, run: str, layers: list[tuple[str, str]]) -> None:
        if self._layers_of != run:
            known = [("automatic", ""), *layers]
            if self.layer not in dict(known).values():
                known.append((self.layer, self.layer))
            self.list_options("layer", known)
            self._layers_of = run

    def draw(self, look: view.Look) -> None:
        result, study = look.result, look.study
        images = result.provenance["images"]
        if study is not self._drawn:
            names = [self.shelf.class_name(images, int(y)) for y in (study.labels if study.labels is not None else [])]
            self.strip.html, self._drawn = view.strip(to_pixels(study.x), names), study
        for widget, trait, value in self._shown(result):
            setattr(widget, trait, value)

    def _shown(self, result: Seen) -> list[Change]:
        """Sentence, pictures, scale, table and foot of one image."""
        name = self.shelf.class_name(result.provenance["images"], int(result.labels[0]))
        values = [finding(view.reading(result, "FGSM")), view.pictures(result, name), view.scale(result)]
        values += [view.table(result), foot(result, result.provenance.get("layer"))]
        parts = (self._reading, self._pictures, self._scale, self._table, self._foot)
        return [(part, "value", value) for part, value in zip(parts, values, strict=True)]

    def content(self) -> Content:
        """Every image of the page by every method, at the eps that is shown."""
        study, k = self._outcome.study, k_of(self._result.eps)
        how = {"layer": self.layer or None, "baseline": self.baseline}
        found = {name: study.look(k, method, **how) for name, method in METHODS.items()}
        axes = {"method": list(METHODS), "picked": range(len(study.x))}
        table = Table(axes, lambda name, i: self._shown(found[name].row(i)))
        return Content(tables=[table], links=[("picked", self.strip, "picked")])

    def label(self, result: Seen) -> str:
        return f"{result.provenance['run']}, {result.clean.method.replace('_', ' ')}, ε = {show_eps(result.eps)}"


def _layers(study: AttributionStudy) -> list[tuple[str, str]]:
    """(words, name) of the layers that GradCAM can explain, the coarse ones."""
    shapes = feature_layers(study.encoder, study.x[:1])
    return [(f"{name.removeprefix('trunk.')}, {s[-1]} px", name) for name, s in shapes.items() if name.count(".") <= 1]
