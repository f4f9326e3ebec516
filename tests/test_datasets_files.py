"""The published sets: their files, checksums, pickles, and downloads from mirrors that fail in every way."""

import errno
import gzip
import hashlib
import os
import pickle
import tarfile
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import (
    noise,
    python2_pickle,
    serving,
    write_cifar10,
    write_cifar100,
    write_fashion,
    write_real_cifar10,
    write_stl10,
)

from explore.datasets import download, load, public
from explore.datasets.unpickle import read_pickle
from explore.errors import UserError

QUIET = lambda *_: None  # noqa: E731


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own, and no proxy between the tests and their server."""
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar10_from_its_folder_or_the_one_above(tmp_path, inside, protocol):
    x = write_cifar10(tmp_path, protocol=protocol)
    data = load("cifar10", tmp_path / "cifar-10-batches-py" if inside else tmp_path)
    assert torch.equal(data.train.stored, torch.from_numpy(x)) and not data.gray
    assert data.train.labels.tolist() == [i % 10 for i in range(20)] * 5 and len(data.test) == 20
    assert data.classes[:2] == ["airplane", "automobile"]


def test_another_copy_carries_a_warning_and_the_published_one_none(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    data = load("cifar10", tmp_path)
    assert len(data.warnings) == 1 and "7 of 7 checksums differ" in data.warnings[0]
    assert data.provenance["checksum"]["state"] == "other than published"
    spec = public.SETS["cifar10"]
    sums = {n: download.digest(tmp_path / "cifar-10-batches-py" / n, "md5") for n in spec.files}
    monkeypatch.setitem(public.SETS, "cifar10", replace(spec, files=sums))
    same = load("cifar10", tmp_path)
    assert same.warnings == [] and same.provenance["checksum"]["state"] == "as published"
    monkeypatch.setitem(public.SETS, "cifar10", replace(spec, files={**sums, "test_batch": "0" * 32}))
    assert "test_batch" in load("cifar10", tmp_path).warnings[0]


def test_the_md5s_and_addresses_are_torchvisions():
    from torchvision import datasets as theirs

    for name, cls in (("cifar10", theirs.CIFAR10), ("cifar100", theirs.CIFAR100)):
        files = dict([*cls.train_list, *cls.test_list, [cls.meta["filename"], cls.meta["md5"]]])
        assert public.SETS[name].files == files and public.SETS[name].downloads == {cls.filename: cls.tgz_md5}
        assert public.SETS[name].mirrors[0] + cls.filename == cls.url
    stl = theirs.STL10
    assert public.SETS["stl10-unlabeled"].files == dict([*stl.train_list, *stl.test_list])
    assert public.SETS["stl10"].downloads == {stl.filename: stl.tgz_md5}
    assert public.SETS["fashion-mnist"].downloads == dict(theirs.FashionMNIST.resources)
    assert public.SETS["fashion-mnist"].mirrors[0] == theirs.FashionMNIST.mirrors[0]


def test_cifar100_has_its_superclasses(tmp_path):
    write_cifar100(tmp_path)
    data = load("cifar100", tmp_path)
    assert len(data.classes) == 100 and data.train.extra_names["superclass"][19] == "s19"
    assert torch.equal(data.train.extra["superclass"], data.train.labels // 5)


@pytest.mark.parametrize("size", [None, 32])
def test_stl10_and_its_unlabelled_images(tmp_path, size):
    x = write_stl10(tmp_path)
    data = load("stl10", tmp_path, size=size)
    assert data.train.labels.tolist() == [i % 10 for i in range(20)] and data.size == (size or 96)
    if size is None:
        assert torch.equal(data.train.stored, torch.from_numpy(x))
    free = load("stl10-unlabeled", tmp_path, size=size)
    assert len(free.train) == 30 and free.train.labels.eq(-1).all()
    assert torch.equal(free.labelled.stored, data.train.stored) and len(free.test) == 20


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["FashionMNIST/raw", "."])
def test_fashion_mnist_packed_or_not(tmp_path, packed, below):
    x = write_fashion(tmp_path / below, packed)
    data = load("fashion-mnist", tmp_path)
    assert torch.equal(data.train.stored[:, 0, 2:-2, 2:-2], torch.from_numpy(x)) and data.gray
    assert len(data.test) == 20 and "4 of 4 checksums differ" in data.warnings[0]


def test_debians_copy_of_fashion_mnist_counts_as_published():
    source = Path("/usr/share/datasets/fashion-mnist")
    if not source.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load("fashion-mnist", source)
    assert data.warnings == [] and (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.train.labels.bincount().tolist() == [6000] * 10


def _spoil(folder: Path, what: str) -> str:
    """Damage a copy of CIFAR-10; the words its error must have."""
    batch = folder / "data_batch_3"
    good = pickle.loads(batch.read_bytes())
    if what == "missing":
        batch.unlink()
        return "not complete: data_batch_3 missing"
    if what == "cut":
        batch.write_bytes(batch.read_bytes()[:1000])
        return "no readable pickle"
    changes = {
        "label": ({"labels": [10] * 20}, "labels from 10 to 10, expected 0 to 9"),
        "negative": ({"labels": [-1] * 20}, "labels from -1"),
        "counts": ({"labels": [1] * 19}, "20 images but 19 labels"),
        "words": ({"labels": ["cat"] * 20}, "no whole numbers"),
        "shape": ({"data": noise(20, 100)}, "expected uint8 (n, 3072)"),
        "floats": ({"data": np.zeros((20, 3072))}, "expected uint8 (n, 3072)"),
        "keys": ({"labels": None}, ""),
    }
    change, words = changes[what]
    batch.write_bytes(pickle.dumps({**good, **change}, 2))
    if what == "keys":
        batch.write_bytes(pickle.dumps({"data": good["data"]}, 2))
        return "has no 'labels'"
    return words


@pytest.mark.parametrize("what", ["missing", "cut", "label", "negative", "counts", "words", "shape", "floats", "keys"])
def test_a_damaged_copy_is_one_sentence(tmp_path, what):
    write_cifar10(tmp_path)
    words = _spoil(tmp_path / "cifar-10-batches-py", what)
    with pytest.raises(UserError) as error:
        load("cifar10", tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_damaged_idx_and_stl10_files(tmp_path):
    write_fashion(tmp_path / "f", packed=True)
    images = tmp_path / "f" / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for broken in (whole[: len(whole) // 2], gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab")):
        images.write_bytes(broken)
        with pytest.raises(UserError, match=r"idx file|cannot be read"):
            load("fashion-mnist", tmp_path / "f")
    write_stl10(tmp_path / "s")
    with open(tmp_path / "s" / "stl10_binary" / "test_X.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="no whole number of 96x96 images"):
        load("stl10", tmp_path / "s")


def test_python_2s_pickle_is_read(tmp_path):
    x = noise(5, 3072)
    raw = python2_pickle(x, [3, 1, 4, 1, 5])
    theirs = pickle.loads(raw, encoding="latin1")  # the sample is a true one
    assert np.array_equal(theirs["data"], x)
    (tmp_path / "batch").write_bytes(raw)
    found = read_pickle(tmp_path / "batch")
    assert np.array_equal(found["data"], x) and found["labels"] == [3, 1, 4, 1, 5]


class _Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    "evil",
    [
        lambda mark: _Call(os.system, f"touch {mark}"),
        lambda mark: _Call(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: _Call(getattr, _Call(__import__, "os"), "system"),
        lambda mark: _Call(np.fromfile, str(mark)),
        lambda mark: np.array([_Call(os.system, f"touch {mark}")], dtype=object),
        lambda mark: torch.zeros(2),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, evil, protocol):
    folder, mark = tmp_path / "cifar-10-batches-py", tmp_path / "mark"
    write_cifar10(tmp_path)
    raw = pickle.dumps({"data": noise(20, 3072), "labels": [0] * 20, "more": evil(mark)}, protocol)
    (folder / "data_batch_2").write_bytes(raw)
    with pytest.raises(UserError, match="data_batch_2 was refused") as error:
        load("cifar10", tmp_path)
    assert not mark.exists() and "\n" not in str(error.value)


def test_a_pickle_of_something_else(tmp_path):
    (tmp_path / "p").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="holds a list, expected a dict"):
        read_pickle(tmp_path / "p")
    (tmp_path / "p").write_bytes(pickle.dumps({"x": np.array(["a", "b"])}))
    with pytest.raises(UserError, match="was refused"):
        read_pickle(tmp_path / "p")


BODY = noise(300_000).tobytes()
MD5 = hashlib.md5(BODY).hexdigest()


def test_a_download_arrives_whole_with_progress(tmp_path):
    told = []
    with serving({"f.bin": BODY}) as mirror:
        path = download.fetch([mirror.address + "f.bin"], tmp_path / "d" / "f.bin", MD5, lambda *a: told.append(a))
    assert path.read_bytes() == BODY and os.listdir(tmp_path / "d") == ["f.bin"]
    assert told[-1] == ("downloading f.bin", 300_000, 300_000) and len(told) > 2


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path):
    target = tmp_path / "f.bin"

    def interrupted(what, done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with serving({"f.bin": BODY}) as mirror:
        with pytest.raises(KeyboardInterrupt):
            download.fetch([mirror.address + "f.bin"], target, MD5, interrupted)
        have = (tmp_path / "f.bin.part").stat().st_size
        assert 100_000 < have < 300_000 and not target.exists()
        told = []
        download.fetch([mirror.address + "f.bin"], target, MD5, lambda *a: told.append(a[1:]))
        assert mirror.asked[-1] == ("/f.bin", f"bytes={have}-")
        assert told[0][0] > have and told[-1] == (300_000, 300_000)
    assert target.read_bytes() == BODY


def test_a_broken_connection_is_taken_up_again(tmp_path):
    with serving({"f.bin": BODY}) as mirror:
        mirror.breaks_at = 200_000
        download.fetch([mirror.address + "f.bin"], tmp_path / "f.bin", MD5, QUIET)
        assert [r for _, r in mirror.asked] == [None, "bytes=200000-"]
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_server_without_range_starts_over(tmp_path):
    (tmp_path / "f.bin.part").write_bytes(BODY[:1000])
    with serving({"f.bin": BODY}) as mirror:
        mirror.ranges = False
        download.fetch([mirror.address + "f.bin"], tmp_path / "f.bin", MD5, QUIET)
        mirror.breaks_at = 50_000
        with pytest.raises(download.Unreachable, match="closed after 50,000 of 300,000"):
            download.fetch([mirror.address + "f.bin"], tmp_path / "g.bin", MD5, QUIET)
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_part_that_is_whole_or_too_long_is_understood(tmp_path):
    with serving({"f.bin": BODY}) as mirror:
        for part in (BODY, BODY + b"too long", b"x" * 1000):
            (tmp_path / "f.bin.part").write_bytes(part)
            download.fetch([mirror.address + "f.bin"], tmp_path / "f.bin", MD5, QUIET)
            assert (tmp_path / "f.bin").read_bytes() == BODY


def test_the_next_mirror_serves_when_one_is_down_or_wrong(tmp_path):
    with serving({}) as down, serving({"f.bin": BODY[::-1]}) as wrong, serving({"f.bin": BODY}) as good:
        urls = ["http://127.0.0.1:9/f.bin", *(m.address + "f.bin" for m in (down, wrong, good))]
        download.fetch(urls, tmp_path / "f.bin", MD5, QUIET)
        assert len(down.asked) == len(wrong.asked) == len(good.asked) == 1
    assert (tmp_path / "f.bin").read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing_in_place(tmp_path):
    with (
        serving({"f.bin": BODY[:-1] + b"x"}) as mirror,
        pytest.raises(download.Unreachable, match=r"127\.0\.0\.1:\d+: the file has a wrong checksum"),
    ):
        download.fetch([mirror.address + "f.bin"], tmp_path / "f.bin", MD5, QUIET)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_keeps_what_came(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, block):
            if self.file.tell() > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(block)

    opened = download._opened
    monkeypatch.setattr(download, "_opened", lambda part, mode: Full(opened(part, mode)))
    with serving({"f.bin": BODY}) as mirror, pytest.raises(UserError, match=r"No space left on device.*make room"):
        download.fetch([mirror.address + "f.bin"], tmp_path / "f.bin", MD5, QUIET)
    assert os.listdir(tmp_path) == ["f.bin.part"]


def _as_published(monkeypatch, tmp_path, mirrors: list[str]) -> dict[str, bytes]:
    """CIFAR-10 made small: an archive whose checksums are the known ones, with these mirrors."""
    write_cifar10(tmp_path / "origin")
    folder = tmp_path / "origin" / "cifar-10-batches-py"
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
        tar.add(folder / "batches.meta", "../../escaped")
    spec = public.SETS["cifar10"]
    small = replace(
        spec,
        mirrors=tuple(mirrors),
        downloads={archive.name: download.digest(archive, "md5")},
        files={name: download.digest(folder / name, "md5") for name in spec.files},
    )
    monkeypatch.setitem(public.SETS, "cifar10", small)
    return {archive.name: archive.read_bytes()}


def test_load_downloads_unpacks_and_next_time_needs_no_network(tmp_path, cache, monkeypatch):
    with serving({}) as mirror:
        mirror.files.update(_as_published(monkeypatch, tmp_path, ["http://127.0.0.1:9/", mirror.address]))
        told = []
        data = load("cifar10", progress=lambda *a: told.append(a[0]))
        assert data.warnings == [] and data.provenance["checksum"]["state"] == "as published"
        assert {"downloading cifar-10-python.tar.gz", "unpacking cifar-10-python.tar.gz"} == set(told)
    assert os.listdir(cache / "cifar10") == ["cifar-10-batches-py"]  # nothing else kept, nothing escaped
    assert sorted(os.listdir(cache / "cifar10" / "cifar-10-batches-py")) == sorted(public.SETS["cifar10"].files)
    assert not (tmp_path / "escaped").exists()
    assert len(load("cifar10", download=False).train) == 100


@pytest.mark.parametrize("given", [True, False])
def test_an_archive_put_there_by_hand_is_unpacked_and_kept(tmp_path, cache, monkeypatch, given):
    ((name, raw),) = _as_published(monkeypatch, tmp_path, ["http://127.0.0.1:9/"]).items()
    place = tmp_path / "mine" if given else cache / "cifar10"
    place.mkdir(parents=True)
    (place / name).write_bytes(raw)
    assert load("cifar10", place if given else None).warnings == []
    assert (place / name).is_file()
    (place / "cifar-10-batches-py" / "test_batch").unlink()
    (place / name).write_bytes(raw[:2000])
    with pytest.raises(UserError, match="cannot be unpacked"):
        load("cifar10", place if given else None)


def test_fashion_mnist_arrives_file_by_file(tmp_path, cache, monkeypatch):
    write_fashion(tmp_path, packed=True)
    files = {p.name: p.read_bytes() for p in tmp_path.glob("*.gz")}
    with serving(files) as mirror:
        sums = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
        spec = replace(public.SETS["fashion-mnist"], mirrors=(mirror.address,), downloads=sums)
        monkeypatch.setitem(public.SETS, "fashion-mnist", spec)
        assert len(load("fashion-mnist", progress=QUIET).train) == 20
        assert len(mirror.asked) == 4
    assert len(os.listdir(cache / "fashion-mnist" / "FashionMNIST" / "raw")) == 4


def test_without_network_one_sentence_says_what_to_do(cache, monkeypatch):
    def nowhere(request, timeout):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", nowhere)
    with pytest.raises(UserError) as error:
        load("cifar10")
    sentence = str(error.value)
    for words in (
        "www.cs.toronto.edu: Name or service not known",
        "dataset.bj.bcebos.com",
        f"put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/ into {cache / 'cifar10'}",
        "'fashion', which needs no download",
    ):
        assert words in sentence
    assert "\n" not in sentence and sentence.count(". ") == 0
    with pytest.raises(UserError, match="download=False"):
        load("cifar10", download=False)


def test_a_data_folder_without_the_set(tmp_path):
    with pytest.raises(UserError, match=r"does not hold CIFAR-10: expected there \(or in cifar-10-batches-py\)"):
        load("cifar10", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load("cifar10", tmp_path / "nowhere")


@pytest.mark.data
def test_real_cifar10_as_an_own_copy(tmp_path):
    root = os.environ.get("CLAE_DATA")
    if not root or not (Path(root) / "cifar10_jpeg75.npz").is_file():
        pytest.skip("CLAE_DATA names no folder with cifar10_jpeg75.npz")
    write_real_cifar10(tmp_path, Path(root) / "cifar10_jpeg75.npz", 500)
    data = load("cifar10", tmp_path)
    assert (len(data.train), len(data.test), data.size) == (2500, 500, 32)
    assert data.train.labels[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    assert len(data.warnings) == 1 and "not the published copy" in data.warnings[0]
    blue = data.train[:][0].mean((2, 3))[:, 2] - data.train[:][0].mean((2, 3))[:, 0]
    ships = data.train.labels == data.classes.index("ship")
    assert blue[ships].mean() > blue[~ships].mean()  # channels in their places: the sea is blue


def test_a_folder_named_by_the_environment_serves_every_command(tmp_path, monkeypatch):
    from explore.datasets import at_hand

    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLAE_DATA", raising=False)
    assert at_hand("fashion") and not at_hand("cifar10")
    write_cifar10(tmp_path / "own")
    monkeypatch.setenv("CLAE_DATA", str(tmp_path / "own"))
    assert at_hand("cifar10") and not at_hand("cifar100")
    assert len(load("cifar10").train) == 100
    with pytest.raises(UserError, match="download=False"):  # what the folder lacks is looked for elsewhere
        load("cifar100", download=False)
    write_cifar10(tmp_path / "other", n=10)
    assert len(load("cifar10", tmp_path / "other").train) == 50  # what is named by hand comes first
