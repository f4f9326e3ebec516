"""Writes small transfer sets in the layouts in which they lie on disk: for the tests of `datasets.transfer`.

Each writer returns the class names in their official order and, for every image, its official part and its class.
"""

import hashlib
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

Truth = dict[str, tuple[str, str]]  # file below the root: (its official part, its class)
KINDS = ("jpeg", "gray", "palette", "cmyk", "tall", "png")


def placeholder(path: Path, shade: int, kind: str) -> None:
    """An image of one shade of red (gray where the kind is gray), in one of the kinds that these sets come in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = Image.new("RGB", (40, 30), (shade, 20, 20))
    image, form = {
        "jpeg": (plain, "JPEG"),
        "gray": (Image.new("L", (30, 50), shade), "JPEG"),
        "palette": (plain.resize((25, 70)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "cmyk": (Image.new("CMYK", (64, 48), (255 - shade, 235, 235, 0)), "JPEG"),
        "tall": (plain.resize((17, 90)), "JPEG"),
        "png": (plain.resize((33, 32)), "PNG"),
    }[kind]
    image.save(path, form, **({"quality": 95} if form == "JPEG" else {}))


def shade_of(index: int) -> int:
    return 30 + 25 * index


def fill(root: Path, truth: Truth, classes: list[str]) -> Truth:
    """Write every image of the truth: its shade tells its class, its kind changes from file to file."""
    for i, (file, (_, name)) in enumerate(truth.items()):
        placeholder(root / file, shade_of(classes.index(name)), KINDS[i % len(KINDS)])
    return truth


def lines(path: Path, text: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


def write_cars(root: Path) -> tuple[list[str], Truth]:
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Aston Martin V8 Vantage Coupe 2012"]
    base, truth = root / "stanford_cars", {}
    (base / "devkit").mkdir(parents=True)
    for part, folder_name, n in (("trainval", "cars_train", 24), ("test", "cars_test", 9)):
        rows = []
        for i in range(n):
            rows.append((1, 2, 30, 40, i % 3 + 1, f"{i + 1:05d}.jpg"))
            truth[f"stanford_cars/{folder_name}/{i + 1:05d}.jpg"] = (part, classes[i % 3])
        fields = [(f, object) for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        where = base / ("devkit/cars_train_annos.mat" if part == "trainval" else "cars_test_annos_withlabels.mat")
        scipy.io.savemat(where, {"annotations": np.array(rows, dtype=fields)})
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(classes, dtype=object)})
    return classes, fill(root, truth, classes)


def write_aircraft(root: Path) -> tuple[list[str], Truth]:
    classes = ["707-320", "727-200", "A300B4", "DR-400", "Model B200"]
    data, truth = root / "fgvc-aircraft-2013b" / "data", {}
    lines(data / "variants.txt", classes)
    for k, part in enumerate(("train", "val", "test")):
        rows = [(f"{34309 + 100 * k + i:07d}", classes[i % 5]) for i in range(10)]
        lines(data / f"images_variant_{part}.txt", [f"{image} {name}" for image, name in rows])
        truth |= {f"fgvc-aircraft-2013b/data/images/{image}.jpg": (part, name) for image, name in rows}
    return classes, fill(root, truth, classes)


def write_dtd(root: Path) -> tuple[list[str], Truth]:
    """'dotted' is not in train: torchvision then numbers the classes of each part differently."""
    classes, truth = ["banded", "dotted", "zigzagged"], {}
    for part in ("train", "val", "test"):
        rows = [f"{c}/{c}_{part}{i:02d}.jpg" for c in classes for i in range(4) if (part, c) != ("train", "dotted")]
        lines(root / "dtd" / "dtd" / "labels" / f"{part}1.txt", rows)
        lines(root / "dtd" / "dtd" / "labels" / f"{part}2.txt", ["banded/other.jpg"])  # another partition
        truth |= {f"dtd/dtd/images/{row}": (part, row.split("/")[0]) for row in rows}
    return classes, fill(root, truth, classes)


def write_pets(root: Path) -> tuple[list[str], Truth]:
    """Three of the 37 breeds, with the numbers they have among the 37; the test part has two."""
    breeds, truth = {1: "Abyssinian", 2: "american_bulldog", 6: "Bengal"}, {}
    classes = ["Abyssinian", "american bulldog", "Bengal"]
    for part, n in (("trainval", 10), ("test", 5)):
        rows = [(f"{b}_{100 * (part == 'test') + i}", k) for k, b in breeds.items() for i in range(n)]
        rows = [row for row in rows if (part, row[1]) != ("test", 2)]
        lines(root / "oxford-iiit-pet" / "annotations" / f"{part}.txt", [f"{image} {k} 1 1" for image, k in rows])
        truth |= {f"oxford-iiit-pet/images/{image}.jpg": (part, breeds[k].replace("_", " ")) for image, k in rows}
    return classes, fill(root, truth, classes)


def write_caltech101(root: Path) -> tuple[list[str], Truth]:
    """40, 31 and 3 images in the classes; of the last, number 2 is missing; without BACKGROUND_Google."""
    classes, truth = ["Faces", "butterfly", "car_side"], {}
    for name, numbers in zip(classes, (range(1, 41), range(1, 32), (1, 3, 4)), strict=True):
        truth |= {f"caltech101/101_ObjectCategories/{name}/image_{i:04d}.jpg": ("all", name) for i in numbers}
    return classes, fill(root, truth, classes)


def write_flowers(root: Path) -> tuple[list[str], Truth]:
    """30 images of three of torchvision's 102 names."""
    base, numbers = root / "flowers-102", [1, 77, 102]
    classes = ["pink primrose", "passion flower", "blackberry lily"]
    base.mkdir(parents=True)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": np.array([numbers[i % 3] for i in range(30)], np.uint8)})
    ids = {"tstid": range(1, 19), "trnid": range(19, 25), "valid": range(25, 31)}
    scipy.io.savemat(base / "setid.mat", {k: np.array(v, np.uint16) for k, v in ids.items()})
    parts = {"tstid": "test", "trnid": "train", "valid": "val"}
    truth = {f"flowers-102/jpg/image_{i:05d}.jpg": (parts[k], classes[(i - 1) % 3]) for k, v in ids.items() for i in v}
    return classes, fill(root, truth, classes)


def sums_of_flowers(root: Path) -> dict[str, tuple[str, str]]:
    """What torchvision has to know to take these lists: it accepts none but the published ones, by their md5."""
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    return {k: (f, hashlib.md5((root / "flowers-102" / f).read_bytes()).hexdigest()) for k, f in files.items()}


WRITERS = {
    "cars": write_cars,
    "aircraft": write_aircraft,
    "dtd": write_dtd,
    "pets": write_pets,
    "caltech101": write_caltech101,
    "flowers": write_flowers,
}
