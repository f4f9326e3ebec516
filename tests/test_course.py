"""The exercises' checkers: every right way is accepted, every known mistake named; numbers and names are judged in kind."""

import doctest
import math

import numpy as np
import pytest
import torch
from course_answers import ALWAYS, RIGHT, WRONG

import explore as ex
from explore.course import EXERCISES, Question, exercise, question

NAMES = list(EXERCISES)
PLANTED = [(name, kind, answer) for name in NAMES for kind, answer in WRONG[name]]


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_are_accepted_in_every_way(name, generator):
    for answer in (*RIGHT[name], exercise(name).solution):
        verdict = exercise(name).judge(answer, generator)
        assert verdict.right and verdict.kind == "right", verdict
    assert len(RIGHT[name]) >= 3


@pytest.mark.parametrize(("name", "kind", "answer"), PLANTED, ids=[f"{n}-{k}" for n, k, _ in PLANTED])
def test_a_planted_mistake_is_refused_by_its_own_name(name, kind, answer, generator):
    verdict = exercise(name).judge(answer, generator)
    assert not verdict.right and verdict.kind == kind, verdict
    hints = {m.kind: m.hint for m in exercise(name).mistakes}
    assert kind not in hints or hints[kind] in verdict.text
    assert verdict.text.count("\n") == 0 and "Traceback" not in verdict.text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_answer_is_said_so(name, generator):
    for kind, answer in ALWAYS:
        verdict = exercise(name).judge(answer, generator)
        if name == "dual_batch_norm" and kind in ("wrong arguments", "wrong type"):  # called within a module
            assert not verdict.right and "\n" not in verdict.text
        else:
            assert not verdict.right and verdict.kind == kind, verdict
    assert len({kind for kind, _ in WRONG[name]}) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_every_known_mistake_is_named_on_other_input(name):
    """Each is told from the right answer by far more than the margin: on input that no other test has."""
    asked = exercise(name)
    for mistake in asked.mistakes:
        verdict = asked.judge(mistake.variant, torch.Generator().manual_seed(11))
        assert not verdict.right and verdict.kind == mistake.kind, verdict


def test_fresh_input_at_every_call_and_the_same_with_a_generator():
    drawn = [exercise("fgsm").draw(torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)]
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(drawn[2])
    seen = []
    for _ in range(2):
        ex.course.check(
            "project", lambda x_adv, x, eps: seen.append(x) or ex.course.exercise("project").solution(x_adv, x, eps)
        )
    assert len(seen) == 6 and not any(a.equal(b) for i, a in enumerate(seen) for b in seen[:i])


def test_check_prints_one_line_and_grade_raises(capsys):
    ex.course.check("nt_xent", ex.nt_xent)
    ex.course.check("nt_xent", lambda z1, z2, temperature: -ex.nt_xent(z1, z2, temperature))
    with pytest.raises(AssertionError, match=r"Not yet \(wrong sign\)"):
        ex.course.grade("nt_xent", lambda z1, z2, temperature: -ex.nt_xent(z1, z2, temperature))
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "Right: nt_xent agrees with the library on 3 random inputs."
    assert wrong.startswith("Not yet (wrong sign): the loss is minus")
    with pytest.raises(ex.UserError, match="Did you mean nt_xent"):
        ex.course.check("ntxent", ex.nt_xent)


def test_an_exception_is_one_sentence_with_its_line(capsys):
    def mine(x_adv, x, eps):
        y = x_adv - x
        return y.no_such_name

    ex.course.check("project", mine)
    assert "project stopped at its line 3 with AttributeError: 'Tensor' object has no" in capsys.readouterr().out


def test_an_exception_at_a_later_call_or_from_torch_is_a_sentence_too():
    calls = []

    def once(x_adv, x, eps):
        calls.append(x)
        return x * 0.7 if len(calls) == 1 else 1 / 0

    assert "ZeroDivisionError" in exercise("project").judge(once).text and len(calls) == 2

    def unfinished(x_adv, x, eps):
        raise NotImplementedError("no kernel for this type")

    assert exercise("project").judge(unfinished).kind == "raised an exception"


def test_the_exercises_are_listed_and_solved_by_the_library():
    table = ex.course.exercises()
    assert (
        list(table.exercise) == NAMES
        and table.task.str.len().max() < 50
        and (table.minutes >= 5).all()
        and set(table.difficulty) <= {"easy", "medium", "hard"}
    )
    features, labels, query, k = exercise("knn").draw(torch.Generator().manual_seed(3))
    found = exercise("knn").solution(features, labels, query, k)
    assert ex.knn_accuracy(features, labels, query, found, k=k, temperature=math.inf).accuracy == 1
    for asked in EXERCISES.values():  # the stub runs, and is not written yet
        place = {"torch": torch, "ex": ex}
        exec(asked.cell, place)
        assert asked.judge(place[asked.solution.__name__]).kind == "not written"
        exec(asked.code, place := {"torch": torch, "ex": ex})
        assert asked.judge(place[asked.solution.__name__]).right


WHOLE = Question("k", "whole number", 1, 64)
ASKED = [
    (
        WHOLE,
        [1, 64, 5.0, np.int64(3), torch.tensor(7)],
        [4.5, 0, -3, 65, math.nan, math.inf, None, "five", True, [1], 1j],
    ),
    (Question("n", "whole number", 10, 1024, 10), [10, 1020.0], [15, 5, 2000]),
    (Question("s", "real number", -1, 1), [0, 0.5, np.float32(0.25)], [1.5, math.nan, "0.5", None, torch.zeros(2)]),
    (Question("p", "percentage", 0, 100), [84.8, 0], [101, -1, "half"]),
    (Question("m", "name", choices=("fgsm", "pgd")), ["fgsm"], ["FGSM", "cw", 3, None]),
    (Question("f", "function", choices=("x",)), [len, lambda x: x], [3, None, "f"]),
]


@pytest.mark.parametrize(("question", "good", "bad"), ASKED, ids=[q.kind for q, *_ in ASKED])
def test_a_question_says_what_kind_of_answer_it_takes(question, good, bad, capsys):
    for answer in good:
        assert question.refuse(answer) is None
    for answer in bad:
        sentence = question.refuse(answer)
        assert sentence.startswith(f"{question.name} must be {question.asked()}, got ") and sentence.count("\n") == 0
        question.meets(answer, {"never asked": lambda value: 1 / 0})
        assert capsys.readouterr().out == sentence + "\n"
        with pytest.raises(ex.UserError):
            question.value(answer)


def test_verdicts_on_numbers_and_names_say_which_way(capsys):
    def tell(k):
        return f"{k} it is"

    for k in (4, 5, 6):
        WHOLE.least(k, lambda k: k >= 5, tell)
    percent = Question("p", "percentage", 0, 100)
    for p in (50, 84.8, 0.848, 90):
        percent.near(p, 84.8, 0.05)
    name = Question("m", "name", choices=("fgsm", "pgd", "none"))
    for m in ("fgsm", "pgd", "none", "fgms"):
        name.choose(m, {"fgsm", "pgd"}, "look again.")
    WHOLE.meets(3, {"too small": lambda k: k > 2, "it is odd": lambda k: k % 2 == 0})
    assert capsys.readouterr().out.splitlines() == [
        "Not yet: 4 it is; go up.",
        "Right: 5 it is.",
        "Not yet: 6 it is; go down.",
        "Not yet: go up.",
        "Right.",
        "Not yet: 0.848 is a share; write it as a percentage, 84.8.",
        "Not yet: go down.",
        "Right.",
        "Right.",
        "Not yet: look again.",
        "m must be one of 'fgsm', 'pgd', 'none', got 'fgms'. Did you mean fgsm?",
        "Not yet: it is odd.",
    ]


@pytest.mark.parametrize("module", [ex.course, question], ids=["course", "question"])
def test_the_examples_of_the_docstrings_give_what_they_print(module, capsys):
    found = [t for t in doctest.DocTestFinder().find(module, globs={"ex": ex, **vars(ex.course)}) if t.examples]
    failed = sum(doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(t).failed for t in found)
    assert found and not failed, capsys.readouterr().out
