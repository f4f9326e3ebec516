"""Train the three shipped runs again: python data/make_demo.py  (about half an hour on two CPU cores; `make demo`).

SimCLR, CLAE, and SimCLR with Gaussian noise in the adversary's place, on the shipped images, all else equal. Weights are stored in half
precision; the kNN figures of RUN.md are measured on what is stored.
"""

import sys
import tempfile
import time
from pathlib import Path

import explore as ex
from explore.attacks import NOISES
from explore.config import show_eps
from explore.results import wilson
from explore.runfolder import Run
from explore.serialization import write_text
from explore.training import KNNProbe, train

HERE = Path(__file__).parent / "demo"
EPOCHS = 40
RUNS = {
    "simclr": ex.TrainConfig.simclr(epochs=EPOCHS, crop="fitted"),
    "clae": ex.TrainConfig.clae(epochs=EPOCHS, eps=8 / 255, crop="fitted"),
    "gaussian": ex.TrainConfig(epochs=EPOCHS, eps=8 / 255, attack="gaussian", crop="fitted"),
}


def main(names: list[str]) -> None:
    """Train the named runs (all by default) and put them in data/demo/."""
    data = ex.load("fashion")
    for name in names or RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            run = Run.create(RUNS[name], name=name, root=Path(scratch))
            for row in train(run.config, data, run=run, log_every=1000):
                print(name, {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}, flush=True)
            ship(run, KNNProbe(run.config, data), row["seconds"])


def ship(run: Run, probe: KNNProbe, seconds: float) -> None:
    """Store a finished run in half precision, with a page about it."""
    target = HERE / run.name
    run.hand_on(target, argv=["data/make_demo.py", run.name])
    shipped = Run(target, f"demo/{run.name}")
    write_text(target / "RUN.md", page(shipped, probe(shipped.encoder()), probe(shipped.untrained()), seconds))


def page(run: Run, knn: float | None, untrained: float | None, seconds: float) -> str:
    """RUN.md: what it is, how it was made, what it measures."""
    c, env, last = run.config, run.env, run.rows()[-1]
    assert knn is not None and untrained is not None
    low, high = (100 * v for v in wilson(knn, 2000))
    adversary = (
        f", under the {'noise' if c.attack in NOISES else 'adversary'} {last['loss_adv']:.3f}"
        if "loss_adv" in last
        else ""
    )
    what = (
        "no adversary" if c.attack == "none" else f"{c.attack}, ε = {show_eps(c.eps)}, adversarial weight {c.alpha:g}"
    )
    return f"""# {run.name}: {c.method} on {c.dataset}

| | |
| --- | --- |
| trained with | {what}; seed {c.seed}; {c.epochs} epochs of 10,000 images, batch {c.batch_size}, {c.arch} width {c.width} |
| command | `python data/make_demo.py {run.path.name}` |
| kNN (20 neighbours of 5,000, features h, 2,000 test images) | {100 * knn:.1f} % (95 % interval {low:.1f} to {high:.1f}) |
| the same network untrained | {100 * untrained:.1f} % |
| last epoch's loss | {last["loss"]:.3f} nats{adversary}; chance {last["chance"]:.3f} |
| time | {seconds / 60:.0f} min on {env["machine"]}, {env["device"]}, {env["precision"]} |
| versions | {", ".join(f"{k} {v}" for k, v in env["versions"].items())}; commit {env["commit"]} |
| made | {time.strftime("%Y-%m-%d", time.gmtime())} |

One seed, {c.epochs} epochs, a small network, views chosen on these test images (LOG.md): made to be looked at, not to settle which method is better. Weights are in half precision.
Settings in full: `config.json`; every logged row: `metrics.jsonl`.
"""


if __name__ == "__main__":
    main(sys.argv[1:])
