"""Numbers in a lesson's text, held against what its cells show on the machine that the tests run on.

Held are the numbers of the passages *What you should see* that a measurement gives: those with a decimal
point, those in percent, and "n of m". One agrees if an output near its passage, or a chart of the lesson,
shows about the same number: processors differ in the last bits of a feature, and so by an image or two in
a count. Numbers that no output shows as such are named in `UNSEEN` with the reason.
"""

import re
from collections.abc import Iterable, Iterator
from html import unescape
from typing import Any

# A reader gets these otherwise: constants, a prediction, others' figures, what comes after a click.
UNSEEN = {
    "01_two_views": {"3.1"},
    "04_four_attacks": {"1.69", "0.45", "0.17"},  # a line of the chart, two differences
    "06_linear_probe": {"95 %", "80 %", "1.7"},
    "08_train_your_own": {"5.54", "3.3", "3.7", "73 %", "79 %", "1.5"},  # a training that a click starts
    "11_scorecard": {"−4.5", "5.4"},  # a claim that a click opens, a difference
    "12_bring_your_own": {"0.485", "0.456", "0.406", "0.229", "0.224", "0.225"},  # ImageNet's means and deviations
}

CHARTS = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap((chart) => chart._fullData.flatMap((trace) =>
  [trace.x, trace.y, trace.z, trace.error_x?.array, trace.error_y?.array, trace.error_y?.arrayminus].flatMap((values) =>
    [...(values ?? [])].flat(2).filter((value) => typeof value === 'number')).concat(
  [...(Array.isArray(trace.text) ? trace.text : []), ...(trace.customdata ?? []).flat(2)].join(' ')
    .match(/[−+-]?\\d+(\\.\\d+)?/g)?.map((word) => Number(word.replace('−', '-'))) ?? [])))"""
_PASSAGE = re.compile(r"<b>What you should see\b.*?</details>|\*\*What you should see\b.*?(?=\n\n(?!- )|\Z)", re.S)
_NUMBER = re.compile(r"(?<![\w.,/^])[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|\.\d|,\d)(?: %| of \d+)?")
_NO_CLAIM = re.compile(  # a setting, a place in a book, a formula
    r"\$[^$]*\$|\]\([^)]*\)|arXiv:[\d.]+|(?:ε|τ|σ|p <|temperature|section|lesson|seed) ?=? ?[\d.]+\b(?! %)|95 % (?:t-)?intervals?"
)


def words(book: dict[str, Any]) -> str:
    """A lesson's words and code in one line, links without their targets."""
    text = " ".join("\n\n".join("".join(cell["source"]) for cell in book["cells"]).split())
    return re.sub(r"\[([^]]*)\]\(glossary\.md#[^)]*\)", r"\1", text)


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


def _values(text: str) -> Iterator[float]:
    for word in re.findall(r"[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?", text):
        yield float(word.replace("−", "-").replace(",", ""))


def claims(cells: list[dict[str, Any]]) -> Iterator[tuple[int, str, str]]:
    """(cell, number as written, its passage) of each number that is held."""
    for i, cell in enumerate(cells):
        if (cell.get("cell_type") or cell.get("type")) != "markdown":
            continue
        for passage in _PASSAGE.findall("".join(cell["source"])):
            for found in _NUMBER.finditer(_NO_CLAIM.sub(" ", passage)):
                if "." in found[0] or "%" in found[0] or " of " in found[0]:
                    yield i, found[0], passage


def _agrees(written: str, shown: Iterable[float]) -> bool:
    """Whether one of `shown` is about the number as it is written; a share may be shown as such or in percent."""
    word = re.match(r"[−+-]?[\d,.]*\d", written)[0]  # type: ignore[index]
    number, unit = float(word.replace("−", "-").replace(",", "")), 10.0 ** -len(word.partition(".")[2])
    near = max(2 * unit, 0.05 * abs(number))
    return any(abs(factor * value - number) <= near for value in shown for factor in (1, 100))


def disagreements(name: str, cells: list[dict[str, Any]], charts: Iterable[float] = ()) -> list[str]:
    """Each number of a lesson's text that neither its outputs nor its charts show."""
    shown = [set(_values(" ".join(map(_text, cell.get("outputs", []))))) for cell in cells]
    wrong = []
    for i, written, passage in claims(cells):
        before = [j for j in range(i) if shown[j]][-2:]
        after = [j for j in range(i, len(cells)) if shown[j]][:1]
        near = set(charts).union(*(shown[j] for j in before + after))
        if written not in UNSEEN.get(name, ()) and not _agrees(written, near):
            wrong.append(f"cell {i}: {written!r} in {' '.join(passage.split())[:90]!r}")
    return wrong
