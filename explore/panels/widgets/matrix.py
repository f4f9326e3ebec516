"""Matrix: the cosines of 2n views as coloured cells; a cell under the mouse, or picked, shows its two pictures.

Why JavaScript of its own: a batch of 64 images has 16,384 cells, too many for elements of HTML, and a plotly heatmap takes
neither focus nor keys and cannot show pictures at the mouse.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import traitlets

from ...figures.widget import Widget
from ...results import Similarities, png, to_pixels


class Matrix(Widget):
    """`picked` is "row,column", both ways; arrows move it, a click sets it, the mouse shows other cells meanwhile."""

    _esm = Path(__file__).with_name("matrix.js").read_text(encoding="utf-8")

    values = traitlets.Bytes().tag(sync=True)  # float32 (2n, 2n)
    weights = traitlets.Bytes().tag(sync=True)  # float32 (2n, 2n): share of the row's softmax
    pictures: traitlets.List = traitlets.List().tag(sync=True)  # data URIs (2n)
    names: traitlets.List = traitlets.List().tag(sync=True)  # classes (n)
    picked = traitlets.Unicode("0,0").tag(sync=True)

    def load(self, result: Similarities, names: Sequence[str]) -> None:
        """Show a batch; pictures are sent again only where they changed."""
        pictures = [png(view) for view in to_pixels(result.views)]
        with self.hold_sync():
            self.pictures, self.names = pictures, list(names)
            self.values = result.cosine.numpy().astype(np.float32).tobytes()
            self.weights = result.weights.numpy().astype(np.float32).tobytes()
