"""python -m explore sweep."""

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..attack_table import TABLE
from ..config import ATTACK_NAMES, TrainConfig, parse_eps, show_eps
from ..errors import UserError
from .shared import add_settings, counting_line, given_settings, spent, told
from .train import _stoppable

STUDIES = ("train-eps", "attacks", "equal-compute", "loss-eps", "test-eps")
NAMES = {"knn": "kNN", "probe": "probe"}
TRAIN, LOOK = STUDIES[:3], STUDIES[3:]
ONLY = {  # options that belong to some studies
    **dict.fromkeys(("methods", "seeds", "background", "engine", "workers", "threads", "address", "gpu_share"), TRAIN),
    **dict.fromkeys(("runs", "kinds", "match", "images"), LOOK),
}


def add(sub: Any) -> None:
    """Register the command."""
    about = "noise or adversary: accuracy over training eps, attack against attack, equal compute; loss and accuracy over test eps"
    p = sub.add_parser("sweep", help=about, description=about, conflict_handler="resolve")
    p.set_defaults(command=_sweep)
    p.add_argument(
        "--study", choices=STUDIES, default="train-eps", help="the first three train, the last two look at runs"
    )
    p.add_argument("--smoke", action="store_true", help="tiny trainings: proves the installation in seconds")
    p.add_argument("--out", type=Path, metavar="DIR", help="cells and tables go here (default: <runs>/sweeps)")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    train, absent = p.add_argument_group("studies that train"), argparse.SUPPRESS
    train.add_argument(
        "--methods",
        type=_words,
        default=absent,
        metavar="LIST",
        help=f"none,fgsm,gaussian (none is SimCLR); of {', '.join(ATTACK_NAMES)}, gaussian-variance",
    )
    train.add_argument("--seeds", type=int, default=absent, metavar="N", help="trainings of every setting (3)")
    train.add_argument(
        "--background", action="store_true", default=absent, help="start it in the background and return, see jobs"
    )
    train.add_argument("--engine", choices=("local", "ray"), default=absent, help="where cells run (local)")
    train.add_argument("--workers", type=int, default=absent, metavar="N", help="cells at once on this machine (1)")
    train.add_argument("--threads", type=int, default=absent, metavar="N", help="CPU threads of a cell")
    train.add_argument(
        "--address", default=absent, metavar="HOST:PORT", help="a Ray cluster; auto: the one that runs here"
    )
    train.add_argument(
        "--gpu-share", type=float, default=absent, metavar="X", help="of a GPU for a cell under Ray, 0.25"
    )
    test = p.add_argument_group("studies that look at runs")
    test.add_argument("--run", action="append", dest="runs", default=absent, metavar="NAME", help="may be given again")
    test.add_argument(
        "--kinds",
        type=_words,
        default=absent,
        metavar="LIST",
        help=f"fgsm,gaussian,uniform,sign; of {', '.join(TABLE)}, gaussian-variance",
    )
    test.add_argument(
        "--match", choices=("plain", "linf", "l2"), default=absent, help="length noise shares with FGSM (linf)"
    )
    test.add_argument("--images", type=int, default=absent, metavar="N", help="test images (1000)")
    add_settings(p)
    p.add_argument("--eps", type=told(_grid), dest="grid", default=absent, metavar="LIST", help="2/255,4/255,8/255")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _grid(text: str) -> list[float]:
    return [parse_eps(part) for part in text.split(",")]


def _sweep(args: argparse.Namespace) -> int:
    given = {name for name in ONLY if hasattr(args, name)}
    for name in sorted(given):
        if args.study not in ONLY[name]:
            word = "--run" if name == "runs" else "--" + name.replace("_", "-")
            raise UserError(f"{word} belongs to the studies {', '.join(ONLY[name])}, not to {args.study}.")
    try:
        return _looked_at(args) if args.study in LOOK else _trained(args)
    except KeyboardInterrupt:
        _how_to_go_on()
        return 130


def _trained(args: argparse.Namespace) -> int:
    from .. import studies

    cells = _cells(args)
    engine = {k: getattr(args, k) for k in ("engine", "workers", "threads", "address", "gpu_share") if hasattr(args, k)}
    engine["device"], out = args.device, args.out or studies.default_out()
    if hasattr(args, "background"):
        return _started(args, cells, out, engine)
    if args.smoke and args.out is None:
        out = _fresh(out.with_name("smoke-sweep"))
    show = _Show(len({(cell.config, cell.trained) for cell in cells}), out)
    with _stoppable() as should_stop, contextlib.closing(show):
        found = studies.run_grid(args.study, cells, out=out, progress=show, should_stop=should_stop, **engine)
    if found.provenance["missing"] > len(found.provenance["failed"]):
        _how_to_go_on()
        return 130
    return _report(args, found, out)


def _cells(args: argparse.Namespace) -> list[Any]:
    """The cells of a study that trains."""
    from .. import studies

    changes = given_settings(args)
    if "attack" in changes:
        raise UserError("A sweep trains with several methods; name them by --methods, not by --attack.")
    base = (TrainConfig.smoke if args.smoke else TrainConfig)(**{"knn_every": 0, **changes})
    plan: dict[str, Callable[..., list[Any]]] = {
        "train-eps": studies.train_eps_cells,
        "attacks": studies.attack_cells,
        "equal-compute": studies.equal_compute_cells,
    }
    options: dict[str, Any] = {"seeds": getattr(args, "seeds", 1 if args.smoke else 3)}
    if args.smoke:
        options["measure"] = studies.Measure(l2=100.0)
    grid = getattr(args, "grid", [8 / 255] if args.smoke else None)
    if grid:
        if args.study != "train-eps" and len(grid) > 1:
            raise UserError(f"The study {args.study} is made at one eps, got {len(grid)}.")
        options["eps"] = grid if args.study == "train-eps" else grid[0]
    methods = [args.methods] if hasattr(args, "methods") else []
    return plan[args.study](base, *methods, **options)


def _started(args: argparse.Namespace, cells: list[Any], out: Path, engine: dict[str, Any]) -> int:
    """Start the cells in the background and say how to follow them."""
    from ..experiments.jobs import BackgroundTraining

    if args.smoke:
        raise UserError("A smoke sweep takes seconds and does not run in the background; leave --background away.")
    job = BackgroundTraining.start(
        cells, out, study=args.study, command=f"python -m explore {_words_typed()}", **engine
    )
    if args.json:
        print(json.dumps({"job": job.name, "study": args.study, "out": str(out)}))
        return 0
    where = f" --out {shlex.quote(str(out))}" if args.out else ""
    print(
        f"{len(job.cells)} cells run in the background as job {job.name}; follow them with python -m explore jobs{where}, "
        f"stop them with python -m explore jobs stop {job.name}{where}"
    )
    return 0


def _looked_at(args: argparse.Namespace) -> int:
    from .. import studies
    from ..studies.sweep import kept

    changes = given_settings(args)
    options: dict[str, Any] = {name: changes.pop(name) for name in ("steps", "seed", "batch_size") if name in changes}
    if changes:
        raise UserError(f"The study {args.study} looks at runs that are trained already; choose them by --run NAME.")
    question = studies.loss_vs_eps if args.study == "loss-eps" else studies.accuracy_vs_test_eps
    options |= {name: getattr(args, name) for name in ("kinds", "match", "images") if hasattr(args, name)}
    options["eps"] = getattr(args, "grid", [0.0, 8 / 255] if args.smoke else list(studies.TEST_EPS))
    if args.smoke:
        options = {"images": 100, **options}
    names, out, line = (
        getattr(args, "runs", ["demo/simclr", "demo/clae"]),
        args.out or studies.default_out(),
        counting_line(),
    )
    found = []
    for name in names:
        watch = (lambda done, total, name=name: line(f"{name}, batches", done, total)) if line else None
        found.append(kept(question, name, out, device=args.device, progress=watch, **options))
    sweep = found[0].join(*found[1:])
    sweep.save(Path(out) / args.study)
    return _report(args, sweep, out)


class _Show:
    """A bar over cells on a terminal, a line a cell elsewhere; both with the time left, judged by the cells finished here."""

    def __init__(self, cells: int, out: Path):
        self.out, self.bar = out, None
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{percentage:3.0f} % {bar} {n}/{total} cells, {elapsed} passed{postfix}"
            self.bar = tqdm(total=cells, dynamic_ncols=True, bar_format=form)

    def __call__(self, done: Any, progress: Any) -> None:
        c, trained = done.cell.config, done.cell.trained
        what = (c.method if trained else "untrained") + (f", ε {show_eps(c.eps)}" if c.attack != "none" else "")
        if done.error is not None:
            result = f"failed: {done.error}"
        else:
            result = ", ".join(f"{NAMES[row['metric']]} {100 * row['value']:.1f} %" for row in done.record["rows"])
            result += " (from disk)" if done.kept else f", {spent(done.record['seconds'])}"
        left = "" if progress.seconds_left is None else f", about {spent(progress.seconds_left)} left"
        line = f"{what}, {c.epochs if trained else 0} epochs, seed {c.seed}: {result}"
        if progress.through == 1:
            self._say(f"cells are kept in {self.out}")
        self._say(line if self.bar else f"{progress.through}/{len(progress.jobs)} {line}{left}")
        if self.bar is not None:
            self.bar.total = len(progress.jobs)
            self.bar.set_postfix_str(left.lstrip(", "), refresh=False)
            self.bar.update(progress.through - self.bar.n)

    def _say(self, line: str) -> None:
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _fresh(folder: Path) -> Path:
    """A smoke sweep replaces the smoke sweep before it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _how_to_go_on() -> None:
    print(f"stopped; what is finished is kept, the same command goes on: python -m explore {_words_typed()}")


def _words_typed() -> str:
    return shlex.join(sys.argv[1:]) if Path(sys.argv[0]).name == "__main__.py" else "sweep ..."


def _report(args: argparse.Namespace, sweep: Any, out: Path) -> int:
    """The means over seeds, as a table or as one line of JSON; 1 where cells failed."""
    table, about = sweep.summary(), sweep.provenance
    failed = about.get("failed", {})
    if args.json:
        facts = {
            "study": args.study,
            "path": str(Path(out) / args.study),
            "rows": json.loads(table.to_json(orient="records")),
        }
        print(json.dumps({**facts, "failed": failed, **{k: about[k] for k in ("time", "commit", "versions")}}))
    else:
        shown = table[_telling(table)].copy()
        for column in ("mean", "low", "high"):
            shown[column] = [f"{v:.3f}" for v in shown[column]]
        print(shown.to_string(index=False))
        print(f"{Path(out) / args.study}.parquet, .csv, .json: {len(sweep)} rows, 95 % intervals")
    for key, sentence in failed.items():
        print(f"error: cell {key} failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _telling(table: Any) -> Sequence[str]:
    """The columns worth showing: settings that differ, and what was found."""
    settings = [
        c for c in ("method", "attack", "against", "match", "k", "epochs", "cost", "metric") if table[c].nunique() > 1
    ]
    return [*(settings or ["method"]), "mean", "low", "high", "n", "interval"]
