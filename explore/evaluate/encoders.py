"""Encoders by name: a run, one without training, torchvision's published weights, or a file."""

import copy
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import incoming
from ..checkpoints import SUFFIXES, Found, fill, read, resnet
from ..config import TrainConfig
from ..errors import UserError, nearest
from ..nets import Encoder, TorchEncoder
from ..patches import FORMAT, KINDS, PatchEncoder
from ..random import untouched
from ..runfolder import BASELINES, Run, build_encoder, open_run, runs, usual_size
from ..serialization import load_into, load_tensors, parse_json
from . import hubs

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
SIZES = (32, 224, 64, 96, 28, 384)  # pixels a side that are tried where nothing is said


def open_encoder(
    what: Run | str | Path | nn.Module,
    device: str | torch.device = "cpu",
    *,
    network: nn.Module | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder, frozen, in eval mode, and its origin; 'size' is the side of its training images.

    `what`: a run or its name; 'patches/kmeans', 'patches/random' or 'untrained/resnet10', made of
    `fashion` without training ('patches/kmeans/cifar10': of another set); torchvision's weights
    ('ResNet18_Weights.IMAGENET1K_V1'); 'timm/NAME' or 'transformers/NAME', where that package is
    installed, or a folder that it saved; an encoder.safetensors; a checkpoint (.pth, .pt, .ckpt, .pth.tar, .bin, .torch,
    .safetensors) that holds a ResNet's weights under torchvision's names, wherever they stand in
    it, or those of `network` (only tensors are unpickled); or a torch.nn.Module.

    A network that returns maps, tokens, a tuple or a dict has its features picked, 'features' says
    how. `mean`, `std`: of its normalisation; 'normalisation' says what is used, and a warning is
    given where it had to be assumed.

    >>> encoder, about = ex.open_encoder("demo/clae")
    >>> encoder.feature_dim
    128
    """
    given: dict[str, Any] = {"mean": mean, "std": std, "size": size}
    if (mean is None) != (std is None):
        raise UserError("mean and std are given together, three numbers each, as in mean=(0.5,) * 3, std=(0.5,) * 3.")
    if isinstance(what, nn.Module):
        encoder, about = _module(hubs.told(what), type(what).__name__, **given)
    elif isinstance(what, Run):
        encoder, about = what.encoder(), _about(what)
    elif not isinstance(what, str | os.PathLike):
        raise UserError(f"An encoder is a name, a file, a run or a torch.nn.Module, got a {type(what).__name__}.")
    elif "_Weights" in str(what):
        encoder, about = _published(str(what))
    elif (hub := hubs.named(what)) is not None:
        encoder, about = _module(hubs.opened(*hub, known=mean is not None), "/".join(hub), **given)
    elif Path(what).suffix in SUFFIXES:
        encoder, about = _file(Path(what), network, given)
    else:
        try:
            run = open_run(what)
        except UserError as error:
            if str(what) in BASELINES:  # the folder for it cannot be written
                raise
            near = nearest(str(what), [*runs().get("run", []), *BASELINES])
            raise UserError(
                f"An encoder is a run's name, one of {', '.join(BASELINES)}, torchvision's weights like ResNet18_Weights.IMAGENET1K_V1, or a file "
                f"of weights ({', '.join(SUFFIXES)}); '{what}' is none of them.{near}"
            ) from error
        encoder, about = run.encoder(), _about(run)
    return encoder.to(device).eval().requires_grad_(False), about


def _module(own: hubs.Own, name: str, mean: Any = None, std: Any = None, size: int | None = None, **about: Any):
    """A network as an encoder, run once on two images to see what it returns."""
    network, words = own.network, "given" if mean is not None else own.where
    mean, std = (own.mean, own.std) if mean is None else (mean, std)
    ready = isinstance(network, Encoder | TorchEncoder)
    encoder: Any = network if ready and mean is None else TorchEncoder(network, mean=mean, std=std)
    reason, place = "", next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    for side in (size,) if size is not None else (own.size,) if own.size is not None else SIZES:
        try:
            with torch.no_grad(), untouched(encoder):
                encoder.eval()
                h = encoder.features(torch.full((2, 3, side, side), 0.5, device=place))
        except UserError:
            raise
        except Exception as error:  # of another size, or of another number of channels
            reason = reason or " ".join(str(error).split())[:120]
            continue
        size_from = "given" if size is not None else own.where if own.size is not None else "found by trying"
        found = {"encoder": name, "size": side, "size_from": size_from, "dim": h.shape[1], **about}
        if isinstance(encoder, TorchEncoder):
            found |= {"features": encoder.taken, "normalisation": _normalisation(mean, std, words)}
        return encoder, found
    tried = ", ".join(map(str, SIZES)) if (size or own.size) is None else size or own.size
    hint = f" of {own.size}, as {own.where} says" if size is not None and own.size not in (None, size) else "=..."
    raise UserError(
        f"{name} does not run on images (2, 3, side, side) of {tried} pixels a side ({reason}); give size{hint}, or wrap it in a module "
        "that takes them."
    )


def _normalisation(mean: Any, std: Any, where: str) -> str:
    return f"mean {tuple(mean)}, std {tuple(std)} ({where})" if mean is not None else "none, or the network's own"


def _about(run: Run) -> dict[str, Any]:
    c = run.config
    return {
        "encoder": run.name,
        "method": run.method,
        "dataset": c.dataset,
        "seed": c.seed,
        "arch": run.env.get("arch") or c.arch,
        "width": None if "arch" in run.env else c.width,
        "size": run.image_size,
        "data_dir": c.data_dir,
        "commit": run.env.get("commit"),
    }


def _published(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """torchvision's classifier without its last layer; torchvision downloads the weights once."""
    from torchvision.models import get_model, get_weight, list_models

    try:
        weights = get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"torchvision has no weights '{name}'; they are written like ResNet18_Weights.IMAGENET1K_V1."
        ) from error
    model = next(m for m in list_models() if m.replace("_", "") == name.split("_Weights")[0].lower().replace("_", ""))
    try:
        network = get_model(model, weights=weights)
    except OSError as error:
        raise UserError(
            f"The weights {name} are not on this machine and cannot be downloaded ({error}); fetch {weights.url} and give the file."
        ) from error
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
            break
    shown = weights.transforms()
    own = hubs.Own(network, shown.mean, shown.std, shown.crop_size[0], "torchvision's weights")
    encoder, about = _module(own, name)
    return encoder, {**about, "arch": model}


def _file(path: Path, network: nn.Module | None, given: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    meta: dict[str, str] = {}
    if path.suffix == ".safetensors":
        _, meta = load_tensors(path)
        if meta.get("format") == FORMAT:
            patches = PatchEncoder.open(path)
            return patches, {"encoder": path.name, "method": KINDS.get(patches.kind, patches.kind), "size": 32}
        if "config" in meta:
            config = TrainConfig.from_dict(parse_json(meta["config"], path))
            encoder = build_encoder(config)
            load_into(encoder, path)
            size = int(meta.get("image_size") or usual_size(config))
            return encoder, {"encoder": path.name, "method": config.method, "dataset": config.dataset, "size": size}
    tensors = read(path)
    if network is not None:
        network = copy.deepcopy(incoming.network(network, "network"))
        found = fill(network, path, tensors)
        return _module(hubs.told(network), path.name, **given, weights=_words(found))
    return _resnet(path, tensors, meta, given)


def _resnet(
    path: Path, tensors: dict[str, Tensor], meta: dict[str, str], given: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The ResNet in a checkpoint; its normalisation is given, written in the file, or assumed."""
    arch, width, stem, found = resnet(path, tensors)
    stem = meta.get("stem", stem)
    if given["mean"] is not None:
        (mean, std), words = (given["mean"], given["std"]), "given"
    elif "mean" in meta:
        (mean, std), words = (json.loads(meta["mean"]), json.loads(meta["std"])), "the file's"
    else:
        name = "ImageNet's" if stem == "imagenet" else "CIFAR-10's"
        (mean, std), words = (IMAGENET if stem == "imagenet" else CIFAR), f"assumed: {name}"
        warnings.warn(
            f"{path.name} does not say how its images were normalised, so {name} mean and std are taken; give mean=... and std=... "
            "where that is wrong.",
            stacklevel=4,
        )
    net = Encoder(arch, width=width, stem=stem, dual_bn=False, mean=mean, std=std)
    net.trunk.load_state_dict(found.tensors)
    # no projector was saved: contrast is measured on h, at unit length
    encoder = TorchEncoder(net.trunk, mean=mean, std=std)
    size = given["size"] or int(meta.get("image_size") or (224 if stem == "imagenet" else 32))
    size_from = "given" if given["size"] else "the file's" if "image_size" in meta else "guessed from its first layer"
    about = {"encoder": path.name, "arch": arch, "width": width, "size": size, "size_from": size_from}
    about["weights"] = _words(found)
    about |= {
        "normalisation": _normalisation(mean, std, words),
        "features": "pooled features h; no projector",
    }
    return encoder, about


def _words(found: Found) -> str:
    """Where an encoder's weights stood, and what else would have fitted."""
    where = f"under '{found.prefix}'" if found.prefix else "at the top"
    others = f"; not those under {', '.join(repr(p) for p in found.others)}" if found.others else ""
    return f"{where}{others}; {found.left} other tensors left out"
