"""An encoder and images of one's own, as a run that panels and studies take."""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from ..config import TrainConfig
from ..datasets import Data, names
from ..environment import environment
from ..errors import UserError
from ..nets import as_encoder
from ..runfolder import Run
from .encoders import open_encoder


class OwnRun(Run):
    """An encoder from elsewhere beside its images, in memory; nothing of it is on disk."""

    def __init__(self, encoder: nn.Module, about: dict[str, Any], name: str, images: str, data: Data | None):
        self.name, self.about, self.data, self.path = name, about, data, Path()
        self.config = TrainConfig(dataset=images, attack="none", image_size=about["size"])
        self._encoder = as_encoder(encoder)

    def __repr__(self) -> str:
        """What was found about the encoder, and what had to be assumed."""
        found = ", ".join(
            f"{key} {value}" for key, value in self.about.items() if key != "encoder" and value is not None
        )
        return f"<{self.name}: {self.about['encoder']} on {self.config.dataset}; {found}>"

    @property
    def method(self) -> str:
        return self.name

    @property
    def image_size(self) -> int:
        return self.about["size"]

    @property
    def status(self) -> dict[str, Any]:
        return {"state": "own"}

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame()

    def rows(self) -> list[dict[str, Any]]:
        return []

    @cached_property
    def env(self) -> dict[str, Any]:
        return {**environment(), "encoder": {key: str(value) for key, value in self.about.items()}}

    def encoder(self, device: str | torch.device = "cpu") -> Any:
        """A copy of the encoder, frozen, in eval mode."""
        return copy.deepcopy(self._encoder).to(device).eval().requires_grad_(False)


def run_of(
    encoder: Any,
    images: Any = "fashion",
    *,
    name: Any = "mine",
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    network: nn.Module | None = None,
) -> Run:
    """Your own encoder, as it is now, and images as a run, for every panel and study.

    `encoder`: all that `open_encoder` opens, with `mean`, `std`, `size` and `network`. `images`: a
    folder, the name of a data set, or a `Data` such as `datasets.from_arrays` makes.

    >>> run = ex.run_of(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), "emoji")
    >>> run.about["features"]
    'maps of 30 x 30 places, averaged'
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"name is what the run is called in menus, like 'mine', got {name!r:.60}.")
    data = images if isinstance(images, Data) else None
    if data is not None:
        size = size or data.size
    elif not isinstance(images, str | Path):
        raise UserError(f"images are a folder, a data set's name or a Data, got a {type(images).__name__}.")
    elif images not in names() and Path(images).expanduser().is_dir():
        images = f"folder:{images}"
    encoder = copy.deepcopy(encoder) if isinstance(encoder, nn.Module) else encoder  # it may be trained on
    opened, about = open_encoder(encoder, size=size, mean=mean, std=std, network=network)
    about = {"size_from": "given" if size else "the run's", **about, "size": size or about.get("size") or 32}
    return OwnRun(opened, about, name, data.name if data is not None else str(images), data)
