"""Networks of timm and of Hugging Face's transformers: by name, from a saved folder, or as modules.

Their own configs say how images are normalised and how large they are; of a classifier the features
below its last layer are taken.
"""

import contextlib
import copy
import json
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from ..errors import UserError

PACKAGES = ("timm", "transformers")


class Own(NamedTuple):
    """A network, what its own config says of its images (mean, std, side), and where that stands."""

    network: nn.Module
    mean: Any = None
    std: Any = None
    size: int | None = None
    where: str = ""


def named(what: str | Path) -> tuple[str, str] | None:
    """(package, name) of 'timm/NAME', 'transformers:NAME', or a folder that one of them has saved."""
    for package in PACKAGES:
        if str(what).startswith((f"{package}/", f"{package}:")):
            return package, str(what)[len(package) + 1 :]
    try:
        config = json.loads((Path(what) / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or not ("architecture" in config or "model_type" in config):
        return None
    return ("timm" if "architecture" in config else "transformers"), str(what)


def opened(package: str, name: str, known: bool = False) -> Own:
    """A network with its trained weights; `known`: its normalisation is given by the caller."""
    try:
        library: Any = import_module(package)
    except ModuleNotFoundError:
        raise UserError(f"'{package}/{name}' needs {package}, which is not installed; pip install {package}.") from None
    local = Path(name).is_dir()
    with contextlib.nullcontext() if local else _reached() as host:
        try:
            if package == "timm":
                network = library.create_model(f"local-dir:{name}" if local else name, pretrained=True)
                return told(network)
            network, loaded = library.AutoModel.from_pretrained(name, output_loading_info=True)
            _complete(network, name, loaded["missing_keys"])
            own = told(network)
            return own if known else _processed(own, library.AutoImageProcessor.from_pretrained(name))
        except UserError:
            raise
        except Exception as error:
            if package == "transformers" and "image processor" in str(error):
                raise UserError(
                    f"{name} has no preprocessor_config.json, so its normalisation is not known; give mean=... and std=..."
                ) from error
            reason = " ".join(str(error).split())[:160]
            away = (
                f"; {host} cannot be reached, so only what is cached opens: give the folder of a download"
                if host
                else ""
            )
            raise UserError(f"{package} cannot open '{name}' ({reason}){away or '; look at the name'}.") from error


@contextlib.contextmanager
def _reached() -> Iterator[str]:
    """The hub's name where it does not answer, else ''.

    Its client then tries the cache alone, not the network five times.
    """
    try:
        hub: Any = import_module("huggingface_hub.constants")
    except ModuleNotFoundError:
        yield ""
        return
    before, place = hub.HF_HUB_OFFLINE, urlsplit(hub.ENDPOINT)
    try:
        if not before and not getproxies():
            socket.create_connection((place.hostname or "", place.port or 443), 5).close()
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield str(place.hostname) if hub.HF_HUB_OFFLINE else ""
    finally:
        hub.HF_HUB_OFFLINE = before


def _complete(network: Any, name: str, missing: Any) -> None:
    """Drop a pooler that the checkpoint has no weights for; UserError where more is missing."""
    rest = [key for key in missing if not key.startswith("pooler.")]
    if rest:
        raise UserError(f"'{name}' lacks {len(rest)} of its network's weights, '{min(rest)}' among them; give another.")
    if missing:
        network.pooler = None  # its weights were drawn at random


def told(network: nn.Module) -> Own:
    """Any network; one of timm or transformers up to its features, with what its config says."""
    package = type(network).__module__.partition(".")[0]
    if package == "timm" and getattr(network, "pretrained_cfg", None):
        data = import_module("timm").data.resolve_model_data_config(network)
        if getattr(network, "num_classes", 0):
            network = copy.deepcopy(network)
            network.reset_classifier(0)  # type: ignore[operator]
        return Own(network, data["mean"], data["std"], data["input_size"][-1], "timm's pretrained_cfg")
    if package == "transformers" and hasattr(network, "config"):
        both = hasattr(network.config, "vision_config") and hasattr(network, "vision_model")
        network = network.vision_model if both else getattr(network, "base_model", network)  # type: ignore[assignment]
        side = getattr(network.config, "image_size", None)
        return Own(network, size=side if isinstance(side, int) else None, where="the network's config")
    return Own(network)


def _processed(own: Own, how: Any) -> Own:
    """With the normalisation and the size of an image processor."""
    crop = getattr(how, "crop_size", None) if getattr(how, "do_center_crop", False) else None
    sides = crop or how.size
    side = sides if isinstance(sides, int) else sides.get("height") or sides.get("shortest_edge")
    mean, std = (how.image_mean, how.image_std) if getattr(how, "do_normalize", True) else ([0.0] * 3, [1.0] * 3)
    return own._replace(mean=mean, std=std, size=side or own.size, where="preprocessor_config.json")
