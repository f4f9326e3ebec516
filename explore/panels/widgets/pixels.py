"""Pixels: one small widget that draws a batch of images and follows eps in the browser, without the kernel.

For a single-step attack everything it needs is sent once: images (uint8), directions (int16) and the factors for every
eps. For others the kernel sends one frame an eps. pixels.js does the same float32 arithmetic as `studies.PerturbationStudy.images`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from ...figures.widget import Widget
from ...results import KINDS, png, to_pixels
from ...studies import GRID, PerturbationStudy
from ..html import Markup, dotted, image, tag

NOISES = (("gauss", "Gaussian", "gaussian"), ("uniform", "uniform", "uniform"), ("sign", "sign noise", "sign"))


class Pixels(Widget):
    """The pictures of one `PerturbationStudy`. `k`, `picked`, `gain`, `show` and `page` are the screen's state."""

    _esm = Path(__file__).with_name("pixels.js").read_text(encoding="utf-8")

    images = traitlets.Bytes().tag(sync=True)  # uint8 (n, h, w, c); c = 1 where everything is gray
    codes = traitlets.Bytes().tag(sync=True)  # int16 (4, n, h, w, c): directions times 32767
    scales = traitlets.Bytes().tag(sync=True)  # float32 (17, 4, n)
    rises = traitlets.Bytes().tag(
        sync=True
    )  # float32 (17, n): change of the loss by the adversary, NaN where not known yet
    meta = traitlets.Dict().tag(sync=True)
    reading = traitlets.Unicode().tag(sync=True)
    k = traitlets.Int(8).tag(sync=True)
    hold = traitlets.Int(-1).tag(
        sync=True
    )  # this k is shown whatever the slider says: the last good result's; -1: none
    picked = traitlets.Int(0).tag(sync=True)
    gain = traitlets.Int(10).tag(sync=True)
    show = traitlets.Unicode("perturbed").tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)

    def __init__(self, **traits: Any):
        super().__init__(**traits)
        self._sent: set[int] = set()
        self._study: PerturbationStudy | None = None
        self.on_hello: Callable[[], None] = lambda: None  # a browser has opened the widget anew and has no frames
        self.on_msg(self._heard)

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("type") == "hello":
            self._sent.clear()
            self.on_hello()

    def load(
        self, study: PerturbationStudy, key: str, *, names: list[str], attack: str, first: int, total: int
    ) -> None:
        """Send a study's images, directions and factors: all that any eps needs of a single-step attack."""
        n, size = len(study.x), study.x.shape[-1]
        adversary = study.sign if study.single_step else torch.zeros_like(study.x)
        codes = torch.cat([(adversary * 32767).round().to(torch.int16).cpu()[None], study.codes])
        gray = all(bool((t[..., :1, :, :] == t).all()) for t in (study.x, codes))
        channels = 1 if gray else 3
        scales = np.zeros((len(GRID), len(KINDS), n), np.float32)
        if study.single_step:
            scales[:, 0] = (np.array(GRID) / 255).astype(np.float32)[:, None]
            scales[:, 1:] = study.scales(*GRID).cpu().numpy()
        meta = {"n": n, "size": size, "channels": channels, "key": key, "single": study.single_step, "attack": attack}
        meta |= {"names": names, "ids": study.index.tolist(), "first": first, "total": total}
        self._sent.clear()
        self._study = study
        with self.hold_sync():
            self.images = (
                (study.x * 255).round().to(torch.uint8)[:, :channels].permute(0, 2, 3, 1).cpu().numpy().tobytes()
            )
            self.codes = codes[:, :, :channels].permute(0, 1, 3, 4, 2).numpy().tobytes()
            self.scales = scales.tobytes()
            self.rises = np.full((len(GRID), n), np.nan, np.float32).tobytes()
            self.meta = meta

    def send_frame(self, study: PerturbationStudy, k: int) -> bool:
        """Send the adversary's images at one eps and the noises' factors, once; False where none was needed."""
        if study.single_step or k in self._sent:
            return False
        self._sent.add(k)
        message, buffers = study_frame(study, self.meta, k)
        self.send(message, buffers=buffers)
        return True

    def still(self) -> Markup:
        """The pictures as pixels.js draws them, without script: the page's images, and the picked one under every kind."""
        study = self._study
        if study is None:
            return Markup("")
        i, k = min(self.picked, len(study.x) - 1), self.k if self.hold < 0 else self.hold
        clean, size = study.x[i], self.meta["size"]

        def picture(x: Tensor, wide: int, words: str) -> Markup:
            return image(png(to_pixels(x[None])[0]), size * max(1, wide // size), words)

        def both(role: str, name: str, kind: str, wide: int) -> list[Markup]:
            moved = study.images(kind, k)[i]
            far = (128 / 255 + self.gain * (moved - clean)).clamp(0, 1)
            large = wide > 100
            captions = (f"difference × {self.gain}", "perturbed") if large else (name, None)
            parts = zip(captions, (far, moved), ("difference", "perturbed"), strict=True)
            return [
                tag.figure(tag.figcaption(dotted(role, said)) if said else None, picture(x, wide, f"{name}, {what}"))
                for said, x, what in parts
            ]

        strip = [
            tag.span(picture(x, 32, name), class_="ex-th") for x, name in zip(study.x, self.meta["names"], strict=True)
        ]
        caption = tag.figcaption(dotted("clean", "clean"), " ", self.meta["names"][i])
        large = [tag.figure(caption, picture(clean, 192, "clean")), *both("adv", "adversary", "adversary", 192)]
        small = [tag.div(both(role, name, kind, 96)) for role, name, kind in NOISES]
        return tag.div(
            tag.div(strip, class_="ex-strip"),
            tag.p(Markup(self.reading), class_="ex-reading"),
            tag.div(tag.div(large, class_="ex-tri"), tag.div(small, class_="ex-noise"), class_="ex-pics"),
            class_="ex-pixels",
        )


def study_frame(study: PerturbationStudy, meta: dict[str, Any], k: int) -> tuple[dict[str, Any], list[bytes]]:
    """The message with the adversary's images at eps = k/255 and the noises' factors."""
    x_adv = _planes_last(study.adversary(k)[:, : meta["channels"]])
    scales = study.scales(k)[0].cpu().numpy().astype(np.float32)
    return {"type": "frame", "key": meta["key"], "k": k}, [x_adv, scales.tobytes()]


def _planes_last(x: Tensor) -> bytes:
    return x.permute(0, 2, 3, 1).float().contiguous().cpu().numpy().tobytes()
