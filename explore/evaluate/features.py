"""Features of a split, optionally cached on disk, keyed by a hash of weights and images."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import incoming, paths
from ..datasets import Split
from ..errors import UserError
from ..nets import Encoder, TorchEncoder, as_encoder
from ..random import untouched
from ..serialization import keep, load_tensors, save_tensors

KEPT = 2_000_000_000  # bytes of features on disk; beyond it the longest unused are dropped
Progress = Callable[[str, int, int], None]  # (what, done, total)


@torch.no_grad()
def embed(
    encoder: nn.Module,
    images: "Split | Tensor",
    what: str = "h",
    *,
    batch_size: int = 500,
    cache: bool = False,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Features h (n, D) or projections z (n, d) and labels (n,), -1 for unlabelled images.

    Clean branch, eval mode; the encoder's mode is restored. Any network from images to (n, D)
    works. `cache`: store on disk, keyed by a hash of weights and images.

    >>> encoder, _ = ex.open_encoder("demo/clae")
    >>> h, y = ex.embed(encoder, ex.load("fashion").test.take(20))
    >>> h.shape, y.shape
    (torch.Size([20, 128]), torch.Size([20]))
    """
    if what not in ("h", "z"):
        raise UserError(f"what is 'h' (features) or 'z' (projections), got '{what}'.")
    net, batch_size = as_encoder(encoder), incoming.whole(batch_size, "batch_size")
    if not hasattr(images, "batches"):
        incoming.images(images, "Images to embed")
    if not cache or isinstance(images, Tensor):
        return _computed(net, images, what, batch_size, progress)
    path = paths.cache() / "features" / f"{_key(net, images, what)}.safetensors"
    if os.path.isfile(path):  # also where the folder is closed to us
        with contextlib.suppress(UserError):  # a file cut off is made again
            kept = load_tensors(path)[0]
            with contextlib.suppress(OSError):  # another user's
                path.touch()
            return kept["features"].to(images.device), kept["labels"].to(images.device)
    features, labels = _computed(net, images, what, batch_size, progress)
    keep(path, lambda place: save_tensors(place, {"features": features, "labels": labels}), KEPT)
    return features, labels


def _computed(
    net: Encoder | TorchEncoder, images: "Split | Tensor", what: str, batch_size: int, progress: Progress | None
) -> tuple[Tensor, Tensor]:
    forward = net.features if what == "h" else net
    batches: Iterable[tuple[Tensor, Tensor]]
    if isinstance(images, Tensor):
        batches = ((x, torch.full((len(x),), -1)) for x in images.split(batch_size))
    else:
        batches = images.batches(batch_size)
    done, pairs = 0, []
    with untouched(net):
        net.eval()
        for x, y in batches:
            pairs.append((forward(x), y))
            done += len(y)
            if progress is not None:
                progress("embedding images", done, len(images))
    if not pairs:
        raise UserError("There are no images to embed; give a split with one image or more.")
    return torch.cat([h for h, _ in pairs]).float(), torch.cat([y for _, y in pairs])


def _key(net: Encoder | TorchEncoder, split: Split, what: str) -> str:
    """SHA-256 of everything the features depend on."""
    digest = hashlib.sha256(f"2 {what} {split.device.type} {type(net).__name__}".encode())
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    x, _ = split[:1]  # the size that images are read at
    digest.update(str(tuple(x.shape)).encode())
    files = getattr(split, "files", None)
    if files is None:
        digest.update(_bytes(split.stored))
    else:
        digest.update(f"{files.resample}\n".encode())
        for i, name in enumerate(files.names):
            about = Path(files.path(i)).stat()
            digest.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    digest.update(_bytes(split.labels))
    return digest.hexdigest()[:32]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
