"""Encoders by name: a run, one without training, torchvision's published weights, or a file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..errors import UserError, nearest
from ..nets import ARCHS, Encoder, TorchEncoder
from ..patches import FORMAT, KINDS, PatchEncoder
from ..runfolder import BASELINES, Run, build_encoder, open_run, runs, usual_size
from ..serialization import load_into, load_tensors, parse_json

PREFIXES = ("module.", "backbone.", "encoder.", "trunk.", "network.", "resnet.")
HEADS = ("fc.", "projector.", "projection_head.", "head.", "linear.")


def open_encoder(
    what: Run | str | Path | nn.Module, device: str | torch.device = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder, frozen and in eval mode, and its origin; 'size' is the side of its training images.

    `what`: a run or its name; 'patches/kmeans', 'patches/random' or 'untrained/resnet10', made of
    `fashion` without training ('patches/kmeans/cifar10': of another set); torchvision's weights ('ResNet18_Weights.IMAGENET1K_V1'); an
    encoder.safetensors; a .safetensors, .pth or .pt file with a ResNet's weights under
    torchvision's names (only tensors are unpickled).

    >>> encoder, about = ex.open_encoder("demo/clae")
    >>> encoder.feature_dim
    128
    """
    if isinstance(what, nn.Module):
        encoder: nn.Module = what
        about: dict[str, Any] = {"encoder": type(what).__name__}
    elif isinstance(what, Run):
        encoder, about = what.encoder(), _about(what)
    elif not isinstance(what, str | os.PathLike):
        raise UserError(f"An encoder is a name, a file, a run or a torch.nn.Module, got a {type(what).__name__}.")
    elif "_Weights" in str(what):
        encoder, about = _published(str(what))
    elif Path(what).suffix in (".safetensors", ".pth", ".pt"):
        encoder, about = _file(Path(what))
    else:
        try:
            run = open_run(what)
        except UserError as error:
            if str(what) in BASELINES:  # the folder for it cannot be written
                raise
            near = nearest(str(what), [*runs().get("run", []), *BASELINES])
            raise UserError(
                f"An encoder is a run's name, one of {', '.join(BASELINES)}, torchvision's weights like ResNet18_Weights.IMAGENET1K_V1, or a .safetensors or "
                f".pth file; '{what}' is none of them.{near}"
            ) from error
        encoder, about = run.encoder(), _about(run)
    return encoder.to(device).eval().requires_grad_(False), about


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
    encoder = TorchEncoder(network, mean=shown.mean, std=shown.std)
    return encoder, {"encoder": name, "arch": model, "size": shown.crop_size[0]}


def _file(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    if path.suffix == ".safetensors":
        tensors, meta = load_tensors(path)
        if meta.get("format") == FORMAT:
            patches = PatchEncoder.open(path)
            return patches, {"encoder": path.name, "method": KINDS.get(patches.kind, patches.kind), "size": 32}
        if "config" in meta:
            config = TrainConfig.from_dict(parse_json(meta["config"], path))
            encoder = build_encoder(config)
            load_into(encoder, path)
            size = int(meta.get("image_size") or usual_size(config))
            return encoder, {"encoder": path.name, "method": config.method, "dataset": config.dataset, "size": size}
    else:
        tensors = _unpickled(path)
    return _resnet(path, tensors)


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, by torch's weights-only reader."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as plain weights ({type(error).__name__}); save its state_dict() alone and give that file."
        ) from error
    for name in ("state_dict", "model", "net"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, expected a state_dict: names and tensors.")
    return {k: v for k, v in found.items() if isinstance(v, Tensor)}


def _resnet(path: Path, tensors: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    """The ResNet that weights under torchvision's names fit."""
    bare = {}
    for name, tensor in tensors.items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        bare[name] = tensor
    bare = {k: v for k, v in bare.items() if not k.startswith(HEADS)}
    first = bare.get("conv1.weight")
    for arch in ARCHS if first is not None else ():
        assert first is not None
        for stem in ("imagenet",) if first.shape[-1] == 7 else ("cifar", "small"):
            net = Encoder(arch, width=first.shape[0], stem=stem, dual_bn=False)
            own = net.trunk.state_dict()
            if own.keys() == bare.keys() and all(own[k].shape == bare[k].shape for k in own):
                net.trunk.load_state_dict(bare)
                return net, {"encoder": path.name, "arch": arch, "size": 224 if stem == "imagenet" else 32}
    raise UserError(
        f"{path} does not hold a ResNet's weights under torchvision's names (conv1.weight, layer1.0.conv1.weight, ...); known are "
        f"{', '.join(ARCHS)}."
    )
