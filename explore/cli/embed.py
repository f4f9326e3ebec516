"""python -m explore embed: a run's images in a map, as a table for any other viewer."""

import argparse
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from ..attack_table import ATTACK_MENU
from ..config import parse_eps
from ..errors import UserError, extra
from ..threads import sharing
from .shared import counting_line, spent, told

KINDS = (".parquet", ".csv")


def add(sub: Any) -> None:
    """Register the command."""
    about = "a map of a run's images, clean and under attack, as .parquet or .csv: x, y, class, the image itself, what changed in h"
    p = sub.add_parser("embed", help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.set_defaults(command=sharing(_embed))
    p.add_argument("run", metavar="RUN", help="a run's name")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.parquet or FILE.csv")
    p.add_argument("--map", default="umap", metavar="WORD", help="umap or pca")
    p.add_argument("--images", type=int, default=2000, metavar="N", help="how many, the classes in turn; 0: all")
    p.add_argument("--split", choices=("test", "train"), default="test", help="which images")
    p.add_argument("--attack", default="fgsm", metavar="WORD", help=f"one of {', '.join(ATTACK_MENU.values())}")
    p.add_argument(
        "--eps", type=told(_grid), default=[0.0], metavar="LIST", help="0,4/255,8/255: one row an image and eps"
    )
    p.add_argument("--neighbors", type=int, default=15, metavar="N", help="of UMAP")
    p.add_argument("--min-dist", type=float, default=0.1, metavar="X", help="of UMAP")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of UMAP, views and noise")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    p.add_argument("--json", action="store_true", help="one line of JSON")


def _grid(text: str) -> list[float]:
    return [parse_eps(part) for part in text.split(",")]


def _embed(args: argparse.Namespace) -> int:
    from ..results import png, to_pixels
    from ..studies import study_of

    if args.out.suffix not in KINDS:
        raise UserError(f"--out ends in .parquet or .csv, got '{args.out.name}'.")
    if args.out.parent != Path() and not args.out.parent.is_dir():
        raise UserError(f"There is no folder {args.out.parent} to write {args.out.name} in; make it first.")
    if args.images < 0:
        raise UserError(f"--images is 0 (all) or more, got {args.images}.")
    if args.map == "umap":  # before minutes of computing
        with extra("UMAP"):
            metadata.version("umap-learn")
    began = time.perf_counter()
    options = {"images": args.images or sys.maxsize, "attack": args.attack, "eps": args.eps, "method": args.map}
    options |= {"n_neighbors": args.neighbors, "min_dist": args.min_dist, "seed": args.seed}
    study = study_of(args.run, split=args.split, device=args.device, progress=_lines(), **options)
    found = study.atlas()
    table = found.table
    asked = table["eps"].isin(args.eps)  # the clean frame is always made
    pictures = {eps: study.pictures(k) for eps, k in zip(found.eps, found.ks, strict=True) if eps in args.eps}
    table = table[asked].rename(columns={"image": "index"}).reset_index(drop=True)
    table["image"] = [png(x) for eps in found.eps if eps in pictures for x in to_pixels(pictures[eps])]
    first = ["x", "y", "label", "class", "image"]
    table = table[first + [name for name in table.columns if name not in first]]
    provenance = {**found.provenance, "attack": found.attack, "map": found.provenance["map"]}
    write(table, args.out, provenance)
    clean = found.figures.iloc[0]
    row = {
        "command": "embed",
        "out": str(args.out),
        "rows": len(table),
        "trustworthiness": float(clean.trustworthiness),
    }
    text = f"{args.out}: {len(table):,} rows of {len(study):,} images, {args.map}, in {spent(time.perf_counter() - began)}; "
    text += f"trustworthiness {clean.trustworthiness:.3f} (1: every neighbour in the map is one in h)"
    print(json.dumps({**row, **provenance}) if args.json else text)
    return 0


def _lines() -> Any:
    """Progress on a terminal: loading and embedding count, stages have a line each."""
    count = counting_line()
    if count is None:
        return None

    def show(what: str, done: int, total: int) -> None:
        if total > 1:
            count(what, done, total)
        elif not done:
            print(f"{what} ...", file=sys.stderr, flush=True)

    return show


def write(table: Any, path: Path, provenance: dict[str, Any]) -> None:
    """Put a table on disk, all of it or nothing; parquet carries the provenance in its metadata."""
    from ..serialization import replacing

    table.attrs = {}
    if path.suffix == ".csv":
        with replacing(path) as file:
            file.write(table.to_csv(index=False).encode())
        return
    import pyarrow
    import pyarrow.parquet

    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    about = {**(arrow.schema.metadata or {}), b"clae-explorer": json.dumps(provenance).encode()}
    with replacing(path) as file:
        pyarrow.parquet.write_table(arrow.replace_schema_metadata(about), file)
