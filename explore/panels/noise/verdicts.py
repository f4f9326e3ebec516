"""The finding of the noise-or-adversary panel in words: which kind is above which, by how much, and whether the interval settles it."""

from collections.abc import Sequence

from ...attack_table import NOISE_NAMES, TABLE
from ...results import Difference
from ..html import Markup, escape, fill, join
from .points import RIVALS, SPREADS, Kind, Point, Scene, fair

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def reading(scene: Scene, k: float) -> Markup:
    """One or two sentences about eps = k/255: adversary against noise, and against SimCLR of equal compute."""
    at = escape(f"At ε = {k:g}/255 ")
    if scene.choice.rivals and (k or not scene.choice.training):
        return at + _of_rivals(scene, k)
    own, against = scene.at("adversary", k), _opponent(scene, k)
    if scene.choice.training and k == 0:
        level = scene.at("simclr", 0)
        return join("At ε = 0 nothing is added", fill(": SimCLR, {}", _stated(scene, level)) if level else None, ".")
    if own is None:
        if "adversary" not in scene.kinds:
            return at + "the adversary is not ticked, so there is nothing to compare with."
        seen = ", ".join(f"{p.k:g}" for p in scene.of("adversary"))
        return at + f"there is no adversary yet{f'; there is one at {seen}' if seen else ''}."
    if scene.choice.training:
        return at + _of_training(scene, own, against)
    return (at if k else escape("At ε = 0 nothing is added: ")) + _of_test(scene, own, against)


def absent(scene: Scene) -> str:
    """Which kinds are ticked and have no point, and why: 'Not drawn: Gaussian (not trained yet with noise of equal L2).'"""
    empty = [kind for key, kind in scene.kinds.items() if not scene.of(key)]
    choice, noise = scene.choice, [kind for kind in empty if kind.key in NOISE_NAMES]
    others = [kind for kind in empty if kind not in noise]
    yet = f"not {'trained' if choice.training else 'measured'} yet"
    sized = f"{yet} with noise of equal {choice.match}" if choice.match != "ε" else yet
    parts = [f"{listed(own)} ({why})" for own, why in ((noise, sized), (others, yet)) if own]
    return f"Not drawn: {'; '.join(parts)}." if parts else ""


def _opponent(scene: Scene, k: float) -> Point | None:
    """What the adversary is compared with first: the first ticked noise that has a point, else SimCLR."""
    there = (scene.at(key, k) for key in (*NOISE_NAMES, "simclr", "same"))
    return next((p for p in there if p is not None), None)


def _of_training(scene: Scene, own: Point, against: Point | None) -> Markup:
    if against is None:
        return fill("the adversary reaches {}; tick noise or SimCLR to compare.", _stated(scene, own))
    found, name = scene.compare(against, own), called(scene, against.kind)
    if found is None:
        return fill("the adversary reaches {}; {} was run with other seeds.", _stated(scene, own), name)
    size = scene.unit.value(abs(found.mean))
    way = "above" if found.mean > 0 else "below"
    side = fill("<b>{} points</b> {}", size, way) if float(size) else escape("level with")
    text = fill("the adversary is {} {} {}.", side, name, _verdict(scene, found))
    also = next(
        (p for key in ("same", "simclr") if (p := scene.at(key, own.k)) and fair(p, own) and p is not against), None
    )
    more = scene.compare(also, own) if also is not None else None
    return text if more is None or also is None else text + " " + _also(scene, more, also)


def _of_test(scene: Scene, own: Point, against: Point | None) -> Markup:
    u, clean, loss = scene.unit, scene.at("adversary", 0), scene.choice.show == "loss"
    if not own.k:
        return fill("the loss is {} nats." if loss else "{} % of the images are right.", u.value(own.mean))
    verb = ("lifts" if clean and own.mean >= clean.mean else "lowers") + " the loss" if loss else "takes accuracy"
    before = f" from {u.value(clean.mean)}" if clean else ""
    text = fill("the adversary {}{} to <b>{}{}</b>", verb, before, u.value(own.mean), u.mark)
    if against is None:
        return text + "."
    text += f"; {called(scene, against.kind)} leaves it at {u.value(against.mean)}{'' if loss else u.mark}"
    found = scene.compare(own, against)
    if found is not None and found.n == 1:
        images = f"{int(own.rows.n.iloc[0]):,}"
        return text + fill(" (one encoder, {} images): <b>no verdict</b> on the method.", images)
    if found is None or not float(u.value(found.mean).replace("−", "-")):
        return text + "."
    side = "higher" if found.mean > 0 else "lower"
    return text + fill(", <b>{} {}</b> {} {}.", u.value(abs(found.mean)), u.word, side, _verdict(scene, found))


def _of_rivals(scene: Scene, k: float) -> Markup:
    """Attack against attack: how far apart they are, and which of them are better than SimCLR or worse than noise."""
    u, there = scene.unit, [p for key in RIVALS if (p := scene.at(key, k)) is not None]
    if not there:
        return escape("no attack that is ticked has been trained yet.")
    each = ", ".join(f"{p.kind.name} {u.value(p.mean)}" for p in there)
    if not scene.choice.training:
        clean, noise = scene.at("adversary", 0), scene.at("sign", k)
        start = f" (clean {u.value(clean.mean)})" if clean is not None else ""
        beside = f"; sign noise of the same size: {u.value(noise.mean)}" if noise is not None else ""
        what = "the loss is, in nats," if scene.choice.show == "loss" else "the share of images right is, in %,"
        return fill("{} <b>{}</b>{}{}.", what, each, start, beside)
    text = fill("{} <b>{}</b> %.", "the attacks reach" if len(there) > 1 else "one attack has been trained,", each)
    low, high = min(there, key=lambda p: p.mean), max(there, key=lambda p: p.mean)
    gap = scene.compare(low, high) if low is not high else None
    if gap is not None:
        pair = (high.kind.name, low.kind.name, u.value(gap.mean), _verdict(scene, gap))
        text += fill(" Farthest apart: {} over {}, {} points {}.", *pair)
    plain = scene.at("simclr", k)
    against = [found for p in there if plain is not None and (found := scene.compare(plain, p)) is not None]
    if len(there) == 1 and against:
        side = "Above" if against[0].mean > 0 else "Below"
        text += fill(" {} SimCLR by {} points {}.", side, u.value(abs(against[0].mean)), _verdict(scene, against[0]))
    elif against:
        above, clear = sum(d.mean > 0 for d in against), sum(d.settled and d.mean > 0 for d in against)
        text += f" Above SimCLR: {above} of {len(against)}, settled for {NUMBERS[clear] if clear else 'none'}."
    return text


def _verdict(scene: Scene, found: Difference) -> Markup:
    """'(95 % interval −0.1 to 1.5, three seeds each): not settled at this scale', the interval seen from the mean's side."""
    if found.n == 1:
        return Markup("(one seed each): <b>no verdict</b>")
    low, high = (found.low, found.high) if found.mean >= 0 else (-found.high, -found.low)
    inside = escape(f"(95 % interval {scene.unit.span(low, high)}, {_seeds(found.n)} each)")
    return inside if found.settled else inside + Markup(": <b>not settled at this scale</b>")


def _also(scene: Scene, found: Difference, level: Point) -> str:
    name = "SimCLR at equal compute" if level.kind.key == "same" else level.kind.name
    if found.n == 1:
        return f"To {name}: {scene.unit.change(found.mean)}, one seed, no verdict."
    end = "" if found.settled else ", not settled"
    return f"To {name}: {scene.unit.change(found.mean)} ({scene.unit.span(found.low, found.high)}){end}."


def whiskers(scene: Scene) -> str:
    """What whiskers and band are: '95 % t-interval over seeds'."""
    if all(point.n == 1 for point in scene.points.values()):
        return "95 % interval over the images"
    return "95 % t-interval over seeds" if scene.choice.spread == SPREADS[0] else "± standard deviation over seeds"


def called(scene: Scene, kind: Kind) -> str:
    """A kind in a sentence, with what eps is for noise: 'Gaussian noise (σ = ε)', 'uniform noise of equal L∞'."""
    if kind.key not in NOISE_NAMES:
        return kind.name
    name, choice = f"{TABLE[kind.key].title.removesuffix(' noise')} noise", scene.choice
    if choice.match != "ε":
        return f"{name} of equal {choice.match}"
    return f"{name} of {choice.gaussian} = ε" if kind.key == "gaussian" else name


def listed(kinds: Sequence[Kind]) -> str:
    """'Gaussian', 'Gaussian and uniform', 'Gaussian, uniform and sign noise'."""
    names = [kind.name for kind in kinds]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _stated(scene: Scene, point: Point) -> Markup:
    u = scene.unit
    many = _seeds(point.n) if point.n > 1 else f"one seed, {point.rows.n.iloc[0]:,} images"
    said = "95 % interval" if scene.choice.spread == SPREADS[0] or point.n == 1 else "± sd"
    return fill("<b>{}{}</b> ({} {}, {})", u.value(point.mean), u.mark, said, u.span(point.low, point.high), many)


def _seeds(n: int) -> str:
    return f"{NUMBERS[n] if n < len(NUMBERS) else n} seed{'s' * (n != 1)}"
