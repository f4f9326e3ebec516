"""The command line of a training's settings."""

import shlex
from dataclasses import fields

from ..config import TrainConfig, show_eps


def command(config: TrainConfig) -> str:
    """The command line that starts a run of these settings, those of the preset left out."""
    preset = TrainConfig(dataset=config.dataset, attack=config.attack)
    words = ["python -m explore train", f"--dataset {shlex.quote(config.dataset)}", f"--attack {config.attack}"]
    if config.attack != "none":
        words.append(f"--eps {show_eps(config.eps)}")
    for name in (field.name for field in fields(config) if field.name not in ("dataset", "attack", "eps")):
        value = getattr(config, name)
        if value != getattr(preset, name) and value is not None:
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(words)
