"""Cards beside the chart: a pinned point, a point under way, a point that is not there yet, as HTML."""

import re
from collections.abc import Iterable
from html import escape
from pathlib import PurePath

from ...config import TrainConfig
from ...experiments.cost import duration
from ...experiments.jobs import BackgroundTraining
from ..widgets.html import ClickableHTML
from .points import Kind, Point, Scene, cost_of, fair

LABEL = re.compile(r"(?:.*/)?(.+)-s(\d+)(?:-[0-9a-f]{8})?$")  # of a study's run: <label>-s<seed>-<hash>


Cards = ClickableHTML


def pinned(
    scene: Scene, point: Point, *, here: Iterable[str] = (), command: str = "", rest: tuple[str, str] = ("", "")
) -> str:
    """A point with its seeds, its differences, its price and its runs. `here`: names of runs whose encoder can be opened; `rest`:
    the action that computes the seeds it lacks, and its price.
    """
    u, rows = scene.unit, point.rows
    per_seed = " · ".join(u.value(v) for v in point.values.values())
    facts = [("seeds", per_seed)] if point.n > 1 else [("seed", str(next(iter(point.values))))]
    facts += [(f"to {name}", text) for name, text in differences(scene, point)]
    if scene.choice.training:
        plain = scene.at("simclr", 0)
        base = cost_of(plain) if plain is not None else 0
        cost = f"{cost_of(point) / base:.3g} × SimCLR" if base else f"{cost_of(point):,.0f} passes an image"
        seconds = float(rows.seconds.mean())
        facts += [("cost", cost)]
        facts += [("time", f"{duration(seconds)} a seed, {escape(rows.device.iloc[0])}")] if seconds > 0 else []
    runs = [name for name in dict.fromkeys(rows.run.tolist()) if name]
    facts += [("runs" if len(runs) > 1 else "run", _runs(runs, set(here)))] if runs else []
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)
    opened = next((name for name in runs if name in set(here)), None)
    why = "" if opened else ' disabled title="its encoder is not on this machine; the command trains it"'
    buttons = _button("Open run", f"open:{opened}" if opened else "", why) if scene.choice.training else ""
    buttons += f'<button class="jupyter-button" data-copy="{escape(command)}">Copy command</button>' if command else ""
    n = f"n = {point.n}" if point.n > 1 else f"one seed, {rows.n.iloc[0]:,} images"
    span = f"<small><span>{u.bounds(point.low, point.high)}</span> <span>{n}</span></small>"
    value = f'<div class="ex-fact">{u.value(point.mean)}{u.mark} {span}</div>'
    buttons += _button("Compute the other seeds", rest[0]) if rest[0] else ""
    return _card(point.kind, point.k, "pinned", f"{value}<dl>{listed}</dl>", buttons, rest[1])


def differences(scene: Scene, point: Point) -> list[tuple[str, str]]:
    """(to what, '+0.7 [−0.1, 1.5]') of a point to the others at its eps that it is measured by, paired by seed."""
    if scene.choice.training:
        others = [scene.at(key, point.k) for key in ("simclr", "same", "adversary", "gaussian")]
    else:
        others = [
            scene.at(point.kind.key, 0),
            *(scene.at(key, point.k) for key in ("adversary", "gaussian", "uniform")),
        ]
    found = []
    for other in others:
        if (
            other is None
            or (other.kind.key, other.k) == (point.kind.key, point.k)
            or (other.kind.level and not fair(other, point))
        ):
            continue
        d = scene.compare(other, point)
        if d is not None:
            name = "clean" if other.kind.key == point.kind.key else other.kind.name
            span = f" {scene.unit.bounds(d.low, d.high)}" if d.n > 1 else ", no verdict"
            found.append((escape(name), f"{scene.unit.change(d.mean)}{span}"))
    return found


def missing(kind: Kind, k: float, *, act: str, price: str, text: str = "Compute this point here") -> str:
    """A point that is not there: a button with its price, or, without `act`, a sentence why there is none."""
    return _card(kind, k, "none yet", "", _button(text, act, primary=True) if act else "", price)


def under_way(kind: Kind, k: float, job: BackgroundTraining) -> str:
    """A job that is at this point: how far it is, or how it ended."""
    state, now, name = job.state, job.progress(), job.name
    word = "Training" if job.study else "Seed"
    dismiss = _button("Dismiss", f"forget:{name}")
    if state["state"] in ("failed", "lost"):
        return _card(kind, k, "not computed", f'<div class="ex-bad">{escape(state["error"])}</div>', dismiss)
    where = f"{word.lower()} {now.cell} of {now.cells}, epoch {now.epoch}"
    if state["state"] == "stopped":
        go_on = _button("Go on", f"again:{name}", primary=True)
        return _card(kind, k, "stopped", f"Stopped at {where}; it goes on from there.", go_on + dismiss)
    running = state["state"] == "running"
    where = f"{where.capitalize()} of {now.epochs}" if running else "Starts, or waits for its turn"
    about = f"about {duration(now.seconds_left)}" if now.seconds_left is not None else ""
    left = f"{about} {'left' if running else 'once it has begun'}, " if about else ""
    n = job.engine["threads"]
    cores = f"{n} CPU core{'s' * (n != 1)}" if n else "all CPU cores"
    bar = (
        f'<div class="ex-bar" role="progressbar" aria-label="{kind.name} at {k:g}/255" aria-valuenow="{100 * now.share:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100"><i style="width:{now.share:.1%}"></i></div>'
    )
    note = f"{left}{cores}. Goes on if you close the page."
    shown = f'<div>{where}</div>{bar}<div class="ex-note">{note}</div>'
    return _card(kind, k, "new", shown, _button("Stop", f"stop:{name}"))


def _card(kind: Kind, k: float, small: str, inner: str, buttons: str = "", note: str = "") -> str:
    name = kind.name if kind.level else f"{kind.name}, ε = {k:g}/255"
    head = f'<div class="ex-h {kind.role}"><i class="dot"></i>{escape(name)} <small>{small}</small></div>'
    row = f'<div class="ex-buttons">{buttons}</div>' if buttons else ""
    under = f'<div class="ex-note">{note}</div>' if note else ""
    return f'<div class="ex-card" data-card="{kind.key},{k:g}">{head}{inner}{row}{under}</div>'


def _button(text: str, act: str, more: str = "", *, primary: bool = False) -> str:
    own = " mod-primary" if primary else ""
    return f'<button class="jupyter-button{own}" data-act="{escape(act)}"{more}>{text}</button>'


def short_runs(names: list[str]) -> str:
    """'fashion-resnet10-fgsm-eps8-s0, s1, s2'."""
    before, shown = _short([name for name in dict.fromkeys(names) if name])
    return f"{before}{', '.join(shown)}" if shown else "no run kept"


def _runs(names: list[str], here: set[str]) -> str:
    """The same, a word a run; those that can be opened are links."""
    before, shown = _short(names)
    links = [
        f'<button class="ex-link" data-act="open:{escape(name)}" title="{escape(name)}">{escape(short)}</button>'
        if name in here
        else f'<span title="{escape(name)}">{escape(short)}</span>'
        for name, short in zip(names, shown, strict=True)
    ]
    return f'<span class="mono">{escape(before)}{" ".join(links)}</span>'


def _short(names: list[str]) -> tuple[str, list[str]]:
    """What the names have in common, and what is left of each; a study's hashes are left out."""
    parts = [LABEL.fullmatch(name) for name in names]
    if len({part[1] for part in parts if part}) == 1 and all(parts):
        return f"{parts[0][1]}-", [f"s{part[2]}" for part in parts if part]  # type: ignore[index]
    return "", [f"{part[1]}-s{part[2]}" if part else name for name, part in zip(names, parts, strict=True)]


def foot(scene: Scene, base: TrainConfig | None, images: str, saved: str = "") -> str:
    """What was trained or looked at, the authors' figure, and where the numbers come from."""
    table, about = scene.sweep.table, scene.sweep.provenance
    words = []
    if len(table):
        words = [_named(table.dataset.iloc[0]), table.arch.iloc[0]]
        words += (
            [f"{base.epochs} epochs", f"batch {base.batch_size}"]
            if scene.choice.training and base is not None
            else [images]
        )
    figure = (
        "fig. 3 of the submission"
        if scene.choice.show == "loss"
        else "rebuttal fig. 1"
        if scene.choice.training
        else ""
    )
    theirs = f"<span>authors’ figure: {figure} (no values given)</span>" if figure else ""
    seconds = about.get("seconds")
    note = f' <span role="status">{escape(saved)}</span>' if saved else ""
    save = f'<span><button class="ex-link" data-act="save:">Save table</button>{note}</span>'
    made = [about.get("command"), f"{duration(seconds)} of computing" if seconds else "", about.get("commit")]
    origin = " · ".join(escape(str(part)) for part in made if part)
    return f'<div class="ex-foot"><span>{escape(" · ".join(words))}</span>{theirs}{save}<span class="prov mono">{origin}</span></div>'


def _named(dataset: str) -> str:
    """'fashion', 'folder:cats': without the way to a folder."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{PurePath(path).name}"
