"""The loss over test-time eps: the sweep that shares its work against the loop that one would write, side by side.

Five kinds, nine eps, 1,000 images, the shipped CLAE encoder. The loop makes, for every kind and eps, the reference, the attack
(for matched noise, the attack whose length it is to have, and `ex.match`) and the loss. Both give the same curves, which is checked.
"""

import torch

import explore as ex
from explore.attacks import ATTACKS, NOISES, Noise, norms
from explore.studies import TEST_EPS, loss_vs_eps, passes
from explore.studies.sweep import _mix
from explore.training import make_views, resolve_device

from .timing import interleaved, machine, ratio, table

MATCHED = ("fgsm", "rfgsm", "gaussian", "uniform", "sign")
PLAIN = ("fgsm", "gaussian", "gaussian-variance", "uniform", "sign")


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds of a whole sweep, matched in L-infinity (the default), in L2, and not matched."""
    where, shipped = resolve_device(device), ex.open_run("demo/clae")
    data, n = ex.load(shipped.config.dataset).to(where), 250 if quick else 1000
    x = data.test.take(n, ex.seeded(0))[:][0]
    encoder, views = shipped.encoder(where), make_views(shipped.config, data)
    cases = {"linf": MATCHED, "l2": MATCHED, "plain": PLAIN}
    calls, curves = {}, {}
    for match, kinds in cases.items():

        def shared(match: str = match, kinds: tuple[str, ...] = kinds) -> None:
            found = loss_vs_eps(shipped, kinds=kinds, match=match, images=n, data=data, device=device)
            rows = found.where(metric="loss").table
            curves["sweep", match] = {(r.attack, r.eps): r.value for r in rows.itertuples()}

        def naive(match: str = match, kinds: tuple[str, ...] = kinds) -> None:
            curves["loop", match] = {
                (kind, eps): loop(encoder, views, x, kind, eps, match, shipped.config)
                for kind in kinds
                for eps in TEST_EPS
            }

        calls |= {f"loop, {match}": naive, f"sweep, {match}": shared}
    seconds = interleaved(calls, 1 if quick else 3, where)
    for match in cases:
        ours, theirs = curves["sweep", match], curves["loop", match]
        worst = max(abs(ours[key] - theirs[key]) for key in theirs)
        assert ours.keys() == theirs.keys() and worst < 2e-3, f"{match}: the curves differ by {worst}"
    print(f"loss over {len(TEST_EPS)} eps, 5 kinds, {n} images, {where}; images/s counts every kind and eps")
    table(seconds, n * 5 * len(TEST_EPS))
    ratios = {match: ratio(seconds, f"loop, {match}", f"sweep, {match}") for match in cases}
    counted = {match: passes(kinds, TEST_EPS, match) for match, kinds in cases.items()}
    figures = {f"naive_over_sweep_{match}": ratios[match] for match in ("l2", "plain")}
    return {
        "naive_over_sweep": ratios["linf"],
        "naive_over_shared": ratios["linf"],
        **figures,
        **{f"passes_{match}": f"{c['naive']} / {c['shared']}" for match, c in counted.items()},
        "images": n,
        "quick": quick,
        **machine(where),
    }


def loop(encoder, views, x, kind: str, eps: float, match: str, config) -> float:
    """The mean loss at one kind and eps, from nothing."""
    losses = []
    for i, part in enumerate(x.tensor_split(-(-len(x) // config.batch_size))):
        reference = views(part, ex.seeded(_mix(0, i)))
        objective = ex.contrast(encoder, reference, temperature=config.temperature, loss=config.loss)
        if kind in ATTACKS:
            moved = ATTACKS[kind](eps)(part, objective, generator=ex.seeded(_mix(0, i)))
        else:
            moved = noisy(part, objective, kind, eps, match, ex.seeded(_mix(0, i)))
        with torch.no_grad():
            losses.append(objective(moved))
    return float(torch.cat(losses).double().mean())


def noisy(x, objective, kind: str, eps: float, match: str, generator):
    """Noise as drawn, or as long as FGSM's perturbation of the same image."""
    if match == "plain":
        by = "variance" if kind.endswith("-variance") else "std"
        noise = Noise.gaussian(eps, by=by) if kind.startswith("gaussian") else NOISES[kind](eps)
        return noise(x, generator=generator)
    length = norms(ex.Attack.fgsm(eps)(x, objective) - x)[match]
    direction = NOISES[kind](1.0, clamp=None)(x, generator=generator) - x
    return (x + ex.match(direction, x, **{match: length})).clamp(0, 1)
