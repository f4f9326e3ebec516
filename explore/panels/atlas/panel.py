"""The embedding atlas: images in one fixed map, and where an adversary takes them, for one encoder or for two side by side."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
import traitlets
from traitlets import Float, Int, List

from ...attacks import ATTACKS as PRESETS
from ...errors import UserError
from ...maps import aligned
from ...results import Atlas as Result
from ...runfolder import Run
from ...studies import AtlasStudy, compare_atlases
from ..base import Job, NothingToCompute
from ..encoder_panel import no_run
from ..html import note, tag
from ..page import Change, Content, Parts, Table, thumbs
from ..session import Session
from ..widgets.html import ClickableHTML
from ..widgets.scatter import ScatterPlayer
from . import cache, view
from .controls import ATTACKS, TRAILS, Controls

MOST = 1000  # points whose neighbours a saved page holds
HERE = "Click a point: its picture and its nearest in h, clean and now, appear here."
ELSEWHERE = "Point at the map to see an image; its neighbours need Python: run the lesson in Jupyter."
SCREEN = ("k", "picked", "hover", "lasso", "playing", "trails")  # of the film


class Atlas(Controls):
    """`Atlas(run)` or `Atlas(run_a, run_b)`: play, pick, draw around points; `panel.result` is a `results.Atlas`.

    With two runs `panel.beside` is the second's, its map rotated onto the first's, and `panel.agreement` what they share.
    """

    title = "Embedding atlas"
    inputs = ("run", "other", "images", "attack", "points", "method", "n_neighbors")
    k = Float(8.0, help="eps = k/255", min=0, max=16)
    picked = Int(-1, help="the picked row, -1 is none")
    hover = Int(-1, help="the row under the mouse")
    lasso = List(traitlets.Int(), help="the selected rows")
    playing = traitlets.Bool(False)

    def __init__(self, run: Run | str | None = None, other: Run | str | None = None, **traits: Any):
        opened = [each for each in (run, other) if isinstance(each, Run)]
        a, b = (each.name if isinstance(each, Run) else each or "" for each in (run, other))
        self.shelf = Session(*opened)
        self.stages = cache.Stages(self.shelf)
        self._outcome: view.Maps | None
        self._card: tuple[Any, ...] = ()  # what the side shows
        self._saved = ""
        for name in filter(None, (a, b)):
            self.shelf.run(name)
        self._offered = self.shelf.sides(a)
        super().__init__(**{"run": a, "other": b, "images": self._offered[0], **traits})

    def body(self) -> list[w.Widget]:
        self.film, self.side, self.below = (
            ScatterPlayer(thumb=self._hovered),
            ClickableHTML().add_class("ex-fm-side"),
            ClickableHTML(),
        )
        for name in SCREEN:
            traitlets.link((self, name), (self.film, name))
        self.observe(lambda _: self._follow(), names=["k", "picked", "lasso"])
        self.observe(lambda _: self.redraw(), names=["colour"])
        for part in (self.side, self.below):
            part.observe(lambda change: self._pick(change["new"]), names=["picked"])
        self._foot, self._said = w.HTML(), w.HTML().add_class("ex-said")
        save = self._button("Save parquet", self._save, "ex-save")
        self._grid = w.Box([self.film, self.side]).add_class("ex-atlas")
        last = w.HBox([save, self._said]).add_class("ex-last")
        return [self._grid, self.below, self._foot, last]

    def empty(self) -> list[w.Widget]:
        return no_run(self)

    # work: PCA of the clean images at once; then UMAP in its place; then the film in it
    def compute(self, job: Job, **inputs: Any) -> view.Maps:
        if not inputs["run"]:
            raise NothingToCompute("no run chosen")
        if inputs["run"] == inputs["other"]:
            raise UserError(
                f"Both sides are {inputs['run']}, so there is nothing to compare; choose another run beside it, or none."
            )
        job.busy("embedding")
        names = [name for name in (inputs["run"], inputs["other"]) if name]
        choice = {key: inputs[key] for key in ("images", "points", "n_neighbors")} | {
            "attack": ATTACKS[inputs["attack"]]
        }
        tell = self._watch(job, dims=True)
        studies = [self.stages.study(name, progress=tell, **choice) for name in names]
        try:
            return self._staged(job, names, studies, inputs)
        finally:
            for study in studies:
                study.progress = None  # who asks it from now on is not this job

    def _staged(self, job: Job, names: list[str], studies: list[AtlasStudy], inputs: dict[str, Any]) -> view.Maps:
        umap = inputs["method"] == "umap"
        if not all(study.filmed for study in studies):
            self._preview(job, studies, "pca")
            if umap:  # from disk at once, where it was made before
                self._preview(job, studies, "umap")
        for name, study in zip(names, studies, strict=True):
            self.stages.give_probe(study, name, inputs["images"])
        job.check()
        if umap and not all(
            study.has("umap") for study in studies
        ):  # another map of a known film: first in the linear one
            linear = _maps(studies, "pca")
            job.show(lambda: self._put(linear))
            for study in studies:
                study.progress = self._watch(job, dims=False)
        return _maps(studies, inputs["method"])

    def _preview(self, job: Job, studies: list[AtlasStudy], method: str) -> None:
        """Clean points in a map, before anything is attacked."""
        first = studies[0]
        maps = [(study.pca() if method == "pca" else study.umap()).xy for study in studies]
        maps[1:] = [aligned(maps[0], xy)[0] for xy in maps[1:]]
        xy, key = torch.stack(maps)[:, None].numpy(), self._key(studies, None, method)
        job.show(lambda: self._draw_clean(xy, key, first, f"{method.upper()}, clean images"))

    def _draw_clean(self, xy: np.ndarray, key: str, study: AtlasStudy, what: str) -> None:
        """Clean points alone, xy (maps, 1, n, 2): until there is an outcome, no control has one to change."""
        self._outcome, self._card = None, ()
        self._lay(len(xy))
        groups = cache.classes_of(study.labels, study.classes)
        self.film.show(xy, [0.0], key=key, **groups, ids=study.index.numpy(), images=self._set(study), what=what)
        self.film.heads, self.film.near = [], {}
        self.film.reading = "The clean images; the way that an adversary takes them is being computed."
        self.side.html = self.below.html = self._foot.value = ""

    def _watch(self, job: Job, dims: bool) -> Callable[[str, int, int], None]:
        """Progress of one stage after the other; where `dims` is False the screen stays as bright as it is."""
        stage, began = "", time.perf_counter()

        def tell(what: str, done: int, total: int) -> None:
            nonlocal stage, began
            job.check()
            now = time.perf_counter()
            if what != stage:
                stage, began = what, now
            left = f", {(now - began) / done * (total - done):.0f} s left" if done and now - began > 0.5 else ""
            if now - job.began > 0.15:
                self._busy(f"{what}: {done:,} of {total:,}{left}", done / max(total, 1))
                (self.view.remove_class if dims or self._result is None else self.view.add_class)("ex-aside")

        return tell

    def _settle(self, state: str, text: str) -> None:
        self.view.remove_class("ex-aside")
        super()._settle(state, text)

    def _key(self, studies: list[AtlasStudy], result: Result | None, clean: str = "pca") -> str:
        """Names what is on the screen: another name for anything that could move a point."""
        about = ",".join(str(study.provenance["run"]) for study in studies)
        method = clean if result is None else result.method
        way = f"{'clean' if result is None else result.attack} {method}"
        n = studies[0].n_neighbors if result is None else result.provenance["map"].get("n_neighbors", 0)
        k = n if method == "umap" else 0
        return f"{about} {self._set(studies[0])} {way} {k}"

    def _set(self, study: AtlasStudy) -> str:
        return f"{study.provenance['set']} {len(study)}"

    # pictures
    def _lay(self, maps: int) -> None:
        (self._grid.add_class if maps == 2 else self._grid.remove_class)("ex-atlas-two")

    def draw(self, maps: view.Maps) -> None:
        result, atlases = maps.result, maps.atlases
        offered = {*cache.colours(atlases), self.colour}  # a chosen one that these images lack ends in the banner
        self.list_options("colour", [(name, name) for name in cache.COLOURS if name in offered])
        what = {"pca": "PCA", "umap": "UMAP"}[result.method]
        self._lay(len(atlases))
        self.film.show(
            np.stack([a.xy.numpy() for a in atlases]), list(result.ks), key=self._key(maps.studies, result), ids=result.index.numpy(),
            images=self._set(maps.studies[0]), what=f"{what} of {len(result.index):,} images",
            **cache.grouped(result, self.colour), **cache.measured(atlases, self.colour),
        )  # fmt: skip
        self._foot.value = view.foot(atlases)
        self._said.value = note(self._saved)
        self._card = ()
        self._tell(maps)

    def _tell(self, maps: view.Maps) -> None:
        """What follows eps, the picked image and the lasso: reading, table, card, neighbours, gallery."""
        result, beside, atlases, i = maps.result, maps.beside, maps.atlases, self.picked
        k = view.nearest_k(result, self.k)
        now = (k, i, tuple(self.lasso), abs(k - self.k) < 1e-3)
        if now == self._card:
            return
        shown = [view.shown_name(str(study.provenance["run"])) for study in maps.studies]
        found = [study.neighbours(i, k) for study in maps.studies] if 0 <= i < len(result.index) else []
        thumb = partial(self._thumb, result)
        self.film.reading = view.reading(result, beside, self.k, shown)
        self.film.heads = view.heads(atlases, shown, k)
        self.film.near = {which: [pair[j].tolist() for pair in found] for j, which in enumerate(("then", "now"))}
        rows = [view.neighbours(a, i, k, *pair, thumb) for a, pair in zip(atlases, found, strict=False)]
        self.side.picked = self.below.picked = ""
        gallery = view.gallery(result, self.lasso, k, thumb)
        if beside is None:
            picked = view.nobody(len(result.index))
            if found:
                picked = view.card(result, i, k, *maps.studies[0].images(i, k), self._words(result, i)) + rows[0]
            self.side.html = tag.div(view.truths(result, k)) + tag.div(picked, gallery)
            self.below.html = ""
        else:
            cells = [view.pair(each, thumb(i)[0], self._words(result, i)) for each in rows]
            self.side.html = view.pairs(cells) if cells else view.nobody(len(result.index))
            tables = [view.truths(a, k, name) for name, a in zip(shown, atlases, strict=True)]
            agreed = view.agreement(result, beside, shown, k, maps.agreement)
            self.below.html = agreed + gallery + view.pairs(tables)
        self._card = now

    def content(self) -> Content:
        """The film with pictures of its points; at every eps its figures, and with one encoder every point's neighbours."""
        maps = self._outcome
        assert maps is not None
        result, beside, atlases = maps.result, maps.beside, maps.atlases
        shown = [view.shown_name(str(study.provenance["run"])) for study in maps.studies]
        rows, thumb = range(len(result.index)), partial(self._thumb, result)
        truths = {k: tag.div(view.truths(result, k)) for k in result.ks}

        def at(k: float) -> list[Change]:
            said: list[Change] = [(self.film, "reading", view.reading(result, beside, k, shown))]
            said.append((self.film, "heads", view.heads(atlases, shown, k)))
            if beside is not None:
                tables = [view.truths(a, k, name) for name, a in zip(shown, atlases, strict=True)]
                agreed = view.agreement(result, beside, shown, k, maps.agreement)
                said.append((self.below, "html", agreed + view.pairs(tables)))
            return said

        def picked(i: int, k: float) -> list[Change]:
            if i < 0:
                card, near = tag.p(HERE, class_="ex-note"), {}
            else:
                then, now = maps.studies[0].neighbours(i, k)
                words, near = self._words(result, i), {"then": [then.tolist()], "now": [now.tolist()]}
                card = view.named_neighbours(words, thumb(i)[0], view.neighbours(result, i, k, then, now, thumb), k)
            return [(self.side, "html", Parts((truths[k], tag.div(card)))), (self.film, "near", near)]

        tables, few = [Table({"k": list(result.ks)}, at)], beside is None and len(rows) <= MOST
        if not few:
            tables.append(Table({"trails": list(TRAILS)}, lambda _: [(self.side, "html", note(ELSEWHERE))]))
        else:
            tables.append(Table({"picked": [-1, *rows], "k": list(result.ks)}, picked))
        links = [("k", self.film, "k"), ("trails", self.film, "trails"), ("picked", self.film, "picked")]
        links += [("picked", self.side, "picked")] if few else []
        said = ((thumb(i)[0], self._words(result, i)) for i in rows)
        return Content(tables, links, {self.film: thumbs(self.film.meta["images"], said)})

    def _words(self, result: Result, i: int) -> str:
        y = int(result.labels[i])
        name = result.classes[y] if 0 <= y < len(result.classes) else "Image"
        vendor = f", {result.vendors[int(result.vendor[i])]}" if result.vendor is not None else ""
        return f"{name}{vendor}, no. {int(result.index[i])}"

    def _thumb(self, result: Result, i: int) -> tuple[str, str]:
        return self.shelf.thumb(result.provenance["set"], int(result.index[i]))

    def _hovered(self, i: int) -> tuple[str, str]:
        """Picture and words of the point under the mouse, also before there is an atlas."""
        if self._result is not None:
            return self._thumb(self._result, i)[0], self._words(self._result, i)
        ids = np.frombuffer(self.film.ids, np.int32)
        return self.shelf.thumb(self.images, int(ids[i]))

    # what the screen changes
    def _follow(self) -> None:
        with self._drawing:
            maps = self._outcome
            if maps is not None and self._quick():
                self.guard(lambda: self._tell(maps))
                return
        self._work_on()

    def _quick(self) -> bool:
        """True where the picked image needs no network: then no thread has to wait for the worker."""
        return self.picked < 0 or PRESETS[ATTACKS[self.attack]](0.0).single_step

    def idle(self) -> bool:
        """In the worker: what the screen asked for while the network was in use."""
        with self._drawing:
            if self._outcome is not None and not self._quick():
                self._tell(self._outcome)
        return False

    def _pick(self, key: str) -> None:
        if key:
            self.picked = int(key)

    @property
    def study(self) -> AtlasStudy:
        """The study behind `result`: features, both maps, neighbours and images, all computed once."""
        studies = self._latest("studies")
        if not studies:
            raise UserError(
                "There is no study yet, for no run is open or its images could not be embedded; choose a run."
            )
        return studies[0]

    @property
    def beside(self) -> Result | None:
        """The second encoder's atlas, its map rotated onto the first's; None with one encoder."""
        return self._latest("beside")

    @property
    def agreement(self) -> dict[str, Any]:
        """What two encoders share: neighbourhoods, their overlap by chance, the residual of the rotated map."""
        return self._latest("agreement") or {}

    @property
    def selected(self) -> pd.DataFrame:
        """The selected images' rows of `result.table` at the present eps."""
        return view.selected(self.result, self.lasso, self.k)

    def export(self) -> Path:
        """Write the atlas as a parquet with image, label, x, y and the figures of every eps, into the current folder."""
        if self._outcome is None:
            raise UserError("There is no atlas yet; wait until the points can move.")
        path = cache.export(self._outcome.result, self._outcome.studies[0], self.run)
        self._saved = f"wrote {path.name}"
        self._said.value = note(self._saved)
        return path

    def _save(self) -> None:
        self.export()

    def label(self, result: Result) -> str:
        return f"{'PCA' if result.method == 'pca' else 'UMAP'} of {result.provenance['run']}"


def _maps(studies: list[AtlasStudy], method: str) -> view.Maps:
    """The atlas of one study, or of two with the second map rotated onto the first."""
    if len(studies) == 1:
        return view.Maps(studies[0].atlas(method), None, {}, studies)
    return view.Maps(*compare_atlases(studies[0], studies[1], method), studies)
