"""Images that are in memory already: NumPy arrays, tensors, or a torchvision `Dataset`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import incoming
from ..errors import UserError
from .shipped import held_out
from .splits import NO_CLASS, Data, Split, check_size, resized


def from_arrays(
    images: Any,
    labels: Any = None,
    *,
    test: tuple[Any, Any] | Any = None,
    classes: Sequence[str] | None = None,
    name: str = "arrays",
    size: int | None = None,
) -> Data:
    """A data set of images in memory, as `load` returns one.

    `images`: uint8, or float in [0, 1]; (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w), in a
    NumPy array or a tensor; or a `Dataset` of pairs (picture, class) such as torchvision's, whose
    pictures may have any size if `size` is given. `labels`: numbers, class names or one-hot rows;
    none for a Dataset, torchvision's or Hugging Face's. `test`: (images, labels), or a Dataset;
    without it a fifth of every class is held out.

    >>> from explore.datasets import from_arrays
    >>> from_arrays(torch.rand(10, 3, 32, 32), ["cat", "dog"] * 5)
    <arrays: 8 + 2 images, 32x32, 2 classes, on cpu>
    """
    check_size(size)
    train, y, names = _read(images, labels, size)
    other = None
    if test is not None:
        of_test, test_labels = test if isinstance(test, tuple) and len(test) == 2 else (test, None)
        other, other_y, _ = _read(of_test, test_labels, size)
        if (y is None) != (other_y is None):
            raise UserError(
                "Training and test images both have labels, or both have none; got them for one part alone."
            )
    classes = list(classes) if classes is not None else names
    if classes is None and y is not None:
        classes = incoming.class_names(y, *([other_y] if test is not None else []))
    known = torch.full((len(train),), NO_CLASS) if y is None else incoming.labels(y, len(train), classes)
    if other is None:
        out = torch.tensor(_held(known))
        if not bool(out.any()):
            raise UserError(
                "No image is left to test on: every class has one; give two of a class, or test=(images, labels)."
            )
        splits = [Split(train[~out], known[~out]), Split(train[out], known[out])]
    else:
        theirs = torch.full((len(other),), NO_CLASS) if y is None else incoming.labels(other_y, len(other), classes)
        splits = [Split(train, known), Split(_same_shape(other, train), theirs)]
    if classes is None and y is not None:
        classes = [str(i) for i in range(1 + max(int(s.labels.max()) for s in splits))]
    gray = all(s.stored.shape[1] == 1 or bool((s.stored == s.stored[:, :1]).all()) for s in splits)
    if gray:
        splits = [Split(s.stored[:, :1].contiguous(), s.labels) for s in splits]
    about = {"name": name, "source": "arrays in memory", "licence": "your own", "checksum": {"state": "not checked"}}
    about |= {"counts": {"train": len(splits[0]), "test": len(splits[1])}, "skipped": []}
    return Data(
        name=name,
        classes=classes or [],
        gray=gray,
        size=splits[0].stored.shape[-1],
        train=splits[0],
        test=splits[1],
        provenance=about,
        labelled=splits[0] if classes else None,
    )


def _held(y: Tensor) -> list[bool]:
    """A fifth of every class, by the images' places."""
    out = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        places = (y == label).nonzero()[:, 0]
        out[places] = torch.tensor(held_out([str(int(i)) for i in places]))
    return out.tolist()


def _read(images: Any, labels: Any, size: int | None) -> tuple[Tensor, Any, list[str] | None]:
    """Images as uint8 (n, 1 or 3, side, side), labels, and the class names that a Dataset has."""
    names = None
    if not isinstance(images, Tensor | np.ndarray):
        if (
            labels is not None
            or isinstance(images, str | bytes | dict)
            or not hasattr(images, "__getitem__")
            or not hasattr(images, "__len__")
        ):
            raise UserError(
                f"Images are a NumPy array, a tensor, or a Dataset of pairs (picture, class), got a {type(images).__name__}."
            )
        names = getattr(images, "classes", None) or _columns(images)[2]
        images, labels = _of_dataset(images, size)
    stored = _stored(torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images)
    side = size or min(stored.shape[-2:])
    if stored.shape[-1] != stored.shape[-2]:
        low, left = ((s - min(stored.shape[-2:])) // 2 for s in stored.shape[-2:])
        stored = stored[..., low : low + min(stored.shape[-2:]), left : left + min(stored.shape[-2:])]
    return resized(stored.contiguous(), side), labels, list(names) if names is not None else None


def _stored(x: Tensor) -> Tensor:
    """uint8 (n, 1 or 3, h, w) of images of any usual layout."""
    x = x[:, None] if x.dim() == 3 else x
    if x.dim() == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.numel():
        raise UserError(
            f"Images are (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w), one or more, got the shape {tuple(x.shape)}."
        )
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        if x.is_complex() or int(x.min()) < 0 or int(x.max()) > 255:
            raise UserError(
                f"Whole-number images are 0 to 255, got {x.dtype} beyond; scale them, or give floats in [0, 1]."
            )
        return x.to(torch.uint8)
    return incoming.images(x).mul(255).round().clamp(0, 255).to(torch.uint8)


def _of_dataset(dataset: Any, size: int | None) -> tuple[Tensor, list[int] | None]:
    """All pictures and classes of a Dataset; unequal pictures need `size`."""
    from PIL import Image
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    pictures, labels = [], []
    picture, label, _ = _columns(dataset)
    for i in range(len(dataset)):
        item = dataset[i]
        if isinstance(item, Mapping):
            x, y = item.get(picture), item.get(label, NO_CLASS)
        else:
            x, y = item if isinstance(item, tuple | list) and len(item) == 2 else (item, NO_CLASS)
        x = pil_to_tensor(x.convert("RGB")) if isinstance(x, Image.Image) else x
        if not isinstance(x, Tensor | np.ndarray):
            raise UserError(f"A Dataset gives pairs (picture, class), got a {type(x).__name__} as picture {i}.")
        x = torch.as_tensor(x)
        x = _stored(x[None])[0]
        pictures.append(center_crop(resize(x, [size], antialias=True), [size]) if size else x)
        labels.append(incoming.whole(y, "A class of the Dataset", NO_CLASS))
    if not pictures:
        raise UserError("The Dataset holds no images; expected two or more.")
    shapes = {tuple(x.shape) for x in pictures}
    if len(shapes) > 1:
        raise UserError(
            f"The Dataset's pictures have {len(shapes)} different shapes; give size=..., one side in pixels."
        )
    return torch.stack(pictures), labels if min(labels) >= 0 else None


def _columns(dataset: Any) -> tuple[str, str, list[str] | None]:
    """The columns of pictures and of classes in a Hugging Face dataset, and the classes' names."""
    features = getattr(dataset, "features", None)
    kinds = (
        {type(kind).__name__: name for name, kind in reversed(features.items())} if isinstance(features, dict) else {}
    )
    label = kinds.get("ClassLabel", "label")
    return kinds.get("Image", "image"), label, features[label].names if "ClassLabel" in kinds else None  # type: ignore[index]


def _same_shape(other: Tensor, train: Tensor) -> Tensor:
    other = other.expand(-1, max(other.shape[1], train.shape[1]), -1, -1)
    if train.shape[1] != other.shape[1]:
        raise UserError("Training images have one channel and test images three; give both with the same channels.")
    return resized(other.contiguous(), train.shape[-1])
