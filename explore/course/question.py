"""Questions of a lesson: each knows what kind of answer it takes, and says so for any other."""

import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UserError, nearest

Kind = Literal["whole number", "real number", "percentage", "name", "function"]
Holds = Callable[[Any], Any]  # a condition of the answer: true or false
Tell = Callable[[Any], str]  # what the answer leads to, as the middle of a sentence


@dataclass(frozen=True)
class Question:
    """What kind of answer is asked for; `least`, `near`, `choose` and `meets` print a verdict.

    `name`: the variable that holds the answer. `low` and `high`: the range of numbers, both ends
    included; `step`: whole numbers are multiples of it. `choices`: the names that there are, or
    the arguments of a function.

    >>> Question("k", "whole number", 1, 64).least(4.5, lambda k: k >= 5)
    k must be a whole number from 1 to 64, got 4.5.
    >>> Question("k", "whole number", 1, 64).least(4, lambda k: k >= 5)
    Not yet: go up.
    """

    name: str
    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    step: int = 1
    choices: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.step < 1 or not self.low < self.high:
            raise UserError(f"A range goes up by steps of 1 or more, got {self.low} to {self.high} by {self.step}.")

    def asked(self) -> str:
        """The kind of answer, as a phrase: 'a whole number from 1 to 64'."""
        if self.kind == "name":
            return f"one of {', '.join(map(repr, self.choices))}"
        if self.kind == "function":
            return f"a function of ({', '.join(self.choices)})"
        many = f"a multiple of {self.step:,}" if self.step > 1 else f"a {self.kind}"
        return many + self._range()

    def _range(self) -> str:
        if math.isinf(self.low):
            return "" if math.isinf(self.high) else f", {self.high:,} or less"
        return f", {self.low:,} or more" if math.isinf(self.high) else f" from {self.low:,} to {self.high:,}"

    def refuse(self, answer: Any) -> str | None:
        """One sentence on an answer of another kind or out of range; None for others."""
        if self.kind == "function":
            return None if callable(answer) else f"{self.name} must be {self.asked()}, got {_shown(answer)}."
        if self.kind == "name":
            if isinstance(answer, str) and answer in self.choices:
                return None
            close = nearest(answer, self.choices) if isinstance(answer, str) else ""
            return f"{self.name} must be {self.asked()}, got {_shown(answer)}.{close}"
        value = _number(answer)
        fits = value is not None and math.isfinite(value) and self.low <= value <= self.high
        if fits and self.kind == "whole number":
            fits = value % self.step == 0  # type: ignore[operator]
        if fits:
            return None
        quotes = " Write the number without quotes." if isinstance(answer, str) and _reads(answer) else ""
        return f"{self.name} must be {self.asked()}, got {_shown(answer)}.{quotes}"

    def value(self, answer: Any) -> Any:
        """The answer as int, float, name or function; a UserError with `refuse`'s sentence."""
        if (sentence := self.refuse(answer)) is not None:
            raise UserError(sentence)
        number = _number(answer) if self.kind not in ("name", "function") else None
        return answer if number is None else int(number) if self.kind == "whole number" else number

    def least(self, answer: Any, holds: Holds, tell: Tell | None = None) -> None:
        """Print a verdict on 'the least number for which `holds`', true from there on."""

        def judge(n: int) -> str:
            if not holds(n):
                return f"Not yet: {_middle(tell, n)}go up."
            if n - self.step >= self.low and holds(n - self.step):
                return f"Not yet: {_middle(tell, n)}go down."
            return _right(tell, n)

        self._print(answer, judge)

    def near(self, answer: Any, truth: float, within: float, tell: Tell | None = None) -> None:
        """Print a verdict on a number that lies within `within` of the truth."""

        def judge(value: float) -> str:
            if abs(value - truth) <= within:
                return _right(tell, value)
            if self.kind == "percentage" and abs(100 * value - truth) <= within:
                return f"Not yet: {value:g} is a share; write it as a percentage, {100 * value:g}."
            return f"Not yet: {_middle(tell, value)}go {'up' if value < truth else 'down'}."

        self._print(answer, judge)

    def choose(self, answer: Any, right: Collection[str], hint: str, tell: Tell | None = None) -> None:
        """Print a verdict on a name; all of `right` are, and `hint` goes to the others."""
        self._print(answer, lambda name: _right(tell, name) if name in right else f"Not yet: {hint}")

    def meets(self, answer: Any, conditions: Mapping[str, Holds], tell: Tell | None = None) -> None:
        """Print a verdict on an answer that meets all conditions, or the first that it does not."""

        def judge(value: Any) -> str:
            failed = [what for what, holds in conditions.items() if not holds(value)]
            return f"Not yet: {_middle(tell, value)}{failed[0]}." if failed else _right(tell, value)

        self._print(answer, judge)

    def _print(self, answer: Any, judge: Callable[[Any], str]) -> None:
        print(self.refuse(answer) or judge(self.value(answer)))


def _right(tell: Tell | None, value: Any) -> str:
    return "Right." if tell is None else f"Right: {tell(value)}."


def _middle(tell: Tell | None, value: Any) -> str:
    return "" if tell is None else f"{tell(value)}; "


def _number(answer: Any) -> float | int | None:
    """A number, also numpy's or a tensor with one element; None for anything else, a bool too."""
    if isinstance(answer, bool):
        return None
    if not isinstance(answer, numbers.Real) and getattr(answer, "size", None) is not None and hasattr(answer, "item"):
        try:
            answer = answer.item()
        except (ValueError, RuntimeError):
            return None
    return answer if isinstance(answer, int | float) and not isinstance(answer, bool) else _real(answer)


def _real(answer: Any) -> float | None:
    return float(answer) if isinstance(answer, numbers.Real) and not isinstance(answer, bool) else None


def _reads(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(answer: Any) -> str:
    """The answer in a sentence: short values as they are written, others by their type."""
    text = repr(answer)
    return text if len(text) <= 40 and "\n" not in text else f"a {type(answer).__name__}"
