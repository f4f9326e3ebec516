"""Copies of the lessons for a class, made from the same notebooks and exercises: for students,
instructors and self-study, and the exercises in code for nbgrader and otter-grader.

A cell that ends with `ex.course.check("name", function)` is an exercise in code; its model answer
and known mistakes stand with the exercise. A cell whose metadata have `course.answer` is a
question; that line answers it.
"""

import ast
import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import UserError
from ..lab import lessons
from . import EXERCISES
from .exercise import Exercise

Cell = dict[str, Any]
Book = dict[str, Any]
_CHECK = re.compile(r'^ex\.course\.check\("(\w+)", (\w+)\)\s*$', re.M)
_STUB = "raise NotImplementedError"
_SETUP = "import torch\n\nimport explore as ex"
_ABOUT = {
    "student": "The lessons, as learners get them: exercises are stubs.",
    "instructor": "With answers, what to expect and common mistakes; not for students.",
    "self-study": "The lessons with every answer folded under its exercise.",
    "nbgrader": "The exercises in code for nbgrader: copy `source/` into a course's folder, then `nbgrader generate_assignment`.",
    "otter": "The exercises in code for otter-grader: `otter assign LESSON.ipynb dist` makes both of its copies.",
}


@dataclass(frozen=True)
class Copies:
    """The folders that were written, and how many notebooks each has."""

    folder: Path
    notebooks: dict[str, int]

    def __str__(self) -> str:
        lines = [f"  {name:11} {n:2} notebooks  {_ABOUT[name]}" for name, n in self.notebooks.items()]
        return "\n".join([f"{self.folder}:", *lines])


def write_copies(folder: str | Path) -> Copies:
    """Write all copies to a folder that is new or empty."""
    out, written = Path(folder).expanduser(), {}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; name a new folder for the course's copies, none is overwritten.")
    for name, change in _CHANGES.items():
        written[name] = 0
        for lesson in lessons():
            source = paths.notebooks() / lesson
            if source.suffix != ".ipynb":
                if name not in ("nbgrader", "otter"):
                    (out / name).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, out / name / lesson)
                continue
            book = change(json.loads(source.read_text(encoding="utf-8")))
            if book is None:
                continue
            place = out / name / ("source" if name == "nbgrader" else "") / (source.stem if name == "nbgrader" else "")
            place.mkdir(parents=True, exist_ok=True)
            (place / lesson).write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            written[name] += 1
    return Copies(out, written)


def exercise_cells(book: Book) -> Iterator[tuple[int, int, Exercise, str]]:
    """Every exercise in code: places of the cell to write in and of the cell with the check, the
    exercise, the function's name in the lesson.
    """
    for i, cell in enumerate(book["cells"]):
        for name, function in _CHECK.findall(text_of(cell)) if cell["cell_type"] == "code" else ():
            back = (j for j in range(i, -1, -1) if _STUB in text_of(book["cells"][j]))
            at = next(back, None)
            if at is not None and name in EXERCISES:
                yield at, i, EXERCISES[name], function


def student(book: Book) -> Book:
    """The lesson without answers in its metadata."""
    book = copy.deepcopy(book)
    for cell in book["cells"]:
        cell["metadata"].pop("course", None)
    return book


def instructor(book: Book) -> Book:
    """With answers in place, nothing folded, and a note after each exercise."""
    made = student(book)
    for i, cell in enumerate(made["cells"]):
        cell["source"] = text_of(cell).replace("<details>", "<details open>").splitlines(keepends=True)
        answer = book["cells"][i]["metadata"].get("course", {}).get("answer")
        if answer:
            _set(cell, _answered(text_of(cell), answer))
    notes = []
    for at, check, exercise, function in exercise_cells(book):
        named = renamed(exercise.code, exercise.solution.__name__, function)
        _set(
            made["cells"][at], named + (f'\n\n\nex.course.check("{exercise.name}", {function})' if at == check else "")
        )
        notes.append((check, _note(exercise)))
    return _with(made, notes)


def self_study(book: Book) -> Book:
    """With each answer folded after its exercise."""
    notes = []
    for i, cell in enumerate(book["cells"]):
        answer = cell["metadata"].get("course", {}).get("answer")
        if answer:
            notes.append(
                (i, _folded("Answer", f"Write this line instead, and run the cell:\n\n```python\n{answer}\n```"))
            )
    for _, check, exercise, function in exercise_cells(book):
        code = renamed(exercise.code, exercise.solution.__name__, function)
        notes.append((check, _folded("Solution", f"```python\n{code}\n```\n\n{exercise.expect}")))
    return _with(student(book), notes)


def nbgrader(book: Book) -> Book | None:
    """nbgrader's source of the lesson's exercises in code (schema 3); None if it has none."""

    def cells(exercise: Exercise, function: str, code: str, task: str) -> list[Cell]:
        solved = marked(code, "### BEGIN SOLUTION", "### END SOLUTION")
        test = f'ex.course.grade("{exercise.name}", {function})'
        about = {"schema_version": 3, "task": False}
        answer = {"grade": False, "grade_id": exercise.name, "locked": False, "solution": True, **about}
        graded = {"grade": True, "grade_id": f"{exercise.name}-test", "locked": True, "solution": False, **about}
        return [
            _cell("markdown", exercise.name + "-task", task),
            _cell("code", exercise.name, solved, nbgrader=answer),
            _cell("code", exercise.name + "-test", test, nbgrader={**graded, "points": exercise.points}),
        ]

    return _graded(book, cells)


def otter(book: Book) -> Book | None:
    """otter-grader's master notebook of the lesson's exercises in code; None if it has none."""

    def cells(exercise: Exercise, function: str, code: str, task: str) -> list[Cell]:
        solved = marked(code, "# BEGIN SOLUTION", "# END SOLUTION")
        test = f'verdict = ex.course.exercise("{exercise.name}").judge({function})\nassert verdict.right, verdict.text'
        begin = f"# BEGIN QUESTION\nname: {exercise.name}\npoints: {exercise.points}"
        parts = [("raw", begin), ("markdown", task), ("raw", "# BEGIN SOLUTION"), ("code", solved)]
        parts += [("raw", "# END SOLUTION"), ("raw", "# BEGIN TESTS"), ("code", test)]
        parts += [("raw", "# END TESTS"), ("raw", "# END QUESTION")]
        return [_cell(kind, f"{exercise.name}-{i}", text) for i, (kind, text) in enumerate(parts)]

    config = "# ASSIGNMENT CONFIG\ninit_cell: true\nexport_cell: false\ngenerate: true"
    return _graded(book, cells, _cell("raw", "config", config))


_CHANGES: dict[str, Callable[[Book], Book | None]] = {
    "student": student,
    "instructor": instructor,
    "self-study": self_study,
    "nbgrader": nbgrader,
    "otter": otter,
}


def _graded(book: Book, cells: Callable[[Exercise, str, str, str], list[Cell]], *first: Cell) -> Book | None:
    """A notebook of the lesson's title and its exercises in code: no panel opens under a grader."""
    made = []
    for at, _, exercise, function in exercise_cells(book):
        code = renamed(exercise.code, exercise.solution.__name__, function)
        points = f"{exercise.minutes} minutes, {exercise.difficulty}, points: {exercise.points}"
        made += cells(exercise, function, code, f"## {exercise.title}\n{_task(book, at)}\n\n({points})")
    if not made:
        return None
    title = text_of(book["cells"][0]).splitlines()[0]
    top = [_cell("markdown", "title", f"{title}: exercises in code"), _cell("code", "setup", _SETUP)]
    rest = {key: value for key, value in book.items() if key != "cells"}
    return {**rest, "cells": [*first, *top, *made]}


def _task(book: Book, at: int) -> str:
    """The lesson's own text above an exercise's cell, without a heading."""
    before = book["cells"][at - 1]
    lines = text_of(before).splitlines() if before["cell_type"] == "markdown" else []
    return "\n".join(line for line in lines if not line.startswith("#")).strip()


def marked(code: str, begin: str, end: str) -> str:
    """A model answer with marks around the bodies that a student writes.

    Outside them stay the heads, a function's docstring, and a class's call of super().__init__.
    """
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            kept = [i for i, part in enumerate(node.body) if "super()" in ast.unparse(part) or _is_text(part)]
            first = node.body[kept[-1] + 1 if kept else 0]
            indent = " " * first.col_offset
            lines[first.lineno - 1] = f"{indent}{begin}\n{lines[first.lineno - 1]}"
            last = (node.body[-1].end_lineno or 0) - 1
            lines[last] = f"{lines[last]}\n{indent}{end}"
            if code.startswith("def "):  # functions within it are part of the body
                break
    return "\n".join(lines)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def renamed(code: str, name: str, wanted: str) -> str:
    """A model answer under the name that the lesson has for it."""
    return re.sub(rf"\b(def|class) {name}\b", rf"\1 {wanted}", code, count=1)


def _answered(code: str, answer: str) -> str:
    """The line that sets the answer's variable, replaced by the answer."""
    name = answer.split(" = ", 1)[0]
    return re.sub(rf"^{name} = .*$", lambda _: answer, code, count=1, flags=re.M)


def _note(exercise: Exercise) -> str:
    mistakes = {m.kind: m.hint for m in exercise.mistakes}
    return "\n".join(
        [
            f"**For the instructor: {exercise.name}** ({exercise.minutes} minutes, {exercise.difficulty}, "
            f"points: {exercise.points})\n",
            f"*What to expect.* {exercise.expect}\n",
            "*Common mistakes*, as the checker names them:\n",
            *[f"- *{kind}*: {hint}" for kind, hint in mistakes.items()],
        ]
    )


def _folded(title: str, text: str) -> str:
    return f"<details>\n<summary><b>{title}</b></summary>\n\n{text}\n\n</details>"


def _with(book: Book, notes: list[tuple[int, str]]) -> Book:
    """Each note as a text cell after the cell at its place."""
    for place, note in sorted(notes, reverse=True):
        book["cells"].insert(place + 1, _cell("markdown", book["cells"][place]["id"] + "-note", note))
    return book


def _cell(kind: str, name: str, text: str, **metadata: Any) -> Cell:
    cell: Cell = {"cell_type": kind, "id": name.replace("_", "-"), "metadata": metadata}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell | {"source": text.splitlines(keepends=True)}


def text_of(cell: Cell) -> str:
    """A cell's source as one text."""
    return "".join(cell["source"])


def _set(cell: Cell, text: str) -> None:
    cell["source"] = text.splitlines(keepends=True)
