"""Maps of 5,000 features: PCA and UMAP the first time in a process and from disk; the film of nine eps made, and placed in UMAP.

Each first time is measured in a process of its own, imports and compilation included, from the features in memory to positions.
UMAP's class on the same PCA axes stands beside it, in turn.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import explore as ex
from explore.maps import kept_map
from explore.serialization import save_tensors
from explore.studies import AtlasStudy
from explore.training import resolve_device

from .timing import interleaved, machine

PROGRAM = """
import json, sys, time
import torch
from explore.maps import fit_map, kept_map
from explore.serialization import load_tensors
what, file, folder = sys.argv[1:]
h, found = load_tensors(file)[0]["h"], {}
wall, cpu = time.perf_counter(), time.process_time()
if what == "class":
    low = fit_map(h, method="pca").low.numpy()
    import umap
    umap.UMAP(random_state=0, n_jobs=1).fit_transform(low)
else:
    kept_map(h, folder, method=what)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds; of each first time the median and, as the machine may be busy, the processor's time too."""
    where, n = resolve_device(device), 1000 if quick else 5000
    encoder, data = ex.open_run("demo/clae").encoder(where), ex.load("fashion").to(where)
    study = AtlasStudy(encoder, data.train, images=n, temperature=0.2, keep=False)
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "features.safetensors"
        save_tensors(file, {"h": study.features})
        seconds: dict[str, list[list[float]]] = {"pca": [], "umap first": [], "umap disk": [], "umap class": []}
        for i in range(1 if quick else 2):
            own = folder / str(i)
            seconds["pca"].append(_process("pca", file, own))
            seconds["umap first"].append(_process("umap", file, own))
            seconds["umap disk"].append(_process("umap", file, own))
            seconds["umap class"].append(_process("class", file, own))
        fitted = kept_map(study.features, folder / "0")
    wall, cpu = time.perf_counter(), time.process_time()
    frames = study.frames_h
    filmed = [time.perf_counter() - wall, time.process_time() - cpu]
    film = interleaved({"place": lambda: fitted.place(frames.flatten(0, 1))}, 1 if quick else 3, torch.device("cpu"))
    print(f"{n:,} features of {study.features.shape[1]} numbers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<14}{'seconds':>10}{'processor':>11}")
    for what, rows in seconds.items():
        print(f"{what:<14}{_median(rows, 0):>10.2f}{_median(rows, 1):>11.2f}")
    print(
        f"{'film made':<14}{filmed[0]:>10.2f}{filmed[1]:>11.2f}   one gradient and {len(study.eps)} forward passes an image, {where}"
    )
    print(f"{'film placed':<14}{statistics.median(film['place']):>10.2f}{'':>11}   {len(study.eps)} frames")
    return {
        "pca_s": _median(seconds["pca"], 0),
        "umap_first_s": _median(seconds["umap first"], 0),
        "umap_disk_s": _median(seconds["umap disk"], 0),
        "film_s": filmed[0],
        "film_place_s": statistics.median(film["place"]),
        "umap_first_cpu_s": _median(seconds["umap first"], 1),
        "class_over_map": statistics.median(
            c[1] / f[1] for c, f in zip(seconds["umap class"], seconds["umap first"], strict=True)
        ),
        "points": n,
        "load": os.getloadavg()[0],
        "quick": quick,
        **machine(where),
    }


def _process(what: str, file: Path, folder: Path) -> list[float]:
    """[seconds, processor seconds] of one map in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, what, file, folder], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _median(rows: list[list[float]], column: int) -> float:
    return statistics.median(row[column] for row in rows)
