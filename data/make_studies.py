"""Make the shipped studies again: python data/make_studies.py  (`make studies`; about an hour on two CPU cores).

Trained on the shipped images with the default encoder: SimCLR, CLAE (FGSM) and SimCLR with Gaussian noise at six eps, the four attacks at
8/255, SimCLR trained until it cost what CLAE costs; three seeds of each. Then loss and accuracy over test-time eps for the runs at 8/255.
Cells are kept in <runs>/studies: a run that was stopped goes on, and a finished one only writes its tables.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

import explore as ex
from explore import places
from explore.results import Sweep
from explore.runfolder import Run
from explore.studies import (
    Done,
    Progress,
    accuracy_vs_test_eps,
    attack_cells,
    equal_compute_cells,
    loss_vs_eps,
    run_grid,
    train_eps_cells,
)
from explore.studies.cells import images_of
from explore.studies.sweep import kept
from explore.weights import write_text

HERE = Path(__file__).parent / "studies"
EPOCHS, SEEDS, EPS = 10, 3, 8 / 255
BASE = ex.TrainConfig(epochs=EPOCHS, knn_every=0)
GRIDS = {
    "train-eps": train_eps_cells(BASE, ("none", "fgsm", "gaussian"), seeds=SEEDS),
    "attacks": attack_cells(BASE, eps=EPS, seeds=SEEDS),
    "equal-compute": equal_compute_cells(BASE, ("fgsm",), eps=EPS, seeds=SEEDS),
}


def main() -> None:
    """All studies, or with --quick two-epoch trainings of one seed into a scratch folder: how long will it take here?"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="cells at once, one thread each")
    args = parser.parse_args()
    out, began = places.runs_root() / "studies", time.perf_counter()
    for name, cells in GRIDS.items():
        found = run_grid(name, cells, out=out, progress=say, workers=args.workers, threads=1)
        ship(name, found, args.workers)
    runs = sorted({(out / "runs" / cell.run_name(images_of(cell.config)[1]), cell.config.label) for cell in at_test()})
    ship("loss-eps", looked_at(out, runs, loss_vs_eps, ("linf", "l2")), args.workers)
