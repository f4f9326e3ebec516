"""HTML for the panels. Text is escaped wherever it is put in, unless it is `Markup`: names come from folders and files.

`tag.div("a < b", class_="ex-h")` is an element, `fill("<b>{}</b>", name)` a template; below them what several panels show.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..results import Check, png

Axis = tuple[float, float]
Thumb = Callable[[int], tuple[str, str]]  # number of an image -> its picture (data URI) and words
_VOID = {name: ">" for name in ("br", "col", "img", "input")} | dict.fromkeys(("circle", "line", "path", "rect"), "/>")


def join(*parts: Any) -> Markup:
    """Parts in a row: text is escaped, `Markup` stays as it is, iterables are joined, None is left out."""
    nested = (join(*p) if isinstance(p, Iterable) and not isinstance(p, str) else p for p in parts if p is not None)
    return Markup("").join(nested)


def fill(template: str, *values: Any) -> Markup:
    """A template with its `{}` replaced by escaped values. The template is trusted: never an f-string."""
    return Markup(template).format(*values)


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """`<name class="..." data-pick="...">children</name>` from `class_=`, `data_pick=`; None, False and an empty class are left out."""
    own = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False and (key, value) != ("class_", "")
    )
    return Markup(f"<{name}{own}{_VOID[name]}" if name in _VOID else f"<{name}{own}>{join(*children)}</{name}>")


class _Tags:
    """`tag.td(...)` is `element("td", ...)`."""

    def __getattr__(self, name: str) -> Callable[..., Markup]:
        return partial(element, name)


tag = _Tags()


# what several panels show
def finding(text: Any) -> Markup:
    """The sentence that a panel is about."""
    return tag.p(text, class_="ex-reading", aria_live="polite")


def heading(title: Any, small: Any = None) -> Markup:
    """A heading with a remark in small letters."""
    return tag.div(title, *([] if small is None else [" ", tag.small(small)]), class_="ex-h")


def note(*text: Any) -> Markup:
    """A remark in grey."""
    return tag.span(*text, class_="ex-note")


def named(role: str, name: Any) -> Markup:
    """A name in the colour of its role."""
    return tag.span(tag.span(name, class_="role"), class_=role)


def dotted(role: str, name: Any, element: Callable[..., Markup] | None = None) -> Markup:
    """A dot and a name in the colour of a role."""
    return (element or tag.span)(tag.i(class_="dot"), tag.span(name, class_="role"), class_=role)


def image(source: str, wide: int, alt: str, *, title: bool = False) -> Markup:
    """A square picture, `wide` pixels on the screen."""
    own = {"src": source, "width": wide, "height": wide, "alt": alt, "title": alt if title else None}
    return tag.img(**own, class_="pic", decoding="sync")


def picture(pixels: np.ndarray, side: int, alt: str) -> Markup:
    """An image (h, w, 3 or 4), uint8, at the largest whole multiple of its pixels up to `side`; a larger one is shown at `side`."""
    size = len(pixels)
    return image(png(pixels), size * max(1, side // size) if size <= side else side, alt, title=True)


def origin(words: Iterable[Any]) -> Markup:
    """Where a result came from, in the foot; empty words are left out."""
    return tag.span(" · ".join(str(word) for word in words if word), class_="prov mono")


def marks(checks: Iterable[Check]) -> Markup:
    """Invariants as measured: a tick each, or what is broken and by how much."""
    return join(
        tag.span(c.name, class_="ex-ok", title=c.detail) if c.ok else tag.span(f"{c.name}: {c.detail}", class_="ex-bad")
        for c in checks
    )


def foot(result: Any, *more: str | None) -> Markup:
    """A result's invariants, and where it came from: run, `more`, seed, device, torch."""
    p = result.provenance
    run = " ".join(str(part) for part in (p.get("run"), p.get("commit")) if part)
    words = [
        run,
        *more,
        f"seed {p.get('seed')}",
        str(p.get("device")),
        f"torch {str(p.get('torch', '')).split('+')[0]}",
    ]
    return tag.div(marks(result.checks), origin(words), class_="ex-foot")


def signed(value: float, digits: int = 2) -> str:
    """'+0.36', '−0.02', '+0.00' with the minus sign of typography."""
    text = f"{value:+.{digits}f}"
    return "+" + text[1:] if float(text) == 0 else text.replace("-", "−")


def ticks(axis: Axis, about: int = 5) -> list[float]:
    """Round numbers inside an axis."""
    low, high = axis
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.99)
    first = math.ceil(low / step)
    return [round(step * j, 10) for j in range(first, math.floor(high / step) + 1)]


def scale(places: Iterable[tuple[Any, str]], class_: str = "ex-ax", more: Any = None, **attributes: Any) -> Markup:
    """Numbers along an axis: (text, its place as CSS length) each."""
    return tag.div([tag.span(text, style=f"left:{x}") for text, x in places], more, class_=class_, **attributes)


def ruler(grid: Sequence[int], mark: float) -> Markup:
    """Ticks under the eps slider, and the place of the authors' --eps."""
    own = tag.em("authors’ --eps 0.03", style=f"left:{100 * mark / grid[-1]:.2f}%")
    places = [("" if k % 2 else k, f"{100 * k / grid[-1]:.3f}%") for k in grid]
    return scale(places, "ex-ticks", own, aria_hidden="true")
