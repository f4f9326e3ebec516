"""The atlas panel's row of controls, linked with its traits."""

from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Int, Unicode

from ...attack_table import ATTACK_MENU as ATTACKS
from ..base import Panel
from ..session import Session, encoders
from . import cache

POINTS, NEIGHBOURS = (500, 1000, 2000, 5000, 10000), (5, 15, 50)
TRAILS = ("none", "picked", "all")


class Controls(Panel):
    """A panel with the atlas's controls and the traits that they set."""

    run = Unicode("", help="The run whose encoder makes the map")
    other = Unicode("", help="A second run, shown beside the first")
    images = Unicode("", help="The images: a data set and its test or training side, like 'fashion · test'")
    attack = Enum(list(ATTACKS), "FGSM", help="How the adversary is made that moves the points")
    points = Int(1000, help="How many images are on the map, the classes in turn", min=12)
    method = Enum(
        ["umap", "pca"], "umap", help="How features become two numbers: PCA keeps distances, UMAP neighbourhoods of k"
    )
    n_neighbors = Int(15, help="The k of UMAP: how many neighbours it keeps together", min=2)
    colour = Enum(list(cache.COLOURS), "class", help="What the colour of a point stands for")
    trails = Enum(list(TRAILS), "picked", help="Whose way from its clean place is drawn")
    shelf: Session
    _offered: list[str]
    _listing = False  # a list of options is being replaced

    @traitlets.validate("run", "other", "images", "points", "colour")
    def _offer(self, proposal: Any) -> Any:
        return self.offer(proposal, {"run": self.shelf.run, "other": self.shelf.run, "images": self.shelf.split})

    def controls(self) -> list[w.Widget]:
        names = encoders(self.run, self.other)
        listed = [(name, name) for name in names]
        choose = [] if self.run else [("choose", "")]
        run, other = w.Dropdown(options=[*choose, *listed]), w.Dropdown(options=[("none", ""), *listed])
        images = w.Dropdown(options=[(name, name) for name in dict.fromkeys([self.images, *self._offered])])
        points = w.Dropdown(options=[(f"{n:,}", n) for n in sorted({*POINTS, self.points})])
        self._map = w.Dropdown(options=self._maps(), description="Map", layout={"width": "114px"})
        self._map.tooltip = self.traits()["method"].help
        fields: list[tuple[str, Any, str, str]] = [
            ("Run", run, "run", "110px"),
            ("Beside it", other, "other", "110px"),
            ("Images", images, "images", "116px"),
            ("Points", points, "points", "70px"),
            ("Attack", w.Dropdown(options=list(ATTACKS)), "attack", "76px"),
            ("Colour by", w.Dropdown(options=[(name, name) for name in cache.COLOURS]), "colour", "80px"),
            ("Trails", w.Dropdown(options=list(TRAILS)), "trails", "78px"),
        ]
        row = self.row(fields, "ex-of-").add_class("ex-atlas-row")
        row.children = [*row.children[:5], self._map.add_class("ex-field"), *row.children[5:]]
        self._map.value = (self.method, self.n_neighbors if self.method == "umap" else 0)
        self._map.observe(lambda change: self._choose_map(*change["new"]), names=["value"])
        self.observe(lambda _: self._follow_map(), names=["method", "n_neighbors"])
        return [row]

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
