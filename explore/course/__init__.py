"""The course: exercises in code, their checkers, and the kinds of answers that the lessons ask for.

    ex.course.exercises()               # all of them, with minutes and difficulty
    ex.course.check("fgsm", my_fgsm)    # in a lesson: prints "Right", or the kind of mistake

`Question` judges numbers and names; `fold` keeps what a cell shows shut until a prediction is made.
"""

from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError, nearest
from . import (
    attacking,
    comparing,
    contrastive,
    explaining,
    features,
    iterating,
    measuring,
    normalising,
    points,
    splitting,
)
from .exercise import Exercise, Mistake, Verdict
from .folding import fold
from .question import Question

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Exercise", "Mistake", "Question", "Verdict", "check", "exercise", "exercises", "fold", "grade", "whole"]

_ROOMS = (contrastive, attacking, splitting, iterating, points, features, explaining, comparing, normalising, measuring)
_ALL = {e.name: e for room in _ROOMS for e in room.EXERCISES}
EXERCISES: dict[str, Exercise] = dict(sorted(_ALL.items(), key=lambda item: item[1].lesson))


def exercises() -> "pd.DataFrame":
    """The exercises in code: lesson, task, minutes, difficulty and arguments, by lesson."""
    import pandas as pd

    rows = [(e.name, e.lesson, e.title, e.minutes, e.difficulty, ", ".join(e.arguments)) for e in EXERCISES.values()]
    return pd.DataFrame(rows, columns=["exercise", "lesson", "task", "minutes", "difficulty", "arguments"])


def exercise(name: str) -> Exercise:
    """The exercise of this name."""
    if name not in EXERCISES:
        raise UserError(f"There is no exercise '{name}'.{nearest(name, EXERCISES)} ex.course.exercises() lists them.")
    return EXERCISES[name]


def check(name: str, answer: Any, *, generator: torch.Generator | None = None) -> None:
    """Print a verdict on an answer: right, or the kind of mistake with a hint; it never raises.

    The answer is compared with the library on random input, new at every call; `generator` repeats
    the same input.

    >>> check("project", lambda x_adv, x, eps: x_adv.clamp(x - eps, x + eps).clamp(0, 1))
    Right: project agrees with the library on 3 random inputs.
    >>> check("project", lambda x_adv, x, eps: x_adv.clamp(x - eps, x + eps))
    Not yet (no clamp to the pixel range): pixels leave [0, 1]; end with clamp(0, 1).
    """
    print(exercise(name).judge(answer, generator))


def grade(name: str, answer: Any, *, generator: torch.Generator | None = None) -> None:
    """For graded copies: print the verdict on a right answer, raise AssertionError on others."""
    verdict = exercise(name).judge(answer, generator)
    if not verdict.right:
        raise AssertionError(verdict.text)
    print(verdict)


def whole(name: str, low: float, high: float, *, step: int = 1) -> Question:
    """A question for a whole number from `low` to `high`, a multiple of `step`."""
    return Question(name, "whole number", low, high, step)
