"""The graded copies under nbgrader and otter-grader themselves: solved notebooks get all points, spoiled and blank ones
none.

Both tools need an environment of their own; `make .venv-graders/.ready` makes it. Without GRADERS_ALL one notebook is
handed in to nbgrader that has every exercise of the course, a third of them solved, a third spoiled and a third blank.
With it (`make graders`, a quarter of an hour) ten such notebooks are solved and ten spoiled, each in another way, and
every lesson's copy is solved, spoiled and blank, for nbgrader and for otter-grader.
"""

import csv
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from course_answers import RIGHT, WRONG
from test_course_copies import LESSONS, lesson_of_all, read

from explore.course import EXERCISES, copies

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv-graders" / "bin"
ALL = bool(os.environ.get("GRADERS_ALL"))
KINDS = ("solved", "spoiled", "blank")
GRADED = {"every": lesson_of_all()}
if ALL:
    GRADED |= {path.stem: book for path in LESSONS if list(copies.exercise_cells(book := read(path)))}

pytestmark = pytest.mark.skipif(
    not (BIN / "nbgrader").exists() or (ALL and not (BIN / "otter").exists()),
    reason="nbgrader and otter-grader are not installed in .venv-graders: make graders",
)


def answer(name: str, function: str, kind: str, i: int) -> str:
    """The cell of a student: the model answer, another right one, or a wrong one."""
    exercise = EXERCISES[name]
    if kind == "solved" and i == 0:
        return copies.renamed(exercise.code, exercise.solution.__name__, function)
    known, source = (RIGHT, f'RIGHT["{name}"]') if kind == "solved" else (WRONG, f'WRONG["{name}"]')
    at = f"[{i % len(known[name])}]" + ("[1]" if kind == "spoiled" else "")
    return f"from course_answers import {source.split('[')[0]}\n\n{function} = {source}{at}"


def submissions(book: dict, given: dict, tries: int) -> dict[str, dict]:
    """What students hand in, by name, made of the copy that they are given; `tries` 0: one of all kinds."""
    functions = {function: exercise.name for *_, exercise, function in copies.exercise_cells(book)}
    students = {f"{kind}{i}": (kind, i) for kind in KINDS[:2] for i in range(tries)}
    made = {}
    for student, (kind, i) in (students | {"blank": ("blank", 0)} if tries else {"mixed": ("mixed", 0)}).items():
        handed = made[student] = json.loads(json.dumps(given))
        for cell in handed["cells"]:
            head = re.search(r"^(?:def|class) (\w+)", copies.text_of(cell), re.M)
            if cell["cell_type"] == "code" and head and head[1] in functions:
                name = functions[head[1]]
                this = KINDS[list(functions.values()).index(name) % 3] if kind == "mixed" else kind
                if this != "blank":
                    cell["source"] = answer(name, head[1], this, i).splitlines(keepends=True)
    return made


def run(folder: Path, *command: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTEST", "COV"))}
    env |= {"HOME": str(folder), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def write(book: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(book), encoding="utf-8")


def by_nbgrader(book: dict, name: str, folder: Path, tries: int) -> dict[str, tuple[float, float]]:
    """(points, of how many) of every submission."""
    here = Path(name) / f"{name}.ipynb"
    (folder / "nbgrader_config.py").write_text('c = get_config()\nc.CourseDirectory.course_id = "clae"\n')
    write(copies.nbgrader(book), folder / "source" / here)
    run(folder, "nbgrader", "generate_assignment", name, "--create", "--force")
    for student, handed in submissions(book, read(folder / "release" / here), tries).items():
        write(handed, folder / "submitted" / student / here)
    run(folder, "nbgrader", "autograde", name, "--create")
    run(folder, "nbgrader", "export")
    with open(folder / "grades.csv", newline="") as table:
        return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(table)}


def by_otter(book: dict, name: str, folder: Path, tries: int) -> dict[str, tuple[float, float]]:
    """(points, of how many) of every submission."""
    write(copies.otter(book), folder / f"{name}.ipynb")
    run(folder, "otter", "assign", f"{name}.ipynb", "dist")
    (tests,) = (folder / "dist" / "autograder").glob("*.zip")
    points = {}
    for student, handed in submissions(book, read(folder / "dist" / "student" / f"{name}.ipynb"), tries).items():
        write(handed, folder / student / f"{name}.ipynb")
        run(folder, "otter", "run", "-a", str(tests), "-o", student, f"{student}/{name}.ipynb")
        parts = [t for t in read(folder / student / "results.json")["tests"] if t.get("max_score")]
        points[student] = (sum(t["score"] for t in parts), sum(t["max_score"] for t in parts))
    return points


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADED)
@pytest.mark.parametrize("grade", [by_nbgrader, by_otter] if ALL else [by_nbgrader], ids=lambda grade: grade.__name__)
def test_a_grader_gives_all_points_or_none(grade, name, tmp_path):
    book, start = GRADED[name], time.perf_counter()
    tries = 10 if ALL and name == "every" else int(ALL)
    points = grade(book, name, tmp_path, tries)
    each = [exercise.points for *_, exercise, _ in copies.exercise_cells(book)]
    told = {kind: sorted({p for s, (p, _) in points.items() if s.startswith(kind)}) for kind in (*KINDS, "mixed")}
    print(f"\n{name}, {grade.__name__}: {told} of {sum(each)} points, {time.perf_counter() - start:.0f} s")
    assert {of for _, of in points.values()} == {sum(each)} and len(points) == (2 * tries + 1)
    right = {"solved": sum(each), "spoiled": 0, "blank": 0} if tries else {"mixed": sum(each[::3])}
    assert {kind: p for kind, p in told.items() if p} == {kind: [p] for kind, p in right.items()}, points
