"""Encoders without learning: patches as filters, by name, through everything that opens an encoder."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import explore as ex
from explore import paths
from explore.patches import FLAT, KINDS
from explore.runfolder import BASELINES
from explore.studies import AttributionStudy
from explore.studies.sweep import accuracy_vs_test_eps, loss_vs_eps


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache and a folder of runs of this file's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CLAE_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setattr("explore.runfolder.PATCHES", 8)
        yield


@pytest.fixture(scope="module")
def fashion():
    data = ex.load("fashion")
    train, test = data.train.take(200, ex.seeded(0)), data.test.take(60, ex.seeded(0))
    return type(data)(**{**vars(data), "train": train, "test": test, "labelled": train})


def small(kind="kmeans", images=None, **settings):
    images = torch.rand(50, 3, 16, 16, generator=ex.seeded(0)) if images is None else images
    return ex.patch_encoder(images, kind, **{"patches": 8, "sample": 2000, **settings})


# what the features are
@pytest.mark.parametrize("kind", KINDS)
def test_one_convolution_equals_the_steps_that_it_folds(kind):
    """Cut a patch, bring it to one contrast, whiten it, compare it with every word of the dictionary."""
    images = torch.rand(400, 3, 12, 12, generator=ex.seeded(3))
    e = small(kind, images, size=4).double()
    x = torch.rand(2, 3, 9, 11, generator=ex.seeded(1)).double()
    flat = F.unfold(x, 4).transpose(1, 2)
    flat = flat - flat.mean(2, keepdim=True)
    flat = flat / (flat.var(2, keepdim=True) + FLAT).sqrt()
    maps = e.network.maps
    expected = (flat @ maps.filters.flatten(1).T - maps.bias).relu().transpose(1, 2).unflatten(2, (6, 8))
    torch.testing.assert_close(maps(x), expected, atol=1e-5, rtol=1e-4)
    quarter = expected[:, :, :3, :4].mean((2, 3))
    torch.testing.assert_close(e.features(x).view(2, -1, 2, 2)[:, :, 0, 0], quarter, atol=1e-5, rtol=1e-4)


def test_the_activation_is_the_triangle_of_k_means():
    """Coates, Lee & Ng's: the mean distance to all centres less that to one, here of half the squared distances."""
    from explore.patches import _drawn, _kmeans, _whitened

    images, draws = torch.rand(400, 3, 6, 6, generator=ex.seeded(3)), ex.seeded(5)
    drawn = _drawn(images, 6, 2000, draws)
    mean, whiten, white = _whitened(drawn)
    centres = _kmeans(white, white[torch.randperm(len(white), generator=draws)[:8]], 10)
    x = images[:20]
    flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    flat = flat / (flat.var(1, keepdim=True) + FLAT).sqrt()
    half = torch.cdist((flat - mean) @ whiten, centres).square() / 2
    expected = (half.mean(1, keepdim=True) - half).relu()
    found = small("kmeans", images, generator=ex.seeded(5)).features(x)[:, ::4]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_random_patches_come_with_their_negatives_and_answer_to_a_share():
    e = small("random", torch.rand(400, 3, 16, 16, generator=ex.seeded(2)), sample=20_000)
    filters = e.network.maps.filters
    torch.testing.assert_close(filters[:4], -filters[4:])
    x = torch.rand(100, 3, 16, 16, generator=ex.seeded(9))
    assert float((e.network.maps(x) > 0).float().mean()) == pytest.approx(0.4, abs=0.02)


def test_whitened_patches_are_white():
    from explore.patches import _drawn, _whitened

    _, _, white = _whitened(_drawn(ex.load("emoji").train.take(500, ex.seeded(0)), 4, 20_000, ex.seeded(0)))
    variances = torch.linalg.eigvalsh(white.T @ white / len(white))
    assert float(variances.max()) <= 1.001 and float(variances[-1]) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_encoder(kind):
    one, same, other = (small(kind, generator=ex.seeded(s)).state_dict() for s in (1, 1, 2))
    assert all(one[k].equal(same[k]) for k in one) and not one["network.maps.filters"].equal(
        other["network.maps.filters"]
    )


def test_many_images_are_taken_a_few_at_a_time(monkeypatch):
    e, x = small(), torch.rand(30, 3, 16, 16, generator=ex.seeded(4))

    def both():
        pixels = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(e.features(pixels).square().sum(), [pixels])
        return e.features(x), gradient

    whole = both()
    each = 11 * 11 * 8
    monkeypatch.setattr("explore.patches.MAPS", 4 * each)
    monkeypatch.setattr("explore.patches.CHUNK", 4 * each)
    seen = []
    hook = e.network.maps.register_forward_hook(lambda m, i, out: seen.append(len(out)))
    parts = both()
    hook.remove()
    assert max(seen) == 4
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_is_the_slope():
    e = small(size=4).double()
    x = torch.rand(1, 3, 6, 6, generator=ex.seeded(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(e.features, [x], eps=1e-7, atol=1e-3)
    flat = torch.full((1, 3, 6, 6), 0.5, dtype=torch.double, requires_grad=True)
    e.features(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_a_saved_encoder_opens_again(tmp_path):
    e, x = small("random", stride=2, grid=3), torch.rand(3, 3, 16, 16)
    e.save(tmp_path / "p.safetensors")
    again, about = ex.open_encoder(tmp_path / "p.safetensors")
    assert again.features(x).equal(e.features(x)) and about["method"] == "random whitened patches"
    assert again.feature_dim == e.features(x).shape[1] == 72
    norm = again(x).norm(dim=1)
    torch.testing.assert_close(norm, torch.ones(3))


def test_what_cannot_be_is_one_sentence(tmp_path):
    e = small()
    with pytest.raises(ex.UserError, match="kind must be one of kmeans, random, got 'kmean'"):
        small("kmean")
    with pytest.raises(ex.UserError, match="even number"):
        small(patches=7)
    with pytest.raises(ex.UserError, match="got 0, 1, 2 and 10"):
        small(size=0)
    with pytest.raises(ex.UserError, match="choose a smaller size"):
        small(size=17)
    with pytest.raises(ex.UserError, match="batch is empty"):
        small(images=torch.zeros(0, 3, 8, 8))
    with pytest.raises(ex.UserError, match=r"got \(1, 1, 16, 16\)"):
        e.features(torch.rand(1, 1, 16, 16))
    with pytest.raises(ex.UserError, match="holds no patches"):
        ex.PatchEncoder.open(paths.shipped() / "demo" / "clae" / "encoder.safetensors")


# by name
def test_baselines_open_like_runs_and_are_made_once(home, monkeypatch):
    run = ex.open_run("patches/kmeans")
    assert (run.method, run.config.dataset, run.image_size, run.status["state"]) == (
        "k-means patches",
        "fashion",
        32,
        "done",
    )
    monkeypatch.setattr("explore.runfolder.load", None)  # not needed again
    first = run.encoder().features(torch.rand(1, 3, 32, 32, generator=ex.seeded(0)))
    encoder, about = ex.open_encoder("patches/kmeans")
    assert encoder.features(torch.rand(1, 3, 32, 32, generator=ex.seeded(0))).equal(first)
    assert (about["method"], about["arch"], about["size"]) == ("k-means patches", "8 patches", 32)
    assert not any(w.requires_grad for w in encoder.parameters())


def test_baselines_of_another_set(home):
    run = ex.open_run("patches/random/emoji")
    assert (run.name, run.config.dataset) == ("patches/random/emoji", "emoji")
    for wrong in ("patches/kmean", "patches/kmeans/nowhere"):
        with pytest.raises(ex.UserError, match="There is no run"):
            ex.open_run(wrong)
    with pytest.raises(ex.UserError, match="untrained/resnet10, patches/kmeans, patches/random"):
        ex.open_encoder("patches/kmean")


def test_the_untrained_network_is_the_runs_own_before_training(home):
    from explore.runfolder import Run

    own = Run(paths.shipped() / "demo" / "simclr").untrained().state_dict()
    opened = ex.open_encoder("untrained/resnet10")[0].state_dict()
    assert all(own[k].equal(opened[k]) for k in own)


@pytest.mark.parametrize("name", BASELINES)
def test_every_function_takes_them(home, fashion, name):
    """Features, neighbours, the probe, attacks, the perturbation lab's study, the sweeps, attribution."""
    run = ex.open_run(name)
    encoder = run.encoder()
    (h, y), (test, truth) = ex.embed(encoder, fashion.train), ex.embed(encoder, fashion.test, cache=True)
    z, _ = ex.embed(encoder, fashion.test, "z")
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
    assert ex.knn_accuracy(h, y, test, truth, k=5).accuracy > 0.3
    probe = ex.Probe(l2=10.0).fit(h, y, classes=fashion.classes)
    clean = probe.score(test, truth).top1
    assert clean > 0.4
    few = fashion.test.take(20)
    robust = ex.robust_accuracy(encoder, probe, few, eps=[0.0, 16 / 255], attacks=["pgd", "fgsm", "contrast"], steps=3)
    right = robust.right.float().mean(2)
    assert right[0, 1] < right[0, 0]
    x, labels = few[:8]
    found = ex.perturb(encoder, x, 8 / 255, pool=h)
    assert (found.checks is None or all(check.ok for check in found.checks)) and len(found.index) == 8
    sweep = loss_vs_eps(run, kinds=("fgsm", "gaussian"), eps=(0.0, 8 / 255), images=20, device="cpu", data=fashion)
    assert set(sweep.table.method) == {BASELINES[name]}
    judged = accuracy_vs_test_eps(
        run, kinds=("fgsm",), eps=(0.0, 8 / 255), images=20, device="cpu", data=fashion, probe=probe
    )
    assert len(judged.table)
    study = AttributionStudy(encoder, x[:2], target="logit", head=probe, labels=labels[:2])
    for method in ("gradcam", "saliency"):
        seen = study.look(8, method)
        assert seen.clean.maps.abs().sum() > 0
    ex.studies.what_it_sees(encoder, x[:2], 8 / 255, reference="view")  # by integrated gradients


@pytest.mark.parametrize("name", BASELINES)
def test_the_atlas_and_the_probe_take_them(home, fashion, name):
    from explore.studies.probing import Probing

    study = ex.studies.study_of(
        name, device="cpu", data=fashion, images=40, eps=(0.0, 8 / 255), method="pca", keep=False, probe=False
    )
    made = study.atlas("pca")
    assert made.xy.shape == (2, 40, 2) and made.xy.isfinite().all()
    probing = Probing(fashion, features="z", steps=2, most=20, cache=False)
    key = probing.add(ex.open_run(name))
    assert probing.about[key]["method"] == BASELINES[name]
    moved = probing.perturbed(key, 1.0, 0, "attack", 8 / 255)
    assert len(moved.scores.labels) == 20 and all(check.ok for check in moved.checks)


# in menus
def test_every_menu_of_encoders_offers_them(home):
    from explore.panels.session import encoders

    assert encoders("demo/clae")[0] == "demo/clae" and encoders()[-len(BASELINES) :] == list(BASELINES)


# as rows of the reproduction's table
def test_baselines_are_measured_once_and_make_a_table(fashion, tmp_path, monkeypatch):
    from explore.config import TrainConfig
    from explore.experiments.metrics import Measure
    from explore.results import Sweep
    from explore.studies.reproduction import baselines as b
    from explore.studies.reproduction.rows import TIERS

    measure = Measure(robust=8 / 255, attacked=10, l2=10.0, z=True, transfer=("emoji",))
    tier = replace(TIERS["cpu"], base=TrainConfig(dataset="fashion", width=8), measure=measure)
    monkeypatch.setattr(b, "images_of", lambda config: (fashion, "few"))
    monkeypatch.setattr(b, "PATCHES", {"cpu": 8})
    said: list[str] = []
    found = b.baselines(tier, tmp_path, seeds=2, device="cpu", say=said.append)
    assert set(found.table.method) == set(b.TITLES) and len(said) == 6
    assert set(found.table.metric) == {"knn", "probe", "robust", "CPU seconds", "CPU seconds of fitting"}
    assert set(found.table.arch) == {"resnet10, width 8", "8 patches"}
    assert (found.table.groupby(["method", "metric"]).size() == 2).all() and (found.table.epochs == 0).all()
    shares = found.table[found.table.metric == "probe"]
    assert ((shares.low <= shares.value) & (shares.value <= shares.high)).all() and (shares.n == 60).all()
    found.save(tmp_path / "baselines")
    assert Sweep.load(tmp_path / "baselines").provenance["rows"]["kmeans-patches"]["title"] == "k-means patches"
    monkeypatch.setattr(b, "measured", None)  # not needed again
    again = b.baselines(tier, tmp_path, seeds=2, device="cpu", say=said.append)
    assert again.table.equals(found.table)
    with pytest.raises(ex.UserError, match="A baseline is one of untrained, kmeans-patches, random-patches"):
        b.baseline("patches", tier, tmp_path)


def test_the_shipped_baselines():
    from explore.results import Sweep
    from explore.studies.reproduction.baselines import TITLES
    from explore.studies.reproduction.run import shipped_folder

    found = Sweep.load(shipped_folder("cpu") / "baselines")
    probes = found.where(metric="probe").table
    assert probes.groupby("method").seed.nunique().to_dict() == dict.fromkeys(TITLES, 3)
    mean = probes.groupby("method").value.mean()
    assert mean["untrained"] < 0.4 and mean["random-patches"] > 0.66 and mean["kmeans-patches"] > 0.66
    assert (found.table.n[found.table.metric == "probe"] == 10_000).all() and found.provenance["versions"]["scipy"]
