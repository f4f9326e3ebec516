"""The scorecard: twelve claims with their verdicts; pick one for its source, its evidence and the command that measures it again."""

from pathlib import Path
from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Int, Unicode

from ... import results
from ...studies import scorecard
from ...studies.reproduction.claims import CLAIMS
from ...studies.reproduction.rows import TIERS, tier_named
from ..base import Job, Panel
from ..html import finding, note
from ..page import Content, Table
from ..widgets.html import ClickableHTML
from . import view


class Scorecard(Panel):
    """`Scorecard(tier)`: choose a tier, pick a claim; `panel.result` is a `results.Scorecard`. `folder`: tables other than the shipped."""

    title = "Scorecard"
    inputs = ("tier",)
    tier = Unicode("cpu", help="How much was trained: cpu, small runs of this project; gpu, the paper's size")
    claim = Int(1, min=1, max=len(CLAIMS), help="the number of the claim that is open")

    def __init__(self, tier: str = "cpu", folder: str | Path | None = None, **traits: Any):
        self._folder = folder
        super().__init__(**{"tier": tier, **traits})

    @traitlets.validate("tier")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {})  # one there is not is listed too: the banner says what is wrong with it

    def controls(self) -> list[w.Widget]:
        tiers = w.Dropdown(options=[(name, name) for name in dict.fromkeys([*TIERS, self.tier])])
        row = self.row([("Tier", tiers, "tier", "92px")])
        self._about = w.HTML().add_class("ex-cl-about")
        row.children = [*row.children, self._about]
        return [row.add_class("ex-cl-tier")]

    def body(self) -> list[w.Widget]:
        self._reading, self._foot = w.HTML(), w.HTML()
        self.list, self.detail = ClickableHTML(picked=str(self.claim)), ClickableHTML().add_class("ex-cards")
        self.list.observe(lambda change: self._take(change["new"]), names=["picked"])
        self.observe(lambda _: self.redraw(), names=["claim"])
        return [self._reading, w.Box([self.list, self.detail]).add_class("ex-claims"), self._foot]

    def _take(self, key: str) -> None:
        if key:
            self.claim = int(key)

    def compute(self, job: Job, **inputs: Any) -> results.Scorecard:
        return scorecard(inputs["tier"], self._folder)

    def draw(self, result: results.Scorecard) -> None:
        self._reading.value = finding(view.reading(result))
        self._about.value = note(tier_named(result.tier).about)
        self.list.html, self.list.picked = view.listed(result), str(self.claim)
        self.detail.html = view.detail(result.claim(self.claim))
        self._foot.value = view.foot(result)

    def content(self) -> Content:
        """Every claim with its evidence."""
        result: results.Scorecard = self._outcome
        detail = Table(
            {"claim": range(1, len(CLAIMS) + 1)}, lambda n: [(self.detail, "html", view.detail(result.claim(n)))]
        )
        return Content([detail], [("claim", self.list, "picked")])

    def label(self, result: results.Scorecard) -> str:
        return f"tier {result.tier}"
