"""Points that are not there yet: which cells they are, and the command that makes them."""

import shlex
from collections.abc import Sequence
from dataclasses import fields

from ...attacks import NOISES
from ...config import TrainConfig
from ...studies import Cell, Measure
from .points import MATCHES, Choice, Kind, longer

OWN = (
    "attack",
    "eps",
    "seed",
    "gaussian_by",
    "noise_norm",
    "knn_every",
    "data_dir",
)  # said by the command's other words


def config_of(kind: Kind, k: float, base: TrainConfig, choice: Choice, attack: str = "fgsm") -> TrainConfig:
    """The settings of a kind's training at eps = k/255, all else as in `base`. `attack`: the adversary's."""
    if kind.level:
        return base.with_(attack="none", epochs=longer(base, attack) if kind.key == "same" else base.epochs)
    name = attack if kind.key == "adversary" else kind.key
    own: dict[str, object] = {"attack": name, "eps": k / 255}
    if name in NOISES:
        match = MATCHES[choice.match]
        own["noise_norm"] = None if match == "plain" else match
        own["gaussian_by"] = "variance" if kind.where["attack"] == "gaussian-variance" else "std"
    return base.with_(**own)


def cells_of(config: TrainConfig, seeds: Sequence[int], measure: Measure) -> list[Cell]:
    """The cells of one point."""
    return [Cell(config.with_(seed=seed), measure) for seed in seeds]


def train_command(config: TrainConfig, seeds: Sequence[int]) -> str:
    """`python -m explore sweep ...` that trains the same cells; '' where the seeds have gaps."""
    if list(seeds) != list(range(min(seeds), min(seeds) + len(seeds))):
        return ""
    by_variance = config.attack == "gaussian" and config.gaussian_by == "variance"
    words = ["--study train-eps", f"--methods {'gaussian-variance' if by_variance else config.attack}"]
    k = round(config.eps * 255, 6)
    words += [f"--eps {f'{k:.0f}/255' if k == int(k) else repr(config.eps)}"] if config.attack != "none" else []
    words += [f"--seeds {len(seeds)}"] + ([f"--seed {min(seeds)}"] if min(seeds) else [])
    words += [f"--noise-norm {config.noise_norm}"] if config.noise_norm and config.attack in NOISES else []
    words += [f"--dataset {shlex.quote(config.dataset)}"] if config.dataset != TrainConfig().dataset else []
    usual = TrainConfig(dataset=config.dataset)
    for name in (f.name for f in fields(TrainConfig)):
        value = getattr(config, name)
        if name not in OWN and value != getattr(usual, name) and value is not None:
            said = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            words.append(f"--{name.replace('_', '-')} {said}")
    return " ".join(["python -m explore sweep", *words])


def look_command(study: str, run: str, kinds: Sequence[str], match: str, images: int) -> str:
    """`python -m explore sweep ...` that looks at a run over test eps."""
    return f"python -m explore sweep --study {study} --run {run} --kinds {','.join(kinds)} --match {match} --images {images}"
