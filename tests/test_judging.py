"""Transfer, and the commands that judge an encoder, as their users type them."""

import json

import pytest
import torch
from transfer_files import write_dtd, write_pets

import explore as ex
from explore import UserError
from explore.cli import main
from explore.datasets.transfer_sets import TRANSFER
from explore.results import REBUTTAL, Transfer


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def shades(tmp_path):
    """DTD and Pets in their layouts; every class is a shade, so a linear probe on colour gets them right."""
    write_dtd(tmp_path / "sets")
    write_pets(tmp_path / "sets")
    return tmp_path / "sets"


class Colour(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.mean((2, 3)).square()], 1)


def test_transfer_runs_what_is_there_and_names_what_is_not(cached, shades):
    found = ex.transfer(Colour(), root=shades, size=16)
    assert {row["dataset"] for row in found.rows} == {"dtd", "pets"} and set(found.absent) == set(TRANSFER) - {
        "dtd",
        "pets",
    }
    assert "vision/issues/7545" in found.absent["cars"] and all(len(how) > 40 for how in found.absent.values())
    rows = found.cells.set_index("dataset")
    assert rows.loc["pets", "metric"] == "mean_per_class" and rows.loc["dtd", "metric"] == "top1"
    for name in ("dtd", "pets"):
        assert rows.loc[name, "low"] <= rows.loc[name, "value"] <= rows.loc[name, "high"]
        assert rows.loc[name, "value"] > 1.5 / rows.loc[name, "classes"]
    table = found.table.set_index("dataset")
    assert list(table.index) == list(REBUTTAL) == list(TRANSFER)
    assert (table.loc["pets", "rebuttal SimCLR"], table.loc["pets", "rebuttal CLAE"]) == (44.4, 44.4)
    assert table.loc["dtd", "here"] == pytest.approx(100 * rows.loc["dtd", "value"])
    loaded = Transfer.load(found.save(cached / "t"))
    assert loaded.table.equals(found.table) and loaded.absent == found.absent
    assert str(shades) not in json.dumps(found.rows)  # results travel, the machine's folders do not
    with pytest.raises(UserError, match="Did you mean pets"):
        ex.transfer(Colour(), datasets=["pest"], root=shades)


def test_several_encoders_give_their_mean_and_spread(cached, shades):
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3)) for _ in range(3)]
    found = ex.transfer(nets, datasets=["dtd"], root=shades, size=16)
    values = 100 * found.cells["value"]
    row = found.table.set_index("dataset").loc["dtd"]
    assert (
        row["here"] == pytest.approx(values.mean())
        and row["±"] == pytest.approx(values.std())
        and row["± is"] == "sd of 3"
    )


def said(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_probe_and_knn_commands(cached, capsys):
    own = said(capsys, "probe", "demo/clae", "--share=0.02", "--against=demo/simclr", "--seeds=2")
    assert len(own["rows"]) == 4 and {row["encoder"] for row in own["rows"]} == {"demo/clae", "demo/simclr"}
    data, encoder = ex.load("fashion"), ex.open_run("demo/clae").encoder()
    h, y = ex.embed(encoder, data.train)
    part = ex.take_labels(y, 0.02, ex.seeded(1))
    test = ex.embed(encoder, data.test)
    a = ex.Probe(seed=1).fit(h[part], y[part]).score(*test)
    assert (
        own["rows"][1]["top1"] == pytest.approx(a.top1)
        and own["rows"][1]["n"] == 2000
        and own["rows"][1]["train"] == 200
    )
    assert own["paired"]["difference"] == pytest.approx(own["rows"][2]["top1"] - own["rows"][0]["top1"])
    assert 0 <= own["paired"]["p"] <= 1 and own["versions"]["torch"]
    near = said(capsys, "knn", "demo/clae", "--k=20")
    assert near["accuracy"] == ex.knn_accuracy(h, y, *test, k=20).accuracy
    assert main(["probe", "demo/clae", "--l2=1", "--share=0.02", "--protocol=authors", "--epochs=2"]) == 0
    assert "not to be reported" in capsys.readouterr().out


def test_robust_and_transfer_commands(cached, shades, capsys):
    words = ("robust", "demo/clae", "--images=20", "--steps=2", "--eps=0,8/255", "--attacks=fgsm,sign")
    found = said(capsys, *words)
    assert len(found["rows"]) == 4 and found["rows"][0]["n"] == 20 and found["checks"]
    assert main(list(words)) == 0
    out = capsys.readouterr().out
    assert "fgsm" in out and "✓ PGD at ε = 0.5" in out
    moved = said(capsys, "transfer", "demo/clae", f"--root={shades}", "--datasets=dtd,cars")
    assert [row["dataset"] for row in moved["rows"]] == ["dtd"] and "cars" in moved["absent"]
    assert main(["transfer", "demo/clae", f"--root={shades}", "--datasets=dtd,cars"]) == 0
    assert "kaggle" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["probe", "demo/clea"], "Did you mean demo/clae"),
        (["probe", "demo/clae", "--share", "2"], "share of the labels"),
        (["probe", "demo/clae", "--seeds", "0"], "--seeds"),
        (["knn", "demo/clae", "--dataset", "fasion"], "fashion"),
        (["robust", "demo/clae", "--eps", "8"], "8/255"),
        (["robust", "demo/clae", "--attacks", "pdg"], "Did you mean pgd"),
        (["transfer", "demo/clae", "--datasets", "pest"], "Did you mean pets"),
        (["knn", "nothing.pth"], "no file"),
    ],
)
def test_bad_words_end_in_one_sentence(cached, capsys, words, sentence):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and sentence in err and len(err.strip().splitlines()) == 1


def test_a_runs_label_names_the_set_not_the_path():
    assert ex.TrainConfig(dataset="imagenet100:/data/imagenet", arch="resnet50").label.startswith(
        "imagenet100-resnet50-"
    )
    assert ex.TrainConfig(dataset="folder:/my/cats").label.startswith("cats-")


@pytest.mark.parametrize("arch", ["resnet50", "resnet101"])
def test_large_networks_train_and_are_judged_through_the_same_commands(cached, capsys, arch):
    tiny = ["--width=4", "--epochs=1", "--batch-size=16", "--train-images=32", "--knn-images=50", "--stem=imagenet"]
    assert main(["train", f"--arch={arch}", "--name=big", *tiny]) == 0
    capsys.readouterr()
    found = said(capsys, "knn", "big", "--k=5")
    assert found["arch"] == arch and found["n"] == 2000 and 0.1 < found["accuracy"] <= 1
    assert len(said(capsys, "probe", "big", "--share=0.01", "--l2=1")["rows"]) == 1
