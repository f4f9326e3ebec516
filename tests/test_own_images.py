"""Folders as people have them, labels in a file beside the images, arrays, and a torchvision Dataset."""

import io
import zipfile

import numpy as np
import pytest
import torch
from dataset_files import write_images
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

import explore as ex
from explore.datasets import from_arrays, uploads
from explore.datasets.uploads import uploaded

QUIET = lambda *_: None  # noqa: E731


def loaded(path, **options):
    return ex.load(f"folder:{path}", progress=QUIET, **options)


def classes_in(folder, n=4, names=("a", "b"), seed=0):
    for k, name in enumerate(names):
        write_images(folder / name, n, seed=seed + k)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("Training", "Testing"), ("training", "testing"), ("TRAIN", "TEST"), ("train", "valid"), ("train", "eval")),
        *(("train", "evaluation"), ("Train", "Validation")),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_are_parts_under_every_usual_name(train, test, wrapped, tmp_path):
    root = tmp_path / "archive" / "set" if wrapped else tmp_path
    classes_in(root / train, 4)
    classes_in(root / test, 2, seed=9)
    data = loaded(tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.warnings) == (8, 4, ["a", "b"], [])


def test_a_class_may_be_called_test_where_there_is_no_train(tmp_path):
    classes_in(tmp_path, 5, ("testing", "other"))
    assert loaded(tmp_path).classes == ["other", "testing"]


def test_tiny_imagenet_as_downloaded(tmp_path):
    for k, name in enumerate(("n01443537", "n01629819")):
        write_images(tmp_path / "train" / name / "images", 4, seed=k)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("x_0.JPEG\t0\t0\t62\t62\n")
    write_images(tmp_path / "val" / "images", 4, seed=7)
    write_images(tmp_path / "test" / "images", 3, seed=8)
    pictures = sorted(p.name for p in (tmp_path / "val" / "images").iterdir())
    rows = [f"{name}\t{('n01629819', 'n01443537')[i % 2]}\t0\t32\t44\t62" for i, name in enumerate(pictures)]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    data = loaded(tmp_path)
    assert data.classes == ["n01443537", "n01629819"] and (len(data.train), len(data.test)) == (8, 4)
    assert data.test.labels.tolist() == [1, 0, 1, 0]


TABLES = {
    "labels.csv": lambda names: "file,label\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(names)),
    "labels.tsv": lambda names: "".join(f"{n}\t{'ab'[i % 2]}\n" for i, n in enumerate(names)),
    "list.txt": lambda names: "".join(f"{n} {'ab'[i % 2]}\n" for i, n in enumerate(names)),
    "other order.csv": lambda names: (
        "id;breed;name\n" + "".join(f"{i};{'ab'[i % 2]};{n.rsplit('.', 1)[0]}\n" for i, n in enumerate(names))
    ),
    "LOC_val_solution.csv": lambda names: (
        "ImageId,PredictionString\n"
        + "".join(
            f"{n.rsplit('.', 1)[0]},{('n01443537', 'n01629819')[i % 2]} 85 1 499 272 \n" for i, n in enumerate(names)
        )
    ),
    "ILSVRC2012_validation_ground_truth.txt": lambda names: "".join(f"{i % 2 + 1}\n" for i in range(len(names))),
}


@pytest.mark.parametrize("table", TABLES)
def test_labels_beside_the_images(table, tmp_path):
    write_images(tmp_path, 10)
    names = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / table).write_text(TABLES[table](names))
    (tmp_path / "readme.txt").write_text("What these pictures are:\nnothing.")
    data = loaded(tmp_path)
    assert len(data.classes) == 2 and len(data.train) == 8 and data.train.labels.bincount().tolist() == [4, 4]
    assert data.warnings == []


def test_images_that_a_table_does_not_name_are_left_out_and_told(tmp_path):
    write_images(tmp_path, 11)
    names = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / "labels.csv").write_text(TABLES["labels.csv"](names[:10]))
    data = loaded(tmp_path)
    assert len(data.train) + len(data.test) == 10
    assert data.warnings == [f"1 images are not in labels.csv and were left out: {names[10]} ..."]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_images(tmp_path / "cats", 3)
    closed, asked = tmp_path / "cats", type(tmp_path).is_dir

    def is_dir(path):
        if path == closed:  # as stat does for a user without rights; root has them all
            raise PermissionError(13, "Permission denied", str(closed))
        return asked(path)

    monkeypatch.setattr(type(tmp_path), "is_dir", is_dir)
    with pytest.raises(ex.UserError, match=r"holds '.*cats', which this user may not read"):
        ex.load(f"folder:{tmp_path}")


def test_nothing_left_to_test_on_is_told_before_anything_is_computed(tmp_path):
    classes_in(tmp_path, 1, ("a", "b", "c"))
    with pytest.raises(ex.UserError, match=r"no image of .* is left to test on: each of its 3 classes has one image"):
        loaded(tmp_path)


def test_the_same_picture_in_both_parts_is_counted_and_told_once(tmp_path):
    classes_in(tmp_path / "train", 4)
    classes_in(tmp_path / "test", 2)  # of the same seeds: the same pictures
    assert loaded(tmp_path).warnings == ["4 of 4 test images are among the training images too, pixel by pixel."]


ARRAYS = {
    "uint8, channels last": lambda x: x,
    "uint8, channels first": lambda x: x.transpose(0, 3, 1, 2),
    "floats": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "int64": lambda x: x.astype(np.int64),
    "a tensor": lambda x: torch.from_numpy(x),
    "not contiguous": lambda x: np.asfortranarray(x),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_layout_are_the_same_set(kind):
    x = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    data, expected = from_arrays(ARRAYS[kind](x), ["a", "b"] * 5), from_arrays(x, [0, 1] * 5, classes=["a", "b"])
    assert data.classes == ["a", "b"] and (len(data.train), len(data.test)) == (8, 2)
    for mine, other in ((data.train, expected.train), (data.test, expected.test)):
        assert mine.stored.equal(other.stored) and mine.labels.equal(other.labels)


def test_arrays_with_a_test_part_gray_and_without_labels():
    x = torch.rand(10, 24, 16, generator=ex.seeded(0))
    data = from_arrays(x, test=(x[:3], None), size=8)
    assert data.gray and data.classes == [] and data.labelled is None and data.train.stored.shape == (10, 1, 8, 8)
    assert len(data.test) == 3 and data.test.labels.eq(-1).all()
    named = from_arrays(x, list("ab") * 5, test=(x[:2], ["b", "c"]))
    assert named.classes == ["a", "b", "c"] and named.test.labels.tolist() == [1, 2]


def test_a_torchvision_dataset_is_taken(tmp_path):
    classes_in(tmp_path, 5, ("cat", "dog"))
    data = from_arrays(ImageFolder(tmp_path), size=20)
    assert data.classes == ["cat", "dog"] and (len(data.train), len(data.test), data.size) == (8, 2, 20)
    probe = ex.Probe(l2=1.0).fit(*ex.embed(ex.Encoder("resnet10", width=4, stem="small"), data.train))
    assert probe.classes_ == ("0", "1")

    class Tensors(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return torch.full((3, 12, 12), i / 10), torch.tensor(i % 2)

    assert from_arrays(Tensors()).train.stored.shape[1:] == (1, 12, 12)  # gray, as all channels are equal


X = torch.rand(4, 3, 16, 16)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: from_arrays(X * 255, [0, 1] * 2), "as if they were 0 to 255"),
        (lambda: from_arrays(X, [0, 1]), "expected 4 labels"),
        (lambda: from_arrays(X[0, 0], [0]), "got the shape"),
        (lambda: from_arrays(X.new_zeros(4, 5, 8, 8), [0, 1] * 2), "got the shape"),
        (lambda: from_arrays((X * 999).long(), [0, 1] * 2), "0 to 255"),
        (lambda: from_arrays("pictures"), "got a str"),
        (lambda: from_arrays(None), "got a NoneType"),
        (lambda: from_arrays([]), "holds no images"),
        (lambda: from_arrays(X, [0, 1, 2, 3]), "No image is left to test on"),
        (lambda: from_arrays(X, [0, 1] * 2, test=(X, None)), "labels"),
        (lambda: from_arrays(X, ["a", "b"] * 2, classes=["a"]), "no class 'b'"),
        (lambda: from_arrays(X, size=4), "size from 8"),
        (lambda: from_arrays([(torch.rand(3, 8, 8), 0), (torch.rand(3, 9, 9), 1)]), "2 different shapes"),
    ],
)
def test_what_is_no_set_of_images_is_one_sentence(call, said):
    with pytest.raises(ex.UserError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("default")
def test_a_hugging_face_dataset_is_taken():
    hub = pytest.importorskip("datasets")
    from PIL import Image

    x = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    features = hub.Features(
        {"id": hub.Value("int64"), "kind": hub.ClassLabel(names=["cat", "dog"]), "photo": hub.Image()}
    )
    columns = {"id": list(range(10)), "kind": [0, 1] * 5, "photo": [Image.fromarray(each) for each in x]}
    data, expected = from_arrays(hub.Dataset.from_dict(columns, features)), from_arrays(x, [0, 1] * 5)
    assert data.classes == ["cat", "dog"]
    assert data.train.stored.equal(expected.train.stored) and data.test.labels.equal(expected.test.labels)


def zipped(files):
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """Pictures of two classes as files (name, content), and a cache of the test's own."""
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    classes_in(tmp_path / "set", 5)
    return {p.relative_to(tmp_path / "set").as_posix(): p.read_bytes() for p in (tmp_path / "set").rglob("*.png")}


def test_files_from_a_page_become_a_folder_that_stays_below_the_cache(sent, tmp_path):
    odd = {
        "../../up.png": sent["a/" + min(n for n in sent if n[0] == "a")[2:]],
        "__MACOSX/a/._x.png": b"",
        "run.py": b"",
    }
    place = uploaded([("set.zip", zipped({f"set/{name}": content for name, content in sent.items()} | odd))])
    assert place.parent == tmp_path / "cache" / "uploads" and [p.name for p in place.parent.iterdir()] == [place.name]
    assert {p.relative_to(place).as_posix() for p in place.rglob("*.*")} == {
        *(f"set/{name}" for name in sent),
        "up.png",
    }
    loose = [(name.replace("/", " "), content) for name, content in sent.items()]
    table = ("labels.csv", "".join(f"{name},{name[0]}\n" for name, _ in loose).encode())
    data = loaded(uploaded([*loose, table]))
    assert (data.classes, len(data.train), len(data.test), data.warnings) == (["a", "b"], 8, 2, [])
    assert uploaded([*loose, table]) == uploaded(iter([*loose, table]))  # kept once


def test_what_a_page_cannot_send_is_one_sentence(sent, monkeypatch):
    for files, said in (
        ([("a.zip", b"PK no archive")], "a.zip cannot be unpacked"),
        ([("a.zip", zipped(sent)[:400])], "a.zip cannot be unpacked"),
        ([("notes.txt", b"a b")], "Expected pictures"),
        ([], "Expected pictures"),
    ):
        with pytest.raises(ex.UserError, match=said):
            uploaded(files)
    monkeypatch.setattr(uploads, "LARGEST", 10_000)
    with pytest.raises(ex.UserError, match="unpacks to more than"):
        uploaded([("bomb.zip", zipped({"a.png": bytes(20_000)}))])
    assert not any((uploads.paths.cache() / "uploads").iterdir())


def test_the_panel_of_own_images_says_what_was_read_resized_and_left_out(sent, tmp_path):
    (tmp_path / "set" / "b" / "notes.png").write_text("no picture")
    panel = ex.panels.Upload(size=16)
    try:
        assert panel.wait(60) and panel.state == "empty"
        panel.images = str(tmp_path / "set")  # a path is a folder
        assert panel.images == f"folder:{tmp_path / 'set'}" and panel.result.classes == ["a", "b"]
        assert (
            "8 images to train on and 2 to test on" in panel._reading.value and "scaled to 16" in panel._reading.value
        )
        assert "notes.png (" in panel._left_out.value and panel._classes.value.count("<img") == 8
        panel._take([{"name": "set.zip", "content": memoryview(zipped(sent))}])
        assert len(panel.result.train) == 8 and "Nothing was left out" in panel._left_out.value
        with pytest.raises(ex.UserError, match=r"x\.zip cannot be unpacked"):
            panel._take([{"name": "x.zip", "content": memoryview(b"no")}])
        for name, said in (("fashin", "fashion"), (str(tmp_path / "none"), "does not exist; expected 'folder:'")):
            panel.images = name
            assert panel.wait(60) and said in str(panel.error)
        panel.size = 0
        panel.images = "emoji"
        assert panel.wait(60) and panel.error is None and len(panel._outcome.rows) == len(panel.result.classes)
    finally:
        panel.close()
    data = from_arrays(X, [0, 1] * 2)
    with_arrays = ex.panels.Upload(data)
    try:
        assert with_arrays.result is data and "Short sides" not in with_arrays._reading.value
        with_arrays.size = 8
        assert with_arrays.wait(60) and "is in memory, at 16 pixels" in str(with_arrays.error)
    finally:
        with_arrays.close()
