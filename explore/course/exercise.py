"""Exercises in code: an answer is compared with the library's, and its kind of mistake named."""

import copy
import inspect
import math
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .question import Question

ROUNDS = 3  # random inputs an answer has to agree on
Run = Callable[..., Any]  # (answer, *arguments) -> what is compared: a tensor, or several


class Mistake(NamedTuple):
    """A known wrong way: its kind in a few words, a hint of one sentence, code that makes it."""

    kind: str
    hint: str
    variant: Callable[..., Any]


class Verdict(NamedTuple):
    """The judgement on an answer: right or not, kind of mistake ('right' for none), a sentence."""

    right: bool
    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def call(answer: Callable[..., Any], *arguments: Any) -> Any:
    """What an answer returns for the arguments."""
    return answer(*arguments)


@dataclass(frozen=True)
class Exercise:
    """A function that a learner writes, with all that judges it and shows it.

    `draw(generator)` gives the arguments of one call, `reference` the library's answer to them (in
    float64), `solution` a model answer whose source the instructor's copy shows. `run` calls an
    answer and returns what is compared. `also` judges an answer that is right so far: a Mistake
    without code, a note (text), or None. `either` gives all forms of the library's answer that
    count as right. `margin` is relative to the library's largest value; it must be above float32's
    rounding on any CPU and below what separates the mistakes. With `labels` it is the share that
    may differ. `blank`: the stub, where it is not made from the solution's head.
    """

    name: str
    title: str
    lesson: str
    minutes: int
    difficulty: Literal["easy", "medium", "hard"]
    returns: str
    expect: str
    solution: Callable[..., Any]
    reference: Callable[..., Any]
    draw: Callable[[torch.Generator], tuple]
    mistakes: tuple[Mistake, ...]
    run: Run = call
    either: Callable[[Tensor], Sequence[Tensor]] = lambda expected: (expected,)
    also: Callable[..., Any] | None = None
    margin: float = 1e-4
    labels: bool = False
    blank: str | None = None

    @property
    def points(self) -> int:
        """Points in a graded copy: 1 for easy, 2 for medium, 3 for hard."""
        return {"easy": 1, "medium": 2, "hard": 3}[self.difficulty]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments; those of a module's forward."""
        call_of = getattr(self.solution, "forward", self.solution)
        return tuple(name for name in inspect.signature(call_of).parameters if name != "self")

    @property
    def code(self) -> str:
        """The model answer's source."""
        return textwrap.dedent(inspect.getsource(self.solution)).rstrip()

    @property
    def stub(self) -> str:
        """The model answer's head and docstring, with a body that raises NotImplementedError."""
        if self.blank is not None:
            return self.blank
        lines = self.code.splitlines()
        keep = next(i for i, line in enumerate(lines) if line.rstrip().endswith('"""')) + 1
        return "\n".join([*lines[:keep], "    raise NotImplementedError  # your code"])

    @property
    def test(self) -> str:
        """The line that checks an answer."""
        return f'ex.course.check("{self.name}", {self.solution.__name__})'

    @property
    def cell(self) -> str:
        """The lesson's cell: the stub, and the line that checks it."""
        return f"{self.stub}\n\n\n{self.test}"

    def judge(self, answer: Any, generator: torch.Generator | None = None) -> Verdict:
        """A verdict on an answer, on `ROUNDS` inputs drawn by `generator`, or by the clock."""
        sentence = Question(self.name, "function", choices=self.arguments).refuse(answer)
        if sentence is not None:
            return Verdict(False, "no function", sentence)
        generator = generator or torch.Generator().manual_seed(time.time_ns() % 2**62)
        notes: list[str] = []
        for _ in range(ROUNDS):
            arguments = self.draw(generator)
            wrong = self._attempt(answer, arguments) or self._also(answer, arguments, notes)
            if wrong is not None:
                return wrong
        agrees = f"Right: {self.name} agrees with the library on {ROUNDS} random inputs."
        return Verdict(True, "right", " ".join([agrees, *notes[:1]]))

    def _attempt(self, answer: Any, arguments: tuple) -> Verdict | None:
        """What is wrong with an answer for these arguments, or None."""
        given = copies(arguments)
        if self.run is call and not _takes(answer, given):
            wanted = f"It is called as {self.name}({', '.join(self.arguments)}), and cannot take these arguments."
            return self._no("wrong arguments", wanted)
        try:
            got = self.run(answer, *given)
        except Exception as error:
            return _stopped(self.name, answer, error)
        if not same(given, arguments):
            return self._no("changes its input", "Your function changes its input in place; work on a new tensor.")
        expected = flat(self.run(self.reference, *exact(arguments)))
        form = self._form(got, expected)
        if isinstance(form, Verdict):
            return form
        if self._off(form, expected, expected) <= self.margin:
            return None
        return self._named(answer, form, expected, arguments)

    def _also(self, answer: Any, arguments: tuple, notes: list[str]) -> Verdict | None:
        found = self.also(answer, *arguments) if self.also is not None else None
        if isinstance(found, tuple):
            return self._no(*found)
        if found:
            notes.append(found)
        return None

    def _form(self, got: Any, expected: list[Tensor]) -> list[Tensor] | Verdict:
        """The answer as tensors of float64; a Verdict where it is of another type."""
        if got is None:
            return self._no("returns nothing", f"Your function returned None; it must return {self.returns}.")
        parts = list(got) if len(expected) > 1 and isinstance(got, tuple | list) else [got]
        if len(parts) != len(expected) and not isinstance(got, dict | str):
            return self._no("wrong number of results", f"It must return {self.returns}, got {_what(got)}.")
        found = []
        for part, want in zip(parts, expected, strict=True):
            try:
                tensor = part.detach() if isinstance(part, Tensor) else torch.as_tensor(part)
            except (TypeError, ValueError, RuntimeError):
                return self._no("wrong type", f"It must return {self.returns}, got {_what(part)}.")
            exactly = tensor.dtype in (torch.float32, torch.float64)
            if want.is_floating_point() and not exactly:
                hint = f"It must return float32 or float64, got {str(tensor.dtype).removeprefix('torch.')}."
                return self._no("wrong dtype", hint)
            found.append(tensor.to("cpu", torch.float64))
        return found

    def _named(self, answer: Any, got: list[Tensor], expected: list[Tensor], arguments: tuple) -> Verdict:
        """The mistake whose result is nearest to the answer's; else what can be said of it."""
        ours, made = self._off(got, expected, expected), []
        for mistake in self.mistakes:
            variant = [t.to(torch.float64) for t in flat(self.run(mistake.variant, *exact(arguments)))]
            if (off := self._off(got, variant, expected)) <= self._near(ours) and off < ours:
                made.append((off, mistake))
        if made:
            mistake = min(made, key=lambda pair: pair[0])[1]
            return self._no(mistake.kind, mistake.hint)
        for part, want in zip(got, expected, strict=True):
            if not any(part.shape == form.shape for form in self.either(want)):
                if self.labels and part.dim() == want.dim() + 1:
                    return self._no(
                        "scores instead of labels", f"It must return {self.returns}: argmax(dim=1) of these."
                    )
                shapes = " or ".join(str(tuple(form.shape)) for form in self.either(want))
                return self._no(
                    "wrong shape", f"It must return {self.returns}, {shapes} here; got {tuple(part.shape)}."
                )
            if not torch.isfinite(part).all():
                return self._no("not finite", "The result holds nan or infinity; look for log(0), 0/0 or a norm of 0.")
        try:
            again = self._form(self.run(answer, *copies(arguments)), expected)
        except Exception as error:
            return _stopped(self.name, answer, error)
        if isinstance(again, list) and self._off(again, got, expected) > self._near(ours):
            return self._no("random", "Two calls with the same input give different results; nothing is to be drawn.")
        much = f"{100 * ours:.0f} % of them" if self.labels else f"up to {ours:.2g} of its largest value"
        return self._no("another result", f"It differs from the library's by {much}; no known mistake fits.")

    def _near(self, ours: float) -> float:
        """How near a known mistake an answer must be: two fits agree less in labels."""
        return min(0.1, 0.4 * ours) if self.labels and self.margin else self.margin

    def _off(self, got: list[Tensor], other: list[Tensor], expected: list[Tensor]) -> float:
        """How far two results are apart; infinity where shapes differ, or for nan and infinity.

        The largest difference, relative to the library's largest value, or the share of labels.
        """
        if len(got) != len(other):
            return math.inf
        worst = 0.0
        for part, form, want in zip(got, other, expected, strict=True):
            forms = [f for f in self.either(form) if f.shape == part.shape]
            if not forms or not torch.isfinite(part).all():
                return math.inf
            if self.labels:
                apart = [float((part != f).double().mean()) for f in forms]
            else:
                size = max(float(want.abs().max()), 1e-12)
                apart = [float((part - f).abs().max()) / size for f in forms]
            worst = max(worst, min(apart))
        return worst

    @staticmethod
    def _no(kind: str, hint: str) -> Verdict:
        return Verdict(False, kind, f"Not yet ({kind}): {hint}")


def flat(result: Any) -> list[Tensor]:
    """A result as a list of tensors."""
    return [torch.as_tensor(part).detach() for part in (result if isinstance(result, tuple | list) else [result])]


def copies(arguments: tuple) -> tuple:
    """The arguments, tensors and modules copied."""
    return tuple(
        a.detach().clone() if isinstance(a, Tensor) else copy.deepcopy(a) if isinstance(a, torch.nn.Module) else a
        for a in arguments
    )


def exact(arguments: tuple) -> tuple:
    """The arguments copied, floating-point tensors as float64."""
    return tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in copies(arguments))


def same(given: tuple, arguments: tuple) -> bool:
    """True if no tensor among the arguments has changed."""
    return all(
        isinstance(a, Tensor) and a.shape == b.shape and bool((a.detach() == b).all())
        for a, b in zip(given, arguments, strict=True)
        if isinstance(b, Tensor)
    )


def _takes(answer: Callable[..., Any], arguments: tuple) -> bool:
    try:
        inspect.signature(answer).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return True
    return True


def _what(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    many = f" of {len(result)}" if isinstance(result, tuple | list) else ""
    return f"a {type(result).__name__}{many}"


def _stopped(name: str, answer: Any, error: Exception) -> Verdict:
    """A stub, or an exception in one sentence: line of the answer, type, first line of the text."""
    if isinstance(error, NotImplementedError) and not str(error):
        text = f"Not written yet: put your code in place of `raise NotImplementedError` in {name}."
        return Verdict(False, "not written", text)
    code = getattr(answer, "__code__", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    own = [n - code.co_firstlineno + 1 for n in lines if n and code and n >= code.co_firstlineno]
    where = f" at its line {own[-1]}" if own else ""
    text = (str(error).strip().splitlines() or ["no text"])[0][:200].rstrip(".")
    sentence = f"{name} stopped{where} with {type(error).__name__}: {text}."
    return Verdict(False, "raised an exception", f"Not yet (raised an exception): {sentence}")
