"""Batch mates: exchange one picture of a batch, and see the perturbation of another one change, through negatives and batch norm."""

from typing import Any

import ipywidgets as w
import torch
import traitlets
from traitlets import Enum, Int, Unicode

from ...random import seeded
from ...results import BatchMates as Result
from ...results import to_pixels
from ...runfolder import Run
from ...studies import BatchMateStudy
from ...training import make_views
from ..attribution.view import strip
from ..base import Job, NothingToCompute, Panel
from ..encoder_panel import no_run
from ..html import finding, foot
from ..session import LRU, Session, encoders
from ..widgets.html import ClickableHTML
from . import view

SPARES = 16  # pictures that can take a mate's place
KEPT = 6  # batches


class BatchMates(Panel):
    """`BatchMates(run)`: pick the mate that goes and the picture that comes; `panel.result` is a `results.BatchMates`."""

    title = "Batch mates"
    inputs = ("run", "images", "n", "seed", "anchor", "mate", "spare")
    run = Unicode("", help="The run whose encoder is attacked")
    images = Unicode("", help="The images: a data set and its test or training side, like 'fashion · test'")
    n = Enum([4, 8, 16, 32], 16, help="Images of the batch")
    seed = Int(0, min=0, help="Seed of the batch and of its views")
    anchor = Int(0, min=0, max=31, help="The picture whose perturbation is shown, by its place in the batch")
    mate = Int(1, min=0, max=31, help="The picture of the batch that goes, by its place")
    spare = Int(0, min=0, max=SPARES - 1, help="The picture that comes, by its place among the spare ones")
    coupling = Int(1, min=0, max=3, help="The cell of the table whose perturbations are shown")

    def __init__(self, run: Run | str | None = None, **traits: Any):
        name = run.name if isinstance(run, Run) else run or ""
        self.shelf = Session(*([run] if isinstance(run, Run) else []))
        self._offered, self._batches = self.shelf.sides(name), LRU(KEPT)
        self._strips: Any = None  # batch and anchor whose strips are on the page
        super().__init__(**{"run": name, "images": self._offered[0], **traits})

    @traitlets.validate("run", "images")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {"run": self.shelf.run, "images": self.shelf.split}, "choose")

    # widgets
    def controls(self) -> list[w.Widget]:
        choose = [] if self.run else [("choose", "")]
        images = [(name, name) for name in dict.fromkeys([self.images, *self._offered])]
        return [
            self.row(
                [
                    (
                        "Run",
                        w.Dropdown(options=[*choose, *((name, name) for name in encoders(self.run))]),
                        "run",
                        "128px",
                    ),
                    ("Images", w.Dropdown(options=images), "images", "128px"),
                    ("Batch", w.Dropdown(options=[4, 8, 16, 32]), "n", "60px"),
                    ("Picture", w.BoundedIntText(min=0, max=31), "anchor", "60px"),
                    ("Seed", w.BoundedIntText(min=0, max=10**6), "seed", "64px"),
                ]
            )
        ]

    def body(self) -> list[w.Widget]:
        self._reading, self._pictures, self._foot = w.HTML(), w.HTML(), w.HTML()
        self.mates, self.spares = (ClickableHTML().add_class("ex-see-pick") for _ in range(2))
        self.mates.add_class("ex-bm-strip")
        self.table = ClickableHTML(picked=str(self.coupling)).add_class("ex-bm-table")
        for widget, name in ((self.mates, "mate"), (self.spares, "spare"), (self.table, "coupling")):
            widget.observe(lambda change, name=name: self._take(name, change["new"]), names=["picked"])
        self.observe(lambda _: self.redraw(), names=["coupling"])
        return [self.mates, self.spares, self._reading, self._pictures, self.table, self._foot]

    def empty(self) -> list[w.Widget]:
        return no_run(self)

    def _take(self, name: str, key: str) -> None:
        """A picture or a cell was picked on the page; the batch's strip has no anchor in it."""
        if key:
            place = int(key)
            setattr(self, name, place + (place >= self._place()) if name == "mate" else place)

    def _place(self) -> int:
        return min(self.anchor, self.n - 1)

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Exchange:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        about = tuple(inputs[name] for name in ("run", "images", "n", "seed"))
        study, spares, names = self._batches.make(about, lambda: self._batch(job, *about))
        job.check()
        anchor = min(inputs["anchor"], inputs["n"] - 1)
        mate = min(inputs["mate"], inputs["n"] - 1)
        mate = (anchor + 1) % inputs["n"] if mate == anchor else mate
        new, reference = (part[inputs["spare"]] for part in spares)
        return view.Exchange(study.exchange(anchor, mate, new, reference), spares[0], inputs["spare"], names)

    def _batch(self, job: Job, run: str, images: str, n: int, seed: int) -> tuple:
        job.busy("computing")
        opened, split, data = self.shelf.run(run), self.shelf.split(images), self.shelf.set(images)
        index = torch.randperm(len(split), generator=seeded(seed))[: n + SPARES]
        x, y = split[index]
        reference = make_views(opened.config, data)(x, seeded(seed))
        names = [self.shelf.class_name(images, int(label)) for label in y]
        about = {"run": run, "commit": opened.env.get("commit"), "images": images, "seed": seed}
        about |= {"index": index[:n], "labels": y[:n], "classes": data.classes}
        settings: dict[str, Any] = {"temperature": opened.config.temperature, "gray": data.gray, **about}
        study = BatchMateStudy(self.shelf.encoder(run), x[:n], reference[:n], **settings)
        return study, (x[n:], reference[n:]), names

    # pictures
    def draw(self, exchange: view.Exchange) -> None:
        result = exchange.result
        mates = [i for i in range(len(result.x)) if i != result.anchor]
        batch = (id(exchange.names), result.anchor)
        if batch != self._strips:
            shown = [exchange.names[i] for i in mates]
            self.mates.html = strip(
                to_pixels(result.x[mates]), shown, "The other pictures of the batch: pick the one that goes."
            )
            spare = exchange.names[len(result.x) :]
            self.spares.html = strip(to_pixels(exchange.spares), spare, "Pick the one that comes in its place.")
            self._strips = batch
        self.mates.picked, self.spares.picked = str(mates.index(result.mate)), str(exchange.spare)
        self.table.html, self.table.picked = view.table(result), str(self.coupling)
        self._pictures.value = view.pictures(exchange, self.coupling)
        self._reading.value = finding(view.reading(result))
        self._foot.value = foot(result, result.provenance["images"])

    def label(self, result: Result) -> str:
        return f"{result.provenance['run']}, {len(result.x)} images, picture {result.anchor}"
