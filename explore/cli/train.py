"""python -m explore train."""

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import paths, system
from ..config import TrainConfig, show_eps
from ..errors import UserError
from .shared import add_settings, counting_line, given_settings, spent, step_bar


def add(sub: Any) -> None:
    """Register the command."""
    p = sub.add_parser("train", help="train an encoder", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.set_defaults(command=_train)
    p.add_argument(
        "--preset", choices=("clae", "simclr", "strong", "paper_code"), default="clae", help="settings to start from"
    )
    p.add_argument("--smoke", action="store_true", help="a few steps of a tiny net: proves the installation in seconds")
    p.add_argument("--name", help="name of the run (default: made from the settings)")
    p.add_argument("--runs-dir", type=Path, help="where runs are written (default: runs/, or $CLAE_RUNS)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    p.add_argument("--threads", type=int, metavar="N", help="of torch (default: those that are free when it begins)")
    p.add_argument("--resume", nargs="?", const=True, metavar="NAME", help="go on with a stopped run")
    p.add_argument(
        "--monitored", action="store_true", help="also log alignment, uniformity and RankMe, and keep pictures"
    )
    p.add_argument("--background", action="store_true", help="in a process of its own, monitored; see also: jobs")
    add_settings(p)


def _train(args: argparse.Namespace) -> int:
    from ..distributed import together

    if args.background:
        return _in_background(args)
    with together(args.device) as ranks:
        return _train_as(args, ranks)


def _in_background(args: argparse.Namespace) -> int:
    """Start the training in a process of its own, and say how to follow and stop it."""
    from ..experiments.background import RunProcess

    preset = TrainConfig.smoke if args.smoke else getattr(TrainConfig, args.preset)
    where: dict[str, Any] = {"device": args.device, "threads": args.threads}
    if args.resume:
        own = RunProcess(_resumed(args, preset))
        own.resume(**where)
    else:
        own = RunProcess.start(preset(**given_settings(args)), name=args.name, root=args.runs_dir, **where)
    print(f"{own.name} trains in the background, in {own.run.path}; what it prints goes to {own.log.name} there")
    print(f"list: python -m explore jobs    stop: python -m explore jobs stop {own.name}")
    return 0


def _train_as(args: argparse.Namespace, ranks: Any) -> int:
    from ..system import keep_memory
    from ..training import resolve_device, train

    if resolve_device(args.device).type == "cpu":
        keep_memory()
    preset = TrainConfig.smoke if args.smoke else getattr(TrainConfig, args.preset)
    with ranks.in_turn():  # the first makes the folder and downloads, the others find both
        run, data = _opened(args, preset, ranks.first)
    if run.status["state"] == "done":
        print(f"{run.name} is finished; its folder is {run.path}")
        return 0
    settings: dict[str, Any] = {"run": run, "device": args.device, "resume": bool(args.resume), "ranks": ranks}
    settings |= {"threads": args.threads, "monitored": args.monitored}
    if not ranks.first:
        with _stoppable(alone=False) as should_stop:
            for _ in train(run.config, data, **settings, should_stop=should_stop, log_every=5):
                pass
        return 0
    for line in data.warnings if data else []:
        print(f"note: {line}", file=sys.stderr)
    clean = contextlib.nullcontext() if args.resume else _nothing_left(run)
    with _stoppable(alone=ranks.world == 1) as should_stop, clean:
        rows = train(run.config, data, **settings, should_stop=should_stop, log_every=5)
        last = _show(run, rows)
    if run.status["state"] == "stopped":
        print(f"stopped at epoch {last.get('epoch', 0):.1f}; go on with: python -m explore train --resume {run.name}")
        return 130
    _finish(run)
    return 0


def _opened(args: argparse.Namespace, preset: Callable[..., TrainConfig], first: bool):
    """The run folder, made by the first process where it is a new one, and the images of a new one."""
    from .. import datasets
    from ..runfolder import Run

    if args.resume:
        return _resumed(args, preset), None
    config = preset(**given_settings(args))
    name = args.name or (f"smoke-{config.label}" if args.smoke else None)
    if args.smoke and first:
        _forget_smoke(args.runs_dir, name)
    progress = counting_line() if first else None
    data = datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size, progress=progress)
    if first:
        return Run.create(config, name=name, root=args.runs_dir), data
    return Run((args.runs_dir or paths.runs_root()) / (name or config.label)), data


def _resumed(args: argparse.Namespace, preset: Callable[..., TrainConfig]):
    """The run to go on with; settings that are typed beside it must be those it was started with."""
    from ..experiments.command import command
    from ..runfolder import Run, open_run

    given = given_settings(args)
    name = args.resume if isinstance(args.resume, str) else (args.name or preset(**given).label)
    run = Run(args.runs_dir / name, name) if args.runs_dir else open_run(name)
    meant = run.config.with_(**given)
    if meant == run.config:
        return run
    was = {**run.config.to_dict(), "eps": show_eps(run.config.eps)}
    others = [f"{key} {was[key]}" for key in given if getattr(run.config, key) != getattr(meant, key)]
    now = run.status["state"]
    where = f" --runs-dir {shlex.quote(str(args.runs_dir))}" if args.runs_dir else ""
    raise UserError(
        f"The run '{name}' was started with other settings ({', '.join(others)})"
        + (f"; go on with it by --resume {name} alone" if now != "done" else ", and its learning rate has ended")
        + f". For a new run with those that you named: {command(meant)} --name {run.path.name}-2{where}"
    )


def _forget_smoke(root: Path | None, name: str | None) -> None:
    """A smoke run replaces the smoke run before it."""
    import shutil

    shutil.rmtree((root or paths.runs_root()) / str(name), ignore_errors=True)


@contextlib.contextmanager
def _nothing_left(run) -> Iterator[None]:
    """A training refused before its first row leaves no folder that would stand in the next one's way."""
    import shutil

    try:
        yield
    except UserError:
        if not run.rows():
            shutil.rmtree(run.path, ignore_errors=True)
        raise


@contextlib.contextmanager
def _stoppable(alone: bool = True) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks the loop to stop after its step, the second stops at once; so do SIGTERM and a closed terminal.

    Not `alone`, under torchrun, which answers a Ctrl-C by SIGTERM: both signals ask, and none is impatient.
    """
    asked = False

    def ask(signum, frame):
        nonlocal asked
        if asked and alone:
            raise KeyboardInterrupt
        asked = True
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("\nstopping after this step" + ("; Ctrl-C again to stop at once" if alone else ""), file=sys.stderr)

    before = {one: signal.signal(one, ask) for one in system.stop_signals()}
    try:
        yield lambda: asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _show(run, rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """A progress bar on a terminal, one line an epoch elsewhere; both with loss, chance line, kNN and time left."""
    c, row, untrained, knn = run.config, {}, None, None
    print(
        f"{c.method} on {c.dataset}, {c.arch} width {c.width}, {c.epochs} epochs, {'no adversary' if c.attack == 'none' else 'ε = ' + show_eps(c.eps)}, seed {c.seed} -> {run.path}"
    )
    bar = None
    for row in rows:
        if row.get("knn") is not None:
            untrained, knn = (row["knn"], None) if row["step"] == 0 else (untrained, row["knn"])
            if row["step"] == 0:
                print(f"kNN of the untrained encoder: {100 * row['knn']:.1f} %")
        if row["step"] == 0:
            continue
        if bar is None and sys.stderr.isatty():
            bar = step_bar(round(row["step"] / row["epoch"]) * c.epochs, row["step"])
        text = f"loss {row['loss']:.3f}" + (f" adversary {row['loss_adv']:.3f}" if "loss_adv" in row else "")
        text += f" (chance {row['chance']:.2f})" + (f", kNN {100 * knn:.1f} %" if knn is not None else "")
        if bar is not None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(row["step"] - bar.n)
        elif row["epoch"] == int(row["epoch"]):
            print(f"epoch {int(row['epoch'])}/{c.epochs}: {text}, {spent(row['seconds_left'])} left", flush=True)
    if bar is not None:
        bar.close()
    return row


def _finish(run) -> None:
    from ..results import wilson

    knn = [row["knn"] for row in run.rows() if row.get("knn") is not None]
    if knn:
        low, high = wilson(knn[-1], n := run.env["knn"]["test"])
        print(
            f"kNN {100 * knn[-1]:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}, {n} test images); untrained {100 * knn[0]:.1f} %"
        )
    print(f'{run.path}\nin a notebook: run = ex.open_run("{run.name}")')
