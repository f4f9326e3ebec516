"""Maps and the atlas: fitted once, placed continuously, honest beside brute force and scikit-learn, the film's own pixels."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import explore as ex
from explore.cli import main
from explore.maps import (
    Projection,
    aligned,
    fit_map,
    kept_map,
    neighbours,
    overlap,
    procrustes,
    shared,
    trustworthiness,
    vote,
)
from explore.results import Atlas
from explore.studies import AtlasStudy, Batch, compare_atlases, study_of

ROOT = Path(__file__).resolve().parent.parent
GRID = tuple(k / 255 for k in (0, 4, 8))


def clusters(n: int = 240, d: int = 20, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, d, generator=g)
    return centres[torch.arange(n) % 4] + 0.4 * torch.randn(n, d, generator=g)


@pytest.fixture(scope="module")
def h() -> torch.Tensor:
    return clusters()


@pytest.fixture(scope="module")
def umap(h) -> Projection:
    return fit_map(h, n_neighbors=10)


@pytest.fixture(scope="module")
def pca(h) -> Projection:
    return fit_map(h, method="pca")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing of the machine's own cache; features are computed once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# maps


def test_pca_is_scikit_learns(h, pca):
    from sklearn.decomposition import PCA

    unit = F.normalize(h.double(), dim=1).numpy()
    model = PCA(20, svd_solver="full").fit(unit)
    theirs = model.transform(unit)[:, :2]
    signs = np.sign((theirs * pca.xy.numpy()).sum(0))
    assert np.abs(theirs * signs - pca.xy.numpy()).max() < 1e-6
    assert pca.params["variance"] == pytest.approx(model.explained_variance_ratio_[:2].sum(), abs=1e-9)


def test_umap_is_umap_learns_own_given_exact_neighbours(h, umap):
    """The class, told the same neighbours, makes the same map bit for bit; it warns that it cannot transform then."""
    import umap as library
    from sklearn.neighbors import NearestNeighbors

    low = umap.low.numpy()
    distances, indices = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(low.astype(float)).kneighbors()
    rows = np.arange(len(low))[:, None]
    knn = np.hstack([rows, indices[:, :9]]), np.hstack([0 * rows, distances[:, :9]]).astype(np.float32)
    model = library.UMAP(
        n_neighbors=10, random_state=0, n_jobs=1, precomputed_knn=knn, force_approximation_algorithm=True
    )
    with pytest.warns(UserWarning, match="transform"):
        theirs = model.fit_transform(low)
    assert np.abs(theirs - umap.xy.numpy()).max() == 0


def test_the_same_map_in_another_process_and_from_disk(h, umap, tmp_path):
    code = (
        "import sys, hashlib; sys.path.insert(0, 'tests'); from test_maps import clusters; from explore.maps import kept_map\n"
        f"print(hashlib.sha256(kept_map(clusters(), {str(tmp_path)!r}, n_neighbors=10).xy.numpy().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(umap.xy.numpy().tobytes()).hexdigest()
    stages: list[str] = []
    found = kept_map(h, tmp_path, n_neighbors=10, progress=lambda what, *_: stages.append(what))
    assert found.xy.equal(umap.xy) and found.params == umap.params and not stages  # nothing was computed


def test_other_parameters_are_another_map(h, umap, tmp_path):
    made = {}
    for name, change in {"a": {}, "n": {"n_neighbors": 30}, "d": {"min_dist": 0.5}, "s": {"seed": 1}}.items():
        made[name] = kept_map(h, tmp_path, **{"n_neighbors": 10, **change})
    assert made["a"].xy.equal(umap.xy) and len(list(tmp_path.glob("*.safetensors"))) == 4
    assert not any(made[a].xy.equal(made[b].xy) for a in made for b in made if a < b)
    moved = h.clone()
    moved[0, 0] += 1e-4
    kept_map(moved, tmp_path, n_neighbors=10)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5


def test_a_cut_off_file_is_made_again(h, umap, tmp_path):
    kept_map(h, tmp_path, n_neighbors=10)
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    assert kept_map(h, tmp_path, n_neighbors=10).xy.equal(umap.xy)
    assert Projection.load(path).xy.equal(umap.xy)


@pytest.mark.parametrize("name", ["pca", "umap"])
def test_fitted_points_stay_and_nobody_depends_on_company(h, request, name):
    fitted = request.getfixturevalue(name)
    assert fitted.place(h).equal(fitted.xy)
    assert fitted.place(h[7:8]).equal(fitted.xy[7:8])
    other = clusters(seed=3)
    together = fitted.place(torch.cat([h, other]))
    assert together[: len(h)].equal(fitted.xy)
    alone = torch.cat([fitted.place(row[None]) for row in other[:40]])
    assert torch.allclose(alone, together[len(h) :][:40], atol=1e-5)
    assert fitted.place(3.0 * h).sub(fitted.xy).abs().max() < 1e-5  # length does not count, direction does
    assert fitted.place(h[:0]).shape == (0, 2)


@pytest.mark.parametrize("name", ["pca", "umap"])
def test_a_small_step_in_h_is_a_small_step_in_the_map(h, request, name):
    """Along a line from one cluster to another, through every change of neighbours, also into a fitted point."""
    fitted = request.getfixturevalue(name)
    share = torch.linspace(0, 1, 4001)[:, None]
    worst = []
    for a, b in ((0, 1), (2, 7), (5, 9)):
        path = fitted.place(torch.lerp(h[a][None], h[b][None], share))
        assert torch.allclose(path[[0, -1]], fitted.xy[[a, b]], atol=1e-4)
        worst.append(float((path[1:] - path[:-1]).norm(dim=1).max()))
    fine = torch.linspace(0, 1, 40001)[:, None]
    path = fitted.place(torch.lerp(h[0][None], h[1][None], fine))
    finest = float((path[1:] - path[:-1]).norm(dim=1).max())
    assert finest < worst[0] / 4 + 1e-5  # a jump would not shrink with the step


def test_points_with_the_same_features_share_a_place():
    h = clusters(60)
    h[10] = h[20] = h[30]
    fitted = fit_map(h, n_neighbors=5)
    assert fitted.xy[10].equal(fitted.xy[20]) and fitted.xy[10].equal(fitted.xy[30])
    assert fitted.place(h).equal(fitted.xy) and torch.isfinite(fitted.xy).all()


def test_points_are_placed_by_the_thousand():
    """Nine frames of 5,000 images take seconds, because torch is called per chunk of points and not per point."""

    class Calls(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    g = torch.Generator().manual_seed(0)
    low = torch.randn(5000, 50, generator=g)
    fitted = Projection(
        "umap", {}, torch.randn(5000, 2, generator=g), torch.zeros(50).double(), torch.eye(50).double(), low
    )
    with Calls() as calls:
        fitted.place(torch.randn(10_000, 50, generator=g))
    assert calls.count < 500


def test_bad_features_are_one_sentence(h, umap):
    broken = h.clone()
    broken[3, 2] = torch.nan
    cases = {
        "11 points or more": lambda: fit_map(h[:10], n_neighbors=10),
        "2 neighbours or more": lambda: fit_map(h, n_neighbors=1),
        "1 of 240 embeddings hold NaN": lambda: fit_map(broken, method="pca"),
        "hold NaN or infinity": lambda: umap.place(broken),
        "are one point": lambda: fit_map(h[:1].repeat(50, 1), method="pca"),
        "features of 20 numbers": lambda: umap.place(h[:, :7]),
        "'pca' or 'umap'": lambda: fit_map(h, method="tsne"),
        "min_dist lies in": lambda: fit_map(h, min_dist=2.0),
        "3 points of 2 numbers": lambda: fit_map(h[:2], method="pca"),
        "aligned point by point": lambda: procrustes(umap.xy, umap.xy[:9]),
        "in one place": lambda: procrustes(umap.xy, 0 * umap.xy),
        "on the same images": lambda: overlap(h, h[:9]),
        "11 points or more, got 10": lambda: neighbours(h[:10]),
        "below half the 20 points": lambda: trustworthiness(h[:20], umap.xy[:20]),
    }
    for sentence, call in cases.items():
        with pytest.raises(ex.UserError, match=sentence) as error:
            call()
        assert "\n" not in str(error.value)
    identical = 5 * h[:1].repeat(50, 1) * torch.linspace(0.5, 2, 50)[:, None]  # one direction, many lengths
    with pytest.raises(ex.UserError, match="are one point"):
        kept_map(identical)


# the truths


@pytest.mark.parametrize("k", [1, 5, 10])
def test_trustworthiness_is_scikit_learns(h, umap, pca, k):
    from sklearn.manifold import trustworthiness as theirs

    unit = F.normalize(h, dim=1).double().numpy()
    random = torch.rand(len(h), 2, generator=ex.seeded(0))
    for xy in (umap.xy, pca.xy, random):
        assert trustworthiness(h, xy, k) == pytest.approx(theirs(unit, xy.numpy(), n_neighbors=k), abs=1e-6)
    assert trustworthiness(h, umap.xy) > 0.9 > 0.7 > trustworthiness(h, random)


def test_neighbours_kept_and_vote_by_brute_force(h):
    moved = h + 0.5 * torch.randn(h.shape, generator=ex.seeded(1))
    labels = torch.arange(len(h)) % 4
    labels[::7] = (labels[::7] + 1) % 4
    own, now = neighbours(h), neighbours(moved, h)
    unit, unit_moved = F.normalize(h.double(), dim=1), F.normalize(moved.double(), dim=1)
    for i in range(0, len(h), 13):
        others = [j for j in range(len(h)) if j != i]
        then = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))[:10]
        after = sorted(others, key=lambda j: -float(unit_moved[i] @ unit[j]))[:10]
        assert own[i].tolist() == then and set(now[i].tolist()) == set(after)
        assert float(shared(own, now)[i]) == pytest.approx(len(set(then) & set(after)) / 10)
        counts = torch.bincount(labels[after], minlength=4)
        assert counts[vote(now, labels)[i]] == counts.max()
    assert float(overlap(h, h).mean()) == 1 and 0 < float(overlap(h, moved).mean()) < 1
    by_chance = overlap(h, torch.randn(h.shape, generator=ex.seeded(2))).mean()
    assert float(by_chance) == pytest.approx(10 / (len(h) - 1), abs=0.02)


def test_procrustes_undoes_a_known_turn(umap):
    a = umap.xy
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]) @ torch.diag(
        torch.tensor([1.0, -1.0])
    )
    b = 3.5 * a @ turn + torch.tensor([4.0, -2.0])
    back, residual = aligned(a, b)
    assert torch.allclose(back, a, atol=1e-4) and residual == pytest.approx(0, abs=1e-6)
    from scipy.spatial import procrustes

    noisy = b + torch.randn(b.shape, generator=ex.seeded(0))
    assert aligned(a, noisy)[1] == pytest.approx(procrustes(a.numpy(), noisy.numpy())[2], abs=1e-6)


# the atlas


@pytest.fixture(scope="module")
def fashion():
    return ex.load("fashion")


@pytest.fixture(scope="module")
def study(fashion) -> AtlasStudy:
    found = study_of("demo/clae", images=150, eps=GRID, n_neighbors=10, keep=False, device="cpu", data=fashion)
    found.probe = lambda: ex.Probe(l2=100.0).fit(
        *ex.embed(found.encoder, fashion.train[:500][0])[:1], fashion.train.labels[:500]
    )
    return found


@pytest.fixture(scope="module")
def atlas(study) -> Atlas:
    return study.atlas("umap")


def test_the_film_begins_with_the_clean_map_and_comes_back(study, atlas):
    assert atlas.xy.shape == (3, 150, 2) and atlas.eps == GRID and atlas.ks == (0, 4, 8)
    assert atlas.xy[0].equal(study.umap().xy) and atlas.xy_control[0].equal(atlas.xy[0])
    assert study.frames_h[0].equal(study.features) and atlas.moved[0].max() == 0 and atlas.kept[0].min() == 1
    assert study.umap().place(study.frames_h[2]).equal(atlas.xy[2])
    before = atlas.frame(3).clone()
    atlas.frame(8)
    assert atlas.frame(3).equal(before) and atlas.frame(4).equal(atlas.xy[1])
    assert torch.allclose(atlas.frame(2), (atlas.xy[0] + atlas.xy[1]) / 2, atol=1e-5)
    assert torch.allclose(atlas.frame(6, control=True), (atlas.xy_control[1] + atlas.xy_control[2]) / 2, atol=1e-5)
    with pytest.raises(ex.UserError, match="from 0/255 to 8/255, got 9/255"):
        atlas.frame(9)
    again = study_of(
        "demo/clae", images=150, eps=[GRID[2]], n_neighbors=10, keep=False, probe=False, device="cpu"
    )  # another grid
    assert again.atlas("umap").xy[1].equal(atlas.xy[2])


def test_the_films_pixels_are_the_attacks_own(study, fashion):
    """Rebuilt from nothing: the batch, its view, one gradient an eps."""
    encoder, config = ex.open_run("demo/clae").encoder(), ex.open_run("demo/clae").config
    from explore.training import make_views

    rows = study.parts[1]
    x = fashion.test[study.index[rows]][0]
    view = make_views(config, fashion)(x, ex.seeded(1))
    objective = ex.contrast(encoder, view, temperature=config.temperature)
    for k in (4, 8):
        theirs = ex.Attack.fgsm(k / 255)(x, objective)
        assert study.pictures(k)[rows].equal(theirs)
        clean, moved = study.images(int(rows[5]), k)
        assert clean.equal(x[5]) and moved.equal(theirs[5])
        assert torch.allclose(study.frames_h[study._frame(k), rows], encoder.features(theirs), atol=1e-5)
        noise = ex.Noise.gaussian(k / 255)(x, generator=ex.seeded(1))
        assert torch.allclose(study.pictures(k, "gaussian")[rows], noise, atol=1e-6)
        assert torch.allclose(study.control_h[study._frame(k), rows], encoder.features(noise), atol=1e-4)
    assert study.images(3, 0)[0].equal(study.images(3, 0)[1])
    with pytest.raises(ex.UserError, match="'adversary' or 'gaussian'"):
        study.pictures(4, "fgsm")


@pytest.mark.parametrize("attack", ["rfgsm", "pgd"])
def test_attacks_that_start_elsewhere(encoder, fashion, attack):
    study = AtlasStudy(encoder, fashion.test, images=60, attack=attack, eps=GRID, batch_size=30, steps=2, keep=False)
    x, seed = study.split[study.parts[1]][0], 1
    view = ex.Views(size=32).for_gray()(x, ex.seeded(seed))
    batch = Batch(x, ex.contrast(encoder, view, temperature=0.5), match="plain", steps=2, seed=seed)
    theirs = batch.at(attack, [8 / 255])[0]
    assert study.pictures(8)[study.parts[1]].equal(theirs) and study.images(35, 8)[1].equal(theirs[5])
    assert torch.allclose(study.frames_h[2, study.parts[1]], encoder.features(theirs), atol=1e-5)
    found = study.atlas("pca")
    assert found.attack == attack and found.loss[2].mean() > found.loss[0].mean()


def test_the_figures_are_what_they_say(study, atlas):
    h, clean = study.frames_h[2], study.features
    row = atlas.figures.query("kind == 'adversary' and k == 8").iloc[0]
    cosine = (F.normalize(h, dim=1) * F.normalize(clean, dim=1)).sum(1)
    assert torch.allclose(atlas.moved[2], 1 - cosine, atol=1e-5)
    near = neighbours(h, clean)
    assert atlas.kept[2].equal(shared(neighbours(clean), near)) and row.kept == pytest.approx(
        float(atlas.kept[2].mean())
    )
    assert row.knn == pytest.approx(float((vote(near, study.labels) == study.labels).float().mean()))
    assert row.loss == pytest.approx(float(atlas.loss[2].mean())) and row.moved == pytest.approx(
        float(1 - cosine.mean()), abs=1e-5
    )
    clean_row = atlas.figures.iloc[0]
    from sklearn.manifold import trustworthiness as theirs

    unit = F.normalize(clean, dim=1).double().numpy()
    assert clean_row.trustworthiness == pytest.approx(theirs(unit, atlas.xy[0].numpy(), n_neighbors=10), abs=1e-4)
    encoder = ex.open_run("demo/clae").encoder()
    z, reference = encoder.project(clean), study._film["reference"]
    assert clean_row.uniformity == pytest.approx(float(ex.uniformity(z)), abs=1e-4)
    assert clean_row.alignment == pytest.approx(float(ex.alignment(reference, z)), abs=1e-4)
    harder, noise = atlas.figures.query("k == 8").set_index("kind").T.to_dict().values()
    assert (
        harder["kept"] < noise["kept"] < 1 and harder["moved"] > noise["moved"] > 0 and harder["loss"] > noise["loss"]
    )
    assert list(atlas.figures.kind) == ["adversary"] * 3 + ["gaussian"] * 3


def test_the_probe_judges_every_frame(study, atlas):
    predicted = study.probe.predict(study.frames_h[1])
    assert atlas.right[1].equal((predicted == study.labels).float()) and 0.5 < float(atlas.right[0].mean()) < 1
    kept, study.probe = study.probe, None
    try:
        assert torch.isnan(study.atlas("umap").right).all()  # no answer of a probe that is gone
    finally:
        study.probe = kept
    assert study.atlas("umap").right.equal(atlas.right)


def test_no_stale_point_after_a_parameter_changed(study, atlas):
    before, h = study.umap(), study.frames_h
    study.n_neighbors = 40
    try:
        changed = study.atlas("umap")
        assert changed.provenance["map"]["n_neighbors"] == 40 and study.frames_h is h  # nothing else was computed again
        assert not (changed.xy == atlas.xy).all(2).any() and not (changed.xy_control == atlas.xy_control).all(2).any()
        own = fit_map(study.features, n_neighbors=40)
        assert changed.xy[0].equal(own.xy) and changed.xy[2].equal(own.place(h[2]))
    finally:
        study.n_neighbors = 10
    assert study.umap() is before and study.atlas("umap").xy.equal(atlas.xy)


def test_neighbours_then_and_now(study):
    then, now = study.neighbours(4, 8, count=6)
    assert then.equal(neighbours(study.features, k=6)[4]) and 4 not in then and 4 not in now
    assert set(now.tolist()) == set(neighbours(study.frames_h[2], study.features, k=6)[4].tolist())
    assert study.neighbours(4, 0)[0].equal(study.neighbours(4, 0)[1])


def test_table_and_disk(atlas, tmp_path):
    table = atlas.table
    assert len(table) == 3 * 150 and table.query("k == 8")["x"].to_numpy() == pytest.approx(atlas.xy[2, :, 0].numpy())
    assert set(table["class"]) == set(atlas.classes) and table["image"].nunique() == 150
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    pd.testing.assert_frame_equal(again.table, table)
    pd.testing.assert_frame_equal(again.figures, atlas.figures)
    assert (
        again.provenance == json.loads(json.dumps(atlas.provenance)) and again.eps == atlas.eps and again.vendor is None
    )
    with pytest.raises(ex.UserError, match="saved atlas"):
        Atlas.load(tmp_path / "nothing")


def test_emoji_has_a_vendor(encoder, tmp_path):
    data = ex.load("emoji")
    study = AtlasStudy(encoder, data.test, images=80, eps=GRID, classes=data.classes, keep=False)
    found = study.atlas("pca")
    assert found.vendors == ("noto", "fluent3d") and found.vendor.equal(data.test.extra["vendor"][study.index])
    assert found.table["vendor"].iloc[3] == found.vendors[found.vendor[3]]
    again = Atlas.load(found.save(tmp_path / "emoji"))
    assert again.vendor.equal(found.vendor) and again.vendors == found.vendors and torch.isnan(again.right).all()
    colours = study.pictures(8) - study.split[:][0]
    assert (colours[:, 0] != colours[:, 1]).any()  # the perturbation is in colour where images are


def test_two_encoders_side_by_side(study):
    other = study_of("demo/simclr", images=150, eps=GRID, n_neighbors=10, keep=False, device="cpu", probe=False)
    first, second, found = compare_atlases(study, other, "pca")
    plain = other.atlas("pca")
    assert first.xy.equal(study.atlas("pca").xy) and not second.xy.equal(plain.xy)
    distance = (first.xy[0] - second.xy[0]).pow(2).sum() / (first.xy[0] - first.xy[0].mean(0)).pow(2).sum()
    assert found["residual"] == pytest.approx(float(distance), abs=1e-4) and 0 < found["residual"] < 1
    ratio = [
        (xy[1] - xy[0]).norm(dim=1) for xy in (second.xy, plain.xy)
    ]  # one turn for all frames: paths keep their shape
    keep = ratio[1] > 1e-3
    assert float((ratio[0] / ratio[1])[keep].std()) < 1e-2
    brute = [
        len(set(a) & set(b)) / 10
        for a, b in zip(*(neighbours(s.features).tolist() for s in (study, other)), strict=True)
    ]
    assert found["shared_neighbours"] == pytest.approx(np.mean(brute)) and found["chance"] == 10 / 149
    assert found["shared_neighbours"] > 3 * found["chance"]
    with pytest.raises(ex.UserError, match="image by image, got 150 and 100"):
        compare_atlases(study, study_of("demo/simclr", images=100, probe=False, device="cpu"))


def test_features_are_kept_and_the_encoder_is_left_alone(encoder, fashion, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    encoder.train()
    stages: list[str] = []
    study = AtlasStudy(encoder, fashion.test, images=60, eps=GRID, progress=lambda what, *_: stages.append(what))
    first = study.atlas("pca")
    assert {"embedding images", "attacking", "adding noise", "measuring"} <= set(stages)
    assert encoder.training and all(t.equal(before[name]) for name, t in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    stages.clear()
    assert AtlasStudy(encoder, fashion.test, images=60, eps=GRID).atlas("pca").xy.equal(first.xy)
    assert len(list((tmp_path / "cache" / "features").glob("*.safetensors"))) == 1


def test_a_stopped_study_goes_on(encoder, fashion):
    class Stop(Exception):
        pass

    def stop(what, done, total):
        if what == "attacking" and done:
            raise Stop

    encoder.train()
    study = AtlasStudy(encoder, fashion.test, images=60, eps=GRID, batch_size=30, keep=False, progress=stop)
    with pytest.raises(Stop):
        study.atlas("pca")
    assert encoder.training
    study.progress = None
    whole = AtlasStudy(encoder, fashion.test, images=60, eps=GRID, batch_size=30, keep=False).atlas("pca")
    assert study.atlas("pca").xy.equal(whole.xy)


def test_any_network_will_do(fashion):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 24)).eval()
    found = AtlasStudy(network, fashion.test, images=40, eps=GRID, keep=False).atlas("pca")
    assert found.loss[2].mean() > found.loss[0].mean() and found.moved[2].mean() > 0


def test_bad_studies_are_one_sentence(encoder, fashion):
    dead = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))
    torch.nn.init.zeros_(dead[1].weight)
    split = fashion.test

    def at(network=encoder, **options):
        return AtlasStudy(network, split, **{"images": 40, "eps": GRID, "keep": False, **options})

    cases = {
        "reference has 7 images and the atlas 40": lambda: at(reference=split[:7][0]),
        "'view', 'self' or a batch": lambda: at(reference="other"),
        "attack must be one of": lambda: at(attack="fgsn"),
        "'pca' or 'umap'": lambda: at(method="tsne"),
        "21 images or more, got 5": lambda: at(images=5),
        "got 12; take the training images": lambda: AtlasStudy(encoder, split.take(12), keep=False),
        "Did you mean 8/255": lambda: at(eps=[8]),
        "41 points or more and 2 neighbours or more, got 40": lambda: at(n_neighbors=40).umap(),
        "are one point": lambda: at(dead).pca(),
        "split is 'train' or 'test'": lambda: study_of("demo/clae", split="val"),
    }
    for sentence, call in cases.items():
        with pytest.raises(ex.UserError, match=sentence) as error:
            call()
        assert "\n" not in str(error.value)
    with torch.no_grad():
        dead[1].bias.fill_(torch.nan)
    with pytest.raises(ex.UserError, match="40 of 40 embeddings hold NaN"):
        at(dead).pca()
    other = split.take(40, ex.seeded(0))[:][0]
    assert at(reference=other).atlas("pca").loss.isfinite().all()


# the command


@pytest.mark.slow
def test_embed_writes_a_table_that_others_read(tmp_path, capsys):
    out = tmp_path / "map.parquet"
    words = ["embed", "demo/clae", "--map", "pca", "--images", "40", "--eps", "0,8/255", "--device", "cpu", "--out"]
    assert main([*words, str(out)]) == 0
    assert "80 rows of 40 images" in capsys.readouterr().out
    table = pd.read_parquet(out)
    assert list(table.columns[:5]) == ["x", "y", "label", "class", "image"] and len(table) == 80
    assert {"eps", "moved", "kept", "loss", "right", "index"} <= set(table.columns)
    import base64
    import io

    import pyarrow.parquet
    from PIL import Image

    study = study_of("demo/clae", images=40, eps=[8 / 255], probe=False, device="cpu")
    for row, x in ((0, study.split[[0]][0][0]), (47, study.pictures(8)[7])):
        head, code = table["image"][row].split(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(code))) as picture:
            assert picture.size == (32, 32)
            assert np.abs(np.asarray(picture) / 255 - x[0].numpy()).max() < 1 / 255
    about = json.loads(pyarrow.parquet.read_schema(out).metadata[b"clae-explorer"])
    assert about["run"] == "demo/clae" and about["map"]["method"] == "pca" and about["seed"] == 0
    assert main([*words, str(tmp_path / "map.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 80
    assert 0.5 < table.query("eps == 0")["right"].mean() < 1  # the run's own probe, fitted on the training images
    csv = pd.read_csv(tmp_path / "map.csv")
    assert csv["x"].to_numpy() == pytest.approx(table["x"].to_numpy(), abs=1e-5) and csv["image"].equals(
        table["image"].astype(csv["image"].dtype)
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["demo/nothing"], "There is no run"),
        (["demo/clae", "--map", "tsne"], "'pca' or 'umap'"),
        (["demo/clae", "--images", "5"], "21 images or more"),
        (["demo/clae", "--images", "30", "--neighbors", "30"], "31 points or more"),
        (["demo/clae", "--eps", "8"], "Did you mean 8/255?"),
        (["demo/clae", "--attack", "fgsn"], "Did you mean fgsm"),
        (["demo/clae", "--out", "map.xlsx"], ".parquet or .csv"),
        (["demo/clae", "--out", "nowhere/map.csv"], "There is no folder nowhere"),
        (["demo/clae", "--split", "val"], "invalid choice"),
    ],
)
def test_embed_says_what_is_wrong(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words else ["--out", "map.parquet"]
    assert main(["embed", *words, *out, "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith("error: ") and err.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_replaced_atlas_is_still_one(atlas):
    assert replace(atlas, xy=-atlas.xy).frame(0).equal(-atlas.xy[0])
