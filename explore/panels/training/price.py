"""What a training costs on this machine, told before it is started."""

from ... import datasets
from ...config import TrainConfig
from ...errors import UserError
from ...experiments.cost import duration, seconds_a_pass, seconds_of_run

_passes: dict[str, float | str] = {}  # seconds of a forward pass by settings, or why it cannot be timed


def known(config: TrainConfig) -> bool:
    """Whether a forward pass of these settings was timed."""
    return _key(config) in _passes


def measure(config: TrainConfig, threads: int) -> None:
    """Time a forward pass, by steps of one batch; nothing is downloaded for it."""
    try:
        datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size, download=False)
        _passes[_key(config)] = seconds_a_pass(config, threads)
    except UserError as error:
        _passes[_key(config)] = str(error)


def words(config: TrainConfig) -> str:
    """'2 epochs: about 45 s on this machine'."""
    found = _passes.get(_key(config), "the time is being estimated")
    if isinstance(found, float):
        found = f"about {duration(seconds_of_run(config, found))} on this machine"
    return f"{config.epochs} epoch{'s' * (config.epochs != 1)}: {found}"


def _key(config: TrainConfig) -> str:
    """All that the time of a pass depends on."""
    return config.with_(attack="none", eps=None, epochs=1, seed=0).to_json()
