"""What panels have open: runs, encoders, image sets, embedded pools and thumbnails, each loaded once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

from .. import datasets
from ..errors import UserError
from ..evaluate import embed
from ..results import png, to_pixels
from ..runfolder import BASELINES, Run, open_run, runs
from .html import Markup, join, tag


class LRU(OrderedDict):
    """The `most` things that were used last, by key."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under `key`, made by `make()` if there is none."""
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]


def encoders(*chosen: str) -> list[str]:
    """The encoders that a menu offers, by name: the chosen ones, all runs, and those without training."""
    return list(dict.fromkeys([*filter(None, chosen), *runs().get("run", []), *BASELINES]))


def from_elsewhere(names: Iterable[Any], session: "Session | None") -> Markup:
    """Below a panel's foot: what was found, given or guessed about the encoders among `names` that this library has not trained."""
    shown = {name for name in names if isinstance(name, str)}
    runs = [] if session is None else [run for name, run in session._runs.items() if name in shown]
    found = [(run.name, about) for run in runs if (about := getattr(run, "about", None)) is not None]
    return join(tag.div(tag.span(f"{name}: {_described(about)}"), class_="ex-foot") for name, about in found)


def _described(about: dict[str, Any]) -> str:
    size = f"images of {about['size']} x {about['size']} pixels"
    size += f" ({about['size_from']})" if "size_from" in about else ""
    more = {"normalisation:": about.get("normalisation"), "features h:": about.get("features")}
    return " · ".join([size, *(f"{what} {words}" for what, words in more.items() if words)])


def _silent(_what: str, _done: int, _total: int) -> None:
    """A progress bar of the library would print into whatever cell is running."""


class Session:
    """Opens things by name and keeps them. Images are named 'fashion · test': a set and its side."""

    def __init__(self, *opened: Run):
        self._runs = {run.name: run for run in opened}
        self._encoders: dict[str, Any] = {}
        self._sets: dict[str, Any] = {}
        self._pools: dict[tuple[str, str], Tensor] = {}
        self._thumbs: dict[tuple[str, int], tuple[str, str]] = {}

    def run(self, name: str) -> Run:
        if name not in self._runs:
            self._runs[name] = open_run(name)
        return self._runs[name]

    def encoder(self, run: str) -> Any:
        """The run's encoder, frozen, of this session alone: no cell and no other panel runs it."""
        if run not in self._encoders:
            self._encoders[run] = self.run(run).encoder()
        return self._encoders[run]

    def sides(self, run: str) -> list[str]:
        """The image sets to offer for a run: its own first, then the shipped ones."""
        own = [self.run(run).config.dataset] if run else []
        return [f"{name} · {side}" for name in dict.fromkeys([*own, "fashion", "emoji"]) for side in ("test", "train")]

    def set(self, images: str) -> Any:
        """The data set behind 'fashion · test', as a run that was trained on it reads it; nothing is downloaded."""
        name = images.split(" · ")[0]
        if name not in self._sets:
            found = [run for run in self._runs.values() if run.config.dataset == name]
            where: dict[str, Any] = {}
            if found and (data := getattr(found[0], "data", None)) is not None:  # images in memory
                return self._sets.setdefault(name, data)
            if found:
                where = {"data_dir": found[0].config.data_dir, "size": found[0].image_size}
            self._sets[name] = datasets.load(name, download=False, progress=_silent, **where)
        return self._sets[name]

    def split(self, images: str) -> Any:
        """The split behind 'fashion · test'."""
        if images.split(" · ")[1:] not in (["test"], ["train"]):
            raise UserError(f"Images are named like 'fashion · test' (or train), got '{images}'.")
        return getattr(self.set(images), images.split(" · ")[1])

    def class_name(self, images: str, label: int) -> str:
        """'ankle boot', or 'image' where there is no class."""
        classes = self.set(images).classes
        return classes[label].lower() if 0 <= label < len(classes) else "image"

    def pool(self, run: str, images: str, most: int = 5000) -> Tensor:
        """Features h (m, D) of the split's first `most` images: where neighbours are looked for."""
        if (run, images) not in self._pools:
            split = self.split(images)
            part = split if len(split) <= most else split.select(torch.arange(most))
            self._pools[run, images] = embed(self.encoder(run), part)[0]
        return self._pools[run, images]

    def thumb(self, images: str, index: int) -> tuple[str, str]:
        """Picture (data URI) and class of one image of the split."""
        if (images, index) not in self._thumbs:
            x, y = self.split(images)[[index]]
            self._thumbs[images, index] = (png(to_pixels(x)[0]), self.class_name(images, int(y[0])))
        return self._thumbs[images, index]
