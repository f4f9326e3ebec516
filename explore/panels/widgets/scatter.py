"""Film: one widget in which points travel through a fixed map as eps moves, on one map or two, drawn by WebGL in the browser.

Why JavaScript of its own: with 2,000 and 10,000 points plotly through the kernel came to 8 frames a second, jupyter-scatter to 12 and
after a fast drag stood on the wrong eps in 4 of 6 drags (LOG.md). Frames are sent once; the browser mixes two neighbouring ones.
"""

import colorsys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from ...figures.widget import Widget
from ...results import png
from ..html import Markup, image, tag

_PARTS = ("scatter_draw.js", "scatter_time.js", "scatter.js")
CLASSES = ("#7c91d5", "#a5aa85", "#7a9850", "#ba8483", "#4a647c", "#4da3a3", "#a36d3e", "#896aac", "#108475", "#735933")
Thumb = Callable[[int], tuple[str, str]]


def palette(n: int) -> list[str]:
    """n muted colours; the first ten are the visual language's own, further ones are spread over the hues."""
    more = (colorsys.hls_to_rgb((0.61803 * i) % 1, 0.44 + 0.12 * (i % 3) / 2, 0.34) for i in range(max(0, n - 10)))
    return [*CLASSES[:n], *("#" + "".join(f"{round(255 * c):02x}" for c in rgb) for rgb in more)]


class ScatterPlayer(Widget):
    """`k` (eps = k/255), `hover`, `picked`, `lasso`, `playing` and `hidden` are the screen's state, readable and settable.

    Points are rows 0 … n - 1, the same image in every map; -1 is none. `near` holds the picked point's neighbours,
    {'then': rows a map, 'now': rows a map}. `thumb(i)` gives picture (data URI) and words of a point under the mouse.
    """

    _esm = "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _PARTS)

    frames = traitlets.Bytes().tag(sync=True)  # float32 (maps, E, n, 2)
    values = traitlets.Bytes().tag(
        sync=True
    )  # float32 (maps, E, n) in [0, 1], or empty: points have their group's colour
    groups = traitlets.Bytes().tag(sync=True)  # int32 (n,): class or vendor, by number
    ids = traitlets.Bytes().tag(sync=True)  # int32 (n,): place in the split
    meta = traitlets.Dict().tag(sync=True)
    k = traitlets.Float(0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    hover = traitlets.Int(-1).tag(sync=True)
    picked = traitlets.Int(-1).tag(sync=True)
    lasso = traitlets.List(traitlets.Int()).tag(sync=True)
    hidden = traitlets.List(traitlets.Int()).tag(sync=True)  # groups that are not shown
    trails = traitlets.Enum(["none", "picked", "all"], "picked").tag(sync=True)
    near = traitlets.Dict().tag(sync=True)
    heads = traitlets.List(traitlets.Unicode()).tag(sync=True)  # HTML above each map
    reading = traitlets.Unicode().tag(sync=True)

    def __init__(self, thumb: Thumb | None = None, **traits: Any):
        super().__init__(**traits)
        self.thumb = thumb
        self.on_msg(self._heard)

    def show(
        self,
        xy: np.ndarray,
        ks: Sequence[float],
        *,
        key: str,
        groups: np.ndarray,
        names: Sequence[str],
        by: str = "classes",
        ids: np.ndarray | None = None,
        images: str = "",
        what: str = "map",
        values: np.ndarray | None = None,
        scale: tuple[str, str, str] | None = None,
    ) -> None:
        """Show frames xy (maps, E, n, 2) at eps ks (k/255, ascending), all in one message.

        `groups` (n,) are numbers of `names`; `values` (maps, E, n) colour the points instead, from `scale[1]` to `scale[2]`.
        `key` names what is shown, `images` the set that rows are of: where it is another, nothing stays picked.
        """
        maps, _, n, _ = xy.shape
        flat = xy.reshape(-1, 2)
        box = [*flat.min(0).tolist(), *flat.max(0).tolist()]
        counts = np.bincount(groups, minlength=len(names)).tolist()
        colours = palette(len(names))
        listed = [{"name": a, "count": b, "colour": c} for a, b, c in zip(names, counts, colours, strict=True)]
        meta = {"key": key, "n": n, "maps": maps, "ks": list(ks), "box": box, "names": listed, "by": by, "what": what}
        meta |= {"images": images, "scale": list(scale) if scale else None}
        another = self.meta.get("images", images) != images
        regrouped = self.meta.get("names", listed) != listed
        with self.hold_sync():
            self.frames = np.ascontiguousarray(xy, np.float32).tobytes()
            self.values = b"" if values is None else np.ascontiguousarray(values, np.float32).tobytes()
            self.groups = groups.astype(np.int32).tobytes()
            self.ids = (np.arange(n) if ids is None else ids).astype(np.int32).tobytes()
            if another:
                self.picked, self.hover, self.lasso, self.near = -1, -1, [], {}
            if another or regrouped:
                self.hidden = []
            self.meta = meta

    def still(self) -> Markup:
        """The map as a picture at the eps of the screen, its classes named; without script."""
        if not self.meta:
            return Markup("")
        xy, ks = (
            np.frombuffer(self.frames, np.float32).reshape(self.meta["maps"], -1, self.meta["n"], 2),
            self.meta["ks"],
        )
        e = min(range(len(ks)), key=lambda j: abs(ks[j] - self.k))
        groups, names = np.frombuffer(self.groups, np.int32), self.meta["names"]
        inks = [tuple(int(name["colour"][i : i + 2], 16) for i in (1, 3, 5)) for name in names]
        drawn = [
            image(png(_dots(xy[m, e], self.meta["box"], groups, inks)), 468, self.meta["what"]) for m in range(len(xy))
        ]
        key = [tag.span(tag.i(class_="dot", style=f"--c:{name['colour']}"), name["name"], " ") for name in names]
        return tag.div(
            tag.div("ε = ", tag.b(f"{ks[e]:g}"), "/255"),
            tag.p(Markup(self.reading), class_="ex-reading"),
            tag.div(key, class_="ex-note"),
            tag.div(drawn, style="display:flex;flex-wrap:wrap;gap:24px"),
        )

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        i = content.get("i") if isinstance(content, dict) and content.get("type") == "thumb" else None
        if self.thumb and isinstance(i, int) and 0 <= i < self.meta.get("n", 0):
            source, words = self.thumb(i)
            self.send({"type": "thumb", "i": i, "images": self.meta["images"], "src": source, "text": words})


def _dots(xy: np.ndarray, box: Sequence[float], groups: np.ndarray, inks: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Points (n, 2) as discs on a transparent picture (936, 936, 4), twice as many pixels as it takes on the screen."""
    from PIL import Image, ImageDraw

    drawn, wide = Image.new("RGBA", (936, 936)), 936 - 2 * 28
    pen, low, high = ImageDraw.Draw(drawn), np.array(box[:2]), np.array(box[2:])
    places = 28 + wide * (xy - low) / np.maximum(high - low, 1e-9)
    for (x, y), g in zip(places.tolist(), groups.tolist(), strict=True):
        pen.ellipse((x - 5, 936 - y - 5, x + 5, 936 - y + 5), fill=(*inks[g], 230))
    return np.asarray(drawn)
