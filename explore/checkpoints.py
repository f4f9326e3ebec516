"""Weights from elsewhere: a bounded reader, and the encoder among a checkpoint's tensors.

A checkpoint is a dict, often nested, of names and tensors. Whatever stands before the names of a
ResNet (`module.`, `backbone.`, `encoder_q.`, a prefix nobody has seen before), the encoder is found
by matching the whole set of names and shapes; weights left over or missing are never accepted.
"""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError
from .nets import ARCHS, Encoder
from .serialization import load_tensors

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin", ".torch")
INFLATED = 64_000_000  # bytes that a checkpoint's pickle, names and shapes without the numbers, may unpack to
TIMES = 50  # and how many times its own size an archive may unpack to in all
# of several networks that fit, the one that the paper evaluates comes first
PREFERRED = ("teacher", "encoder_q", "query_encoder", "backbone", "online", "student", "encoder", "model")
SECOND = (
    "encoder_k",
    "momentum",
    "target",
    "ema",
    "model_ema",
    "state_dict_ema",
)  # averaged copies, which are not meant
# a ResNet without its last layers as a torch.nn.Sequential, as lightly and others keep it: with a max-pool, and without
NUMBERED = tuple({"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + at) for i in range(1, 5)}} for at in (3, 2))


@dataclass(frozen=True)
class Found:
    """An encoder's tensors within a checkpoint: where they stood and what stood beside them."""

    tensors: dict[str, Tensor]  # under torchvision's names
    prefix: str  # what stood before the names
    others: tuple[str, ...]  # prefixes of other networks that would have fitted
    left: int  # tensors that are no part of it: heads, projectors, optimisers


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by dotted names; UserError for what is no checkpoint."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    _bounded(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as plain weights ({type(error).__name__}); save its state_dict() alone and give that file."
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, expected a state_dict: names and tensors.")
    return dict(_flat(found))


def _bounded(path: Path) -> None:
    """UserError for an archive that unpacks to much more than its size: it would fill memory."""
    if zipfile.is_zipfile(path):  # torch's older format is not compressed
        try:
            with zipfile.ZipFile(path) as archive:
                parts = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # torch's reader says it
            return
        pickles = sum(part.file_size for part in parts if part.filename.endswith(".pkl"))
        whole = sum(part.file_size for part in parts)
        if pickles > INFLATED or whole > max(INFLATED, TIMES * path.stat().st_size):
            raise UserError(
                f"{path} unpacks to {max(pickles, whole) / 1e6:,.0f} MB out of {path.stat().st_size / 1e6:,.1f} MB, so it is no file of "
                "weights; get it again from its publisher."
            )


def _flat(values: Mapping, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, by dotted names."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping) and depth < 6:
            yield from _flat(value, f"{prefix}{name}.", depth + 1)


def find(
    tensors: dict[str, Tensor], own: dict[str, torch.Size], names: Mapping[str, str] | None = None
) -> Found | None:
    """The tensors under one prefix whose names and shapes are exactly `own`; None without them.

    `names`: other first words of the names, as in `NUMBERED`.
    """
    theirs = {}
    for name, shape in own.items():
        first, dot, rest = name.partition(".")
        theirs[f"{(names or {}).get(first, first)}{dot}{rest}"] = (name, shape)
    anchor = max(theirs, key=lambda name: (theirs[name][1].numel(), name))
    prefixes = [n.removesuffix(anchor) for n in tensors if n.endswith(anchor)]
    fits = [p for p in prefixes if p[-1:] in ("", ".") and _fits(tensors, p, theirs)]
    if not fits:
        return None
    best = min(fits, key=_rank)
    chosen = {name: tensors.get(best + n, torch.tensor(0)) for n, (name, _) in theirs.items()}
    return Found(chosen, best, tuple(p for p in fits if p != best), len(tensors) - len(own))


def _fits(tensors: dict[str, Tensor], prefix: str, own: dict[str, tuple[str, torch.Size]]) -> bool:
    """Whether all of `own` is there, and nothing else in the same parts of the network."""
    below = {n.removeprefix(prefix): t.shape for n, t in tensors.items() if n.startswith(prefix)}
    parts = {n.partition(".")[0] for n in own}
    if any(n not in own for n in below if n.partition(".")[0] in parts):
        return False
    counters = "num_batches_tracked"  # which old checkpoints do not have
    return all(below.get(n) == shape or (n.endswith(counters) and n not in below) for n, (_, shape) in own.items())


def _rank(prefix: str) -> tuple[bool, int, int]:
    words = prefix.split(".")
    second = any(word.startswith(SECOND) for word in words)
    place = next((i for i, word in enumerate(PREFERRED) if word in words), len(PREFERRED))
    return (second, place, len(prefix))


def resnet(path: Path, tensors: dict[str, Tensor]) -> tuple[str, int, str, Found]:
    """The ResNet that some of a checkpoint's tensors are: its name, width, stem and weights."""
    firsts = {(t.shape[0], t.shape[-1]) for t in tensors.values() if t.dim() == 4 and t.shape[1] == 3}
    for width, kernel in sorted(firsts):
        for arch in ARCHS if kernel in (3, 7) else ():
            stem = "imagenet" if kernel == 7 else "cifar"
            with torch.device("meta"):
                trunk = Encoder(arch, width=width, stem=stem, dual_bn=False).trunk
            own = {n: t.shape for n, t in trunk.state_dict().items()}
            for names in ({}, *NUMBERED):
                if found := find(tensors, own, names):
                    return arch, width, stem, found
    raise UserError(
        f"{path} does not hold a ResNet's weights under torchvision's names (conv1.weight, layer1.0.conv1.weight, ...); known are "
        f"{', '.join(ARCHS)}; give the network too: ex.open_encoder({str(path)!r}, network=my_network)."
    )


def fill(network: nn.Module, path: Path, tensors: dict[str, Tensor]) -> Found:
    """Load a checkpoint's tensors into a network of the user's, wherever they stand in it."""
    own = {n: t.shape for n, t in network.state_dict().items()}
    found = find(tensors, own) if own else None
    if found is None:
        raise UserError(
            f"{path} does not hold this {type(network).__name__}'s weights: none of its {len(tensors)} tensors' prefixes leads to all of its "
            f"{len(own)} names and shapes, from '{next(iter(own), '')}' on; build the network as it was trained."
        )
    network.load_state_dict(found.tensors)
    return found
