"""python -m explore reproduce."""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from .shared import spent
from .sweep import _how_to_go_on
from .train import _stoppable


def add(sub: Any) -> None:
    """Register the command."""
    about = "the claims of the paper and its rebuttal, measured again on CIFAR-10: tuned settings, several seeds, one row a method"
    p = sub.add_parser("reproduce", help=about, description=about)
    p.set_defaults(command=_reproduce)
    p.add_argument("--tier", default="cpu", help="cpu: a small network on two cores, hours; gpu: ResNet-18, 100 epochs")
    p.add_argument(
        "--row", action="append", default=[], metavar="NAME", help="this row of the table alone; may be given again"
    )
    p.add_argument("--seeds", type=int, metavar="N", help="the first N seeds of every row (default: all)")
    p.add_argument(
        "--baselines",
        action="store_true",
        help="the rows without learning alone: untrained network, k-means patches, random whitened patches",
    )
    p.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="as much as fits in M minutes, what is worth most first; again: goes on",
    )
    p.add_argument(
        "--pack", type=Path, metavar="DIR", help="with --minutes: small files of what is finished, for --take"
    )
    p.add_argument(
        "--take", type=Path, metavar="DIR", help="what another machine has finished and packed is not done again"
    )
    p.add_argument("--tune", action="store_true", help="choose the settings again instead of taking the shipped ones")
    p.add_argument("--data-dir", help="your own copy of CIFAR-10 (without it: downloaded)")
    p.add_argument("--root", type=Path, metavar="DIR", help="the folder that holds transfer sets")
    p.add_argument("--out", type=Path, metavar="DIR", help="cells, runs and tables (default: <runs>/reproduction)")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="trainings at once")
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads of each")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    p.add_argument("--json", action="store_true", help="one line of JSON")


def _reproduce(args: argparse.Namespace) -> int:
    from ..studies.reproduction import run as r
    from ..studies.reproduction.rows import by_worth, rows, rows_named, tier_named

    if args.seeds is not None and args.seeds < 1:
        raise UserError(f"--seeds is 1 or more, got {args.seeds}.")
    if args.minutes is not None and not args.minutes >= 0:
        raise UserError(f"--minutes is 0 (the table of what is finished) or more, got {args.minutes:g}.")
    if args.minutes is None and args.pack is not None:
        raise UserError("--pack goes with --minutes; --minutes 0 packs what is finished.")
    if args.minutes is not None and args.workers > 1:
        raise UserError(f"--minutes trains one after the other, got --workers {args.workers}; leave one of them out.")
    tier, out = tier_named(args.tier, args.data_dir), args.out or r.default_out()
    if args.baselines:
        return _baselines(args, tier, out)
    with _stoppable() as should_stop:
        engine = {"workers": args.workers, "threads": args.threads, "device": args.device, "should_stop": should_stop}
        engine |= {"progress": _say}
        recipes = (
            None
            if args.tune
            else tier.recipes or r.recipes_of(out / tier.name) or r.recipes_of(r.shipped_folder(tier.name))
        )
        with contextlib.suppress(r.Stopped):
            if recipes is None:
                recipes = r.tune(tier, out, **engine)
                r.keep_recipes(out / tier.name, tier, recipes, out)
            lines = rows_named(args.row, rows(tier, recipes))
            cells = by_worth(lines, tier, args.seeds)
            if args.take is not None:
                from ..studies.reproduction.carry import take

                print(f"{take(args.take, out)} trainings taken from {args.take}", file=sys.stderr)
            if args.minutes is not None:
                return _in_time(args, cells, lines, out, engine)
            r.train_rows(cells, out, **engine)
            return _row_table(args, lines, out) if args.row else _whole(args, tier, lines, out)
    _how_to_go_on()
    return 130


def _baselines(args: argparse.Namespace, tier: Any, out: Path) -> int:
    """Measure the rows without learning and save their table."""
    from ..studies.reproduction.baselines import baselines

    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    found = baselines(tier, out, seeds=args.seeds or 3, device=args.device, say=say)
    found.save(out / tier.name / "baselines")
    table = found.summary()[["method", "metric", "mean", "low", "high", "n"]]
    if args.json:
        print(json.dumps({"tier": tier.name, "rows": json.loads(table.to_json(orient="records"))}))
    else:
        print(table.to_string(index=False, float_format=lambda v: f"{v:.4f}", na_rep=""))
    return 0


def _in_time(args: argparse.Namespace, cells: list[Any], lines: list[Any], out: Path, engine: dict[str, Any]) -> int:
    """As many cells as fit, and the table of what is there."""
    from ..studies.reproduction import run as r

    left = r.train_for(args.minutes, cells, out, **engine)
    print(
        f"{len(cells) - len(left)} of {len(cells)} trainings are finished; the same command goes on.", file=sys.stderr
    )
    from ..studies.reproduction.carry import pack

    pack(cells, out, out / args.tier)
    if args.pack is not None:
        pack(cells, out, args.pack, encoders=3)  # of ResNet-18: two files each
    if len(left) == len(cells):
        print("None is finished yet.", file=sys.stderr)
        return 0
    r.table(lines, out, seeds=args.seeds).save(out / args.tier / "rows")
    return _row_table(args, lines, out)


def _say(stage: str, done: Any, progress: Any) -> None:
    """A line a training, on the error stream."""
    c = done.cell.config
    found = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in (done.record or {"rows": []})["rows"])
    left = "" if progress.seconds_left is None else f", about {spent(progress.seconds_left)} left"
    kept = " (from disk)" if done.kept else ""
    line = f"{stage} {progress.through}/{len(progress.jobs)} {c.label}: {done.error or found}{kept}{left}"
    print(line, file=sys.stderr, flush=True)


def _row_table(args: argparse.Namespace, lines: list[Any], out: Path) -> int:
    """The rows asked for, beside what is shipped of them."""
    from ..studies.reproduction import run as r

    found = r.beside(r.table(lines, out, seeds=args.seeds), r.shipped_folder(args.tier))
    if args.json:
        print(json.dumps({"tier": args.tier, "rows": json.loads(found.to_json(orient="records"))}))
    else:
        print(found.to_string(index=False, float_format=lambda v: f"{v:.4f}", na_rep=""))
    return 0


def _whole(args: argparse.Namespace, tier: Any, lines: list[Any], out: Path) -> int:
    """Save the tables, judge the claims by them."""
    from ..studies.reproduction import run as r
    from ..studies.reproduction.claims import scorecard

    folder = out / tier.name
    r.table(lines, out, seeds=args.seeds).save(folder / "rows")
    r.looks(lines, out, root=args.root, say=lambda line: print(line, file=sys.stderr, flush=True)).save(
        folder / "looks"
    )
    card = scorecard(tier.name, folder)
    if args.json:
        found = {"tier": tier.name, "claims": json.loads(card.verdicts.to_json(orient="records"))}
        if (f := card.family) is not None:
            found["comparisons"] = {"n": len(f), "p_below_0.05": f.below, "p_holm_below_0.05": f.below_holm}
        print(json.dumps(found))
    else:
        shown = card.verdicts.drop(columns="source").rename(columns={"p_holm": "p (Holm)", "could_show": "could show"})
        print(shown.to_string(index=False))
        if card.family is not None:
            print(f"{card.family}; {card.family.could_show}.")
        print(f"{folder}: rows, looks (.csv, .parquet, .json), recipes.json")
    return 0
