"""Probe, neighbours, robustness: against scikit-learn, brute force and captum; and in one sentence where input is bad."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression

import explore as ex
from explore import UserError, seeded
from explore.datasets import Split, folder
from explore.evaluate import features
from explore.evaluate.logistic import Logistic
from explore.evaluate.probe import L2_GRID, Probe, take_labels
from explore.results import Paired, Robustness, Scores, wilson
from explore.runfolder import Run, usual_size
from explore.training import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.robust import PGD as CaptumPGD

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def clouds():
    """Four overlapping clouds of different spread in 12 dimensions; train and test."""
    draw = seeded(0)
    centres = torch.randn(4, 12, generator=draw) * 1.2
    spread = torch.linspace(0.2, 5, 12)

    def sample(n):
        y = torch.arange(n) % 4
        return (centres[y] + torch.randn(n, 12, generator=draw)) * spread + 3, y

    return *sample(800), *sample(400)


# the probe


@pytest.mark.parametrize("l2", [1e-2, 1.0, 100.0])
def test_the_optimum_is_scikit_learns(clouds, l2):
    h, y, test_h, test_y = clouds
    probe = Probe(l2=l2).fit(h, y)
    mean, std = h.mean(0), h.std(0, correction=0)
    reference = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=10_000).fit(
        ((h - mean) / std).double().numpy(), y.numpy()
    )
    own = (probe.weight_ * std).numpy()
    assert np.abs(own - reference.coef_).max() < 2e-3 * np.abs(reference.coef_).max()
    logits = probe(test_h) - probe(test_h).mean(1, keepdim=True)  # the softmax does not see a common shift
    theirs = reference.decision_function(((test_h - mean) / std).double().numpy())
    apart = np.abs(logits.numpy() - (theirs - theirs.mean(1, keepdims=True)))
    assert apart.max() < 2e-3 * np.abs(theirs).max()
    score = reference.score(((test_h - mean) / std).double().numpy(), test_y.numpy())
    assert abs(probe.score(test_h, test_y).top1 - score) <= 0.002


def test_the_gradient_is_zero_at_every_l2_of_the_path(clouds):
    """The optimality condition itself, by autograd in double precision, independent of the solver's own variables."""
    h, y, *_ = clouds
    x = ((h - h.mean(0)) / h.std(0)).double()
    for l2, (weight, bias) in Logistic(x, y, 4, tolerance=1e-6).path([1e3, 1.0, 1e-2]):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        loss = F.cross_entropy(F.linear(x, w, b), y, reduction="sum") + l2 / 2 * w.square().sum()
        grads = torch.autograd.grad(loss, [w, b])
        assert max(float(g.abs().max()) for g in grads) < 1e-2, l2


def test_the_sweep_chooses_on_held_out_images_and_fits_all_again(clouds):
    h, y, *_ = clouds
    probe = Probe(seed=3).fit(h, y)
    assert len(probe.path_) == 45 and sorted(probe.path_["l2"]) == pytest.approx(sorted(L2_GRID))
    assert (L2_GRID[0], L2_GRID[-1]) == pytest.approx((1e-6, 1e5))
    best = probe.path_[probe.path_["accuracy"] == probe.path_["accuracy"].max()]
    assert probe.l2_ == best["l2"].max()
    again = Probe(l2=probe.l2_).fit(h, y)
    assert torch.equal(probe.weight_, again.weight_)  # all images, not the part that was left
    held = take_labels(y, 0.2, seeded(3))
    kept = torch.ones(len(y), dtype=torch.bool)
    kept[held] = False
    mean, std = h[kept].mean(0), h[kept].std(0, correction=0)
    row = probe.path_.iloc[(probe.path_["l2"] - 1).abs().argmin()]
    model = LogisticRegression(C=1 / row["l2"], tol=1e-8, max_iter=10_000).fit(
        ((h[kept] - mean) / std).numpy(), y[kept].numpy()
    )
    assert model.score(((h[held] - mean) / std).numpy(), y[held].numpy()) == pytest.approx(row["accuracy"], abs=0.013)
    official = Probe().fit(h[kept], y[kept], val=(h[held], y[held]))
    assert official.l2_ == probe.l2_ and torch.allclose(official.weight_, probe.weight_, atol=1e-4)


def test_the_authors_protocol_names_last_and_best_epoch(clouds):
    h, y, test_h, test_y = clouds
    probe = Probe(protocol="authors", epochs=30).fit(h, y, test=(test_h, test_y))
    assert (
        list(probe.curve_["epoch"]) == list(range(1, 31))
        and probe.curve_["loss"].iloc[-1] < probe.curve_["loss"].iloc[0]
    )
    assert probe.last_ == probe.curve_["test"].iloc[-1] == pytest.approx(probe.score(test_h, test_y).top1)
    assert probe.best_ == probe.curve_["test"].max() and probe.curve_["test"][probe.best_epoch_ - 1] == probe.best_
    again = Probe(protocol="authors", epochs=30).fit(h, y)
    assert torch.equal(again.weight_, probe.weight_)  # the test images are watched, never used
    assert torch.equal(probe.weight_, again.weight_) and not len(probe.path_)


def test_shares_of_labels_are_stratified_nested_in_nothing_and_seeded():
    y = torch.tensor([0] * 500 + [1] * 100 + [2] * 3)
    part = take_labels(y, 0.1, seeded(0))
    assert y[part].bincount().tolist() == [50, 10, 1] and len(part.unique()) == len(part)
    assert torch.equal(part, take_labels(y, 0.1, seeded(0))) and not torch.equal(part, take_labels(y, 0.1, seeded(1)))
    assert torch.equal(take_labels(y, 1.0, seeded(0)), torch.arange(len(y)))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda h, y: (h.index_fill(0, torch.tensor([4]), math.nan), y), "1 of 40 rows hold NaN"),
        (lambda h, y: (h, y * 0 + 2), "All 40 training images are of the class '2'"),
        (lambda h, y: (h, y - 1), "have no label"),
        (lambda h, y: (h, y[:-1]), "one label a row"),
        (lambda h, y: (h[:0], y[:0]), "got none"),
        (lambda h, y: (h[:4], y[:4]), "fewer than two classes|give more labels"),
    ],
)
def test_bad_features_in_one_sentence(clouds, spoil, sentence):
    h, y = spoil(clouds[0][:40], clouds[1][:40])
    with pytest.raises(UserError, match=sentence):
        Probe().fit(h, y)


def test_bad_labels_widths_and_settings_in_one_sentence(clouds):
    h, y, test_h, test_y = clouds
    with pytest.raises(UserError, match="label 3, and the classes are 0 to 2"):
        Probe().fit(h, y, classes=NAMES[:3])
    with pytest.raises(UserError, match="All 200 training images are of the class 'ant'"):
        Probe().fit(h[::4], y[::4], classes=NAMES)
    probe = Probe(l2=1.0).fit(h, y, classes=NAMES)
    with pytest.raises(UserError, match="label 9"):
        probe.score(test_h, torch.full_like(test_y, 9))
    with pytest.raises(UserError, match="features of 12 numbers, these have 11"):
        probe(test_h[:, 1:])
    for wrong, sentence in [
        ({"l2": 0.0}, "l2"),
        ({"held_out": 1.0}, "held_out"),
        ({"epochs": 0}, "epochs"),
    ]:
        with pytest.raises(UserError, match=sentence):
            Probe(**wrong)
    for share in (0, 1.5, -1):
        with pytest.raises(UserError, match="share"):
            take_labels(y, share, seeded(0))


def test_a_feature_that_never_moves_and_a_class_without_training_images(clouds):
    h, y, test_h, test_y = clouds
    h, test_h = (torch.cat([v, torch.full((len(v), 1), 7.0)], 1) for v in (h, test_h))
    kept = y != 3
    probe = Probe(l2=1.0).fit(h[kept], y[kept], classes=NAMES)
    scores = probe.score(test_h, test_y)
    assert scores.per_class[3] == 0 and torch.isfinite(probe.weight_).all() and scores.top1 > 0.5


# scores


@pytest.fixture
def scores(clouds):
    h, y, test_h, test_y = clouds
    return Probe(l2=10.0).fit(h[:60], y[:60], classes=NAMES).score(test_h, test_y, run="r")


def test_scores_against_counting_by_hand(scores, clouds, tmp_path):
    truth, said = clouds[3].tolist(), scores.predicted.tolist()
    assert scores.top1 == sum(t == s for t, s in zip(truth, said, strict=True)) / 400 and scores.top5 == 1.0
    for i in range(4):
        for j in range(4):
            assert scores.confusion[i, j] == sum(t == i and s == j for t, s in zip(truth, said, strict=True))
    recalls = [sum(t == i == s for t, s in zip(truth, said, strict=True)) / truth.count(i) for i in range(4)]
    assert scores.per_class.tolist() == pytest.approx(recalls) and scores.mean_per_class == pytest.approx(
        np.mean(recalls)
    )
    low, high = scores.mean_per_class_interval
    assert low < scores.mean_per_class < high and scores.interval[0] < scores.top1 < scores.interval[1]
    cell = scores.cell("bee", "cat") if scores.confusion[1, 2] else scores.cell(1, 1)
    assert cell["confidence"].is_monotonic_decreasing
    assert all(truth[i] == 1 and said[i] == (2 if scores.confusion[1, 2] else 1) for i in cell["image"])
    assert list(scores.table["class"]) == list(NAMES) and scores.table.attrs["run"] == "r"
    with pytest.raises(UserError, match="no class 'cow'"):
        scores.cell("cow", "bee")
    loaded = Scores.load(scores.save(tmp_path / "s"))
    assert (
        torch.equal(loaded.ranked, scores.ranked) and loaded.classes == NAMES and loaded.provenance == scores.provenance
    )
    with pytest.raises(UserError, match="no file"):
        Scores.load(tmp_path / "nothing")


def test_wilson_and_mcnemar_against_known_values(scores):
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # the textbook example
    paired = Paired(both=60, only_a=4, only_b=14, neither=22)
    from scipy.stats import binomtest

    assert paired.p == pytest.approx(binomtest(4, 18).pvalue) and Paired(10, 0, 0, 5).p == 1
    assert paired.difference == pytest.approx(0.1) and paired.interval[0] < 0.1 < paired.interval[1]
    same = Paired.of(scores, scores)
    assert (same.only_a, same.only_b, same.difference, same.p) == (0, 0, 0, 1) and same.n == scores.n
    other = Scores(scores.labels.flip(0), scores.ranked, scores.confidence, NAMES)
    with pytest.raises(UserError, match="same test images"):
        Paired.of(scores, other)


def test_the_interval_of_a_paired_difference_covers_as_it_says():
    """Simulated: classifiers that differ by 3 points; the 95 % interval holds the truth in about 95 % of the draws."""
    draw, n, held = np.random.default_rng(0), 400, 0
    for _ in range(1000):
        both, a, b, neither = draw.multinomial(n, [0.8, 0.03, 0.06, 0.11])
        low, high = Paired(int(both), int(a), int(b), int(neither)).interval
        held += low <= 0.03 <= high
    assert 0.93 <= held / 1000 <= 0.975


# features


def split_of(n, classes=4):
    draw = seeded(7)
    return Split(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=draw), torch.arange(n) % classes)


def test_features_come_back_from_disk_and_never_stale(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path))
    split, plain = split_of(40), ex.embed(encoder, split_of(40))
    first = ex.embed(encoder, split, cache=True)
    files = list((tmp_path / "features").glob("*.safetensors"))
    assert len(files) == 1 and torch.equal(first[0], plain[0])
    monkeypatch.setattr(features, "_computed", lambda *a: pytest.fail("computed again"))
    again = ex.embed(encoder, split, cache=True)
    assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])
    monkeypatch.undo()
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path))
    for change in ("weights", "pixels", "what"):
        with torch.no_grad():
            if change == "weights":
                next(encoder.parameters()).mul_(1.01)
        if change == "pixels":
            split.stored[0, 0, 0, 0] += 1
        ex.embed(encoder, split, "z" if change == "what" else "h", cache=True)
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 4
    files[0].write_bytes(files[0].read_bytes()[:100])  # cut off: made again
    monkeypatch.setattr(features, "KEPT", 1)
    ex.embed(encoder, split_of(41), cache=True)
    assert not list((tmp_path / "features").glob("*.safetensors"))  # beyond what is kept


class Pair(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1), x


def test_any_network_will_do(tmp_path):
    x = torch.rand(6, 3, 8, 8)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    assert torch.equal(ex.embed(flat, x)[0], flat(x).detach())
    assert torch.allclose(ex.embed(flat, x, "z")[0].norm(dim=1), torch.ones(6))
    assert torch.equal(ex.embed(Pair(), x)[0], x.flatten(1))  # of a tuple the first
    maps = torch.nn.Conv2d(3, 2, 3, padding=1)
    assert torch.equal(ex.embed(maps, x)[0], maps(x).detach().mean((2, 3)))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_size_of_the_images_is_noted_in_the_run_and_read_everywhere(tmp_path, monkeypatch, streamed):
    for i in range(20):
        path = tmp_path / "images" / NAMES[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (10 * i, 99, 200 - 10 * i)).save(path)
    if streamed:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    network = {"arch": "resnet10", "width": 4, "proj_dim": 8, "precision": "fp32"}
    config = ex.TrainConfig(dataset=f"folder:{tmp_path / 'images'}", epochs=1, batch_size=16, knn_images=8, **network)
    run = Run.create(config, name="own", root=tmp_path)
    list(train(config, run=run))
    given = run.hand_on(tmp_path / "given")
    for one in (run, given):
        assert one.image_size == one.env["image_size"] == 20
        for what in (one, one.path / "encoder.safetensors"):
            assert ex.open_encoder(what)[1]["size"] == 20


def test_a_run_that_did_not_note_the_size_has_that_of_its_dataset():
    sizes = {"cifar10": 32, "stl10": 96, "stl10-unlabeled": 96, "imagenet100:/data": 224, "folder:/mine": 64}
    assert {name: usual_size(ex.TrainConfig(dataset=name)) for name in sizes} == sizes
    assert usual_size(ex.TrainConfig(dataset="stl10", image_size=48)) == 48
    run = ex.open_run("demo/clae")
    assert "image_size" not in run.env and run.image_size == 32


def test_encoders_by_name(tmp_path, encoder):
    import torchvision

    run, about = ex.open_encoder("demo/clae")
    assert (
        about["method"] == "CLAE (fgsm)" and about["size"] == 32 and not any(p.requires_grad for p in run.parameters())
    )
    x = torch.rand(2, 3, 32, 32)
    own, said = ex.open_encoder(ex.open_run("demo/clae").path / "encoder.safetensors")
    assert torch.equal(own(x), run(x)) and said["method"] == "CLAE (fgsm)"
    theirs = torchvision.models.resnet18().eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "r.pth")
    found, _ = ex.open_encoder(tmp_path / "r.pth", mean=(0.5,) * 3, std=(0.5,) * 3)
    theirs.fc = torch.nn.Identity()
    assert torch.allclose(found.features(x), theirs((x - 0.5) / 0.5), atol=1e-5)
    for name, sentence in [
        ("demo/clea", "Did you mean demo/clae"),
        ("ResNet18_Weights.NOPE", "torchvision has no weights"),
        (str(tmp_path / "none.pth"), "no file"),
    ]:
        with pytest.raises(UserError, match=sentence):
            ex.open_encoder(name)
    (tmp_path / "evil.pth").write_bytes(b"\x80\x04\x95cos\nsystem\n")
    with pytest.raises(UserError, match="cannot be read as plain weights"):
        ex.open_encoder(tmp_path / "evil.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold a ResNet's weights"):
        ex.open_encoder(tmp_path / "other.pth")


# robustness


@pytest.fixture(scope="module")
def judged():
    """The shipped CLAE encoder, a probe on it, and 60 test images."""
    run, data = ex.open_run("demo/clae"), ex.load("fashion")
    encoder = run.encoder()
    probe = Probe(l2=10.0).fit(*ex.embed(encoder, data.train.take(1500)), classes=data.classes)
    return encoder, probe, data.test.take(60)


@pytest.fixture(scope="module")
def curve(judged):
    return ex.robust_accuracy(
        *judged, attacks=("pgd", "fgsm", "contrast", "sign"), eps=(0, 4 / 255, 16 / 255), steps=5, batch_size=25
    )


def test_accuracy_falls_with_eps_faster_under_attack_than_under_noise(curve, judged, tmp_path):
    encoder, probe, images = judged
    clean = float((probe.predict(ex.embed(encoder, images)[0]) == images.labels).double().mean())
    assert all(curve.accuracy(a, 0) == clean for a in curve.attacks)
    assert curve.accuracy("pgd", 16 / 255) < curve.accuracy("pgd", 4 / 255) < clean
    assert curve.accuracy("pgd", 16 / 255) <= curve.accuracy("fgsm", 16 / 255) < curve.accuracy("sign", 16 / 255) - 0.2
    assert len(curve.table) == 12 and (curve.table["low"] <= curve.table["accuracy"]).all()
    loaded = Robustness.load(curve.save(tmp_path / "r"))
    assert loaded.table.equals(curve.table) and loaded.checks == curve.checks


def test_robust_accuracy_agrees_with_captums_pgd(judged, curve):
    encoder, probe, images = judged
    x, y = images[:]
    eps, step = 4 / 255, 2.5 * 4 / 255 / 5

    def forward(gray):  # one channel: our attacks keep gray images gray
        return probe(encoder.features(gray.expand(-1, 3, -1, -1)))

    pgd = CaptumPGD(forward, torch.nn.CrossEntropyLoss(reduction="none"), lower_bound=0, upper_bound=1)
    pgd.fgsm.zero_thresh = 0.0  # its dead zone (LOG.md)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        gray = x[:, :1].clone().requires_grad_()
        theirs = forward(pgd.perturb(gray, eps, step, 5, y, random_start=True)).argmax(1) == y
    assert abs(float(theirs.double().mean()) - curve.accuracy("pgd", eps)) <= 3 / 60  # three images: the random starts


def test_the_checks_pass_on_a_plain_probe_and_catch_a_masked_gradient(curve, judged):
    assert len(curve.checks) == 5 and all(c.ok for c in curve.checks), curve.checks
    encoder, probe, images = judged

    def masked(h):  # saturated: the right answers, and next to no gradient to find others
        return (probe(h) * 1e4).round() + 0 * probe(h)

    found = ex.robust_accuracy(encoder, masked, images, attacks=("pgd",), eps=(0, 8 / 255), steps=3)
    assert not all(c.ok for c in found.checks)
    assert "leaves next to nothing right" in next(c.name for c in found.checks if not c.ok and "0.5" in c.name)


def test_robust_accuracy_leaves_everything_as_it_was_and_is_seeded(judged):
    encoder, probe, images = judged
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    more = {"attacks": ("ffgsm", "gaussian"), "eps": (8 / 255,), "check": False}
    first, again = (ex.robust_accuracy(encoder, probe, images, restarts=2, **more) for _ in range(2))
    assert torch.equal(first.right, again.right) and torch.equal(first.loss, again.loss)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items()) and not encoder.training
    large = ex.robust_accuracy(encoder, probe, images.take(20), attacks=("pgd",), eps=(16 / 255,), steps=2)
    assert "at 16/255" in large.checks[0].name  # where no eps is small, the only one is checked
    once = ex.robust_accuracy(encoder, probe, images, restarts=1, **more)
    assert (first.right[0] <= once.right[0]).all()  # a second restart can only find more
    for wrong, sentence in [
        ({"attacks": ("pdg",)}, "Did you mean pgd"),
        ({"eps": (8,)}, "8/255"),
        ({"steps": 0}, "1 or more"),
        ({"eps": ()}, "one eps"),
    ]:
        with pytest.raises(UserError, match=sentence):
            ex.robust_accuracy(encoder, probe, images, **wrong)
