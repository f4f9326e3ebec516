"""What the model sees: which pixels make two views alike, clean and attacked, and whether the map is about what was learnt."""

from typing import Any

import ipywidgets as w
import torch
import traitlets
from traitlets import Enum, Int, Unicode

from ...attribution import BASELINES, feature_layers
from ...random import seeded
from ...results import Seen, to_pixels
from ...runfolder import Run
from ...studies.attribution import AttributionStudy
from ...studies.probing import Probing
from ...training import contrast_settings
from ..base import Job, NothingToCompute
from ..encoder_panel import EncoderPanel
from ..html import finding, foot
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
    inputs = ("run", "images", "target", "method", "layer", "baseline", "seed", "eps", "picked")
    target = Enum(list(TARGETS), "similarity to a view", help="the number that the map explains")
    method = Enum(list(METHODS), "integrated gradients")
    layer = Unicode("", help="GradCAM's; '' is the last with 4 x 4 pixels or more")
    baseline = Enum(list(BASELINES), "black", help="what integrated gradients start from and occlusion shows")
    seed = Int(0, min=0, help="of the page, the views and the random weights")
    picked = Int(0, min=0, max=BATCH - 1)

    def __init__(self, run: Run | str | None = None, **traits: Any):
        self._studies: dict[tuple, AttributionStudy] = {}
        self._heads: dict[tuple[str, str], Any] = {}
        self._drawn: AttributionStudy | None = None  # whose strip is on the screen
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
    def compute(self, job: Job, **inputs: Any) -> Seen:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        study = self._study(job, inputs["run"], inputs["images"], TARGETS[inputs["target"]], inputs["seed"])
        job.check()
        self._offer_layers(inputs["run"], study)
        job.busy(inputs["method"])
        row = min(inputs["picked"], len(study.x) - 1)
        how = {"layer": inputs["layer"] or None, "baseline": inputs["baseline"]}
        found = study.look(inputs["eps"], METHODS[inputs["method"]], rows=[row], **how)
        self._shown = study
        return found

    def _study(self, job: Job, run: str, images: str, target: str, seed: int) -> AttributionStudy:
        key = (run, images, target, seed)
        if key not in self._studies:
            job.busy("computing")
            opened, split = self.shelf.run(run), self.shelf.split(images)
            index = torch.randperm(len(split), generator=seeded(seed))[:BATCH]
            x, y = split[index]
            head = self._head(job, run, images) if target == "logit" else None
            self._studies[key] = AttributionStudy(
                self.shelf.encoder(run),
                x,
                target=target,
                reference="view",
                **contrast_settings(opened.config, self.shelf.set(images)),
                head=head,
                labels=y,
                seed=seed,
                index=index,
                classes=tuple(self.shelf.set(images).classes),
                provenance={"run": run, "commit": opened.env.get("commit"), "images": images},
            )
            while len(self._studies) > KEPT:
                self._studies.pop(next(iter(self._studies)))
        return self._studies[key]

    def _head(self, job: Job, run: str, images: str) -> Any:
        """A linear probe on a share of the set's training labels; fitted once a run and set."""
        key = (run, images.split(" · ")[0])
        if key not in self._heads:
            job.busy("fitting the probe")
            probing = Probing(self.shelf.set(images))
            name = probing.add(self.shelf.run(run), self.shelf.encoder(run))
            self._heads[key] = probing.probe(name, LABELS, 0, job.progress)
        return self._heads[key]

    def _offer_layers(self, run: str, study: AttributionStudy) -> None:
        """The layers that GradCAM can look at, coarse ones first named; asked once a run."""
        if getattr(self, "_layers_of", None) != run:
            shapes = feature_layers(study.encoder, study.x[:1])
            named = [
                (f"{name.removeprefix('trunk.')}, {s[-1]} px", name)
                for name, s in shapes.items()
                if name.count(".") <= 1
            ]
            known = [("automatic", ""), *named]
            if self.layer and self.layer not in dict(named).values():
                known.append((self.layer, self.layer))
            self._layer.options, self._layers_of = known, run

    # pictures
    def draw(self, result: Seen) -> None:
        study = self._shown
        images = result.provenance["images"]
        if study is not self._drawn:
            names = [self.shelf.class_name(images, int(y)) for y in (study.labels if study.labels is not None else [])]
            self.strip.html, self._drawn = view.strip(to_pixels(study.x), names), study
        name = self.shelf.class_name(images, int(result.labels[0]))
        self._reading.value = finding(view.reading(result, "FGSM"))
        self._pictures.value, self._scale.value = view.pictures(result, name), view.scale(result)
        self._table.value, self._foot.value = view.table(result), foot(result, result.provenance.get("layer"))

    def label(self, result: Seen) -> str:
        return f"{result.provenance['run']}, {result.clean.method.replace('_', ' ')}, ε = {result.eps * 255:g}/255"
