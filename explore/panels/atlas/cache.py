"""The atlas panel's work: studies by what was asked, each made once; what of an atlas becomes points, groups and colours of the film."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...evaluate import Probe, embed
from ...results import Atlas, png, to_pixels
from ...studies import AtlasStudy
from ...training import contrast_settings
from ..session import LRU, Session

Progress = Callable[[str, int, int], None]
KEPT = 6  # studies; each holds some 30 MB with 2,000 images
COLOURS = ("class", "vendor", "probe error", "displacement", "loss")


class Stages:
    """Studies of runs on image sets; what another map does not change is made once."""

    def __init__(self, shelf: Session):
        self.shelf = shelf
        self._studies, self._probes = LRU(KEPT), LRU(KEPT)

    def study(
        self, run: str, *, images: str, attack: str, points: int, n_neighbors: int, progress: Progress
    ) -> AtlasStudy:
        """The study behind these choices, computed as far as it was before."""
        about = (run, images, attack, points)
        study = self._studies.make(about, lambda: self._new(*about))
        study.n_neighbors, study.progress = n_neighbors, progress  # a map is kept under its parameters
        return study

    def _new(self, run: str, images: str, attack: str, points: int) -> AtlasStudy:
        opened, data = self.shelf.run(run), self.shelf.set(images)
        about = {"run": run, "commit": opened.env.get("commit"), "set": images}
        return AtlasStudy(
            self.shelf.encoder(run),
            self.shelf.split(images),
            images=points,
            attack=attack,
            steps=3,
            batch_size=opened.config.batch_size,
            **contrast_settings(opened.config, data),
            classes=tuple(data.classes),
            provenance=about,
        )

    def give_probe(self, study: AtlasStudy, run: str, images: str) -> None:
        """A linear probe on the training features of the set, where it has labels: what `right` is measured with."""
        data = self.shelf.set(images)
        if study.probe is None and data.labelled is not None:

            def fit() -> Probe:
                h, y = embed(self.shelf.encoder(run), data.labelled, cache=True, progress=study.progress)
                return Probe().fit(h, y, classes=data.classes)

            study.probe = self._probes.make((run, data.name), fit)


def grouped(atlas: Atlas, colour: str) -> dict[str, Any]:
    """`Film.show`'s groups and their names: class, or vendor where that is asked for."""
    if colour == "vendor":
        if atlas.vendor is None:
            raise UserError("These images carry no vendor; colour by class, or choose the emoji set, which has two.")
        return {"groups": atlas.vendor.numpy(), "names": list(atlas.vendors), "by": "vendor"}
    return classes_of(atlas.labels, atlas.classes)


def classes_of(labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Classes as groups; the images without one are a group of their own."""
    groups, names = labels.numpy(), list(classes)
    if (groups < 0).any() or not names:
        groups, names = np.where(groups < 0, len(names), groups), [*names, "no class"]
    return {"groups": groups, "names": names, "by": "class"}


def colours(atlases: list[Atlas]) -> list[str]:
    """Those of COLOURS that these atlases have."""
    lacks = {
        "vendor": any(a.vendor is None for a in atlases),
        "probe error": any(bool(a.right.isnan().any()) for a in atlases),
    }
    return [name for name in COLOURS if not lacks.get(name)]


def measured(atlases: list[Atlas], colour: str) -> dict[str, Any]:
    """`Film.show`'s values (maps, E, n) in [0, 1] and the words of their scale; nothing where groups give the colour."""
    if colour in ("class", "vendor"):
        return {}
    if colour == "probe error":
        wrong = torch.stack([1 - a.right for a in atlases]).numpy()
        if np.isnan(wrong).any():
            raise UserError(
                "There is no probe for these images, for they have no labels; colour by displacement or loss."
            )
        return {"values": wrong, "scale": ("linear probe", "right", "wrong")}
    if colour == "displacement":  # at every eps from 0 to the farthest: 16/255's would make 8/255's look alike
        values = torch.stack([a.moved for a in atlases]).numpy()
        most = np.quantile(values, 0.99, axis=(0, 2), keepdims=True)
        share = (values / np.where(most > 0, most, 1)).clip(0, 1)
        return {"values": share, "scale": ("cosine moved", "0", "the farthest 1 % at this ε")}
    values = torch.stack([a.loss for a in atlases]).numpy()
    low, high = np.quantile(values, [0.01, 0.99]).tolist()
    share = ((values - low) / (high - low or 1)).clip(0, 1)
    return {"values": share, "scale": ("contrastive loss, nats", f"≤ {low:.1f}", f"≥ {high:.1f}")}


def export(atlas: Atlas, study: AtlasStudy, label: str) -> Path:
    """Write an atlas for other viewers into the current folder, under a name that is free; the columns are those of `embed`.

    One row an image and eps: x, y, label, class, image (the PNG as it was embedded, a data URI), its place, what changed in h.
    """
    table = atlas.table.rename(columns={"image": "index"})
    table["image"] = [png(each) for k in atlas.ks for each in to_pixels(study.pictures(k))]
    first = ["x", "y", "label", "class", "image"]
    table = table[first + [name for name in table.columns if name not in first]]
    table.attrs = {}
    stem = f"atlas-{label}-{atlas.method}".replace("/", "-").replace(" ", "-")
    free = (Path.cwd() / f"{stem}{f'-{i}' if i > 1 else ''}.parquet" for i in range(1, 10_000))
    path = next(each for each in free if not each.exists())
    table.to_parquet(path, index=False)
    return path
