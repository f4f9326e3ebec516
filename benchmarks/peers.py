"""Other projects to measure against: none is a dependency, each is measured where it is installed."""

import importlib
import importlib.util
import sys
import warnings
from types import ModuleType

import torch

from explore.convolutions import Conv2d


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def peer(name: str) -> ModuleType | None:
    """The module where it can be imported, else None and a line that says how to get it."""
    top = name.split(".")[0]
    if not installed(top):
        print(f"{top} is not installed, so it is not measured: pip install {top}", file=sys.stderr)
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except Exception as error:  # a peer that is broken here must not hide the figures of the others
            print(f"{top} is installed but cannot be imported ({type(error).__name__}: {error})", file=sys.stderr)
            return None


def versions(*names: str) -> dict[str, str]:
    """Versions of those peers that are installed."""
    from importlib import metadata

    return {name: metadata.version(name) for name in names if installed(name)}


def torchs_own(network: torch.nn.Module) -> torch.nn.Module:
    """The network with torch's convolutions in place of ours: what others train."""
    for part in network.modules():
        if isinstance(part, Conv2d):
            part.__class__ = torch.nn.Conv2d
    return network
