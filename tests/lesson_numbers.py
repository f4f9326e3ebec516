"""Numbers in a lesson's text, held against what its cells show on the machine that the tests run on.

Held are the numbers of the passages *What you should see* that a measurement gives: those with a decimal
point, those in percent, and "n of m". One agrees if the cells around its passage show a number less than
one unit of its last digit away; another machine's last bits shift a mean by less than that. What cannot be
seen there is named, with its reason, in `KNOWN` (a constant, somebody else's figure) or in `LATER` (what
comes after a control was moved: an expression that the lesson's kernel computes).
"""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

KNOWN: dict[str, set[str]] = {}
LATER: dict[str, dict[str, str]] = {}

_PASSAGE = re.compile(r"<b>What you should see\b.*?</details>|\*\*What you should see\b.*?(?=\n\n(?!- )|\Z)", re.S)
_NUMBER = re.compile(r"(?<![\w.,/^])[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|\.\d|,\d)(?: %| of \d+)?")
_NO_CLAIM = re.compile(  # a setting, a place in a book, a formula
    r"\$[^$]*\$|\]\([^)]*\)|arXiv:[\d.]+|(?:ε|τ|σ|p <|temperature|section|lesson|seed) ?=? ?[\d.]+\b(?! %)|95 % (?:t-)?intervals?"
)


def _text(output: dict[str, Any]) -> str:
    """What an output shows, without its tags."""
    data = output.get("data", {})
    shown = output.get("text") or data.get("text/html") or data.get("text/plain") or ""
    html = "".join(shown) if isinstance(shown, list) else shown
    if "text/html" in data:
        html = re.sub(r"<(style|script)\b.*?</\1>", " ", html, flags=re.S)
        html = re.sub(r"</?(?:span|b|i|em|strong|sub|sup)\b[^>]*>", "", html)
        html = unescape(re.sub(r"<[^>]+>", " ", html))
    return html


def values(text: str) -> Iterator[float]:
    """All numbers of a text."""
    for word in re.findall(r"[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?", text):
        yield float(word.replace("−", "-").replace(",", ""))


def claims(cells: list[dict[str, Any]]) -> Iterator[tuple[int, str, str]]:
    """(cell, number as written, its passage) of each number that is held."""
    for i, cell in enumerate(cells):
        if (cell.get("cell_type") or cell.get("type")) != "markdown":
            continue
        for passage in _PASSAGE.findall("".join(cell["source"])):
            kept = _NO_CLAIM.sub(" ", passage)
            for found in _NUMBER.finditer(kept):
                if "." in found[0] or "%" in found[0] or " of " in found[0]:
                    yield i, found[0], passage


def agrees(written: str, shown: set[float]) -> bool:
    """Whether one of `shown` is the number as it is written; a share may be shown as such or in percent."""
    word = re.match(r"[−+-]?[\d,.]*\d", written)[0]  # type: ignore[index]
    number, unit = float(word.replace("−", "-").replace(",", "")), 10.0 ** -len(word.partition(".")[2])
    unit = 1e-9 if " of " in written else unit
    return any(abs(factor * value - number) < unit for value in shown for factor in (1, 100))


def disagreements(name: str, cells: list[dict[str, Any]], compute: Any = None) -> list[str]:
    """Each number of a lesson's text that its cells do not show; `compute` evaluates an expression in its kernel."""
    shown = [set(values(" ".join(map(_text, cell.get("outputs", []))))) for cell in cells]
    wrong = []
    for i, written, passage in claims(cells):
        before = [j for j in range(i) if shown[j]][-2:]
        after = [j for j in range(i, len(cells)) if shown[j]][:1]
        near = set().union(*(shown[j] for j in before + after))
        if written in KNOWN.get(name, ()) or agrees(written, near):
            continue
        if compute and written in LATER.get(name, {}) and agrees(written, {compute(LATER[name][written])}):
            continue
        wrong.append(f"cell {i}: {written!r} in {' '.join(passage.split())[:90]!r}")
    return wrong
