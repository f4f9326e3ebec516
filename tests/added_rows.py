"""Run by test_contributing.py in a copy of the package that has an attack 'ifgsm', a data set 'squares' and a panel 'Bright'."""

import contextlib
import io
import json
from pathlib import Path

import explore as ex
from explore.cli import _parser, main

TINY = ["--arch=resnet10", "--width=4", "--proj-dim=8", "--epochs=1", "--batch-size=32", "--train-images=32"]
TINY += ["--knn-images=50", "--precision=fp32"]


def said(*words: str) -> str:
    """What a command prints; it has to end well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(list(words)) == 0, words
    return out.getvalue()


def menu(panel, label: str) -> tuple:
    """The options of the panel's control that goes by this name."""
    found, rest = [], [panel.view]
    while rest:
        widget = rest.pop()
        rest += getattr(widget, "children", ())
        found += [widget.options for _ in [0] if getattr(widget, "description", "") == label]
    return found[0]


def attack() -> None:
    from explore import figures
    from explore.config import TrainConfig
    from explore.experiments.cell import Cell, step_passes
    from explore.panels import FourAttacks
    from explore.panels.noise import charts, points
    from explore.studies import TEST_KINDS, attack_cells

    config = TrainConfig(attack="ifgsm", steps=3)
    assert (config.method, step_passes(config)) == ("CLAE (ifgsm)", 9 + 2 * 3)
    assert Cell(config).training("x")["config"]["steps"] == 3
    assert ex.attack_named("ifgsm", 8 / 255, steps=3).steps == 3

    # the lab, the atlas, the four attacks
    lab = ex.panels.Perturbation("demo/clae")
    assert menu(lab, "Attack") == ("FGSM", "R-FGSM", "F-FGSM", "PGD", "I-FGSM")
    lab.attack, lab.steps = "I-FGSM", 2
    assert lab.wait(300) and (lab.result.attack, lab.result.provenance["steps"]) == ("ifgsm", 2)
    lab.close()
    atlas = ex.panels.Atlas("", points=40, method="pca")
    assert menu(atlas, "Attack")[-1] == "I-FGSM"
    atlas.close()
    four = FourAttacks(None, "demo/clae", show="loss", images=20)
    assert four.wait(300) and four.error is None
    assert four._chips["ifgsm"].description == "I-FGSM" and "ifgsm" in set(four.result.table.attack)
    assert "I-FGSM" in [trace.name for trace in four._chart.data]
    four.close()
    assert points.KINDS["ifgsm"] == ("adv", "I-FGSM") and figures.sweep.NAMES["ifgsm"] == ("adv", "I-FGSM")
    assert charts.STYLE["ifgsm"]["line"]["dash"] == "longdash" and charts.STYLE["ifgsm"]["marker"]["symbol"] == "star"
    assert "ifgsm" in TEST_KINDS

    # the command line
    with contextlib.suppress(SystemExit):
        said("train", "--help")
    said("train", "--attack=ifgsm", "--steps=2", "--name=added", *TINY)
    run = ex.open_run("added")
    assert run.config.attack == "ifgsm" and run.rows()[-1]["loss_adv"] > 0
    methods = _parser().parse_args(["sweep", "--study=attacks", "--methods=none,ifgsm"]).methods
    assert [cell.config.attack for cell in attack_cells(config, methods, seeds=1)] == ["none", "none", "ifgsm"]
    looked = ["sweep", "--study=loss-eps", "--run=demo/clae", "--kinds=ifgsm,sign", "--images=20", "--eps=8/255"]
    assert "ifgsm" in said(*looked)
    judged = said("robust", "demo/clae", "--attacks=ifgsm,sign", "--images=20", "--steps=2", "--eps=8/255", "--json")
    assert [row["attack"] for row in json.loads(judged)["rows"]] == ["ifgsm", "sign"]

    # the invariants' table
    import test_attacks
    import torch

    made = [make for make in test_attacks.ALL if make(0.1).name == "ifgsm"]
    assert len(made) == 1
    x = torch.rand(4, 3, 16, 16, generator=ex.seeded(0))
    encoder = ex.Encoder("resnet10", width=4).eval()
    apart = ex.contrast(encoder, x.flip(3))
    for check in ("inside_the_ball_and_the_pixel_range", "deterministic_per_seed", "eps_zero_is_identity"):
        getattr(test_attacks, f"test_{check}")(made[0], x, apart)


def dataset() -> None:
    assert ex.names()["squares"] == "40 gray squares; made when loaded"
    data = ex.load("squares")
    assert (len(data.train), len(data.test), data.size, data.classes) == (32, 8, 16, ["dark", "bright"])
    assert ex.load("squares", size=24).size == 24 and data.provenance["licence"] == "none"
    said("train", "--dataset=squares", "--name=squares", "--steps=1", *TINY)
    run = ex.open_run("squares")
    assert run.image_size == 16 and run.env["data"]["name"] == "squares"
    assert json.loads(said("knn", "squares", "--k=3", "--json"))["n"] == 8
    lab = ex.panels.Perturbation("squares", images="squares · train")
    assert "squares · train" in dict(menu(lab, "Images")).values() and lab.wait(300) and lab.error is None
    lab.close()


def panel() -> None:
    """Found by name, state in traits, refusals in sentences, a still picture, a page without Python."""
    import pytest

    assert "Bright" in ex.panels.__all__ and ex.panels.Bright.__doc__
    bright = ex.panels.Bright(n=2)
    assert list(bright.result.table.columns) == ["image", "brightness"] and len(bright.result.table) == 2
    bright.n = 3
    assert len(bright.result.table) == 3 and bright.error is None  # the result waits for the new setting
    said = f"mean brightness {bright.result.table.brightness.mean():.4f}"
    assert said in bright.said.value and said in bright.still()
    with pytest.raises(ex.UserError, match="Bright takes n as"):
        bright.n = 20
    with pytest.raises(ex.UserError, match="Bright has no setting 'm'"):
        ex.panels.Bright(m=1)
    page = bright.save(Path("bright.html")).read_text()
    assert "<title>" in page and "Brightness" in page and said in page
    bright.images = "nowhere"
    assert bright.wait(300) and "nowhere" in str(bright.error)  # a banner, and not a traceback
    bright.close()


if __name__ == "__main__":
    assert Path(ex.__file__).is_relative_to(Path.cwd()), "the copy, not the package that is installed"
    for added in (attack, dataset, panel):
        added()
        print(added.__name__, "is found everywhere", flush=True)
