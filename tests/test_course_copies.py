"""The lessons' exercises, and the copies for a class that are made from them."""

import json
import re
from pathlib import Path

import pytest
import torch

import explore as ex
from explore.cli import main
from explore.course import EXERCISES, copies

LESSONS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
SPOILED = ("lambda *arguments: None", "lambda *arguments: arguments[0]", "None")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("course") / "copies"
    assert main(["course", str(out)]) == 0
    return out


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_lessons_exercises_are_those_of_the_course(path):
    book = read(path)
    for at, check, exercise, function in copies.exercise_cells(book):
        assert exercise.lesson == path.stem[:2]
        task = copies.text_of(book["cells"][at - 1])
        assert f"({exercise.minutes} minutes, {exercise.difficulty})" in task
        if at == check:
            assert copies.text_of(book["cells"][at]) == copies.renamed(
                exercise.cell, exercise.solution.__name__, function
            ).replace(f", {exercise.solution.__name__})", f", {function})")
    for cell in book["cells"]:
        answer = cell["metadata"].get("course", {}).get("answer")
        text = copies.text_of(cell)
        assert bool(answer) == bool(re.search(r"# your answer$|^picked = ", text, re.M))
        if answer:
            compile(answer, path.name, "exec")
            assert copies._answered(text, answer).splitlines().count(answer) == 1


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_what_answers_a_prediction_is_folded(path):
    predicted = False
    for cell in read(path)["cells"]:
        text = copies.text_of(cell)
        if cell["cell_type"] != "markdown":
            continue
        before, answer, after = text.partition("What you should see")
        if answer and predicted:
            assert before.endswith("<details>\n<summary><b>") and "\n</details>" in after
            predicted = False
        predicted = (predicted and not answer) or "**Predict" in (after or before)
        assert text.count("<details>") == text.count("</details>") == text.count("</summary>\n\n")


def test_every_copy_is_written_once(folder, capsys):
    names = [p.name for p in LESSONS]
    for copy in ("student", "instructor", "self-study"):
        assert sorted(p.name for p in (folder / copy).glob("*.ipynb")) == names
        assert (folder / copy / "method.svg").is_file()
    assert main(["course", str(folder)]) == 2 and "is not empty" in capsys.readouterr().err


def test_students_get_no_answers(folder):
    for path in LESSONS:
        for copy in ("student", "self-study", "instructor"):
            book = read(folder / copy / path.name)
            assert not [c for c in book["cells"] if "course" in c["metadata"] or c.get("outputs")]
            assert len({c["id"] for c in book["cells"]}) == len(book["cells"])
        assert [copies.text_of(c) for c in read(folder / "student" / path.name)["cells"]] == [
            copies.text_of(c) for c in read(path)["cells"]
        ]


def test_instructors_get_answers_and_mistakes_and_self_study_folds_them(folder):
    for path in LESSONS:
        teacher = "\n\n".join(map(copies.text_of, read(folder / "instructor" / path.name)["cells"]))
        alone = "\n\n".join(map(copies.text_of, read(folder / "self-study" / path.name)["cells"]))
        assert "raise NotImplementedError" not in teacher and "<details>" not in teacher
        for *_, exercise, function in copies.exercise_cells(read(path)):
            code = copies.renamed(exercise.code, exercise.solution.__name__, function)
            assert code in teacher and f'ex.course.check("{exercise.name}", {function})' in teacher
            assert all(f"- *{m.kind}*: {m.hint}" in teacher for m in exercise.mistakes)
            assert f"<summary><b>Solution</b></summary>\n\n```python\n{code}\n```" in alone
        for cell in read(path)["cells"]:
            answer = cell["metadata"].get("course", {}).get("answer")
            assert not answer or (f"\n{answer}\n" in f"\n{teacher}\n" and f"```python\n{answer}\n```" in alone)


def lesson_of_all() -> dict:
    """A lesson with every exercise."""
    cells = []
    for exercise in EXERCISES.values():
        cells.append({"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["Write it."]})
        cells.append({"cell_type": "code", "id": "b", "metadata": {}, "source": exercise.cell.splitlines(True)})
    title = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": ["# All"]}
    return {**read(LESSONS[0]), "cells": [title, *cells]}


def graded():
    """(name, solution, test) of every exercise in nbgrader's and in otter's copy, as code."""
    made = copies.nbgrader(lesson_of_all())
    cells = {c["metadata"]["nbgrader"]["grade_id"]: c for c in made["cells"] if c["metadata"]}
    for name in EXERCISES:
        answer, check = cells[name]["metadata"]["nbgrader"], cells[f"{name}-test"]["metadata"]["nbgrader"]
        assert answer["solution"] and not answer["grade"] and not answer["locked"] and answer["schema_version"] == 3
        assert (
            check["grade"] and check["locked"] and not check["solution"] and check["points"] == EXERCISES[name].points
        )
        yield name, copies.text_of(cells[name]), copies.text_of(cells[f"{name}-test"])
    texts = [copies.text_of(c) for c in copies.otter(lesson_of_all())["cells"]]
    for i, text in enumerate(texts):
        if text.startswith("# BEGIN QUESTION"):
            assert texts[i + 2] == "# BEGIN SOLUTION" and texts[i + 5] == "# BEGIN TESTS"
            yield re.search(r"name: (\w+)", text)[1], texts[i + 3], texts[i + 6]


def test_graded_copies_give_points_to_solved_and_none_to_spoiled_notebooks():
    """Each exercise solved, and spoiled in four ways, for each grader; test_graders.py runs the tools themselves."""
    seen = []
    for name, solved, test in graded():
        exec(solved, place := {"torch": torch, "ex": ex})
        exec(test, place)
        function = EXERCISES[name].solution.__name__
        blank = re.sub(r"(?s)( *)#+ BEGIN SOLUTION.*?END SOLUTION", r"\1raise NotImplementedError()", solved)
        exec(blank, stub := {"torch": torch, "ex": ex})
        wrong = [stub, *({"ex": ex, function: eval(text)} for text in SPOILED)]
        for spoiled in wrong:
            with pytest.raises(AssertionError, match=r"Not|must be"):
                exec(test, spoiled)
        seen.append(name)
    assert sorted(seen) == sorted(2 * list(EXERCISES))


def test_no_panel_opens_under_a_grader(folder):
    made = [*(folder / "nbgrader" / "source").rglob("*.ipynb"), *(folder / "otter").glob("*.ipynb")]
    written = [path for path in LESSONS if list(copies.exercise_cells(read(path)))]
    assert len(made) == 2 * len(written) > 0
    for path in made:
        text = "\n".join(copies.text_of(c) for c in read(path)["cells"] if c["cell_type"] == "code")
        assert "panel" not in text and text.startswith("import torch\n\nimport explore as ex")
