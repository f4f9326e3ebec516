"""The linear probe: which classes a probe confuses, on one encoder or two, with how many labels, and the images behind it.

The matrix and the pages of images are `ClickableHTML`: HTML from Python, of which a part is picked by click or key; the curve is plotly's.
"""

from dataclasses import replace
from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Int, Unicode

from ... import figures
from ...attack_table import ATTACK_MENU
from ...config import eps_of
from ...errors import UserError
from ...results.probes import TESTS, ProbeComparison
from ...runfolder import Run
from ...studies.probing import Probing
from ..base import Job, NothingToCompute, Panel
from ..html import Markup, finding, note, scale
from ..page import Change, Content, Table
from ..session import LRU, Session, encoders
from ..widgets.html import ClickableHTML
from . import matrices, view

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
CURVE = (0.01, 0.1, 1.0)  # computed ahead, while nothing is asked ...
DRAWS = 3  # ... with so many draws of labels; all labels have one
KEPT = 6  # sets with their features
STEPS, ATTACKED = 3, 1000  # of PGD, and test images: about 3 s for two encoders on one core


class Probe(Panel):
    """`Probe(run_a, run_b)`: move the share of labels, click a cell; `panel.result` is a `results.ProbeComparison`."""

    title = "Linear probe"
    inputs = ("run_a", "run_b", "images", "features", "test", "attack", "k", "share", "seed")
    run_a = Unicode("", help="The run whose encoder is A")
    run_b = Unicode("", help="The run whose encoder is B, compared with A")
    images = Unicode("", help="The images that the probe is judged on; it is fitted on the training side of the set")
    features = Enum(["h", "z"], "h", help="What the probe reads: features h, or projections z")
    test = Enum(list(TESTS), "clean", help="The test images: clean, attacked through the probe, or with sign noise")
    attack = Enum(list(ATTACK_MENU), "PGD", help="What attacks the test images: one gradient step, or several (PGD)")
    k = Int(2, min=1, max=16, help="How far attack and noise may move a pixel: ε = k/255 of its range")
    share = Enum(list(SHARES), 0.1, help="The share of the training labels that the probe is fitted on, in percent")
    seed = Int(0, min=0, help="of the draw of labels")
    shown = Enum(list(matrices.SHOWN), "B", help="Whose counts the matrix shows: A, B, or B minus A")
    cell = Unicode("", help="'6,0': the picked cell, true and predicted class by number; '' is the most confused pair")
    page = Int(0, min=0, help="of the cell's images")

    def __init__(self, run_a: Run | str | None = None, run_b: Run | str | None = None, **traits: Any):
        opened = [run for run in (run_a, run_b) if isinstance(run, Run)]
        a, b = (run.name if isinstance(run, Run) else run or "" for run in (run_a, run_b))
        self.shelf = Session(*opened)
        self._studies = LRU(KEPT)
        self._outcome: view.Fitted | None
        self._orders: dict[
            str, tuple[int, ...]
        ] = {}  # of the classes, as first seen, so that cells stay where they are
        self._auto = ""  # the cell that is shown where none is picked
        self._offered = [name for name in self.shelf.sides(a) if name.endswith(" · test")]
        for name in filter(None, (a, b)):
            self.shelf.run(name)
        super().__init__(**{"run_a": a, "run_b": b, "images": self._offered[0], "shown": "B" if b else "A", **traits})

    @traitlets.validate("run_a", "run_b", "images")
    def _offer(self, proposal: Any) -> str:
        opens = {"run_a": self.shelf.run, "run_b": self.shelf.run, "images": self.shelf.split}
        return self.offer(proposal, opens)

    # widgets
    def controls(self) -> list[w.Widget]:
        names = encoders(self.run_a, self.run_b)
        listed = [(name, name) for name in names]
        choose = [] if self.run_a else [("choose", "")]
        run_a, run_b = w.Dropdown(options=[*choose, *listed]), w.Dropdown(options=[("none", ""), *listed])
        images = w.Dropdown(options=[(name, name) for name in dict.fromkeys([self.images, *self._offered])])
        ks = w.Dropdown(options=[(f"{k}/255", k) for k in (1, 2, 4, 8, 16)])
        attack = w.Dropdown(options=list(ATTACK_MENU))
        self._shows = w.ToggleButtons(options=list(matrices.SHOWN)).add_class("ex-seg")
        fields: list[tuple[str, Any, str, str]] = [
            ("Encoder A", run_a, "run_a", "116px"),
            ("Encoder B", run_b, "run_b", "108px"),
            ("Images", images, "images", "116px"),
            ("Features", w.Dropdown(options=["h", "z"]), "features", "60px"),
            ("Test images", w.ToggleButtons(options=list(TESTS)).add_class("ex-seg"), "test", "auto"),
            ("Attack", attack, "attack", "84px"),
            ("ε", ks, "k", "72px"),
            ("Matrix shows", self._shows, "shown", "auto"),
        ]
        traitlets.dlink((self, "test"), (ks.layout, "display"), lambda test: "none" if test == "clean" else "")
        traitlets.dlink((self, "test"), (attack.layout, "display"), lambda test: "" if test == "attacked" else "none")
        traitlets.dlink((self, "run_b"), (self._shows, "disabled"), lambda name: not name)
        row = self.row(fields, "ex-of-").add_class("ex-probe-row")
        slider = (
            w.SelectionSlider(options=[(f"{100 * s:g}", s) for s in SHARES]).add_class("ex-eps").add_class("ex-share")
        )
        self.connect(slider, "share")
        self._of_train = w.HTML().add_class("ex-range")
        places = [(f"{100 * s:g}", f"{100 * i / (len(SHARES) - 1):.2f}%") for i, s in enumerate(SHARES)]
        ruler = w.HTML(scale(places, "ex-ticks ex-short", aria_hidden="true")).add_class("ex-ruler")
        under = w.HBox([self._of_train, ruler]).add_class("ex-under")
        return [row, w.VBox([slider, under]).add_class("ex-hero")]

    def body(self) -> list[w.Widget]:
        self._reading, self._note, self._bar, self._head, self._foot = (w.HTML() for _ in range(5))
        self.matrix, self.gallery = ClickableHTML().add_class("ex-matrix"), ClickableHTML().add_class("ex-gallery")
        self.matrix.observe(lambda change: self._take(change["new"]), names=["picked"])
        self.gallery.observe(lambda change: self._turn_to(change["new"]), names=["picked"])
        self._curve = figures.live(figures.curves(2), picked=lambda share: self.guard(lambda: self._look_at(share)))
        self.observe(lambda _: self._other_images(), names=["images"])
        self.observe(lambda _: self.redraw(), names=["shown"])
        self.observe(lambda _: self._at_first_page(), names=["cell"])
        self.observe(lambda _: self._redraw_images(), names=["page"])
        left = w.VBox([self.matrix, self._note]).add_class("ex-main")
        right = w.VBox([w.VBox([self._bar]), w.VBox([self._head, self._curve])]).add_class("ex-right")
        side = w.VBox([self.gallery, right]).add_class("ex-beside")
        return [self._reading, w.Box([left, side]).add_class("ex-probe"), self._foot]

    def empty(self) -> list[w.Widget]:
        text = Markup(
            '<p class="ex-reading">There is no encoder chosen.</p>Choose one above, open the shipped ones, or train your own, by '
            '<span class="mono">python -m explore train</span>.'
        )

        def shipped() -> None:
            with self.hold_trait_notifications():
                self.run_a, self.run_b = "demo/simclr", "demo/clae"

        return [w.HTML(text), self._button("Open demo/simclr and demo/clae", shipped, style="primary")]

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Fitted:
        if not inputs["run_a"]:
            raise NothingToCompute("no encoder chosen")
        if inputs["run_a"] == inputs["run_b"]:
            raise UserError(
                f"A and B are both {inputs['run_a']}, so there is nothing to compare; choose another B, or none."
            )
        if not inputs["images"].endswith(" · test"):
            raise UserError(
                f"A probe is judged on images it was not fitted on, got '{inputs['images']}'; choose a set's test side."
            )
        job.busy("fitting")
        about = (inputs["images"], inputs["features"])
        study = self._studies.make(about, lambda: _probing(self.shelf.set(about[0]), about[1]))
        keys = tuple(
            study.add(self.shelf.run(name), self.shelf.encoder(name))
            for name in (inputs["run_a"], inputs["run_b"])
            if name
        )
        job.check()
        at = {name: inputs[name] for name in ("share", "seed", "test")}
        result = study.compare(
            *keys, **at, eps=eps_of(inputs["k"]), attack=ATTACK_MENU[inputs["attack"]], progress=job.progress
        )
        return view.Fitted(result, study, keys)

    def idle(self) -> bool:
        """Ahead of the slider: one more fit for the curve over the shares of labels, the present share first."""
        fitted = self._outcome
        if fitted is None or self.state != "ready":
            return False
        study, result = fitted.study, fitted.result
        shares = sorted({result.share, *CURVE}, key=lambda s: (s == 1, s != result.share, s))
        for share in shares:
            for draw in range(result.seed, result.seed + (1 if share == 1 else DRAWS)):
                todo = [key for key in fitted.keys if not study.known(key, share, draw)]
                if todo:
                    study.clean(todo[0], share, draw)
                    if len(todo) == 1:
                        self._add_to_curve(fitted)
                    return True
        return False

    def _add_to_curve(self, fitted: view.Fitted) -> None:
        with self._drawing:
            curve = fitted.study.curve(fitted.keys, fitted.result.names)
            self._outcome = replace(fitted, result=replace(fitted.result, curve=curve))
            self._draw_curve(self._outcome.result)

    # pictures
    def draw(self, fitted: view.Fitted) -> None:
        result = fitted.result
        shown = self._showing(result)
        order = self._orders.setdefault(result.provenance["images"], result.order)
        self.matrix.html, self._note.value = matrices.matrix(result, shown, order), matrices.note(result, shown)
        self._of_train.value = note(f"{result.labels:,} of {result.train:,} images")
        self._bar.value, self._foot.value = view.bar(result), view.foot(result)
        self._draw_images(result)
        self._draw_curve(result)

    def _showing(self, result: ProbeComparison) -> str:
        return "A" if result.b is None else self.shown

    def _key(self, result: ProbeComparison) -> tuple[int, int]:
        """The picked cell, or the most confused pair of classes."""
        key = tuple(int(part) for part in self.cell.split(",")) if self.cell else ()
        picked = len(key) == 2 and max(key) < len(result.classes)
        return (key[0], key[1]) if picked else matrices.largest(result, self._showing(result))

    def _draw_images(self, result: ProbeComparison) -> None:
        key = self._key(result)
        self._auto = f"{key[0]},{key[1]}"
        self.matrix.picked = self._auto
        cell = result.cell(*key, encoder="a" if self._showing(result) == "A" else "b")
        page = min(self.page, max(0, len(cell) - 1) // view.PAGE)
        rows = slice(page * view.PAGE, (page + 1) * view.PAGE)
        split = self.shelf.split(f"{result.provenance['images']} · test")
        self.gallery.html = view.gallery(result, cell, cell.pixels(split, rows), key, page)
        self.gallery.picked = ""

    def _draw_curve(self, result: ProbeComparison) -> None:
        self._reading.value = finding(view.reading(result))
        self._head.value = view.curve_head(result)
        figures.follow(self._curve, figures.label_curve(result, now=result.share))

    def content(self) -> Content:
        """The matrix of every encoder shown, and the first page of images of every cell."""
        assert self._outcome is not None
        result = self._outcome.result
        split, order = (
            self.shelf.split(f"{result.provenance['images']} · test"),
            self._orders[result.provenance["images"]],
        )
        shows = ["A"] if result.b is None else list(matrices.SHOWN)
        classes = matrices.shown_classes(result, order)
        cells = ["", *(f"{true},{said}" for true in classes for said in classes)]

        def matrix(shown: str) -> list[Change]:
            html, below = matrices.matrix(result, shown, order), matrices.note(result, shown)
            return [(self.matrix, "html", html), (self._note, "value", below)]

        def images(shown: str, cell: str) -> list[Change]:
            key = tuple(map(int, cell.split(","))) if cell else matrices.largest(result, shown)
            of = result.cell(key[0], key[1], encoder="a" if shown == "A" else "b")
            pixels = of.pixels(split, slice(0, view.PAGE))
            return [(self.gallery, "html", view.gallery(result, of, pixels, (key[0], key[1]), 0))]

        tables = [Table({"shown": shows}, matrix), Table({"shown": shows, "cell": cells}, images)]
        return Content(tables, [("cell", self.matrix, "picked")])

    def _look_at(self, share: float) -> None:
        self.share = min(SHARES, key=lambda s: abs(s - share))

    def _redraw_images(self) -> None:
        with self._drawing:
            if self._result is not None:
                self.guard(lambda: self._draw_images(self._result))

    def _take(self, key: str) -> None:
        if key and key != self._auto:
            self.cell = key

    def _turn_to(self, page: str) -> None:
        if page:
            self.page = int(page)

    def _at_first_page(self) -> None:
        if self.page:
            self.page = 0
        else:
            self._redraw_images()

    def _other_images(self) -> None:
        self.cell, self.page = "", 0

    def label(self, result: ProbeComparison) -> str:
        return f"{' and '.join(result.names)}, {view.percent(result.share)} of labels"


def _probing(data: Any, features: str) -> Probing:
    return Probing(data, features=features, steps=STEPS, most=ATTACKED)
