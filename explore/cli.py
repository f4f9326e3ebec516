"""The command line: python -m explore train | runs | doctor | lab."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from .config import TrainConfig, parse_eps, show_eps
from .errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 with one sentence on bad input, 130 when stopped by Ctrl-C."""
    try:
        args = _parser().parse_args(argv)
        return args.command(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m explore", description=__doc__)
    sub = parser.add_subparsers(required=True, metavar="train | runs | doctor | lab", parser_class=_Parser)

    p = sub.add_parser("train", help="train an encoder", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.set_defaults(command=_train)
    p.add_argument("--preset", choices=("clae", "simclr", "paper_code"), default="clae", help="settings to start from")
    p.add_argument("--smoke", action="store_true", help="a few steps of a tiny net: proves the installation in seconds")
    p.add_argument("--name", help="name of the run (default: made from the settings)")
    p.add_argument("--runs-dir", type=Path, help="where runs are written (default: runs/, or $CLAE_RUNS)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    p.add_argument("--resume", nargs="?", const=True, metavar="NAME", help="go on with a stopped run")
    settings = p.add_argument_group("settings (those of TrainConfig)")
    for name, kind in _settings().items():
        default = getattr(TrainConfig(), name)
        shown = show_eps(default) if name == "eps" else default
        settings.add_argument(
            "--" + name.replace("_", "-"), type=kind, default=argparse.SUPPRESS, metavar=_metavar(kind), help=f"{shown}"
        )

    p = sub.add_parser("runs", help="list the runs")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    p.set_defaults(command=_runs)
    p = sub.add_parser("doctor", help="what is here, and what to do")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    p.set_defaults(command=_doctor)
    p = sub.add_parser("lab", help="open the notebooks in JupyterLab")
    p.add_argument("notebook", nargs="?", default="00_start_here.ipynb", help="which notebook to open")
    p.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    p.add_argument("--port", type=int, default=8888)
    p.set_defaults(command=_lab)
    return parser


def _settings() -> dict[str, Callable[[str], Any]]:
    """Every field of TrainConfig with the function that reads it from text."""
    hints = get_type_hints(TrainConfig)

    def reader(name: str) -> Callable[[str], Any]:
        if name == "eps":
            return _told(parse_eps)
        kinds = [k for k in (get_args(hints[name]) or (hints[name],)) if k is not type(None)]
        if bool in kinds:
            return _told(_yes_no)
        return next((k for k in (int, float) if k in kinds), str)

    return {f.name: reader(f.name) for f in fields(TrainConfig)}


def _told(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse hides the words of a ValueError; this keeps them."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _yes_no(text: str) -> bool:
    if text.lower() in ("yes", "true", "on", "1"):
        return True
    if text.lower() in ("no", "false", "off", "0"):
        return False
    raise UserError(f"expected yes or no, got '{text}'")


def _metavar(kind: Callable) -> str:
    return {int: "N", float: "X", str: "WORD"}.get(kind, "VALUE")  # type: ignore[call-overload]


def _train(args: argparse.Namespace) -> int:
    from .runfolder import Run
    from .training import resolve_device, train

    changes = {name: getattr(args, name) for name in _settings() if hasattr(args, name)}
    preset = TrainConfig.smoke if args.smoke else getattr(TrainConfig, args.preset)
    resolve_device(args.device)
    if args.resume:
        run, data = _resumed(args, preset(**changes), bool(changes)), None
        if run.status["state"] == "done":
            print(f"{run.name} is finished; its folder is {run.path}")
            return 0
    else:
        from . import datasets

        config = preset(**changes)
        name = args.name or (f"smoke-{config.label}" if args.smoke else None)
        if args.smoke:
            _forget_smoke(args.runs_dir, name)
        data = datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size, progress=_download_bar())
        run = Run.create(config, name=name, root=args.runs_dir)
    for line in data.warnings if data else []:
        print(f"note: {line}", file=sys.stderr)
    with _stoppable() as should_stop, _nothing_left(run):
        rows = train(
            run.config,
            data,
            run=run,
            device=args.device,
            resume=bool(args.resume),
            should_stop=should_stop,
            log_every=5,
        )
        last = _show(run, rows)
    if run.status["state"] == "stopped":
        print(f"stopped at epoch {last.get('epoch', 0):.1f}; go on with: python -m explore train --resume {run.name}")
        return 130
    _finish(run)
    return 0


def _resumed(args: argparse.Namespace, config: TrainConfig, changed: bool):
    from .runfolder import Run, open_run

    name = args.resume if isinstance(args.resume, str) else (args.name or config.label)
    run = Run(args.runs_dir / name, name) if args.runs_dir else open_run(name)
    if changed and run.config != config:
        raise UserError(
            f"The run '{name}' was started with other settings; resume it with --resume {name} alone, or start a new run with --name."
        )
    return run


def _forget_smoke(root: Path | None, name: str | None) -> None:
    """A smoke run replaces the smoke run before it."""
    import shutil

    from . import places

    shutil.rmtree((root or places.runs_root()) / str(name), ignore_errors=True)


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
def _stoppable() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks the loop to stop after its step, the second stops at once."""
    asked = False

    def ask(signum, frame):
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nstopping after this step; Ctrl-C again to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


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
            bar = _bar(round(row["step"] / row["epoch"]) * c.epochs, row["step"])
        text = f"loss {row['loss']:.3f}" + (f" adversary {row['loss_adv']:.3f}" if "loss_adv" in row else "")
        text += f" (chance {row['chance']:.2f})" + (f", kNN {100 * knn:.1f} %" if knn is not None else "")
        if bar is not None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(row["step"] - bar.n)
        elif row["epoch"] == int(row["epoch"]):
            print(f"epoch {int(row['epoch'])}/{c.epochs}: {text}, {_time(row['seconds_left'])} left", flush=True)
    if bar is not None:
        bar.close()
    return row


def _bar(total: int, initial: int):
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    form = "{percentage:3.0f} % {bar} {n}/{total}, {remaining} left{postfix}"
    return tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, bar_format=form)


def _download_bar() -> Callable[[str, int, int], None] | None:
    """Progress of loading on a terminal: what is being done, how far, of how much."""
    if not sys.stderr.isatty():
        return None

    def show(what: str, done: int, total: int) -> None:
        of = f" of {total:,}" if total else ""
        print(f"\r{what}: {done:,}{of}", end="\n" if total and done >= total else "", file=sys.stderr, flush=True)

    return show


def _finish(run) -> None:
    from .results import wilson

    knn = [row["knn"] for row in run.rows() if row.get("knn") is not None]
    if knn:
        low, high = wilson(knn[-1], n := run.env["knn"]["test"])
        print(
            f"kNN {100 * knn[-1]:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}, {n} test images); untrained {100 * knn[0]:.1f} %"
        )
    print(f'{run.path}\nin a notebook: run = ex.open_run("{run.name}")')


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _runs(args: argparse.Namespace) -> int:
    from .runfolder import runs

    table = runs()
    if args.json:
        print(json.dumps(json.loads(table.to_json(orient="records"))))
    else:
        shown = table.copy()
        for column in ("knn", "knn_untrained"):
            shown[column] = [f"{100 * v:.1f} %" if v == v and v is not None else "" for v in shown[column]]
        print(shown.to_string(index=False, na_rep=""))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import diagnose

    report = diagnose()
    print(json.dumps(report.to_dict()) if args.json else report)
    return 0 if report.ok else 1


def _lab(args: argparse.Namespace) -> int:
    from .lab import open_lab

    return open_lab(args.notebook, port=args.port, browser=not args.no_browser)
