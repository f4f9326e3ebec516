"""The cards beside the chart, together: the pinned point, the jobs, and the points that are not there at this eps."""

from dataclasses import dataclass

from . import cards
from .commands import look_command
from .missing import MissingPoints
from .points import LEVELS, MATCHES, Scene


@dataclass(frozen=True)
class Look:
    """Whose test images are looked at: an encoder's name, whether it is a method of the tables, and how many images."""

    encoder: str
    tabled: bool
    images: int


def desk(scene: Scene, key: str, k: float, orders: MissingPoints, here: set[str], look: Look) -> str:
    """All cards for the kind `key` at eps = k/255. `here`: runs whose encoder can be opened."""
    found, point = [], scene.at(key, k)
    ordered = orders.ordered(scene)
    if point is not None:
        lacks = [] if (key, k) in ordered else orders.lacking(scene, key, k)
        rest = (f"compute:{key},{k:g}", orders.price(lacks)) if lacks else ("", "")
        found.append(cards.pinned(scene, point, here=here, command=_command(scene, key, k, orders, look), rest=rest))
    found += orders.cards()
    for other in [key, *(own for own in scene.kinds if own != key)]:
        drawn = other in scene.kinds and (other in LEVELS or k > 0 or not scene.choice.training)
        if drawn and scene.at(other, k) is None and (other, k) not in ordered:
            found.append(_missing(scene, other, k, orders, look))
    return "".join(found)


def _missing(scene: Scene, key: str, k: float, orders: MissingPoints, look: Look) -> str:
    kind, act = scene.kinds[key], f"compute:{key},{k:g}"
    if scene.choice.training and orders.why_not:
        return cards.missing(kind, k, act="", price=f"It cannot be computed here: {orders.why_not}.")
    if scene.choice.training:
        return cards.missing(kind, k, act=act, price=orders.price(orders.lacking(scene, key, k)))
    if look.tabled:
        said = f"Not in the tables for {look.encoder}, whose encoders are not on this machine; choose a run as encoder."
        return cards.missing(kind, k, act="", price=said)
    return cards.missing(kind, k, act=act, price=f"{look.images:,} images, some seconds")


def _command(scene: Scene, key: str, k: float, orders: MissingPoints, look: Look) -> str:
    """What makes the pinned point by the command line; '' where nothing here can."""
    if scene.choice.training:
        return orders.command(scene, key, k)
    if look.tabled:
        return ""
    study = "loss-eps" if scene.choice.show == "loss" else "test-eps"
    names = [str(kind.where["attack"]) for name, kind in scene.kinds.items() if name != "probe"]
    return look_command(study, look.encoder, names, MATCHES[scene.choice.match], look.images)
