"""The graded copies under nbgrader and otter-grader themselves: solved notebooks get all points, spoiled and blank ones
none.

Both tools need an environment of their own; `make .venv-graders/.ready` makes it. Without GRADERS_ALL one notebook with
every exercise of the course is graded, once solved, once spoiled and once blank; with it (`make graders`) ten are solved
and ten spoiled, each in another way, and then every lesson's copy is graded.
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
TRIES = 10 if ALL else 1
GRADED = {"every": lesson_of_all()}
if ALL:
    GRADED |= {path.stem: book for path in LESSONS if list(copies.exercise_cells(book := read(path)))}

pytestmark = pytest.mark.skipif(
    not ((BIN / "nbgrader").exists() and (BIN / "otter").exists()),
    reason="nbgrader and otter-grader are not installed in .venv-graders: make graders",
)


def submissions(book: dict, given: dict, tries: int) -> dict[str, dict]:
    """What students hand in, by name: `given`, the copy that they get, answered rightly, wrongly or not at all."""
    functions = {function: exercise.name for *_, exercise, function in copies.exercise_cells(book)}
    made = {"blank": given}
    for kind, known in (("solved", RIGHT), ("spoiled", {n: [a for _, a in WRONG[n]] for n in WRONG})):
        for i in range(tries):
            handed = made[f"{kind}{i}"] = json.loads(json.dumps(given))
            for cell in handed["cells"]:
                head = re.search(r"^(?:def|class) (\w+)", copies.text_of(cell), re.M)
                if cell["cell_type"] == "code" and head and head[1] in functions:
                    name = functions[head[1]]
                    at = f"[{i % len(known[name])}]" + ("" if kind == "solved" else "[1]")
                    source = "RIGHT" if kind == "solved" else "WRONG"
                    text = f'from course_answers import {source}\n\n{head[1]} = {source}["{name}"]{at}'
                    if kind == "solved" and i == 0:  # the model answer, as the instructor has it
                        exercise = EXERCISES[name]
                        text = copies.renamed(exercise.code, exercise.solution.__name__, head[1])
                    cell["source"] = text.splitlines(keepends=True)
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
@pytest.mark.parametrize("grade", [by_nbgrader, by_otter], ids=["nbgrader", "otter"])
def test_a_grader_gives_all_points_or_none(grade, name, tmp_path):
    book, start = GRADED[name], time.perf_counter()
    tries = TRIES if name == "every" else 1
    points = grade(book, name, tmp_path, tries)
    most = sum(exercise.points for *_, exercise, _ in copies.exercise_cells(book))
    told = {
        kind: sorted({p for s, (p, _) in points.items() if s.startswith(kind)})
        for kind in ("solved", "spoiled", "blank")
    }
    print(f"\n{name}, {grade.__name__}: {told} of {most} points, {time.perf_counter() - start:.0f} s")
    assert {of for _, of in points.values()} == {most} and len(points) == 2 * tries + 1
    assert told == {"solved": [most], "spoiled": [0], "blank": [0]}, points
