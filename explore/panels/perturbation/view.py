"""HTML of the perturbation lab's reading, table and foot, from a `results.Perturbation`. No widget, no torch work."""

import math
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import numpy as np

from ...losses import chance
from ...results import Check, Perturbation
from ...results import png as png

ROWS = (("clean", "clean"), ("adv", "adversary"), ("gauss", "Gaussian"), ("uniform", "uniform"), ("sign", "sign noise"))
Axis = tuple[float, float]


def signed(value: float, digits: int = 2) -> str:
    """'+0.36', '−0.02', '+0.00' with the minus sign of typography."""
    text = f"{value:+.{digits}f}"
    return "+" + text[1:] if float(text) == 0 else text.replace("-", "−")


def reading(result: Perturbation, i: int, attack: str) -> str:
    """The finding for image i in one or two sentences."""
    loss, kept, length = (
        result.loss[:, i].tolist(),
        result.kept()[:, i].tolist(),
        "L∞" if result.match == "linf" else "L2",
    )
    of = result.neighbours.shape[2]
    if result.eps == 0:
        return f"At ε = 0 nothing is added: the loss stays {loss[0]:.2f}."
    verb = "lifts" if loss[1] > loss[0] else "lowers"
    text = f"{attack} {verb} the loss from {loss[0]:.2f} to <b>{loss[1]:.2f}</b>"
    text += f" and keeps <b>{kept[1]} of {of}</b> neighbours" if of else ""
    text += f". Noise of equal {length}: at most {max(loss[2:]):.2f}"
    least, most = min(kept[2:]), max(kept[2:])
    if of:
        between = f"{least}" if least == most else f"{least} {'or' if most - least == 1 else 'to'} {most}"
        text += f", and {between.replace(' ', '&nbsp;')}&nbsp;of&nbsp;{of}&nbsp;kept"
    return text + "."


def span(values: np.ndarray, n: int) -> Axis:
    """An axis of losses that holds `values` and chance, ln(2n - 1), with a little air."""
    low, high = min(float(np.nanmin(values)), chance(n)), max(float(np.nanmax(values)), chance(n))
    air = 0.04 * (high - low) or 0.1
    return low - air, high + air


def table(
    result: Perturbation, i: int, axis: Axis, thumb: Callable[[int], tuple[str, str]], pool: int, attack: str
) -> str:
    """The table for image i: its dot among the ticks of all images, numbers, neighbours; then the gradient's split.

    `thumb(j)` gives the picture and the class of the pool's image j.
    """
    low, high = axis
    n = result.loss.shape[1]

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    line = at(chance(n))
    far = "" if 58 <= float(line[:-1]) <= 84 else " far"  # beside the axis title or past the plot: a key in the corner
    label = f'<span class="ex-chance{far}" style="left:{line}">chance, ln {2 * n - 1}</span>'
    head = (
        '<thead><tr><th>added to the image</th><th class="l pl"><div class="ex-over"><span class="at1000">contrastive '
        f"</span>loss, nats{label}</div></th><th>loss</th><th>change</th><th>L∞<br>/255</th><th>L2</th>"
        f'<th>cosine<br>to clean</th><th class="l">five nearest of {pool:,}, in h</th><th>kept</th></tr></thead>'
    )
    body = "".join(_row(result, i, row, at, line, thumb) for row in range(len(ROWS)))
    marks = "".join(f'<span style="left:{at(t)}">{t:.{_digits(axis)}f}</span>' for t in ticks(axis))
    body += (
        f'<tr class="axis"><td></td><td class="pl"><div class="ex-ax">{marks}</div></td>'
        f'<td colspan="5" class="ex-note l">dot: this image; ticks below it: all {n}</td>'
        '<td class="l ex-note" colspan="2"><span class="new-k"></span>not among the clean five</td></tr>'
    )
    columns = "".join(f'<col class="{c}">' for c in ("c0", "c1", "c2", "c2", "c2", "c2", "c3", "c4", "c5"))
    caption = f"Loss, lengths and neighbours of one image: clean, {attack} adversary and three noises"
    return (
        f'<table class="ex-t" aria-label="{escape(caption)}"><colgroup>{columns}</colgroup>{head}'
        f"<tbody>{body}{_steered(float(result.share[i]))}</tbody></table>"
    )


def _row(result: Perturbation, i: int, row: int, at: Callable, line: str, thumb: Callable) -> str:
    role, name = ROWS[row]
    loss, clean = float(result.loss[row, i]), float(result.loss[0, i])
    path = "".join(f"M{float(at(v)[:-1]) * 2.5:.1f} 0V7" for v in result.loss[row].tolist())
    left, right = sorted((clean, loss))
    dots = (
        f'<div class="ex-dp {role}"><svg viewBox="0 0 250 7" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}"/></svg>'
        f'<u style="left:{line}"></u><s style="left:{at(clean)}"></s>'
        f'<b style="left:{at(left)};width:calc({at(right)} - {at(left)})"></b><i style="left:{at(loss)}"></i></div>'
    )
    if row == 0:
        numbers = f"<td>{loss:.2f}</td>" + "".join(f'<td class="dim">{zero}</td>' for zero in (0, 0, 0, 1))
    else:
        delta = (result.perturbed[_kind(row)][i] - result.x[i]).flatten()
        numbers = (
            f"<td>{loss:.2f}</td><td>{signed(loss - clean)}</td><td>{float(delta.abs().max()) * 255:.1f}</td>"
            f"<td>{float(delta.norm()):.2f}</td><td>{float(result.cosine[row, i]):.3f}</td>"
        )
    own = set(result.neighbours[0, i].tolist())
    pictures = "".join(_thumb(j, j not in own, thumb) for j in result.neighbours[row, i].tolist())
    of = result.neighbours.shape[2]
    kept = f"{int(result.kept()[row, i])} of {of}" if row and of else ""
    return (
        f'<tr class="{role}"><td><span class="{role}"><i class="dot"></i><span class="role">{name}</span></span></td>'
        f'<td class="pl">{dots}</td>{numbers}<td class="l nn">{pictures}</td><td>{kept}</td></tr>'
    )


def _kind(row: int) -> str:
    return ("clean", "adversary", "gaussian", "uniform", "sign")[row]


def _thumb(j: int, new: bool, thumb: Callable[[int], tuple[str, str]]) -> str:
    picture, name = thumb(j)
    alt = escape(f"{name}, new" if new else name)
    image = f'<img src="{picture}" width="32" height="32" alt="{alt}" title="{alt}" class="pic" decoding="sync">'
    return f'<span class="{"new" if new else ""}">{image}</span>'


def _steered(share: float) -> str:
    positive, negative = f"{share:.0%}".replace("%", " %"), f"{1 - share:.0%}".replace("%", " %")
    label = f"share of the L2 norm of the gradient: positive pair {positive}, negatives {negative}"
    note = '<span class="ex-note">&nbsp; share of <span class="at1000">the gradient’s </span>L2 norm</span>'
    words = f"<b>{positive}</b> away from its positive, <b>{negative}</b> towards the negatives {note}"
    if share < 0.005:
        words = "<b>by the negatives alone</b>: against its own embedding the positive part is 0"
    return (
        f'<tr class="adv sb"><td>steered by</td><td class="pl"><div class="ex-sb" role="img" aria-label="{label}">'
        f'<i style="width:{share:.1%}"></i><b></b></div></td><td colspan="7" class="l">{words}</td></tr>'
    )


def marks(checks: Iterable[Check]) -> str:
    """Invariants as measured: a tick each, or what is broken and by how much."""
    return "".join(
        f'<span class="ex-ok" title="{escape(c.detail)}">{escape(c.name)}</span>'
        if c.ok
        else f'<span class="ex-bad">{escape(c.name)}: {escape(c.detail)}</span>'
        for c in checks
    )


def foot(result: Any, *more: str | None) -> str:
    """A result's invariants, and where it came from: run, `more`, seed, device, torch."""
    p = result.provenance
    run = " ".join(str(part) for part in (p.get("run"), p.get("commit")) if part)
    torch_version = str(p.get("torch", "")).split("+")[0]
    words = [run, *more, f"seed {p.get('seed')}", str(p.get("device")), f"torch {torch_version}"]
    origin = escape(" · ".join(word for word in words if word))
    return f'<div class="ex-foot">{marks(result.checks)}<span class="prov mono">{origin}</span></div>'


def ticks(axis: Axis, about: int = 5) -> list[float]:
    """Round numbers inside an axis."""
    low, high = axis
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.99)
    first = math.ceil(low / step)
    return [round(step * j, 10) for j in range(first, math.floor(high / step) + 1)]


def _digits(axis: Axis) -> int:
    marks = ticks(axis)
    step = marks[1] - marks[0] if len(marks) > 1 else 1
    return 0 if step == int(step) else 1 if round(step * 10, 6) == int(round(step * 10, 6)) else 2


def ruler(grid: tuple[int, ...], mark: float) -> str:
    """Ticks under the eps slider, and the place of the authors' --eps."""
    most = grid[-1]
    spans = "".join(f'<span style="left:{100 * k / most:.3f}%">{k if k % 2 == 0 else ""}</span>' for k in grid)
    own = f'<em style="left:{100 * mark / most:.2f}%">authors’ --eps 0.03</em>'
    return f'<div class="ex-ticks" aria-hidden="true">{spans}{own}</div>'


def gain_scale(gain: int) -> str:
    """The difference's grey scale in words and as a strip."""
    end = f"{127 / gain:.1f}"
    return (
        f'<div class="ex-key-in ex-note"><span>Difference, each channel:</span><span>−{end}</span><i></i>'
        f"<span>+{end} /255</span><span>grey is unchanged</span></div>"
    )
