"""python -m explore course: the lessons' copies for a class."""

import argparse
from pathlib import Path


def add(sub: argparse._SubParsersAction) -> None:
    """The command's options."""
    p = sub.add_parser("course", help="write the lessons for students, instructors, self-study and graders to a folder")
    p.add_argument("folder", type=Path, help="a new or empty folder")
    p.set_defaults(command=_course)


def _course(args: argparse.Namespace) -> int:
    from ..course.copies import write_copies

    print(write_copies(args.folder))
    return 0
