"""python -m benchmarks step|train|epoch|views|attack|memory|ranks|import|panel|probe|sweep|engines|map|film|busy|classroom|kills|long_use [--quick] [--device auto]: a table, then one line of JSON."""

import argparse
import json
import sys
from importlib import import_module

from explore.errors import UserError

NAMES = {
    "train": "train",
    "epoch": "epoch",
    "attack": "attack",
    "memory": "memory",
    "ranks": "ranks",
    "step": "step",
    "views": "views",
    "import": "imports",
    "panel": "panel",
    "probe": "probe",
    "sweep": "sweep",
    "engines": "engines",
    "map": "maps",
    "film": "film",
    "busy": "busy",
    "classroom": "classroom",
    "kills": "kills",
    "long_use": "long_use",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions and smaller batches: a look, not a figure"
    )
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        figures = import_module(f".{NAMES[args.name]}", __package__).run(args.quick, args.device)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
