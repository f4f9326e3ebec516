"""Anybody's own images: layouts, odd files, the held-out part, and streaming what does not fit."""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import noise, write_images
from PIL import Image

from explore.datasets import folder, load, stream
from explore.datasets.decode import read_image
from explore.datasets.progress import Bar
from explore.errors import UserError
from explore.experiments.cell import fingerprint

QUIET = lambda *_: None  # noqa: E731


def loaded(path: Path, **options):
    return load(f"folder:{path}", progress=QUIET, **options)


@pytest.fixture
def animals(tmp_path) -> Path:
    """Class folders cat (30 images) and dog (20), one level deeper than given, as archives often have it."""
    write_images(tmp_path / "set" / "images" / "cat", 30, seed=1)
    write_images(tmp_path / "set" / "images" / "dog" / "more", 20, seed=2)
    return tmp_path / "set"


def same(a, b) -> bool:
    return torch.equal(a.labels, b.labels) and torch.equal(a.stored, b.stored)


def test_class_folders_hold_out_a_fifth_of_each_class(animals, tmp_path):
    data = loaded(animals)
    assert data.classes == ["cat", "dog"] and data.labelled is data.train
    assert data.train.labels.bincount().tolist() == [24, 16] and data.test.labels.bincount().tolist() == [6, 4]
    assert data.size == 40 and data.train.stored.shape == (40, 3, 40, 40) and not data.train.streamed
    assert same(loaded(animals).test, data.test)
    shutil.copytree(animals, tmp_path / "elsewhere")
    assert same(loaded(tmp_path / "elsewhere").test, data.test)  # the place does not matter
    both = torch.cat([data.train.stored, data.test.stored]).flatten(1)
    assert len(both.unique(dim=0)) == 50  # no image on both sides


def test_a_new_image_moves_no_more_than_it_must(animals):
    before = {x.numpy().tobytes() for x in loaded(animals).test.stored}
    write_images(animals / "images" / "cat", 31, seed=1)
    after = {x.numpy().tobytes() for x in loaded(animals).test.stored}
    assert len(before - after) <= 1


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_train_and_test_folders(tmp_path, test_name):
    for part, n in (("train", 6), (test_name, 3)):
        for k, name in enumerate(("a", "b")):
            write_images(tmp_path / part / name, n, seed=10 * n + k)
    data = loaded(tmp_path)
    assert (len(data.train), len(data.test), data.classes) == (12, 6, ["a", "b"])
    write_images(tmp_path / test_name / "c", 2)
    data = loaded(tmp_path)
    assert data.classes == ["a", "b", "c"] and len(data.warnings) == 1 and "that train/ lacks: c" in data.warnings[0]
    for name in ("a", "b", "c"):
        shutil.rmtree(tmp_path / test_name / name)
    write_images(tmp_path / test_name / "images", 3)
    with pytest.raises(UserError, match="no class folder in common with train/"):
        loaded(tmp_path)


def test_train_alone_and_an_empty_test_folder(tmp_path):
    write_images(tmp_path / "train" / "a", 5)
    write_images(tmp_path / "train" / "b", 5, seed=1)
    assert len(loaded(tmp_path).test) == 2
    (tmp_path / "val").mkdir()
    data = loaded(tmp_path)
    assert len(data.test) == 2 and "holds no images: a fifth of" in data.warnings[0]


def test_images_without_classes(tmp_path):
    write_images(tmp_path, 10)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    data = loaded(tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.labelled) == (8, 2, [], None)
    assert data.train.labels.eq(-1).all() and len(data.train.take(3)) == 3 and data.warnings == []


def test_images_beside_class_folders_are_left_out_and_told(animals):
    write_images(animals / "images", 3, seed=5)
    data = loaded(animals)
    assert len(data.train) + len(data.test) == 50 and "3 images beside the class folders" in data.warnings[0]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: None, "holds no images (looked for"),
        (lambda p: (p / "a").mkdir(), "holds no images"),
        (lambda p: write_images(p, 1), "one image, expected two"),
        (lambda p: [(p / f"{i}.jpg").write_bytes(b"no") for i in range(3)], "none of the 3 image files"),
        (lambda p: p.rmdir(), "does not exist"),
    ],
)
def test_a_folder_without_images_is_one_sentence(tmp_path, make, words):
    (tmp_path / "set").mkdir()
    make(tmp_path / "set")
    with pytest.raises(UserError) as error:
        loaded(tmp_path / "set")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("streamed", [False, True])
def test_one_truncated_image_is_named_skipped_and_counted(animals, monkeypatch, streamed):
    whole = loaded(animals).train
    victim = animals / "images" / "dog" / "more" / "007.png"
    victim.write_bytes(victim.read_bytes()[:900])
    if streamed:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    data = loaded(animals)
    labels = [y for split in (data.train, data.test) for _, y in split.batches(7)]
    assert sum(map(len, labels)) == 49 and torch.cat(labels).bincount().tolist() == [30, 19]
    assert len(data.provenance["skipped"]) == len(data.warnings) == 1
    for sentence in (data.provenance["skipped"][0], data.warnings[0]):
        assert "images/dog/more/007.png" in sentence
    list(data.train.batches(7))
    assert len(data.provenance["skipped"]) == len(data.warnings) == 1  # told once
    x, y = data.train[:]
    assert len(x) == len(y) >= len(whole) - 1


def test_many_bad_images_are_counted_and_three_are_named(animals):
    for i in range(9):
        (animals / "images" / "cat" / f"{i:03d}.png").write_bytes(b"")
    (warning,) = loaded(animals).warnings
    assert warning.startswith("9 of 50 images could not be read") and warning.endswith("and 6 more.")


@pytest.fixture
def odd(tmp_path) -> dict[str, Path]:
    """One picture (left half dark 51, right half light 204) in every mode that files come in."""
    gray = np.full((20, 20), 51, np.uint8)
    gray[:, 10:] = 204
    pictures = {
        "gray.png": Image.fromarray(gray),
        "rgb.bmp": Image.fromarray(gray).convert("RGB"),
        "palette.gif": Image.fromarray(gray).convert("P"),
        "sixteen.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "float.tiff": Image.fromarray(gray.astype(np.float32) / 255),
        "int32.tiff": Image.fromarray(gray.astype(np.int32) * 257),
        "la.png": Image.merge("LA", [Image.fromarray(gray), Image.new("L", (20, 20), 255)]),
        "rgba.webp": Image.fromarray(gray).convert("RGBA"),
        "cmyk.jpg": Image.fromarray(gray).convert("RGB").convert("CMYK"),
        "gray.jpg": Image.fromarray(gray),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    return {name: tmp_path / name for name in pictures}


def test_every_mode_becomes_the_same_rgb(odd):
    expected = read_image(odd["rgb.bmp"], 20)
    assert expected[:, 5, 5].tolist() == [51] * 3 and expected[:, 5, 15].tolist() == [204] * 3
    for name, path in odd.items():
        found = read_image(path, 20)
        assert found.shape == (3, 20, 20) and found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected).max() <= (0 if "jpg" not in name and "webp" not in name else 6), (
            name
        )


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    clear.save(tmp_path / "a.png")
    palette = Image.new("P", (20, 20), 3)
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "b.png", transparency=3)
    for name in ("a.png", "b.png"):
        assert (read_image(tmp_path / name, 20) == 255).all(), name


def test_short_side_and_centre_crop(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40, 0] = 200  # the middle third
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        assert (read_image(tmp_path / name, 20)[0] == 200).all()
        assert read_image(tmp_path / name, 10).shape == (3, 10, 10)
        assert read_image(tmp_path / name, 50).shape == (3, 50, 50)


def test_a_cameras_rotation_is_applied(tmp_path):
    half = np.zeros((20, 20, 3), np.uint8)
    half[:10] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    Image.fromarray(half).save(tmp_path / "a.png", exif=exif)
    seen = read_image(tmp_path / "a.png", 20)
    assert (seen[:, :, 10:] == 200).all() and (seen[:, :, :10] == 0).all()


def test_a_large_jpeg_read_at_a_fraction_looks_as_when_read_whole(tmp_path):
    smooth = Image.fromarray(noise(8, 8, 3)).resize((1600, 1200), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    smooth.save(tmp_path / "a.png")
    drafted, whole = (read_image(tmp_path / f"a.{s}", 64).astype(int) for s in ("jpg", "png"))
    assert np.abs(drafted - whole).mean() < 2


def test_a_folder_of_gray_images_is_a_gray_set(tmp_path):
    for i in range(10):
        Image.fromarray(noise(20, 20, seed=i)).save(tmp_path / f"{i}.png")
    data = loaded(tmp_path)
    assert data.gray and data.train.stored.shape == (8, 1, 20, 20) and data.train[0][0].shape == (1, 3, 20, 20)
    write_images(tmp_path, 1)
    assert not loaded(tmp_path).gray


@pytest.mark.parametrize("kernel", [False, True])
def test_streamed_is_the_same_as_in_memory(animals, monkeypatch, kernel):
    memory = loaded(animals)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    monkeypatch.setattr(stream, "in_kernel", lambda: kernel)
    streamed = loaded(animals)
    assert streamed.train.streamed and streamed.size == memory.size and streamed.classes == memory.classes

    def epoch(data, **options):
        return list(data.train.batches(6, torch.Generator().manual_seed(1), shuffle=True, **options))

    state = torch.get_rng_state()
    for options in ({}, {"drop_last": True}, {"start": 3}, {"start": 6}):
        ours, theirs = epoch(streamed, **options), epoch(memory, **options)
        assert len(ours) == len(theirs) > 0
        for (x1, y1), (x2, y2) in zip(ours, theirs, strict=True):
            assert torch.equal(x1, x2) and torch.equal(y1, y2)
    assert torch.equal(state, torch.get_rng_state())  # no draw from the global generator
    assert torch.equal(streamed.test[[3, 0]][0], memory.test[[3, 0]][0])
    assert streamed.test[[]][0].shape == (0, 3, 40, 40)
    taken = streamed.train.take(5, torch.Generator().manual_seed(0))
    assert not taken.streamed and same(taken, memory.train.take(5, torch.Generator().manual_seed(0)))
    with pytest.raises(UserError, match="streamed from disk"):
        streamed.train.stored
    assert streamed.to("meta").train.device.type == "meta"


def test_a_streamed_epoch_may_be_left_in_the_middle(animals, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    batches = loaded(animals).train.batches(2)
    next(batches)
    batches.close()


def test_no_worker_processes_in_a_notebooks_kernel(monkeypatch):
    class ZMQInteractiveShell:
        pass

    class FakeIPython:
        shell = ZMQInteractiveShell()

        @classmethod
        def get_ipython(cls):
            return cls.shell

    assert not stream.in_kernel()
    monkeypatch.setitem(sys.modules, "IPython", FakeIPython)
    assert stream.in_kernel()


def test_the_bar_shows_long_work_and_is_silent_about_short(capsys):
    with Bar() as bar:
        bar("reading images", 50, 50)
    assert capsys.readouterr().err == ""
    with Bar() as bar:
        for done in range(0, 101, 5):
            bar("downloading x", done, 100)
        bar("unpacking x", 1, 0)
    told = capsys.readouterr().err
    assert "downloading x:   0%" in told


@pytest.mark.data
def test_real_caltech_with_one_truncated_among_many(tmp_path):
    root = os.environ.get("CLAE_DATA")
    if not root or not (Path(root) / "transfer_caltech97_72px.tar").is_file():
        pytest.skip("CLAE_DATA names no folder with transfer_caltech97_72px.tar")
    wanted = ("butterfly", "car_side", "cup", "yin_yang")  # car_side's are gray
    with tarfile.open(Path(root) / "transfer_caltech97_72px.tar") as tar:
        members = [m for m in tar if m.isfile() and m.name.split("/")[-2] in wanted]
        for m in members:
            target = tmp_path / m.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(m).read())
    victim = sorted(tmp_path.rglob("cup/*.jpg"))[3]
    victim.write_bytes(victim.read_bytes()[:-700])
    data = loaded(tmp_path)
    assert data.classes == sorted(wanted) and data.size == 64
    assert len(data.train) + len(data.test) == len(members) - 1
    assert len(data.provenance["skipped"]) == 1 and victim.name in data.warnings[0]
    x, _ = data.train[data.train.labels == data.classes.index("car_side")]
    assert torch.equal(x[:, 0], x[:, 2]) and not data.gray and float(x.std()) > 0.1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes of POSIX")
def test_loops_pipes_and_odd_names(tmp_path):
    """Twelve files, each once; links to above and pipes are named; bytes that are no UTF-8 are shown by a replacement."""
    root = tmp_path / "own"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (40, 40), (i * 30, 99, 7)).save(root / name / f"{i}.png")
    os.symlink("..", root / "a" / "loop")
    os.symlink("..", root / "b" / "loop")
    os.symlink("/", root / "a" / "root")
    os.symlink("nothing", root / "b" / "y.png")
    os.mkfifo(root / "a" / "x.png")
    os.rename(root / "a" / "0.png", os.fsencode(root / "a") + b"/\xff.png")
    os.rename(root / "b", os.fsencode(root) + b"/b\xfe")
    data = loaded(root, size=32)
    assert len(data.train) + len(data.test) == 12 and data.classes == ["a", "b\N{REPLACEMENT CHARACTER}"]
    told = next(w for w in data.warnings if "left out" in w)
    assert told.startswith("5 of what is in") and "link to a folder above it" in told and "no file" in told
    fingerprint(data)
    json.dumps(data.provenance), str(data).encode()


def test_a_linked_class_folder_is_read_once(tmp_path):
    kept = tmp_path / "elsewhere"
    write_images(kept, 5)
    root = tmp_path / "own"
    root.mkdir()
    write_images(root / "dog", 5, seed=2)
    try:
        os.symlink(kept, root / "cat")
        os.symlink(kept, root / "dog" / "more")
        os.symlink(root / "dog", root / "dog" / "self")
    except OSError:
        pytest.skip("links cannot be made here")
    data = loaded(root, size=32)
    assert data.classes == ["cat", "dog"] and len(data.train) + len(data.test) == 15
