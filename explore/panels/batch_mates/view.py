"""HTML of the panel 'batch mates', from a `results.BatchMates`: reading, pictures, table. No widget."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...figures import COLOURS
from ...results import BatchMates, to_pixels
from ...results.batch_mates import COUPLINGS
from ..html import Markup, fill, heading, picture, signed, tag

SIDE, SMALL = 128, 64  # pixels on the screen
MODES = {
    "eval": "eval mode: batch norm by running statistics",
    "train": "train mode: batch norm by the batch’s statistics",
}
LOSSES = {"contrastive": "contrastive loss", "positive alone": "positive alone, no negatives"}


@dataclass(frozen=True)
class Exchange:
    """What the panel draws: the result, the spare pictures and the one that was taken, the class names of batch and spares."""

    result: BatchMates
    spares: Tensor
    spare: int
    names: list[str]


def percent(share: float) -> str:
    """'12.3 %', with a space that does not break."""
    return f"{100 * share:.1f}\xa0%"


def reading(result: BatchMates) -> Markup:
    """The finding: how many signs change in either mode, with and without negatives."""
    eval_, train, alone_eval, alone_train = (percent(float(share)) for share in result.differs)
    text = fill("One of {} batch mates is exchanged. It changes <b>{}</b> of the signs ", len(result.x) - 1, eval_)
    text += fill("of this picture’s perturbation in eval mode, by the negatives, and <b>{}</b> in train mode, ", train)
    return text + fill("by batch norm as well. Without negatives: {} and {}.", alone_eval, alone_train)


def pictures(exchange: Exchange, coupling: int) -> Markup:
    """The anchor, the mates that go and come, the signs before and after, and where they differ."""
    result, (loss, mode) = exchange.result, COUPLINGS[coupling]
    before, after = (signs.numpy() for signs in result.signs[:, coupling])
    name, goes = exchange.names[result.anchor], exchange.names[result.mate]
    comes = exchange.names[len(result.x) + exchange.spare]
    share = percent(float(result.differs[coupling]))
    mates = tag.div(
        _figure("goes", goes, to_pixels(result.x[[result.mate]])[0], f"{goes}, goes", SMALL),
        _figure("comes", comes, to_pixels(result.new[None])[0], f"{comes}, comes", SMALL),
        class_="ex-bm-mates",
    )
    shown = (
        _figure("picture", name, to_pixels(result.x[[result.anchor]])[0], f"{name}, the picture that is attacked"),
        mates,
        _figure("signs before", "", _gray(before), "signs of the perturbation before the exchange"),
        _figure("signs after", "", _gray(after), "signs of the perturbation after the exchange"),
        _figure("changed", share, _changed(before, after), f"pixels whose sign changed: {share}"),
    )
    title = heading(LOSSES[loss][:1].upper() + LOSSES[loss][1:], f"{mode} mode; white: brighter, black: darker")
    return tag.div(title, tag.div(shown, class_="ex-bm-pics"), class_="ex-bm")


def _figure(word: str, more: str, pixels: np.ndarray, alt: str, side: int = SIDE) -> Markup:
    return tag.figure(tag.figcaption(tag.b(word), " ", more), picture(pixels, side, alt))


def _gray(signs: np.ndarray) -> np.ndarray:
    """Signs (c, h, w) as uint8 (h, w, 3): black -1, grey 0, white 1."""
    shown = np.broadcast_to(((signs + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0), (*signs.shape[1:], 3))
    return np.ascontiguousarray(shown)


def _changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Pixels whose sign changed in any channel, in the adversary's colour; the others are transparent."""
    colour = [int(COLOURS["adv"][i : i + 2], 16) for i in (1, 3, 5)]
    shown = np.zeros((*before.shape[1:], 4), np.uint8)
    shown[(before != after).any(0)] = [*colour, 255]
    return shown


def table(result: BatchMates) -> Markup:
    """Loss by mode: share of changed signs with a bar, cosine of the gradients; `data-pick` chooses what is shown."""
    modes = ("eval", "train")
    head = tag.tr(tag.th("attacked"), [tag.th(MODES[mode], class_="l") for mode in modes])
    rows = [
        tag.tr(
            tag.td(tag.b(LOSSES[loss])),
            [_cell(result, COUPLINGS.index((loss, mode))) for mode in modes],
            data_row=True,
        )
        for loss in LOSSES
    ]
    return tag.table(
        tag.thead(head), tag.tbody(rows), class_="ex-bm-t", aria_label="Signs that change, by loss and mode"
    )


def _cell(result: BatchMates, i: int) -> Markup:
    share = float(result.differs[i])
    bar = tag.span(tag.i(style=f"width:{100 * min(1.0, 2 * share):.1f}%"), class_="bar")
    words = tag.span(tag.b(percent(share)), f" of signs · cosine {signed(float(result.cosine[i]))}")
    loss, mode = COUPLINGS[i]
    said = f"{LOSSES[loss]}, {mode} mode: {percent(share)} of signs change"
    return tag.td(words, bar, class_="l", data_pick=i, aria_label=said, title="Show these perturbations")
