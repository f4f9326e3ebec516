"""HTML of the training panel, from what a run folder shows: state, figures, sentence, pictures of
the batch. No widget.
"""

import itertools
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ...experiments.background import RunState
from ...experiments.command import command
from ...experiments.cost import duration
from ...figures.training import role_of
from ...results import RunProgress, TrainingCurves, png, to_pixels
from ...runfolder import Run
from ..atlas.view import spark
from ..html import Markup, dotted, fill, heading, image, join, origin, signed, tag

QUIET = 10.0  # seconds without a row of metrics until a running process counts as paused, or ...
TIMES = 8  # ... so many times what lies between two rows
GAIN = 10  # of the shown difference
WIDE = 64  # pixels of a picture on the screen


@dataclass(frozen=True)
class Seen:
    """What the panel draws: the curves as `result`, and the state of the first run."""

    result: TrainingCurves
    run: Run
    state: RunState
    progress: RunProgress
    batch: tuple[dict[str, Tensor], int] | None


def paused(seen: Seen) -> bool:
    """Whether a running training has not written a row for much longer than it usually takes."""
    seconds = seen.result.points(seen.run.name, "seconds")[1]
    usual = median(b - a for a, b in itertools.pairwise(seconds)) if len(seconds) > 2 else QUIET
    return seen.state.name == "running" and seen.state.silent > max(QUIET, TIMES * usual)


def state_words(seen: Seen) -> str:
    """What the process does, for the panel's head."""
    name, at = seen.state.name, f"epoch {seen.progress.epoch:.1f} of {seen.progress.epochs}"
    if paused(seen):
        return f"paused: no step for {duration(seen.state.silent)}; it goes on by itself when the machine or its process does"
    return {
        "starting": "starting: Python and torch are being loaded",
        "running": "running in a process of its own; it goes on when this page is closed",
        "stopped": f"stopped at {at}; Resume goes on from there",
        "failed": f"failed at {at}",
        "done": "finished",
    }.get(name, "not trained yet")


def alert(seen: Seen) -> Markup:
    """Why a training failed."""
    if not seen.state.error:
        return Markup("")
    head, _, rest = seen.state.error.partition("; ")
    more = f"{rest[:1].upper()}{rest[1:]}" if rest else ""
    return tag.div(tag.b(head.rstrip(".") + "."), " ", more, class_="ex-error", role="alert")


def bar(seen: Seen) -> Markup:
    """How much is done, as a bar."""
    share = f"{seen.progress.share:.1%}"
    return tag.div(class_="ex-done", style=f"--p:{share}", role="img", aria_label=f"{share} of the training is done")


def facts(seen: Seen) -> Markup:
    """Six figures with what they have been."""
    p, name, at_rest = seen.progress, seen.run.name, paused(seen)
    left = "–" if p.seconds_left is None else duration(p.seconds_left)
    clock = _fact("time left", left, "" if seen.state.alive else "when resumed", "by the speed of the latest steps")
    if seen.state.name == "done":
        spent = seen.result.last(name, "seconds")
        clock = _fact("time spent", "–" if spent is None else duration(spent), "", "on the training, its kNN included")
    speed = "–" if at_rest or p.images_a_second is None else f"{p.images_a_second:,.0f}"
    cells = [
        _fact("epoch", f"{p.epoch:.1f}", f"of {p.epochs}", "passes over the training images"),
        clock,
        _fact("images a second", speed, "", "median of the latest steps"),
    ]
    about = (
        ("knn", "kNN", 100, 1, "%", "test images whose 20 nearest neighbours, by features h, vote for their class"),
        (
            "alignment",
            "alignment",
            1,
            2,
            "",
            "mean squared distance of two views' projections z; 0: equal, 2: unrelated",
        ),
        ("uniformity", "uniformity", 1, 2, "", "log of the mean closeness of all pairs of projections z; 0: all equal"),
        ("rankme", "RankMe", 1, 1, "", "effective rank of the features h; 1: all on one line"),
    )
    for column, title, factor, digits, unit, words in about:
        epochs, values = seen.result.points(name, column)
        if values:
            text = f"{factor * values[-1]:.{digits}f}".replace("-", "−")
            curve = spark(epochs, [("ref", values)], epochs[-1], None, 40) if len(set(epochs)) > 1 else None
            cells.append(_fact(title, text, unit, words, curve))
    return tag.div(cells, class_="ex-facts")


def _fact(title: str, value: str, unit: str, words: str, curve: Markup | None = None) -> Markup:
    return tag.div(
        tag.div(title, class_="ex-k"),
        tag.div(tag.b(value), " ", tag.small(unit), curve, class_="ex-fact"),
        title=f"{title}: {words}",
    )


def reading(seen: Seen) -> Markup:
    """The finding: the loss against chance, kNN against the untrained network, and against the
    other run at this epoch.
    """
    name, result = seen.run.name, seen.result
    loss, chance, knn = (result.last(name, column) for column in ("loss", "chance", "knn"))
    if loss is None or chance is None:
        return Markup("No step is finished yet.")
    where = f"below chance, {chance:.2f}" if loss < chance else f"above chance, {chance:.2f}: nothing is learnt yet"
    said = fill(
        "At epoch {} the clean loss is <b>{}</b> nats, {} {}.",
        *(f"{seen.progress.epoch:.1f}", f"{loss:.2f}", f"{abs(chance - loss):.2f}", where),
    )
    if knn is None:
        return said
    epochs, values = result.points(name, "knn")
    said += fill(" kNN is right on <b>{} %</b> of the test images", f"{100 * knn:.1f}")
    if epochs[0] == 0 and len(values) > 1:
        said += f", {signed(100 * (knn - values[0]), 1)} points against the untrained network"
    for other in result.runs[1:]:
        there = dict(zip(*result.points(other, "knn"), strict=True))
        data = {result.provenance["config"][run]["dataset"] for run in (name, other)}
        if epochs[-1] in there and len(data) == 1:
            gap = signed(100 * (knn - there[epochs[-1]]), 1)
            said += fill(" and {} against {} at that epoch. One seed each: no verdict", gap, other)
        if (level := result.last(other, "chance")) is not None and abs(level - chance) > 1e-6:
            said += fill(". Chance is {} for {}: the losses do not compare", f"{level:.2f}", other)
    return said + "."


def batch(seen: Seen) -> Markup:
    """The first images of the batch under way: both views, the adversary (or noise), and what it
    changed.
    """
    if seen.batch is None:
        return Markup("")
    pictures, step = seen.batch
    config = seen.run.config
    rows = [("view 1", "the anchor", "clean", pictures["view1"]), ("view 2", "", "clean", pictures["view2"])]
    if "adversary" in pictures:
        own, role = config.adv_reference == "self", role_of(config.to_dict())
        clean = pictures["view1" if own else "view2"]
        made, title = pictures["adversary"], "adversary" if role == "adv" else "with noise"
        difference = (0.5 + GAIN * (made - clean)).clamp(0, 1)
        rows += [(title, f"of view {1 if own else 2}", role, made), (f"difference × {GAIN}", "", role, difference)]
    drawn = [
        tag.div(
            tag.div(dotted(role, words), tag.small(more) if more else None, class_="ex-b-name"),
            [_picture(x, f"{words} of image {i + 1}") for i, x in enumerate(images)],
            class_="ex-b-row",
        )
        for words, more, role, images in rows
    ]
    small = f"step {step:,}, {len(pictures['view1'])} of {config.batch_size} images"
    return join(heading("In this batch", small), tag.div(drawn, class_="ex-batch"))


def _picture(x: Tensor, alt: str) -> Markup:
    """A picture at a whole multiple of its pixels near 64; a larger one is averaged over whole
    blocks first.
    """
    if (block := -(-x.shape[-1] // WIDE)) > 1:
        x = torch.nn.functional.avg_pool2d(x, block)
    return image(png(to_pixels(x[None])[0]), x.shape[-1] * max(1, WIDE // x.shape[-1]), alt, title=True)


def foot(seen: Seen) -> Markup:
    """The command that does the same, and where the run stands."""
    p = seen.result.provenance
    words = [seen.run.name, f"seed {seen.run.config.seed}", p.get("device"), p.get("commit")]
    table = tag.span("The numbers of the curves are panel.result.table.", class_="ex-sr")
    return tag.div(tag.span(command(seen.run.config), class_="mono"), table, origin(words), class_="ex-foot")
