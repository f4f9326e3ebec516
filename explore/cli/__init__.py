"""The command line: python -m explore train | probe | knn | robust | transfer | sweep | jobs | reproduce | embed | course | site | runs | doctor | lessons | lab."""

import argparse
import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..errors import UserError
from ..system import plain_consoles
from . import course, embed, jobs, judge, reproduce, site, sweep, train


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 with one sentence on bad input, 130 when stopped by Ctrl-C."""
    plain_consoles()
    try:
        args = _parser().parse_args(argv)
        return args.command(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR) or not error.filename:
            raise
        print(
            f"error: {error.filename} cannot be used ({error.strerror}); runs go to the folder that CLAE_RUNS names, "
            "downloads and what is kept to CLAE_CACHE.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m explore", description=__doc__)
    parser.add_argument("--version", action="version", version=f"clae-explorer {__version__}")
    sub = parser.add_subparsers(
        required=True,
        metavar="train | probe | knn | robust | transfer | sweep | jobs | reproduce | embed | course | site | runs | doctor | lessons | lab",
        parser_class=_Parser,
    )

    for module in (train, judge, sweep, jobs, reproduce, embed, course, site):
        module.add(sub)
    p = sub.add_parser("runs", help="list the runs")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    p.set_defaults(command=_runs)
    p = sub.add_parser("doctor", help="what is here, and what to do")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    p.set_defaults(command=_doctor)
    p = sub.add_parser("lessons", help="copy the notebooks to a folder; what is there is never overwritten")
    p.add_argument("folder", nargs="?", type=Path, help="clae-lessons if none is named")
    p.set_defaults(command=_lessons)
    p = sub.add_parser("lab", help="open the notebooks in JupyterLab")
    p.add_argument("notebook", nargs="?", default="00_start_here.ipynb", help="which notebook to open")
    p.add_argument(
        "--folder", type=Path, help="copy the notebooks there first (installed without a checkout: clae-lessons)"
    )
    p.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    p.add_argument("--port", type=int, default=8888)
    p.set_defaults(command=_lab)
    return parser


def _runs(args: argparse.Namespace) -> int:
    from ..runfolder import runs

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
    from ..doctor import diagnose

    report = diagnose()
    print(json.dumps(report.to_dict()) if args.json else report)
    return 0 if report.ok else 1


def _lessons(args: argparse.Namespace) -> int:
    from ..lab import FOLDER, copy_lessons

    copied = copy_lessons(args.folder or FOLDER)
    print(f"{copied}\nOpen them with: clae-explorer lab --folder {copied.folder}")
    return 0


def _lab(args: argparse.Namespace) -> int:
    from ..lab import open_lab

    return open_lab(args.notebook, folder=args.folder, port=args.port, browser=not args.no_browser)
