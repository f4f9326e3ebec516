"""The eight transfer sets: metric, splits, files, how to get them, torchvision's lists.

Splits and metrics are those of SimCLR's appendix B.8 (arXiv:2002.05709), which follows Kornblith et
al. 2019; `counts` are the images of the complete sets. A listing is the class names in their
official order and, for every part, its (file, class name) pairs; it downloads nothing and opens no
image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .folder import walk

Items = list[tuple[Path, str]]
Listing = tuple[list[str], dict[str, Items]]
PARTS = ("train", "val", "test")
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_HELD_OUT = "held out (seeded, class by class); the official test images"


def _pairs(loader: Any) -> Items:
    """Of a torchvision set made with `loader=str`, which hands out paths in place of images."""
    return [(Path(path), loader.classes[label]) for path, label in (loader[i] for i in range(len(loader)))]


def _cars(root: Path) -> Listing:
    from torchvision.datasets import StanfordCars

    train, test = (StanfordCars(root, split=part, loader=str) for part in ("train", "test"))
    return test.classes, {"trainval": _pairs(train), "test": _pairs(test)}


def _aircraft(root: Path) -> Listing:
    from torchvision.datasets import FGVCAircraft

    parts = {part: FGVCAircraft(root, split=part, loader=str) for part in PARTS}
    return parts["test"].classes, {part: _pairs(loader) for part, loader in parts.items()}


def _dtd(root: Path) -> Listing:
    from torchvision.datasets import DTD

    parts = {part: _pairs(DTD(root, split=part, partition=1, loader=str)) for part in PARTS}
    return sorted({name for items in parts.values() for _, name in items}), parts


def _flowers(root: Path) -> Listing:
    from torchvision.datasets import Flowers102

    parts = {part: _pairs(Flowers102(root, split=part, loader=str)) for part in PARTS}
    return list(Flowers102.classes), parts


def _pets(root: Path) -> Listing:
    """Breeds by file name: torchvision names only those in a part, but numbers all."""
    from torchvision.datasets import OxfordIIITPet

    names: dict[int, str] = {}
    parts: dict[str, Items] = {}
    for part in ("trainval", "test"):
        loader = OxfordIIITPet(root, split=part)
        breeds = [path.stem.rsplit("_", 1)[0].replace("_", " ") for path in loader._images]
        names |= dict(zip(loader._labels, breeds, strict=True))
        parts[part] = list(zip(loader._images, breeds, strict=True))
    return [names[label] for label in sorted(names)], parts


def _caltech101(root: Path) -> Listing:
    """By folder: torchvision fails without BACKGROUND_Google or if a number is missing."""
    below = root / "caltech101" / "101_ObjectCategories"
    classes = sorted(p.name for p in below.iterdir() if p.is_dir() and p.name != "BACKGROUND_Google")
    return classes, {"all": [(file, name) for name in classes for file in walk(below / name)]}


@dataclass(frozen=True)
class TransferSet:
    """One of the eight. `<root>` in `how_to_get` is the folder that `open_transfer` is given."""

    name: str
    title: str
    classes: int
    metric: Literal["top1", "mean_per_class"]
    counts: tuple[int, int, int]  # images of the complete set: train, val, test
    protocol: str
    how_to_get: str
    folder: str  # where it lies below <root>
    files: tuple[str, ...]  # what has to lie in there
    listing: Callable[[Path], Listing] | None = None  # None: `load` reads it


def _unpacked(archive: str) -> str:
    return (
        f"unpack https://www.cs.toronto.edu/~kriz/{archive}-python.tar.gz in <root>, or call "
        f"explore.load('{archive.replace('-', '')}'), which downloads it, and give no root"
    )


def _by_torchvision(loader: str, address: str) -> str:
    command = f"from torchvision.datasets import {loader}; {loader}('<root>', download=True)"
    return f'run  python -c "{command}"  (it takes {address})'


_ALL = (
    TransferSet(
        name="cifar10",
        title="CIFAR-10",
        classes=10,
        metric="top1",
        counts=(45_000, 5_000, 10_000),
        protocol=f"45,000 of the official training images to train, 5,000 {_HELD_OUT}",
        how_to_get=_unpacked("cifar-10"),
        folder="cifar-10-batches-py",
        files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
    TransferSet(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        metric="top1",
        counts=(45_000, 5_000, 10_000),
        protocol=f"45,000 of the official training images to train, 5,000 {_HELD_OUT}",
        how_to_get=_unpacked("cifar-100"),
        folder="cifar-100-python",
        files=("train", "test", "meta"),
    ),
    TransferSet(
        name="cars",
        title="Stanford Cars",
        classes=196,
        metric="top1",
        counts=(6_494, 1_650, 8_041),
        protocol=f"6,494 of the official training images to train, 1,650 {_HELD_OUT}",
        how_to_get="torchvision cannot download it (its address is dead since 2023, github.com/pytorch/vision/issues/7545), so "
        "put the folder stanford_cars of https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars into <root>",
        folder="stanford_cars",
        files=(
            *("cars_train", "cars_test", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
            "cars_test_annos_withlabels.mat",
        ),
        listing=_cars,
    ),
    TransferSet(
        name="aircraft",
        title="FGVC-Aircraft",
        classes=100,
        metric="mean_per_class",
        counts=(3_334, 3_333, 3_333),
        protocol="the official training, validation and test images; the classes are the 100 variants",
        how_to_get=_by_torchvision("FGVCAircraft", f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),
        folder="fgvc-aircraft-2013b",
        files=tuple(f"data/{f}" for f in ("images", "variants.txt", *(f"images_variant_{p}.txt" for p in PARTS))),
        listing=_aircraft,
    ),
    TransferSet(
        name="dtd",
        title="DTD",
        classes=47,
        metric="top1",
        counts=(1_880, 1_880, 1_880),
        protocol="the official training, validation and test images of the first of the ten partitions",
        how_to_get=_by_torchvision("DTD", f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz"),
        folder="dtd/dtd",
        files=("images", *(f"labels/{p}1.txt" for p in PARTS)),
        listing=_dtd,
    ),
    TransferSet(
        name="pets",
        title="Oxford-IIIT Pets",
        classes=37,
        metric="mean_per_class",
        counts=(2_940, 740, 3_669),
        protocol=f"2,940 of the official trainval images to train, 740 {_HELD_OUT}",
        how_to_get=_by_torchvision("OxfordIIITPet", f"{_VGG}/pets/data/images.tar.gz and annotations.tar.gz"),
        folder="oxford-iiit-pet",
        files=("images", "annotations/trainval.txt", "annotations/test.txt"),
        listing=_pets,
    ),
    TransferSet(
        name="caltech101",
        title="Caltech-101",
        classes=101,
        metric="mean_per_class",
        counts=(2_525, 505, 5_647),
        protocol="30 images of every class drawn (seeded), 25 to train and 5 held out, all others to test; BACKGROUND_Google "
        "is left out",
        how_to_get=_by_torchvision("Caltech101", "caltech-101.zip of https://data.caltech.edu/records/mzrjq-6wc02"),
        folder="caltech101/101_ObjectCategories",
        files=(".",),
        listing=_caltech101,
    ),
    TransferSet(
        name="flowers",
        title="Oxford Flowers-102",
        classes=102,
        metric="mean_per_class",
        counts=(1_020, 1_020, 6_149),
        protocol="the official training, validation and test images",
        how_to_get=_by_torchvision("Flowers102", f"{_VGG}/flowers/102/"),
        folder="flowers-102",
        files=("jpg", "imagelabels.mat", "setid.mat"),
        listing=_flowers,
    ),
)
TRANSFER: dict[str, TransferSet] = {s.name: s for s in _ALL}  # in the order of Table 1
