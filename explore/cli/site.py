"""python -m explore site: the lessons as a static site."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add(sub: Any) -> None:
    """Register the command."""
    about = "run the lessons and write them as a static site whose panels work in the browser (minutes)"
    p = sub.add_parser("site", help=about, description=about)
    p.set_defaults(command=_site)
    p.add_argument("out", metavar="OUT", type=Path, help="the folder: new, or an earlier site's")
    p.add_argument(
        "notebooks", metavar="NOTEBOOK", nargs="*", help="lessons or notebooks of your own; else all lessons"
    )
    p.add_argument("--json", action="store_true", help="one line of JSON")


def _site(args: argparse.Namespace) -> int:
    from ..site import build

    pages = build(args.out, args.notebooks, tell=lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps([{"file": str(page.file), "title": page.title, "bytes": page.size} for page in pages]))
    else:
        print(f"{args.out / 'index.html'}: lessons: {len(pages)}; any web server can serve the folder.")
    return 0
