"""Cells of a study with one worker against two, in processes and, where it is installed, under Ray; one thread a cell.

Wants two idle cores: what else runs on the machine comes straight out of the ratio. The workers' own start (they import torch and load the
images) is part of the figure, as it is of a study.
"""

import importlib.util
import tempfile
import time
from pathlib import Path

import explore as ex
from explore.studies import Cell, Measure, run_cells
from explore.training import resolve_device

from .timing import machine


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds of `cells` trainings of the default encoder, half an epoch each, measured; one round after the other."""
    where, count = resolve_device(device), 4 if quick else 12
    about = {"epochs": 1, "train_images": 1280 if quick else 5120, "knn_every": 0, "knn_images": 500}
    cells = [Cell(ex.TrainConfig(**about, seed=seed), Measure(l2=100.0)) for seed in range(count)]
    engines = ["local", "ray"] if importlib.util.find_spec("ray") else ["local"]
    seconds = {}
    for engine in engines:
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as out:
                began = time.perf_counter()
                done = list(run_cells(cells, Path(out), engine=engine, workers=workers, threads=1, device=device))
                seconds[engine, workers] = time.perf_counter() - began
                assert all(d.error is None and not d.kept for d in done)
                inside = sum(d.record["seconds"] for d in done if d.record) / count
            print(
                f"{engine:<8}{workers} at once: {seconds[engine, workers]:7.1f} s for {count} cells, {inside:.1f} s a cell"
            )
    ratios = {f"one_over_two_{engine}": seconds[engine, 1] / seconds[engine, 2] for engine in engines}
    return {**ratios, "cells": count, "quick": quick, **machine(where)}
