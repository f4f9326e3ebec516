"""The panel of your own images: files from the browser or a folder, read, counted and shown before
anything is computed from them.
"""

from pathlib import Path
from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Int, Unicode

from ... import datasets
from ...datasets.uploads import uploaded
from ...errors import UserError
from ..base import Job, NothingToCompute, Panel
from ..html import finding
from . import view

SENDS = "image/*,.zip,.csv,.tsv,.txt"


class Upload(Panel):
    """`Upload()`: send pictures, or a .zip of class folders, from the browser; `Upload(images)`
    shows a folder, a data set by its name, or a `Data`.

    `panel.result` is the data set, which `ex.run_of(encoder, panel.result)` takes; `panel.images`
    its name for `--dataset`.
    """

    title = "Your images"
    inputs = ("images", "size")
    images = Unicode("", help="The path of a folder of images, or a data set's name")
    size = Int(
        0, min=0, max=1024, help="Height and width in pixels that images are scaled to; 0: their own, 64 at most"
    )

    def __init__(self, images: datasets.Data | str | Path = "", **traits: Any):
        self._given = {images.name: images} if isinstance(images, datasets.Data) else {}
        super().__init__(images=images.name if isinstance(images, datasets.Data) else str(images), **traits)

    @traitlets.validate("images")
    def _named(self, proposal: Any) -> str:
        name = proposal["value"].strip()
        known = name in self._given or name in datasets.names()
        path = Path(name).expanduser().is_dir() or ("/" in name and ":" not in name)
        return f"folder:{name}" if name and not known and path else name

    def controls(self) -> list[w.Widget]:
        row = self.row(
            [
                ("Folder or name", w.Text(placeholder="/path/of/images", continuous_update=False), "images", "300px"),
                ("Size", w.BoundedIntText(min=0, max=1024), "size", "64px"),
            ]
        )
        send = w.FileUpload(
            accept=SENDS,
            multiple=True,
            description="Choose files",
            tooltip="Pictures, or a .zip of class folders, up to about 10 MB; larger ones by the path of their folder",
        )
        send.observe(lambda change: self.guard(lambda: self._take(change["new"])), names=["value"])
        row.children = [*row.children, send.add_class("ex-tv-own")]
        return [row]

    def body(self) -> list[w.Widget]:
        self._reading, self._left_out, self._classes = (w.HTML() for _ in range(3))
        return [self._reading.add_class("ex-up-says"), self._left_out, self._classes]

    def empty(self) -> list[w.Widget]:
        return [w.HTML(finding("No images are chosen: choose files, or type the path of a folder."))]

    def _take(self, files: Any) -> None:
        if files:
            self.images = f"folder:{uploaded((file['name'], bytes(file['content'])) for file in files)}"

    def compute(self, job: Job, **inputs: Any) -> view.Preview:
        images, size = inputs["images"], inputs["size"]
        if not images:
            raise NothingToCompute("no images chosen")
        data = self._given.get(images)
        if data is not None and size not in (0, data.size):
            raise UserError(f"'{images}' is in memory, at {data.size} pixels; give from_arrays another size.")
        if data is None:
            data = datasets.load(images, size=size or None, download=False, progress=job.progress)
        job.check()
        return view.preview(data)

    def draw(self, shown: view.Preview) -> None:
        self._reading.value = finding(view.reading(shown.result))
        self._left_out.value, self._classes.value = view.left_out(shown.result), view.classes(shown)

    def label(self, result: datasets.Data) -> str:
        return result.name
