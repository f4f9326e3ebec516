"""python -m explore site, slides: the lessons as a static site, and a lecture made from them."""

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
    about = "run the lessons and write a lecture of 45 minutes as slides that need no network (minutes)"
    p = sub.add_parser("slides", help=about, description=about)
    p.set_defaults(command=_slides)
    p.add_argument("out", metavar="OUT", type=Path, help="the folder: new, or earlier slides'")
    p.add_argument("deck", metavar="DECK", nargs="?", help="a Markdown file of your own, beside its notebooks")
    p.add_argument("--reveal", metavar="FILE", help="reveal.js's npm archive, instead of a download")


def _site(args: argparse.Namespace) -> int:
    from ..site import build

    pages = build(args.out, args.notebooks, tell=lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps([{"file": str(page.file), "title": page.title, "bytes": page.size} for page in pages]))
    else:
        print(f"{args.out / 'index.html'}: lessons: {len(pages)}; any web server can serve the folder.")
    return 0


def _slides(args: argparse.Namespace) -> int:
    from ..site.slides import build_slides

    page = build_slides(
        args.out, args.deck, reveal=args.reveal, tell=lambda line: print(line, file=sys.stderr, flush=True)
    )
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{page}: {size / 1e6:.1f} MB with its folder; any browser opens it, S opens the speaker's window.")
    return 0
