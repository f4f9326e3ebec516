"""Cards beside the chart: a pinned point, a point that is being computed, a missing point. HTML."""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from ...config import TrainConfig
from ...experiments.cost import duration
from ...experiments.jobs import BackgroundTraining
from ..html import Markup, fill, join, origin, tag
from ..widgets.html import ClickableHTML
from .points import OTHERS, Kind, Point, Scene, cost_of, fair

LABEL = re.compile(r"(?:.*/)?(.+)-s(\d+)(?:-[0-9a-f]{8})?$")  # of a study's run: <label>-s<seed>-<hash>
STARTS = "Start it in the background; it goes on when the page is closed"
AUTHORS = {  # (attack against attack, show, against) -> the authors' figure of it
    (False, "accuracy", "training ε"): "rebuttal fig. 1",
    (True, "accuracy", "training ε"): "rebuttal fig. 2",
    (False, "loss", "test ε"): "fig. 3 of the submission",
}


Cards = ClickableHTML


def pinned(
    scene: Scene, point: Point, *, here: Iterable[str] = (), command: str = "", rest: tuple[str, str] = ("", "")
) -> Markup:
    """A point with its seeds, differences, cost and runs. `here`: names of runs whose encoder can be opened; `rest`: the action
    that computes the missing seeds, and the time it takes.
    """
    u, rows = scene.unit, point.rows
    per_seed = " · ".join(u.value(v) for v in point.values.values())
    facts: list[tuple[str, Any]] = [("seeds", per_seed)] if point.n > 1 else [("seed", str(next(iter(point.values))))]
    facts += [(f"to {name}", text) for name, text in differences(scene, point)]
    if scene.choice.training:
        plain = scene.at("simclr", 0)
        base = cost_of(plain) if plain is not None else 0
        cost = f"{cost_of(point) / base:.3g} × SimCLR" if base else f"{cost_of(point):,.0f} passes an image"
        seconds = float(rows.seconds.mean())
        facts += [("cost", cost)]
        facts += [("time", f"{duration(seconds)} a seed, {rows.device.iloc[0]}")] if seconds > 0 else []
    runs = [name for name in dict.fromkeys(rows.run.tolist()) if name]
    facts += [("runs" if len(runs) > 1 else "run", _runs(runs, set(here)))] if runs else []
    listed = tag.dl((tag.dt(name), tag.dd(text)) for name, text in facts)
    opened = next((name for name in runs if name in set(here)), None)
    buttons = []
    if scene.choice.training and opened:
        buttons.append(_button("Open run", f"open:{opened}", title="Show this encoder over test ε, in this panel"))
    elif scene.choice.training:
        why = "Its encoder is not on this machine; the command trains it"
        buttons.append(_button("Open run", "", disabled=True, title=why))
    if command:
        copies = "Copy the command that makes this point on another machine"
        buttons.append(tag.button("Copy command", class_="jupyter-button", data_copy=command, title=copies))
    if rest[0]:
        buttons.append(_button("Compute the other seeds", rest[0], title=STARTS))
    n = f"n = {point.n}" if point.n > 1 else f"one seed, {rows.n.iloc[0]:,} images"
    span = tag.small(tag.span(u.bounds(point.low, point.high)), " ", tag.span(n))
    value = tag.div(f"{u.value(point.mean)}{u.mark} ", span, class_="ex-fact")
    return _card(point.kind, point.k, "pinned", join(value, listed), buttons, rest[1])


def differences(scene: Scene, point: Point) -> list[tuple[str, str]]:
    """(to what, '+0.7 [−0.1, 1.5]') of a point to the points it is compared with, at the same eps and paired by seed."""
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
            found.append((name, f"{scene.unit.change(d.mean)}{span}"))
    return found


def missing(kind: Kind, k: float, *, act: str, price: str, text: str = "Compute this point here") -> Markup:
    """A missing point: a button and the time it takes, or, without `act`, the reason why it cannot be computed."""
    return _card(kind, k, "none yet", "", [_button(text, act, primary=True, title=STARTS)] if act else [], price)


def under_way(kind: Kind, k: float, job: BackgroundTraining) -> Markup:
    """A background job that computes this point: its progress, or how it ended."""
    state, now, name = job.state, job.progress(), job.name
    word = "Training" if job.study else "Seed"
    dismiss = _button("Dismiss", f"forget:{name}", title="Remove this card; finished seeds stay on disk")
    if state["state"] in ("failed", "lost"):
        return _card(kind, k, "not computed", tag.div(state["error"], class_="ex-bad"), [dismiss])
    where = f"{word.lower()} {now.cell} of {now.cells}, epoch {now.epoch}"
    if state["state"] == "stopped":
        go_on = _button("Go on", f"again:{name}", primary=True, title="Continue the training from where it was stopped")
        return _card(kind, k, "stopped", f"Stopped at {where}; it goes on from there.", [go_on, dismiss])
    running = state["state"] == "running"
    where = f"{where.capitalize()} of {now.epochs}" if running else "Starts, or waits for its turn"
    about = f"about {duration(now.seconds_left)}" if now.seconds_left is not None else ""
    left = f"{about} {'left' if running else 'once it has begun'}, " if about else ""
    n = job.engine["threads"]
    cores = f"{n} CPU core{'s' * (n != 1)}" if n else "all CPU cores"
    bar = tag.div(
        tag.i(style=f"width:{now.share:.1%}"),
        class_="ex-bar",
        role="progressbar",
        aria_label=f"{kind.name} at {k:g}/255",
        aria_valuenow=f"{100 * now.share:.0f}",
        aria_valuemin="0",
        aria_valuemax="100",
    )
    said = tag.div(f"{left}{cores}. Goes on if you close the page.", class_="ex-note")
    stop = _button("Stop", f"stop:{name}", title="Stop the training; what is finished is kept")
    return _card(kind, k, "new", join(tag.div(where), bar, said), [stop])


def _card(kind: Kind, k: float, small: str, inner: Any, buttons: Iterable[Markup] = (), below: str = "") -> Markup:
    name = kind.name if kind.level else f"{kind.name}, ε = {k:g}/255"
    role = (
        f"{kind.role} {kind.key}" if kind.key in OTHERS else kind.role
    )  # the dot has the shape of the attack's marker
    buttons = list(buttons)
    return tag.div(
        tag.div(tag.i(class_="dot"), name, " ", tag.small(small), class_=f"ex-h {role}"),
        inner,
        tag.div(buttons, class_="ex-buttons") if buttons else None,
        tag.div(below, class_="ex-note") if below else None,
        class_="ex-card",
        data_card=f"{kind.key},{k:g}",
    )


def _button(text: str, act: str, *, primary: bool = False, **more: Any) -> Markup:
    own = " mod-primary" if primary else ""
    return tag.button(text, class_=f"jupyter-button{own}", data_act=act, **more)


def short_runs(names: list[str]) -> str:
    """'fashion-resnet10-fgsm-eps8-s0, s1, s2'."""
    before, shown = _short([name for name in dict.fromkeys(names) if name])
    return f"{before}{', '.join(shown)}" if shown else "no run kept"


def _runs(names: list[str], here: set[str]) -> Markup:
    """The same with one element per run; runs that can be opened are links."""
    before, shown = _short(names)
    links = [
        tag.button(short, class_="ex-link", data_act=f"open:{name}", title=f"Show {name} over test ε")
        if name in here
        else tag.span(short, title=name)
        for name, short in zip(names, shown, strict=True)
    ]
    return tag.span(before, Markup(" ").join(links), class_="mono")


def _short(names: list[str]) -> tuple[str, list[str]]:
    """The common beginning of the names, and the rest of each; the hashes of a study's runs are dropped."""
    parts = [LABEL.fullmatch(name) for name in names]
    if len({part[1] for part in parts if part}) == 1 and all(parts):
        return f"{parts[0][1]}-", [f"s{part[2]}" for part in parts if part]  # type: ignore[index]
    return "", [f"{part[1]}-s{part[2]}" if part else name for name, part in zip(names, parts, strict=True)]


def foot(scene: Scene, base: TrainConfig | None, images: str, saved: str = "") -> Markup:
    """What was trained or measured, the authors' figure, and where the numbers come from."""
    table, about, choice = scene.sweep.table, scene.sweep.provenance, scene.choice
    words = []
    if len(table):
        words = [_named(table.dataset.iloc[0]), table.arch.iloc[0]]
        trained = choice.training and base is not None
        words += [f"{base.epochs} epochs", f"batch {base.batch_size}"] if trained and base is not None else [images]
    figure = AUTHORS.get((choice.rivals, choice.show, choice.against))
    seconds = about.get("seconds")
    save = tag.button(
        "Save table", class_="ex-link", data_act="save:", title="Write the table as CSV, parquet and JSON"
    )
    made = [about.get("command"), f"{duration(seconds)} of computing" if seconds else "", about.get("commit")]
    return tag.div(
        tag.span(" · ".join(words)),
        tag.span(f"authors’ figure: {figure} (no values given)") if figure else None,
        tag.span(save, fill(' <span role="status">{}</span>', saved) if saved else None),
        origin(made),
        class_="ex-foot",
    )


def _named(dataset: str) -> str:
    """'fashion', 'folder:cats': a folder's name without its path."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{PurePath(path).name}"
