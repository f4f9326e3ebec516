"""The rebuttal's transfer sets and ImageNet-100, opened in the layouts in which they lie on disk."""

import hashlib
import json
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from dataset_files import noise, write_cifar10, write_cifar100, write_images, write_real_cifar10
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize
from transfer_files import WRITERS, placeholder, sums_of_flowers

from explore import paths
from explore.datasets import folder, load, names, transfer
from explore.datasets.decode import read_image
from explore.datasets.imagenet100 import class_names, wnids
from explore.datasets.transfer import TRANSFER, available, open_transfer
from explore.errors import UserError

QUIET = lambda *_: None  # noqa: E731
FACTS = {  # the set's classes, images and metric: SimCLR B.8, Kornblith et al. 2019, the sets' own pages
    "cifar10": (10, 45_000, 5_000, 10_000, "top1"),
    "cifar100": (100, 45_000, 5_000, 10_000, "top1"),
    "cars": (196, 6_494, 1_650, 8_041, "top1"),
    "aircraft": (100, 3_334, 3_333, 3_333, "mean_per_class"),
    "dtd": (47, 1_880, 1_880, 1_880, "top1"),
    "pets": (37, 2_940, 740, 3_669, "mean_per_class"),
    "caltech101": (101, 2_525, 505, 5_647, "mean_per_class"),
    "flowers": (102, 1_020, 1_020, 6_149, "mean_per_class"),
}


@pytest.fixture
def opens(monkeypatch, tmp_path):
    """`opens(name)` writes a small copy of a set below tmp_path and returns (root, classes, truth)."""

    def write(name: str):
        classes, truth = WRITERS[name](tmp_path)
        if name == "flowers":
            monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", sums_of_flowers(tmp_path))
        return tmp_path, classes, truth

    return write


def three(found) -> dict:
    return {"train": found.train, "val": found.val, "test": found.test}


def opened(name: str, root: Path, **options):
    return open_transfer(name, root, **{"size": 32, "progress": QUIET, **options})


def one_sentence(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_table_is_the_rebuttals():
    assert list(TRANSFER) == list(FACTS)
    for name, spec in TRANSFER.items():
        assert (spec.classes, *spec.counts, spec.metric) == FACTS[name] and spec.name == name
        assert spec.protocol and "\n" not in spec.protocol and "<root>" in spec.how_to_get
        official = spec.listing is not None and "official training, validation" in spec.protocol
        assert official == (name in ("aircraft", "dtd", "flowers"))


@pytest.mark.parametrize("name", WRITERS)
def test_every_image_has_the_label_of_its_class(opens, name):
    root, classes, truth = opens(name)
    found = opened(name, root)
    assert found.classes == classes and found.metric == FACTS[name][-1] and found.size == 32
    for split in three(found).values():
        assert split.stored.shape == (len(split), 3, 32, 32) and split.stored.dtype == torch.uint8
        x, y = split[:]
        assert x.dtype == torch.float32 and not split.streamed
        assert torch.equal(((x[:, 0].mean((1, 2)) * 255 - 30) / 25).round().long(), y)
    counts = Counter(part for part, _ in truth.values())
    assert sum(found.provenance["counts"].values()) == len(truth)
    assert "test" not in counts or len(found.test) == counts["test"]
    assert found.provenance["skipped"] == [] and len(found.warnings) == 1
    assert f"{sum(FACTS[name][1:3]):,} + {FACTS[name][3]:,}: do not compare" in found.warnings[0]
    assert json.loads(json.dumps(found.provenance))["split"] == TRANSFER[name].protocol
    assert found.to("meta").val.device.type == "meta" and f"{len(found.train)} + " in repr(found)


@pytest.mark.parametrize("name", WRITERS)
def test_streamed_from_the_official_files_and_the_same_as_in_memory(opens, monkeypatch, name):
    root, classes, truth = opens(name)
    memory = opened(name, root)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    streamed = opened(name, root)
    seen: dict[str, str] = {}
    for part, split in three(streamed).items():
        assert split.streamed
        files = split.files.names
        for file, label in zip(files, split.labels.tolist(), strict=True):
            official, of_class = truth[file]
            assert classes[label] == of_class
            assert official in (part, "all") or (official == "trainval" and part in ("train", "val"))
        seen |= dict.fromkeys(files, part)
        (x1, y1), (x2, y2) = split[:], three(memory)[part][:]
        assert torch.equal(x1, x2) and torch.equal(y1, y2)
    assert seen.keys() == truth.keys()  # each in one part, none forgotten
    assert sum(len(s) for s in three(streamed).values()) == len(truth)


@pytest.mark.parametrize("name", ["cars", "pets", "caltech101"])
def test_the_held_out_part_is_drawn_by_the_seed_class_by_class(opens, monkeypatch, name):
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    root, _, _ = opens(name)

    def files(seed):
        return [split.files.names for split in three(opened(name, root, seed=seed)).values()]

    assert files(0) == files(0) != files(1)
    found = opened(name, root, seed=3)
    share = FACTS[name][2] / sum(FACTS[name][1:3])
    sizes = found.train.labels.bincount(minlength=3) + found.val.labels.bincount(minlength=3)
    assert (found.val.labels.bincount(minlength=3) - sizes * share).abs().max() < 1
    assert found.train.labels.bincount(minlength=3).min() >= 1
    assert len(found.val) == round(share * int(sizes.sum()))


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("cifar10", [5_000] * 10),
        ("cifar100", [500] * 100),
        ("caltech101", [30] * 101),
        ("pets", [100] * 34 + [93, 93, 94]),  # 3,680, as uneven as the real ones
        ("cars", [41] * 108 + [42] * 88 + [20]),  # 8,144
    ],
)
def test_complete_sets_hold_out_what_the_protocol_says(name, sizes):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    assert len(labels) == sum(FACTS[name][1:3])
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    held = transfer._held_out(mixed, TRANSFER[name], torch.Generator().manual_seed(0))
    per_class = mixed[held].bincount(minlength=len(sizes))
    assert int(held.sum()) == FACTS[name][2]
    share = FACTS[name][2] / len(labels)
    assert all(abs(int(n) - share * size) < 1 for n, size in zip(per_class, sizes, strict=True))


def test_a_class_of_one_image_is_trained_on():
    labels = torch.tensor([0, 1, 2, 3] + [4] * 40)
    held = transfer._held_out(labels, TRANSFER["pets"], torch.Generator().manual_seed(0))
    assert labels[held].tolist() == [4] * 9


def test_caltech_trains_on_thirty_a_class_and_tests_on_the_rest(opens):
    root, classes, _ = opens("caltech101")
    found = opened("caltech101", root)
    inside = found.train.labels.bincount(minlength=3) + found.val.labels.bincount(minlength=3)
    assert inside.tolist() == [30, 30, 2] and found.test.labels.bincount().tolist() == [10, 1, 1]
    background = root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google"
    placeholder(background / "image_0001.jpg", 200, "jpeg")
    (background.parent / ".DS_Store").write_bytes(b"x")
    again = opened("caltech101", root)
    assert again.classes == classes and torch.equal(again.test.stored, found.test.stored)
    (background.parent / ".DS_Store").unlink()
    shutil.rmtree(background.parent / "car_side")  # the class with a gap in its numbers, which torchvision cannot read
    theirs = torchvision.datasets.Caltech101(root)
    _, listed = TRANSFER["caltech101"].listing(root)
    for i, (path, name) in enumerate(listed["all"]):
        image, label = theirs[i]
        with image:
            assert theirs.categories[label] == name and Path(image.filename) == path
    assert len(theirs) == len(listed["all"])


@pytest.mark.parametrize("name, write", [("cifar10", write_cifar10), ("cifar100", write_cifar100)])
def test_cifar_is_scaled_when_read_where_it_does_not_fit(tmp_path, monkeypatch, name, write):
    write(tmp_path)
    memory = opened(name, tmp_path, size=48)
    plain = load(name, tmp_path)
    n = len(plain.train)
    assert (len(memory.train), len(memory.val), len(memory.test)) == (n - n // 10, n // 10, len(plain.test))
    assert memory.classes == plain.classes and "not the published copy" in " ".join(memory.warnings)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    small = opened(name, tmp_path, size=48)
    theirs = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((48, 48), 3) for x in plain.test.stored[:9]]
    pillows = torch.from_numpy(np.stack([np.asarray(image) for image in theirs])).permute(0, 3, 1, 2)
    ours = (small.test[:9][0] * 255).round()
    off = (ours - pillows).abs()
    assert off.max() <= 2 and off.gt(0).float().mean() < 0.05 and torch.equal(small.test.labels, plain.test.labels)
    for part, split in three(small).items():
        other = three(memory)[part]
        for (x1, y1), (x2, y2) in zip(split.batches(7), other.batches(7), strict=True):
            assert torch.equal(x1, x2) and torch.equal(y1, y2)
        assert torch.equal(split.take(6).stored, other.take(6).stored) and len(split[[]][0]) == 0
    both = torch.cat([small.train.stored, small.val.stored]).flatten(1)
    assert len(both.unique(dim=0)) == len(plain.train.stored.flatten(1).unique(dim=0))
    assert small.to("meta").train.device.type == "meta" and small.train.select([0]).stored.shape == (1, 3, 48, 48)
    assert torch.equal(opened(name, tmp_path).test[:][0], plain.test[:][0])  # 32 stays as it is


def torchvisions(size: int) -> Compose:
    return Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size), PILToTensor()])


@pytest.mark.parametrize("size", [24, 40, 64])
def test_bicubic_is_torchvisions_resize_and_centre_crop(tmp_path, size):
    for i, (height, width) in enumerate([(40, 40), (30, 41), (333, 500), (91, 60), (64, 65), (700, 150)]):
        path = tmp_path / f"{i}.jpg"
        smooth = Image.fromarray(noise(9, 9, 3, seed=i)).resize((width, height), Image.Resampling.BICUBIC)
        smooth.save(path, quality=90)
        with Image.open(path) as image:
            expected = torchvisions(size)(image.convert("RGB"))
        assert torch.equal(torch.from_numpy(read_image(path, size, "bicubic")), expected)
    assert not np.array_equal(read_image(path, size, "bilinear"), expected.numpy())


@pytest.mark.parametrize("streamed", [False, True])
def test_the_sets_are_read_bicubic(opens, monkeypatch, streamed):
    root, _, _ = opens("dtd")
    picture = Image.fromarray(noise(50, 70, 3))
    picture.save(root / "dtd/dtd/images/banded/banded_test00.jpg", "PNG")
    if streamed:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    x, _ = opened("dtd", root).test[0]
    assert torch.equal((x[0] * 255).round().to(torch.uint8), torchvisions(32)(picture))


@pytest.mark.parametrize("streamed", [False, True])
def test_files_that_are_damaged_or_missing_are_named_and_left_out(opens, monkeypatch, streamed):
    root, _, _ = opens("aircraft")
    damaged, gone = (root / "fgvc-aircraft-2013b/data/images" / f"{i:07d}.jpg" for i in (34409, 34511))
    damaged.write_bytes(damaged.read_bytes()[:200])
    gone.unlink()
    if streamed:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    found = opened("aircraft", root)
    x, y = zip(*(split[:] for split in three(found).values()), strict=True)
    assert [len(part) for part in x] == [len(part) for part in y] == [10, 9, 9]
    skipped, told = " ".join(found.provenance["skipped"]), " ".join(found.warnings)
    for text in (skipped, told):
        assert f"images/{damaged.name} (" in text and f"images/{gone.name} (no such file)" in text
    assert len(found.provenance["skipped"]) == 2 and "1 of 30 images could not be read and was" in told
    assert torch.equal(((x[1][:, 0].mean((1, 2)) * 255 - 30) / 25).round().long(), y[1])


@pytest.mark.parametrize("name", TRANSFER)
def test_an_absent_set_is_one_sentence_with_the_way_to_get_it(tmp_path, name):
    told = one_sentence(lambda: opened(name, tmp_path))
    assert TRANSFER[name].title in told and str(tmp_path) in told and "https://" in told and "<root>" not in told
    assert f"no folder {TRANSFER[name].folder}" in told
    assert available(tmp_path)[name] == f"there is no folder {TRANSFER[name].folder} in it"
    assert ("github.com/pytorch/vision/issues/7545" in told) == (name == "cars")
    assert "that folder does not exist" in one_sentence(lambda: opened(name, tmp_path / "no"))
    assert list(tmp_path.iterdir()) == []  # nothing made, nothing downloaded


def test_available_looks_at_names_only(opens, monkeypatch):
    for name in WRITERS:
        root, _, truth = opens(name)
        for file in truth:
            (root / file).write_bytes(b"no image")
    write_cifar10(root)
    found = available(root)
    assert list(found) == list(TRANSFER)
    assert [name for name, here in found.items() if here is True] == [n for n in TRANSFER if n != "cifar100"]
    assert "none of the 12 image files" not in one_sentence(lambda: opened("dtd", root))
    monkeypatch.setenv("CLAE_CACHE", str(root / "cache"))
    shutil.copytree(root / "cifar-10-batches-py", paths.cache() / "cifar10" / "cifar-10-batches-py")
    assert [name for name, here in available().items() if here is True] == ["cifar10"]
    assert len(open_transfer("cifar10", size=32, progress=QUIET).test) == 20


@pytest.mark.parametrize(
    "name, file",
    [
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("cars", "stanford_cars/devkit/cars_meta.mat"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt"),
        ("dtd", "dtd/dtd/labels/val1.txt"),
        ("pets", "oxford-iiit-pet/annotations/test.txt"),
        ("flowers", "flowers-102/setid.mat"),
    ],
)
def test_a_missing_or_broken_list_is_one_sentence(opens, name, file):
    root, _, _ = opens(name)
    (root / file).write_bytes(b"nonsense")
    told = one_sentence(lambda: opened(name, root))
    assert f"the lists of {TRANSFER[name].title} in {root} cannot be read (" in told and "https://" in told
    (root / file).unlink()
    told = one_sentence(lambda: opened(name, root))
    assert f"lacks {Path(file).relative_to(TRANSFER[name].folder)}" in told and available(root)[name] in told


def test_empty_lists_and_no_images_are_one_sentence(opens):
    root, _, truth = opens("dtd")
    for file in truth:
        (root / file).unlink()
    assert "none of the 32 images of DTD is in" in one_sentence(lambda: opened("dtd", root))
    (root / "dtd/dtd/labels/val1.txt").write_text("")
    assert "lists no images for val" in one_sentence(lambda: opened("dtd", root))
    assert "Did you mean dtd?" in one_sentence(lambda: opened("DTD", root))
    assert "8 to 1024 pixels, got 4" in one_sentence(lambda: opened("dtd", root, size=4))


def write_imagenet(root: Path, classes: list[str], train: int = 4, val: int = 2) -> Path:
    for k, wnid in enumerate(classes):
        write_images(root / "train" / wnid, train, seed=2 * k, side=20)
        write_images(root / "val" / wnid, val, seed=2 * k + 1, side=20)
    return root


def hundred(root: Path, **options):
    return load(f"imagenet100:{root}", progress=QUIET, **options)


def test_the_hundred_classes_are_cmcs_with_the_names_of_torchvision():
    path = paths.shipped() / "imagenet100" / "wnids.txt"
    published = (
        "79f3f1552ccc478ce24bd934b4573625db584ddc1f4643ae23c994a94cb11397"  # github.com/HobbitLong/CMC at bc687a2
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == published
    assert len(set(wnids())) == len(set(class_names())) == 100 and wnids()[:2] == ["n02869837", "n01749939"]
    named = dict(zip(wnids(), class_names(), strict=True))
    known = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]  # in the order of the wnids
    at = [known.index(named[wnid]) for wnid in sorted(named)]
    assert at == sorted(at)
    assert (named["n02123045"], named["n03930630"], named["n02108089"]) == ("tabby", "pickup", "boxer")


def test_imagenet100_takes_its_classes_in_the_lists_order(tmp_path, monkeypatch):
    some = ["n02090622", "n02869837", "n01749939"]  # the last and the first two of the list
    write_imagenet(tmp_path, [*some, "n01440764"])  # tench: in ImageNet, not in the hundred
    jpeg = tmp_path / "train" / "n02090622" / "n02090622_1.JPEG"
    Image.new("L", (30, 40), 90).save(jpeg, "JPEG")
    (tmp_path / "train" / "n02869837" / "001.png").write_bytes(b"no")
    data = hundred(tmp_path, size=32)
    assert data.classes == ["bonnet", "green mamba", "borzoi"] and data.size == 32 and not data.gray
    assert data.train.labels.bincount().tolist() == [3, 4, 5] and data.test.labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(data.train.stored[0], torch.from_numpy(read_image(tmp_path / "train/n02869837/000.png", 32)))
    assert "train/ lacks 97 of the 100 classes" in data.warnings[0] and "001.png" in data.warnings[1]
    assert "CMC" in data.provenance["source"] and data.provenance["path"] == str(tmp_path)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    streamed = load("imagenet100:.", tmp_path, size=32, progress=QUIET)
    assert streamed.train.streamed
    assert torch.equal(streamed.train[:][0], data.train[:][0]) and torch.equal(streamed.train[:][1], data.train[:][1])
    shutil.rmtree(tmp_path / "val" / "n02869837")
    assert "val/ lacks 1 of the 3 classes" in hundred(tmp_path, size=32).warnings[1]


def test_all_hundred_classes_are_224_pixels_and_without_warning(tmp_path):
    data = hundred(write_imagenet(tmp_path, wnids(), 1, 1))
    assert data.classes == class_names() and data.size == 224 and data.warnings == []
    assert data.train.labels.tolist() == data.test.labels.tolist() == list(range(100))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: p.rmdir(), "does not exist; expected 'imagenet100:'"),
        (lambda p: write_images(p / "n02869837", 2), "holds no train/"),
        (lambda p: write_imagenet(p, ["n01440764"]), "none of the 100 classes of ImageNet-100"),
        (
            lambda p: (write_imagenet(p, ["n02869837"]), shutil.rmtree(p / "val")),
            "expected ImageNet's validation images",
        ),
        (lambda p: (write_imagenet(p, ["n02869837"], val=0), write_images(p / "val", 3)), "no images (looked for"),
        (lambda p: (write_images(p / "train/n02869837", 3), write_images(p / "val", 3)), "valprep.sh inside it"),
    ],
)
def test_a_folder_that_is_not_imagenets_is_one_sentence(tmp_path, make, words):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    assert words in one_sentence(lambda: hundred(tmp_path / "in"))


def test_imagenet100_is_listed_and_needs_a_path():
    assert "imagenet100:/path" in names() and "ImageNet-100" in names()["imagenet100:/path"]
    for name in ("imagenet100", "imagenet100:", "imagenet-100"):
        assert "write imagenet100:/path" in one_sentence(lambda name=name: load(name))
    assert "imagenet100:/path for the 100 classes" in one_sentence(lambda: load("nothing"))


def real(name: str) -> Path:
    root = os.environ.get("CLAE_DATA")
    if not root or not (Path(root) / name).is_file():
        pytest.skip(f"CLAE_DATA names no folder with {name}")
    return Path(root) / name


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real")
    with tarfile.open(real("loader-fixtures.tar.xz")) as tar:
        tar.extractall(root, filter="data")
    return root


@pytest.mark.data
@pytest.mark.parametrize(
    "name, loader, counts",
    [("dtd", "DTD", (50, 50, 50)), ("pets", "OxfordIIITPet", (48, 12, 60)), ("cars", "StanfordCars", (64, 16, 80))],
)
def test_real_samples_are_what_torchvision_hands_out(fixtures, name, loader, counts):
    found = opened(name, fixtures, size=64)
    assert (len(found.train), len(found.val), len(found.test)) == counts
    assert found.provenance["skipped"] == [] and len(found.warnings) == 1
    theirs = getattr(torchvision.datasets, loader)(fixtures, split="test")
    crop = torchvisions(64)
    numbers = {"pets": [0, 1, 5]}.get(name, list(range(len(found.classes))))  # the sample's breeds are no. 1, 2 and 6
    for i in range(0, len(found.test), 7):
        image, label = theirs[i]
        assert torch.equal(found.test.stored[i], crop(image)) and found.test.labels[i] == numbers.index(label)
    assert found.classes == ["Abyssinian", "american bulldog", "Bengal"] or found.classes == theirs.classes[:10]


@pytest.mark.data
def test_real_gray_images_become_rgb(fixtures):
    found = opened("caltech101", fixtures, size=64)
    assert (len(found.train), len(found.val), len(found.test)) == (889, 178, 97) and len(found.classes) == 97
    gray = (found.train.stored[:, 0] == found.train.stored[:, 2]).flatten(1).all(1)
    assert gray[found.train.labels == found.classes.index("car_side")].all() and gray.sum() < 200
    assert found.test.labels.tolist() == list(range(97))  # none has 31 images: one of each is for testing


@pytest.mark.data
def test_the_published_lists_of_flowers(fixtures):
    mat = scipy.io.loadmat(fixtures / "flowers-102" / "setid.mat")
    labels = scipy.io.loadmat(fixtures / "flowers-102" / "imagelabels.mat")["labels"][0]
    ids = {part: mat[key][0] for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))}
    chosen = {part: numbers[:: len(numbers) // 20][:20] for part, numbers in ids.items()}
    for numbers in chosen.values():
        for i in numbers:
            placeholder(fixtures / f"flowers-102/jpg/image_{i:05d}.jpg", int(labels[i - 1]) * 2, "gray")
    found = opened("flowers", fixtures)
    assert len(found.classes) == 102 and found.classes[76] == "passion flower"
    assert (
        len(found.provenance["skipped"]) == 8_189 - 60
        and "8,129 of 8,189 images could not be read" in found.warnings[0]
    )
    for part, split in three(found).items():
        assert split.labels.tolist() == [int(labels[i - 1]) - 1 for i in chosen[part]]
        x, y = split[:]
        assert torch.equal((x[:, 1].mean((1, 2)) * 255 / 2).round().long() - 1, y)


@pytest.mark.data
def test_real_caltech_of_97_classes(tmp_path, monkeypatch):
    with tarfile.open(real("transfer_caltech97_72px.tar")) as tar:
        tar.extractall(tmp_path, filter="data")
    on_disk = Counter(p.parent.name for p in tmp_path.rglob("*.jpg") if p.parent.name != "BACKGROUND_Google")
    found = opened("caltech101", tmp_path, size=64)
    assert len(found.classes) == 97 and len(found.train) + len(found.val) + len(found.test) == sum(on_disk.values())
    inside = found.train.labels.bincount(minlength=97) + found.val.labels.bincount(minlength=97)
    wanted = [min(30, on_disk[name] - 1) for name in found.classes]
    assert inside.tolist() == wanted and found.provenance["skipped"] == []
    assert found.test.labels.bincount().tolist() == [on_disk[n] - w for n, w in zip(found.classes, wanted, strict=True)]
    assert len(found.val) == round(sum(wanted) / 6)


@pytest.mark.data
def test_real_cifar10(tmp_path):
    picture = write_real_cifar10(tmp_path, real("cifar10_jpeg75.npz"), 100)
    found = opened("cifar10", tmp_path, size=224)
    assert (len(found.train), len(found.val), len(found.test)) == (450, 50, 100) and found.classes[-1] == "truck"
    x, y = found.test[:5]
    assert x.shape == (5, 3, 224, 224) and y.tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog
    pillow = Image.fromarray(picture(50_000).transpose(1, 2, 0)).resize((224, 224), Image.Resampling.BICUBIC)
    off = ((x[0] * 255).round() - torch.from_numpy(np.asarray(pillow).transpose(2, 0, 1).copy())).abs()
    assert off.max() <= 2 and off.gt(0).float().mean() < 0.001


@pytest.mark.data
def test_real_imagenet_classes(tmp_path):
    with np.load(real("tin_small14cmc.npz")) as file:
        z = {k: file[k] for k in file.files}
    ends = np.cumsum(z["lengths"].astype(np.int64))
    heads = (z["header0"].tobytes(), z["header1"].tobytes())
    truth: Counter = Counter()
    for i in range(len(ends)):
        part, wnid = ("train", "val")[z["split"][i]], str(z["wnids"][z["labels"][i]])
        to = tmp_path / part / wnid / f"{z['names'][i].decode()}.JPEG"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(heads[z["head"][i]] + z["payload"][ends[i] - z["lengths"][i] : ends[i]].tobytes() + b"\xff\xd9")
        truth[part, wnid] += 1
    data = hundred(tmp_path, size=64)
    present = [w for w in wnids() if ("train", w) in truth]
    assert len(present) == 14 and "lacks 86 of the 100 classes" in data.warnings[0]
    assert data.classes == [class_names()[wnids().index(w)] for w in present]
    assert data.train.labels.bincount().tolist() == [truth["train", w] for w in present]
    assert data.test.labels.bincount().tolist() == [truth["val", w] for w in present]
    assert not data.gray and data.provenance["skipped"] == []
