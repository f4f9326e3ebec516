"""The atlas panel's row of controls, linked with its traits."""

from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Int, Unicode

from ...runfolder import runs
from ..base import Panel
from ..session import Session
from . import cache

ATTACKS = {"FGSM": "fgsm", "R-FGSM": "rfgsm", "F-FGSM": "ffgsm", "PGD": "pgd"}
POINTS, NEIGHBOURS = (500, 1000, 2000, 5000, 10000), (5, 15, 50)
TRAILS = ("none", "picked", "all")


class Controls(Panel):
    """A panel with the atlas's controls and the traits that they set."""

    run = Unicode("", help="name of the run whose encoder makes the map")
    other = Unicode("", help="name of a second run, shown beside it; '' for none")
    images = Unicode("", help="'fashion · test'")
    attack = Enum(list(ATTACKS), "FGSM")
    points = Int(1000, help="images on the map, the classes in turn", min=12)
    method = Enum(["umap", "pca"], "umap")
    n_neighbors = Int(15, help="UMAP's", min=2)
    colour = Enum(list(cache.COLOURS), "class")
    trails = Enum(list(TRAILS), "picked")
    shelf: Session
    _offered: list[str]
    _listing = False  # a list of options is being replaced

    @traitlets.validate("run", "other", "images", "points")
    def _offer(self, proposal: Any) -> Any:
        return self.offer(proposal, {"run": self.shelf.run, "other": self.shelf.run, "images": self.shelf.split})

    def controls(self) -> list[w.Widget]:
        found = runs()
        names = list(dict.fromkeys([*filter(None, (self.run, self.other)), *(found["run"] if len(found) else [])]))
        listed = [(name, name) for name in names]
        choose = [] if self.run else [("choose" if names else "none found", "")]
        self._run, self._other = w.Dropdown(options=[*choose, *listed]), w.Dropdown(options=[("none", ""), *listed])
        self._images = w.Dropdown(options=[(name, name) for name in dict.fromkeys([self.images, *self._offered])])
        self._points = w.Dropdown(options=[(f"{n:,}", n) for n in sorted({*POINTS, self.points})])
        self._map = w.Dropdown(options=self._maps())
        fields: list[tuple[str, Any, str, str]] = [
            ("Run", self._run, "run", "104px"),
            ("Beside it", self._other, "other", "96px"),
            ("Images", self._images, "images", "116px"),
            ("Points", self._points, "points", "70px"),
            ("Attack", w.Dropdown(options=list(ATTACKS)), "attack", "76px"),
            ("Map", self._map, "", "122px"),
            ("Colour by", w.Dropdown(options=list(cache.COLOURS)), "colour", "80px"),
            ("Trails", w.Dropdown(options=list(TRAILS)), "trails", "68px"),
        ]
        for label, field, name, width in fields:
            field.description, field.layout.width = label, width
            field.add_class("ex-field")
            if name:
                traitlets.link((self, name), (field, "value"))
        self._map.value = (self.method, self.n_neighbors if self.method == "umap" else 0)
        self._map.observe(lambda change: self._choose_map(*change["new"]), names=["value"])
        self.observe(lambda _: self._follow_map(), names=["method", "n_neighbors"])
        return [w.HBox([field for _, field, _, _ in fields]).add_class("ex-row").add_class("ex-atlas-row")]

    def _maps(self) -> list[tuple[str, tuple[str, int]]]:
        sizes = sorted({*NEIGHBOURS, self.n_neighbors})
        return [("PCA", ("pca", 0)), *((f"UMAP, k = {n}", ("umap", n)) for n in sizes)]

    def _choose_map(self, method: str, n: int) -> None:
        if self._listing:
            return
        with self.hold_trait_notifications():
            self.method = method
            self.n_neighbors = n or self.n_neighbors

    def _follow_map(self) -> None:
        if ("umap", self.n_neighbors) not in dict(self._map.options).values():
            self._listing = True  # a new list of options jumps to its first
            self._map.options = self._maps()
            self._listing = False
        self._map.value = (self.method, self.n_neighbors if self.method == "umap" else 0)
