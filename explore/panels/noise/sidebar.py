"""The cards beside the chart, together: the pinned point, the jobs, and the missing points at this eps."""

from dataclasses import dataclass

from ..html import Markup, join
from . import cards
from .missing import MissingPoints, point_key
from .points import LEVELS, MATCHES, Scene


@dataclass(frozen=True)
class Look:
    """The encoder that is measured over test eps: its name, whether it is a method of the tables, and the number of test images."""

    encoder: str
    tabled: bool
    images: int


def sidebar(scene: Scene, key: str, k: float, missing: MissingPoints, here: set[str], look: Look) -> Markup:
    """All cards for the kind `key` at eps = k/255. `here`: runs whose encoder can be opened."""
    found, point, requested = [], scene.at(key, k), missing.requested(scene)
    if point is not None:
        lacks = [] if point_key(key, k) in requested else missing.lacking(scene, key, k)
        rest = (f"compute:{key},{k:g}", missing.price(lacks)) if lacks else ("", "")
        found.append(cards.pinned(scene, point, here=here, command=_command(scene, key, k, missing, look), rest=rest))
    found += [cards.under_way(*missing.kind(job), job) for job in missing.jobs]
    for other in [key, *(own for own in scene.kinds if own != key)]:
        drawn = other in scene.kinds and (other in LEVELS or k > 0 or not scene.choice.training)
        if drawn and scene.at(other, k) is None and point_key(other, k) not in requested:
            found.append(_missing(scene, other, k, missing, look))
    return join(found)


def _missing(scene: Scene, key: str, k: float, missing: MissingPoints, look: Look) -> Markup:
    kind, act = scene.kinds[key], f"compute:{key},{k:g}"
    if scene.choice.training and missing.why_not:
        return cards.missing(kind, k, act="", price=f"It cannot be computed here: {missing.why_not}.")
    if scene.choice.training:
        return cards.missing(kind, k, act=act, price=missing.price(missing.lacking(scene, key, k)))
    if look.tabled:
        text = f"Not in the tables for {look.encoder}, whose encoders are not on this machine; choose a run as encoder."
        return cards.missing(kind, k, act="", price=text)
    return cards.missing(kind, k, act=act, price=f"{look.images:,} images, some seconds")


def _command(scene: Scene, key: str, k: float, missing: MissingPoints, look: Look) -> str:
    """The command that makes the pinned point; '' where there is none."""
    if scene.choice.training:
        return missing.command(scene, key, k)
    if look.tabled:
        return ""
    study = "loss-eps" if scene.choice.show == "loss" else "test-eps"
    kinds = ",".join(str(kind.where["attack"]) for name, kind in scene.kinds.items() if name != "probe")
    return (
        f"python -m explore sweep --study {study} --run {look.encoder} --kinds {kinds} "
        f"--match {MATCHES[scene.choice.match]} --images {look.images}"
    )
