"""The row of controls and the chips of a panel over eps, linked with its traits."""

from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Int, Unicode

from ..base import Panel
from ..session import Session, encoders
from .points import GAUSSIANS, JUDGES, KINDS, LEVELS, MATCHES, RIVALS, SPREADS, TITLES
from .source import SweepSource


class Controls(Panel):
    """A panel with the controls of noise or adversary, and the traits that they set."""

    offers: tuple[str, ...] = tuple(key for key in KINDS if key not in RIVALS[1:])  # kinds with a chip
    attacks: tuple[str, ...] = ("fgsm",)  # those of sweeps that are made here
    show = Enum(["loss", "accuracy"], "accuracy")
    against = Enum(["test ε", "training ε"], "training ε", help="whose eps the axis is")
    match = Enum(
        list(MATCHES), "ε", help="what noise shares with the adversary: length after clipping, or eps as drawn"
    )
    gaussian = Enum(list(GAUSSIANS), "σ", help="what eps is in N(0, eps), where noise is as drawn")
    judge = Enum(list(JUDGES), "linear probe")
    spread = Enum(list(SPREADS), SPREADS[0], help="what whiskers and band are")
    kinds = traitlets.List(Enum(list(KINDS)), [key for key in offers if key != "sign"])
    encoder = Unicode("", help="of the sweeps over test eps: a method of the tables, or a run")
    images = Int(1000, min=2, help="test images of a sweep that is made now")
    source: SweepSource
    session: Session
    _matches: dict[str, str]  # axis -> the match that was chosen for it

    @traitlets.validate("encoder")
    def _offer(self, proposal: Any) -> str:
        """A run that the dropdown does not list yet is opened first, then listed; an unknown one is a UserError."""
        name, field = proposal["value"], getattr(self, "_encoder", None)
        if field is not None and name not in dict(field.options).values():
            if name not in self.source.methods:
                self.session.run(name)
            field.options = [*field.options, (name, name)]
        return name

    def controls(self) -> list[w.Widget]:
        names = [*self.source.methods, self.encoder, *(name for name in encoders() if "/runs/" not in name)]
        self._encoder = w.Dropdown(options=[(name, name) for name in dict.fromkeys(names)])
        self._gaussian = w.ToggleButtons(options=list(GAUSSIANS)).add_class("ex-seg")
        self._judge = w.Dropdown(options=list(JUDGES))
        fields: list[tuple[str, Any, str, str]] = [
            ("Show", w.ToggleButtons(options=["loss", "accuracy"]).add_class("ex-seg"), "show", "auto"),
            ("against", w.ToggleButtons(options=["test ε", "training ε"]).add_class("ex-seg"), "against", "auto"),
            ("Noise of equal", w.ToggleButtons(options=list(MATCHES)).add_class("ex-seg"), "match", "auto"),
            ("Gaussian N(0, ε): ε is", self._gaussian, "gaussian", "auto"),
            ("Encoder", self._encoder, "encoder", "152px"),
            ("Measured by", self._judge, "judge", "108px"),
            ("Interval", w.Dropdown(options=list(SPREADS)), "spread", "84px"),
        ]
        for label, field, name, width in fields:
            field.description, field.layout.width = label, width
            field.add_class("ex-field").add_class("ex-match" if isinstance(field, w.ToggleButtons) else "ex-choice")
            traitlets.link((self, name), (field, "value"))
        self._chips = {key: self._chip(key) for key in self.offers}
        for name, react in (
            ("show", self._other_show),
            ("against", self._other_axis),
            ("match", self._fit),
            ("kinds", self._tick),
        ):
            self.observe(react, names=[name])
        self._tick(None)
        self._fit(None)
        row = w.HBox([field for _, field, _, _ in fields]).add_class("ex-row")
        return [row, w.HBox([*self._chips.values()]).add_class("ex-chips")]

    def _chip(self, key: str) -> w.Checkbox:
        role, name = KINDS[key]
        name = TITLES[self.attacks[0]] if key == "adversary" and len(self.attacks) > 1 else name
        chip = (
            w.Checkbox(description=name, indent=False).add_class("ex-chip").add_class(role).add_class(f"ex-chip-{key}")
        )

        def ticked(change: Any) -> None:
            self.kinds = [k for k in self.offers if (change["new"] if k == key else k in self.kinds)]

        chip.observe(ticked, names=["value"])
        return chip

    def _other_show(self, change: Any) -> None:
        if change["new"] == "loss":
            self.against = "test ε"
        self._fit(None)

    def _other_axis(self, change: Any) -> None:
        if change["new"] == "training ε":
            self.show = "accuracy"
        self._matches[change["old"]] = self.match
        self.match = self._matches[change["new"]]
        self._fit(None)

    def _fit(self, _change: Any) -> None:
        """Show the controls and kinds that the choice has."""
        training, loss = self.against == "training ε", self.show == "loss"
        drawn = "gaussian" in self.offers and self.match == "ε"  # matched noise is as long as the adversary
        self._gaussian.layout.display = "" if drawn else "none"
        hidden = {"probe": training or loss, **{key: not training for key in LEVELS}}
        for key, chip in self._chips.items():
            chip.layout.display = "none" if hidden.get(key) else ""
        self._encoder.layout.display = "none" if training else ""
        self._judge.layout.display = "none" if loss else ""

    def _tick(self, _change: Any) -> None:
        for key, chip in self._chips.items():
            chip.value = key in self.kinds
