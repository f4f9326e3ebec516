"""Runs of tiny encoders with hostile names, few images, and classes with hostile names: for what is written as HTML."""

import dataclasses
from collections.abc import Sequence

from explore.config import TrainConfig
from explore.panels.session import Session
from explore.runfolder import Run, build_encoder


def hostile_runs(tmp_path, monkeypatch, names: Sequence[str], classes: Sequence[str], test: int = 120) -> list[Run]:
    """Untrained runs of these names in `tmp_path`; every data set's classes go by `classes` in turn, with a number."""
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    whole, kept = Session.set, {}

    def small(self, images):
        if images not in kept:
            data = whole(self, images)
            train = data.train.take(300)
            named = [f"{classes[i % len(classes)]}{i}" for i in range(len(data.classes))]
            kept[images] = dataclasses.replace(
                data, train=train, labelled=train, test=data.test.take(test), classes=named
            )
        return kept[images]

    monkeypatch.setattr(Session, "set", small)
    made = []
    for name in names:
        config = TrainConfig(arch="resnet10", width=4, proj_dim=8, seed=len(made))
        run = Run.create(config, name=name)
        run.save_encoder(build_encoder(config), 0)
        made.append(run)
    return made
