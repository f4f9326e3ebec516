"""The row of controls and the chips of a panel over eps, linked with its traits."""

from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Int, Unicode

from ...errors import UserError
from ..base import Panel
from ..html import note
from ..session import Session, encoders
from .points import GAUSSIANS, JUDGES, KINDS, LEVELS, MATCHES, RIVALS, SPREADS, TITLES
from .source import SweepSource

VIEWS = {  # what can be shown -> (show, against): the loss is measured over test eps alone
    "accuracy over training ε": ("accuracy", "training ε"),
    "accuracy over test ε": ("accuracy", "test ε"),
    "loss over test ε": ("loss", "test ε"),
}
TIPS = {
    "adversary": "images moved along the sign of their gradient",
    "probe": "an attack through the probe's cross-entropy instead of the contrastive loss",
    "gaussian": "Gaussian noise",
    "uniform": "uniform noise between -ε and ε",
    "sign": "noise of -ε or ε at every pixel, drawn by chance",
    "simclr": "the training without attack or noise, as a line across",
    "same": "SimCLR trained for as long as the attack's training takes, as a line across",
}


class Controls(Panel):
    """A panel with the controls of noise or adversary, and the traits that they set."""

    offers: tuple[str, ...] = tuple(key for key in KINDS if key not in RIVALS[1:])  # kinds with a chip
    attacks: tuple[str, ...] = ("fgsm",)  # those of sweeps that are made here
    show = Enum(["loss", "accuracy"], "accuracy", help="What is measured: loss (over test ε alone) or accuracy")
    against = Enum(["test ε", "training ε"], "training ε", help="Whose ε the axis is: of training or of test images")
    match = Enum(
        list(MATCHES),
        "ε",
        help="What noise shares with the adversary: its length (L∞ or L2) after clipping, or ε itself, as drawn",
    )
    gaussian = Enum(
        list(GAUSSIANS), "σ", help="What ε is for Gaussian noise as drawn: its standard deviation σ or its variance σ²"
    )
    judge = Enum(
        list(JUDGES), "linear probe", help="What measures the accuracy: a linear probe or the nearest neighbours"
    )
    spread = Enum(
        list(SPREADS),
        SPREADS[0],
        help="Whiskers and band: Student's 95 % interval of the mean over seeds, or one standard deviation",
    )
    kinds = traitlets.List(
        Enum(list(KINDS)), [key for key in offers if key != "sign"], help="The curves that are drawn"
    )
    encoder = Unicode(
        "", help="Whose test images are looked at: a method of the tables, or a run, which is measured here"
    )
    images = Int(1000, min=2, help="Test images of a sweep that is made now")
    source: SweepSource
    session: Session
    _unpriced: set[str]  # encoders chosen in the menu whose price was not accepted
    _matches: dict[str, str]  # axis -> the match that was chosen for it

    @traitlets.validate("encoder")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {"encoder": lambda name: name in self.source.methods or self.session.run(name)})

    @traitlets.validate("show", "against")
    def _has_view(self, proposal: Any) -> str:
        """There is no loss over training eps: it is refused, and the other setting stays."""
        both = {"show": self.show, "against": self.against, proposal["trait"].name: proposal["value"]}
        if tuple(both.values()) not in VIEWS.values():
            raise UserError(
                "The loss is measured over test ε, got show='loss' with against='training ε'; "
                "set against='test ε' or show='accuracy' first."
            )
        return proposal["value"]

    def controls(self) -> list[w.Widget]:
        names = [*self.source.methods, self.encoder, *(name for name in encoders() if "/runs/" not in name)]
        encoder = w.Dropdown(options=[(name, name) for name in dict.fromkeys(names)])
        self._shows = w.Dropdown(options=list(VIEWS.items()), value=(self.show, self.against), description="Show")
        self._shows.tooltip = "What is measured, over whose ε: of the training, or of the test images"
        self._shows.layout.width = "208px"
        self._shows.add_class("ex-field").add_class("ex-of-view")
        self._shows.observe(lambda change: self._set_view(*change["new"]), names=["value"])
        encoder.observe(
            self._by_menu, names=["value"]
        )  # registered before the link, so the trait still has its former value
        fields: list[tuple[str, Any, str, str]] = [
            ("Noise of equal", w.ToggleButtons(options=list(MATCHES)).add_class("ex-seg"), "match", "auto"),
            (
                "Gaussian N(0, ε): ε is",
                w.ToggleButtons(options=list(GAUSSIANS)).add_class("ex-seg"),
                "gaussian",
                "auto",
            ),
            ("Encoder", encoder, "encoder", "152px"),
            ("Measured by", w.Dropdown(options=list(JUDGES)), "judge", "108px"),
            ("Interval", w.Dropdown(options=list(SPREADS)), "spread", "84px"),
        ]
        row = self.row(fields, "ex-of-")
        row.children = (self._shows, *row.children)
        self._chips = {key: self._chip(key) for key in self.offers}
        self._moved = w.HTML()
        traitlets.dlink((self._moved, "value"), (self._moved.layout, "display"), lambda said: "" if said else "none")
        for names, react in (
            (["show", "against"], self._other_view),
            (["against"], self._other_axis),
            (["match", "encoder"], self._fit),
            (["kinds"], self._tick),
        ):
            self.observe(react, names=names)
        self._tick(None)
        self._fit(None)
        return [row, w.HBox([*self._chips.values()]).add_class("ex-chips"), self._moved]

    def _chip(self, key: str) -> w.Checkbox:
        role, name = KINDS[key]
        name = TITLES[self.attacks[0]] if key == "adversary" and len(self.attacks) > 1 else name
        chip = w.Checkbox(description=name, indent=False, tooltip=f"Draw {name}: {TIPS.get(key, 'an attack')}")
        chip.add_class("ex-chip").add_class(role).add_class(f"ex-chip-{key}")

        def ticked(change: Any) -> None:
            self.kinds = [k for k in self.offers if (change["new"] if k == key else k in self.kinds)]

        chip.observe(ticked, names=["value"])
        return chip

    def _by_menu(self, change: Any) -> None:
        """An encoder chosen in the menu is measured when its price is accepted; one named in code, at once."""
        if change["new"] != self.encoder:
            self._unpriced.add(change["new"])

    def _set_view(self, show: str, against: str) -> None:
        with self.hold_trait_notifications():
            self.show, self.against = show, against

    def _other_view(self, _change: Any) -> None:
        self._shows.value = self.show, self.against
        self._fit(None)

    def _other_axis(self, change: Any) -> None:
        """Each axis keeps its own match; a note says so where it is another."""
        before = self._matches[change["old"]] = self.match
        self.match = self._matches[change["new"]]
        if self.match != before:
            axis, other = change["new"], change["old"]
            self._moved.value = note(
                f"Noise of equal {self.match} over {axis}, {before} over {other}: each axis keeps its own choice."
            )

    def _fit(self, _change: Any) -> None:
        """Show the controls, options and kinds that the choice has; a value that is set stays listed."""
        training, loss = self.against == "training ε", self.show == "loss"
        self._moved.value = ""
        of: dict[str, Any] = {"training": training, "encoder": self.encoder, "loss": loss}
        for name, column, known in (("match", "match", MATCHES), ("judge", "metric", JUDGES)):
            there = self.source.offers(column, known, **of)
            self.list_options(name, [(word, word) for word in known if word in there or word == getattr(self, name)])
        drawn = "gaussian" in self.offers and self.match == "ε"  # matched noise is as long as the adversary
        hidden = {"probe": training or loss, **{key: not training for key in LEVELS}}
        for key, chip in self._chips.items():
            chip.layout.display = "none" if hidden.get(key) else ""
        for name, on in (("gaussian", drawn), ("encoder", not training), ("judge", not loss)):
            self._fields[name][0].layout.display = "" if on else "none"

    def _tick(self, _change: Any) -> None:
        for key, chip in self._chips.items():
            chip.value = key in self.kinds
