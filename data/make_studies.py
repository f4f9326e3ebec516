"""Make the shipped studies again: python data/make_studies.py  (`make studies`; between one and two hours on two CPU cores).

Trained on the shipped images with the default encoder, three seeds each: SimCLR, CLAE (FGSM) and SimCLR with Gaussian or uniform noise
at six eps, with Gaussian noise of variance eps at three; the four attacks and sign noise, which has FGSM's length in every norm, at 8/255;
SimCLR trained until it cost what CLAE costs. Then loss and accuracy over test-time eps for
three of the methods. Cells are kept in <runs>/studies, so a run that was stopped or killed goes on where it was.
"""

import argparse
import os
from pathlib import Path

import explore as ex
from explore import paths
from explore.attacks import ATTACKS
from explore.config import show_eps
from explore.experiments.cell import images_of
from explore.results import Sweep
from explore.runfolder import Run
from explore.serialization import write_text
from explore.studies import (
    Done,
    StudyProgress,
    accuracy_vs_test_eps,
    attack_cells,
    equal_compute_cells,
    gather,
    loss_vs_eps,
    run_cells,
    train_eps_cells,
)
from explore.studies.sweep import kept

HERE = Path(__file__).parent / "studies"
COMMAND = "python data/make_studies.py"
BASE, SEEDS, EPS = ex.TrainConfig(epochs=10, knn_every=0, crop="fitted"), 3, 8 / 255
TRAINED = {
    "train-eps": [
        *train_eps_cells(BASE, ("none", "fgsm", "gaussian", "uniform"), seeds=SEEDS),
        *train_eps_cells(BASE, ("gaussian-variance",), eps=[2 / 255, EPS, 16 / 255], seeds=SEEDS),
    ],
    "attacks": attack_cells(BASE, ("none", *ATTACKS, "sign"), eps=EPS, seeds=SEEDS),
    "equal-compute": equal_compute_cells(BASE, ("fgsm",), eps=EPS, seeds=SEEDS),
}
LOOKED_AT = {"loss-eps": loss_vs_eps, "test-eps": accuracy_vs_test_eps}
KINDS = (*ATTACKS, "gaussian", "uniform", "sign")


def main() -> None:
    """Train what is missing, then write every study's tables and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cells at once, one thread each")
    workers, out = parser.parse_args().workers, paths.runs_root() / "studies"
    cells = sorted((cell for grid in TRAINED.values() for cell in grid), key=lambda cell: cell.config.seed)
    cells.sort(
        key=lambda cell: cell.config.attack == "uniform" or cell.config.gaussian_by == "variance"
    )  # the rebuttal's first
    progress = StudyProgress(cells, workers)
    for done in run_cells(cells, out, workers=workers, threads=1):
        progress.note(done)
        say(done, progress)
    studies = {name: gather(name, grid, out) for name, grid in TRAINED.items()}
    for name, question in LOOKED_AT.items():
        print(name, flush=True)
        curves = [kept(question, run, out, match=match, kinds=KINDS) for match in ("linf", "l2") for run in runs(out)]
        studies[name] = curves[0].join(*curves[1:])
    for name, found in studies.items():
        assert not found.provenance.get("missing"), f"{name} lacks {found.provenance['missing']} cells"
        found.provenance["command"] = COMMAND
        found.save(HERE / name)
    write_text(HERE / "README.md", page(studies, workers))


def say(done: Done, progress: StudyProgress) -> None:
    """One line a cell."""
    c, left = done.cell.config, progress.seconds_left
    what = f"{c.method} {show_eps(c.eps)}, {c.epochs} epochs" if done.cell.trained else "untrained"
    result = done.error or ", ".join(f"{row['metric']} {row['value']:.3f}" for row in (done.record or {})["rows"])
    until = "" if left is None else f", about {left / 60:.0f} min left"
    print(f"{progress.through}/{len(progress.jobs)} {what}, seed {c.seed}: {result}{until}", flush=True)


def runs(out: Path) -> list[Run]:
    """The runs whose test-time curves ship: the three methods at 8/255, every seed."""
    three = train_eps_cells(BASE, ("none", "fgsm", "gaussian"), eps=[EPS], seeds=SEEDS)
    wanted = [cell for cell in three if cell.trained]
    folders = [out / "runs" / cell.run_name(images_of(cell.config)[1]) for cell in wanted]
    return [Run(path, path.relative_to(paths.runs_root()).as_posix()) for path in folders]


def page(studies: dict[str, Sweep], workers: int) -> str:
    """README.md: command, time, commit, and every mean with its interval."""
    first, cells = studies["train-eps"].provenance, {}
    for name in TRAINED:
        cells |= dict(zip(studies[name].table.cell, studies[name].table.seconds, strict=True))
    trained = [studies[name].summary().assign(study=name) for name in TRAINED]
    lines = [
        f"| {name} | {row.method} | {row.k:g}/255 | {row.epochs} | {row.cost:g} | {row.metric} | {100 * row.mean:.1f} | "
        f"{100 * row.low:.1f} to {100 * row.high:.1f} | {row.n} |"
        for name, table in zip(TRAINED, trained, strict=True)
        for row in table.itertuples()
    ]
    test = ", ".join(f"`{name}`" for name in LOOKED_AT)
    rows = "\n".join(lines)
    return f"""# Shipped studies

Every file is there as .parquet and .csv with a .json that says where it came from; `explore.results.Sweep.load("data/studies/train-eps")` reads
one. Made by `{COMMAND}` (`make studies`): {len(cells)} cells, {sum(cells.values()) / 60:.0f} core-minutes, {workers} cells
at a time with one thread each, on {", ".join(first["machine"])}; commit {", ".join(sorted(set(studies["train-eps"].table.commit)))}; {", ".join(f"{k} {v}" for k, v in first["versions"].items())}.

{BASE.arch} width {BASE.width}, 10,000 images of `fashion`, {SEEDS} seeds. kNN: 20 neighbours of 5,000; probe: logistic regression, its l2 chosen on
held-out training images; both on features h of the same 2,000 clean test images. Intervals: 95 %, Student's t over seeds. `cost` is
forward passes an image, epochs times passes a step. {test}: loss and accuracy over test-time eps of the three methods
trained at {show_eps(EPS)}, noise matched in L-infinity and in L2, 1,000 test images.

| study | method | trained at ε | epochs | cost | measured by | mean, % | 95 % interval | seeds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

The views were chosen on these test images (LOG.md), so the levels are not held-out figures; the methods share views and images.
"""


if __name__ == "__main__":
    main()
