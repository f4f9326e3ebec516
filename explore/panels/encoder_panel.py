"""`EncoderPanel`: a panel with a run, a set of images and a slider for eps."""

from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Int, Unicode

from ..config import eps_of, k_of
from ..runfolder import Run
from ..studies import GRID
from .base import Panel
from .html import Markup, note, ruler
from .session import Session, encoders

AUTHORS = k_of(0.015)  # --eps 0.03 after Normalize(.5, .5), in k/255


class EncoderPanel(Panel):
    """A panel with a run, a side of a data set and eps = k/255; without a run it offers the shipped one."""

    run = Unicode("", help="The run whose encoder is shown")
    images = Unicode("", help="The images: a data set and its test or training side, like 'fashion · test'")
    k = Int(8, min=GRID[0], max=GRID[-1], help="How far a pixel may move: ε = k/255 of its range")

    def __init__(self, run: Run | str | None = None, **traits: Any):
        name = run.name if isinstance(run, Run) else run or ""
        self.shelf = Session(*([run] if isinstance(run, Run) else []))
        self._offered = self.shelf.sides(name)
        super().__init__(**{"run": name, "images": self._offered[0], **traits})

    @traitlets.validate("run", "images")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {"run": self.shelf.run, "images": self.shelf.split}, "choose")

    def choices(self) -> tuple[w.Dropdown, w.Dropdown]:
        """The dropdowns of runs and of images, made once."""
        names = encoders(self.run)
        choose = [] if self.run else [("choose", "")]
        images = dict.fromkeys([self.images, *self._offered])
        return (
            w.Dropdown(options=[*choose, *((name, name) for name in names)]),
            w.Dropdown(options=[(name, name) for name in images]),
        )

    def slider(self) -> tuple[w.IntSlider, w.VBox]:
        """The slider of eps, and the block that it stands in: its share of the pixel range, its ruler with the authors' eps."""
        slider = w.IntSlider(min=GRID[0], max=GRID[-1]).add_class("ex-eps")
        self.connect(slider, "k")
        self._of_range = w.HTML().add_class("ex-range")
        traitlets.dlink((self, "k"), (self._of_range, "value"), of_range)
        under = w.HBox([self._of_range, w.HTML(ruler(GRID, AUTHORS)).add_class("ex-ruler")]).add_class("ex-under")
        return slider, w.VBox([slider, under]).add_class("ex-hero")

    def empty(self) -> list[w.Widget]:
        return no_run(self)


def of_range(k: float) -> Markup:
    """eps = k/255 as a share of the pixel range."""
    return note(f"{eps_of(k):.3f} of pixel range")


def no_run(panel: Any) -> list[w.Widget]:
    """What stands in the body's place where no run is chosen."""
    text = Markup(
        '<p class="ex-reading">There is no run chosen.</p>Choose one above, open the shipped one, or train your '
        'own, by <span class="mono">python -m explore train</span> (about 4 minutes on two cores).'
    )

    def shipped() -> None:
        panel.run = "demo/clae"

    return [w.HTML(text), panel._button("Open demo/clae", shipped, style="primary")]
