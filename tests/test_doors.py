"""What comes in is checked where it comes in: labels of every kind, images, objectives, the table of bad inputs."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import explore as ex
from explore import incoming
from explore.attacks import attack_named
from explore.steps import Stepper

ROOT = Path(__file__).resolve().parent.parent
EPS = 8 / 255
Y = torch.tensor([0, 2, 1, 0, 2, 1, 1, 0, 2, 2, 0, 1])
NAMES = ("ant", "bee", "cat")


def test_the_table_of_bad_inputs_is_as_the_library_says_it(tmp_path):
    """In a process without the import hook of the tests, as a user's is."""
    run = [sys.executable, ROOT / "tests" / "bad_inputs.py", tmp_path / "now.csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    now = list(csv.reader((tmp_path / "now.csv").read_text().splitlines()))
    for where, what, said in now[1:]:
        assert not said.split(" ")[0].isupper() or said.startswith(("A ", "PGD")), f"{where}, {what}: {said}"
        assert "\n" not in said and len(said) <= 320 and said[-1] in ".?", f"{where}, {what}: {said}"
    assert len({(where, what) for where, what, _ in now}) == len(now) > 300
    kept = (ROOT / "docs" / "bad-inputs.csv").read_text()
    assert (tmp_path / "now.csv").read_text() == kept, "write it anew: python tests/bad_inputs.py"


def test_bad_input_drawn_at_random_is_one_sentence(tmp_path):
    words = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(ROOT / "tests" / "hunted.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLAE_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout[-3000:]


ONE_HOT = nn.functional.one_hot(Y)
LABELS = {
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "array": Y.numpy(),
    "int8": Y.to(torch.int8),
    "floats": Y.double(),
    "list of floats": [float(i) for i in Y],
    "list of tensors": list(Y),
    "column": Y[:, None],
    "one-hot": ONE_HOT,
    "one-hot floats": ONE_HOT.float(),
    "one-hot list": ONE_HOT.tolist(),
    "names": [NAMES[i] for i in Y],
    "array of names": np.array(NAMES)[Y.numpy()],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_mean_the_same(kind, encoder):
    given = LABELS[kind]
    h, x = torch.rand(12, 5, generator=ex.seeded(0)), torch.rand(12, 3, 16, 16, generator=ex.seeded(1))
    expected, found = (ex.Probe(l2=1.0).fit(h, y, classes=NAMES) for y in (Y, given))
    assert found.weight_.equal(expected.weight_) and found.score(h, given).top1 == expected.score(h, Y).top1
    named = ex.Probe(l2=1.0).fit(h, given).classes_
    assert named == (NAMES if "names" in kind else ("0", "1", "2"))
    assert ex.knn_accuracy(h, given, h, given, k=3) == ex.knn_accuracy(h, Y, h, Y, k=3)
    assert ex.take_labels(given, 0.5, ex.seeded(0)).equal(ex.take_labels(Y, 0.5, ex.seeded(0)))
    head = ex.Probe(l2=1.0).fit(encoder.features(x), Y, classes=NAMES)
    for door in (ex.classify, ex.logit):
        assert door(encoder, head, given)(x).equal(door(encoder, head, Y)(x))


def test_names_in_training_and_test_are_numbered_together():
    h = torch.eye(4)
    assert ex.knn_accuracy(h, list("bcda"), h, list("bcda"), k=1).accuracy == 1
    assert ex.knn_accuracy(h[:3], list("bcd"), h, list("bcda"), k=1).accuracy == 0.75  # 'a' is in the test alone


def test_features_in_an_array_are_taken(encoder):
    h = torch.rand(12, 5, generator=ex.seeded(0))
    assert ex.Probe(l2=1.0).fit(h.numpy(), Y).weight_.equal(ex.Probe(l2=1.0).fit(h, Y).weight_)
    assert ex.knn_accuracy(h.numpy(), Y, h.numpy(), Y, k=3) == ex.knn_accuracy(h, Y, h, Y, k=3)


@pytest.mark.parametrize("spoil", [lambda x: x * 1.00001 - 3e-8, lambda x: x.half().float(), lambda x: x * 0])
def test_pixels_that_rounding_moved_and_black_images_are_taken(spoil, encoder):
    x = spoil(torch.rand(4, 3, 16, 16, generator=ex.seeded(0)))
    x_adv = ex.Attack.fgsm(EPS)(x, ex.contrast(encoder, torch.rand(4, 3, 16, 16, generator=ex.seeded(1))))
    assert x_adv.isfinite().all() and float(x_adv.min()) >= 0 and float(x_adv.max()) <= 1
    assert ex.embed(encoder, x)[0].isfinite().all() and ex.perturb(encoder, x, EPS).loss.isfinite().all()


def test_authors_images_outside_the_range_are_attacked_where_nothing_is_clipped():
    x = torch.rand(2, 3, 8, 8) * 4 - 2
    x_adv = ex.Attack.fgsm(EPS, clamp=None)(x, lambda v: v.mean((1, 2, 3)))
    assert torch.allclose(x_adv - x, torch.full_like(x, EPS), atol=1e-6)


def test_equal_images_and_one_class_are_defined(encoder):
    """Duplicates are each other's neighbours; features that never move are a probe's intercept."""
    x = torch.rand(1, 3, 16, 16, generator=ex.seeded(0)).expand(6, -1, -1, -1)
    h, _ = ex.embed(encoder, x)
    y = [0, 1] * 3
    assert ex.knn_accuracy(h, y, h, y, k=6).accuracy == 0.5
    assert ex.Probe(l2=1.0).fit(h, y).score(h, y).top1 == 0.5
    assert ex.knn_accuracy(h, [0] * 6, h, [0] * 6, k=3).accuracy == 1
    loss = ex.nt_xent(h, h, 0.5)
    assert loss.mean().item() == pytest.approx(ex.chance(6), abs=1e-5)
    with pytest.raises(ex.UserError, match="a probe needs two classes"):
        ex.Probe().fit(h, [0] * 6)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "ffgsm", "sign"])
def test_no_number_is_looked_at_within_a_step_of_a_training(name, encoder, monkeypatch):
    """A GPU would wait for each look."""
    for door in ("images", "features", "labels", "finite", "raised"):
        monkeypatch.setattr(incoming, door, lambda *_, door=door, **__: pytest.fail(f"{door} in a step"))
    views = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    step = Stepper(encoder.train().requires_grad_(), attack_named(name, EPS))(*views, ex.seeded(0))
    assert step.x_adv is not None and step.x_adv.isfinite().all()


def test_an_objective_that_goes_bad_at_a_later_step_is_refused():
    x, seen = torch.rand(2, 3, 8, 8), []

    def later(v):
        seen.append(1)
        return v.mean((1, 2, 3)) / (len(seen) < 3)

    with pytest.raises(ex.UserError, match="NaN or infinite ones for 2 of 2 images"):
        ex.Attack.pgd(EPS, steps=5)(x, lambda v: later(v) if len(seen) < 2 else later(v) * float("nan"))
    assert len(seen) == 3


def test_an_error_that_is_no_fault_of_the_objective_comes_through():
    class Stop(Exception):
        pass

    def stops(_):
        raise Stop

    with pytest.raises(Stop):
        ex.Attack.fgsm(EPS)(torch.rand(1, 3, 8, 8), stops)
