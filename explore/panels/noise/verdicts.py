"""The finding of the noise-or-adversary panel in words: who is above whom, by how much, and whether that is settled."""

from ...attack_table import NOISE_NAMES, TABLE
from ...results import Difference
from .points import RIVALS, SPREADS, Kind, Point, Scene, fair

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def reading(scene: Scene, k: float) -> str:
    """One or two sentences about eps = k/255: adversary against noise, and against SimCLR of equal compute."""
    at = f"At ε = {k:g}/255 "
    if scene.choice.rivals and (k or not scene.choice.training):
        return at + _of_rivals(scene, k)
    own, against = scene.at("adversary", k), _opponent(scene, k)
    if scene.choice.training and k == 0:
        level = scene.at("simclr", 0)
        said = f": SimCLR, {_stated(scene, level)}" if level is not None else ""
        return f"At ε = 0 nothing is added{said}."
    if own is None:
        if "adversary" not in scene.kinds:
            return f"{at}the adversary is not ticked, so there is nothing to compare with."
        seen = ", ".join(f"{p.k:g}" for p in scene.of("adversary"))
        return f"{at}there is no adversary yet{f'; there is one at {seen}' if seen else ''}."
    if scene.choice.training:
        return at + _of_training(scene, own, against)
    return (at if k else "At ε = 0 nothing is added: ") + _of_test(scene, own, against)


def _opponent(scene: Scene, k: float) -> Point | None:
    """What the adversary is first compared with: the first noise ticked that is there, else SimCLR."""
    there = (scene.at(key, k) for key in (*NOISE_NAMES, "simclr", "same"))
    return next((p for p in there if p is not None), None)


def _of_training(scene: Scene, own: Point, against: Point | None) -> str:
    if against is None:
        return f"the adversary reaches {_stated(scene, own)}; tick noise or SimCLR to compare."
    found, name = scene.compare(against, own), called(scene, against.kind)
    if found is None:
        return f"the adversary reaches {_stated(scene, own)}; {name} was run with other seeds."
    size = scene.unit.value(abs(found.mean))
    side = f"<b>{size} points</b> {'above' if found.mean > 0 else 'below'}" if float(size) else "level with"
    text = f"the adversary is {side} {name} {_verdict(scene, found)}."
    also = next(
        (p for key in ("same", "simclr") if (p := scene.at(key, own.k)) and fair(p, own) and p is not against), None
    )
    more = scene.compare(also, own) if also is not None else None
    return text if more is None or also is None else f"{text} {_also(scene, more, also)}"


def _of_test(scene: Scene, own: Point, against: Point | None) -> str:
    u, clean, loss = scene.unit, scene.at("adversary", 0), scene.choice.show == "loss"
    if not own.k:
        return f"the loss is {u.value(own.mean)} nats." if loss else f"{u.value(own.mean)} % of the images are right."
    verb = ("lifts" if clean and own.mean >= clean.mean else "lowers") + " the loss" if loss else "takes accuracy"
    text = (
        f"the adversary {verb}{f' from {u.value(clean.mean)}' if clean else ''} to <b>{u.value(own.mean)}{u.mark}</b>"
    )
    if against is None:
        return f"{text}."
    text += f"; {called(scene, against.kind)} leaves it at {u.value(against.mean)}{'' if loss else u.mark}"
    found = scene.compare(own, against)
    if found is not None and found.n == 1:
        return f"{text} (one encoder, {int(own.rows.n.iloc[0]):,} images): <b>no verdict</b> on the method."
    if found is None or not float(u.value(found.mean).replace("−", "-")):
        return f"{text}."
    side = "higher" if found.mean > 0 else "lower"
    return f"{text}, <b>{u.value(abs(found.mean))} {u.word}</b> {side} {_verdict(scene, found)}."


def _of_rivals(scene: Scene, k: float) -> str:
    """Attack against attack: how far apart they are, and which of them stand clear of SimCLR or of noise."""
    u, there = scene.unit, [p for key in RIVALS if (p := scene.at(key, k)) is not None]
    if not there:
        return "no attack that is ticked has been trained yet."
    each = ", ".join(f"{p.kind.name} {u.value(p.mean)}" for p in there)
    if not scene.choice.training:
        clean, noise = scene.at("adversary", 0), scene.at("sign", k)
        start = f" (clean {u.value(clean.mean)})" if clean is not None else ""
        beside = f"; sign noise of the same size: {u.value(noise.mean)}" if noise is not None else ""
        what = "the loss is, in nats," if scene.choice.show == "loss" else "the share of images right is, in %,"
        return f"{what} <b>{each}</b>{start}{beside}."
    text = f"{'the attacks reach' if len(there) > 1 else 'one attack has been trained,'} <b>{each}</b> %."
    low, high = min(there, key=lambda p: p.mean), max(there, key=lambda p: p.mean)
    gap = scene.compare(low, high) if low is not high else None
    if gap is not None:
        text += f" Farthest apart: {high.kind.name} over {low.kind.name}, {u.value(gap.mean)} points {_verdict(scene, gap)}."
    plain = scene.at("simclr", k)
    against = [found for p in there if plain is not None and (found := scene.compare(plain, p)) is not None]
    if len(there) == 1 and against:
        side = "Above" if against[0].mean > 0 else "Below"
        text += f" {side} SimCLR by {u.value(abs(against[0].mean))} points {_verdict(scene, against[0])}."
    elif against:
        above, clear = sum(d.mean > 0 for d in against), sum(d.settled and d.mean > 0 for d in against)
        text += f" Above SimCLR: {above} of {len(against)}, settled for {NUMBERS[clear] if clear else 'none'}."
    return text


def _verdict(scene: Scene, found: Difference) -> str:
    """'(95 % interval −0.1 to 1.5, three seeds each): not settled at this scale', the interval seen from the mean's side."""
    if found.n == 1:
        return "(one seed each): <b>no verdict</b>"
    low, high = (found.low, found.high) if found.mean >= 0 else (-found.high, -found.low)
    inside = f"(95 % interval {scene.unit.span(low, high)}, {_seeds(found.n)} each)"
    return inside if found.settled else f"{inside}: <b>not settled at this scale</b>"


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


def _stated(scene: Scene, point: Point) -> str:
    u = scene.unit
    many = _seeds(point.n) if point.n > 1 else f"one seed, {point.rows.n.iloc[0]:,} images"
    said = "95 % interval" if scene.choice.spread == SPREADS[0] or point.n == 1 else "± sd"
    return f"<b>{u.value(point.mean)}{u.mark}</b> ({said} {u.span(point.low, point.high)}, {many})"


def _seeds(n: int) -> str:
    return f"{NUMBERS[n] if n < len(NUMBERS) else n} seed{'s' * (n != 1)}"
