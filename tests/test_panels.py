"""The panels without a browser: traits move, results follow, errors become banners, numbers equal the library's."""

import itertools
import re
import time
from functools import partialmethod

import pytest
import torch

from explore import Attack, Noise, UserError, contrast, panels, seeded
from explore.results import KINDS, Perturbation, to_pixels
from explore.studies import GRID, PerturbationStudy, perturb, scale_l2, scale_linf


@pytest.fixture
def batch():
    """Eight images, half of them at the edges of the pixel range, with exact uint8 values."""
    g = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (8, 3, 32, 32), generator=g).float() / 255
    x[:4, :, :16] = 0.0
    x[2:6, :, 24:] = 1.0
    return x


@pytest.fixture
def run(encoder, tmp_path, monkeypatch):
    """A run folder with a small untrained encoder on the embedded images."""
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    config = TrainConfig(arch="resnet10", width=8, proj_dim=16)
    made = Run.create(config, name="tiny")
    made.save_encoder(build_encoder(config), 0)
    return made


@pytest.fixture
def panel(run, monkeypatch):
    from explore.panels import Perturbation as Lab
    from explore.panels.session import Session

    monkeypatch.setattr(Session, "pool", partialmethod(Session.pool, most=200))
    made = Lab(run)
    assert made.wait(60) and made.error is None, made.error
    yield made
    made.close()


# the study
def lengths(study, kind, k, match):
    delta = study.images(kind, k) - study.x
    return delta.flatten(1).abs().amax(1) if match == "linf" else delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize("match", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["fgsm", "ffgsm", "pgd"])
def test_noises_are_as_long_as_the_adversary_after_clipping(encoder, batch, attack, match):
    study = PerturbationStudy(encoder, batch, attack=attack, steps=2, match=match)
    for k in (0, 1, 8, 16):
        wanted = lengths(study, "adversary", k, match)
        for kind in KINDS[1:]:
            torch.testing.assert_close(lengths(study, kind, k, match), wanted, rtol=1e-5, atol=1e-6)


def test_an_unreachable_length_gives_the_longest_there_is():
    x = torch.tensor([0.0, 0.1, 0.9, 1.0]).view(1, 1, 2, 2)
    direction = torch.tensor([-1.0, -1.0, 1.0, 0.5]).view(1, 1, 2, 2)
    ask = torch.full((1, 1), 5.0)
    for solve, most in ((scale_linf, 0.1), (scale_l2, 0.02**0.5)):
        moved = (x + solve(direction, x, ask).view(1, 1, 1, 1) * direction).clamp(0, 1) - x
        reached = moved.abs().max() if solve is scale_linf else moved.norm()
        assert float(reached) == pytest.approx(most, abs=1e-5)


def test_every_eps_of_fgsm_is_the_librarys_own_bit_for_bit(encoder, batch):
    study = PerturbationStudy(encoder, batch, seed=4)
    objective = contrast(encoder, study.reference)
    for k in GRID:
        assert study.adversary(k).equal(Attack.fgsm(k / 255)(batch, objective))
        again = (batch + torch.tensor(k / 255) * study.sign).clamp(0, 1)  # what the browser computes
        assert to_pixels(again).tobytes() == to_pixels(study.adversary(k)).tobytes()


def test_noise_is_the_librarys_noise_but_for_the_browsers_16_bits(encoder, batch):
    study = PerturbationStudy(encoder, batch, seed=5)
    for kind in KINDS[1:]:
        own = getattr(Noise, kind)(8 / 255, norm="linf")(batch, generator=seeded(5))
        torch.testing.assert_close(study.images(kind, 8), own, rtol=0, atol=1e-5)


def test_gray_images_stay_gray(encoder, batch):
    study = PerturbationStudy(encoder, batch[:, :1].expand(-1, 3, -1, -1).contiguous())
    for kind in KINDS:
        x = study.images(kind, 8)
        assert x.equal(x[:, :1].expand_as(x))


def test_against_its_own_embedding_the_positive_part_vanishes(encoder, batch):
    itself, other = (
        PerturbationStudy(encoder, batch, reference="self"),
        PerturbationStudy(encoder, batch, reference="view"),
    )
    assert float(itself.share().max()) < 1e-4
    assert 0.05 < float(other.share().mean()) < 0.95


def test_the_two_parts_add_up_to_the_attacks_gradient(encoder, batch):
    from explore.attacks import gradient

    study = PerturbationStudy(encoder, batch)
    z, t = study.objective.z, study.temperature

    def negative(x):  # log-sum-exp over the 2n - 1 others, for both anchors of a pair, written out
        a = torch.cat([z, encoder(x)])
        others = (a @ a.T / t).masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf).logsumexp(1)
        return (others[: len(x)] + others[len(x) :]) / 2

    positive = gradient(lambda x: -(encoder(x) * z).sum(1) / t, batch)
    parts = [g.flatten(1).norm(dim=1) for g in (positive, gradient(negative, batch))]
    torch.testing.assert_close(study.share(), parts[0] / (parts[0] + parts[1]), rtol=1e-3, atol=1e-4)


def test_the_study_touches_nothing_and_says_so(encoder, batch):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    result = perturb(encoder, batch, 8 / 255, pool=torch.randn(50, encoder.feature_dim))
    assert all(v.equal(before[k]) for k, v in encoder.state_dict().items()) and not encoder.training
    assert [c.name for c in result.checks if not c.ok] == []
    assert [c.name for c in result.checks] == [
        *("|δ| ≤ 8/255", "pixels in [0, 1]", "BN statistics untouched", "modes restored", "loss above clean")
    ]


def test_broken_invariants_are_named(encoder, batch):
    study = PerturbationStudy(encoder, batch)
    encoder.trunk.layer1[0].bn1.running_mean += 3e-4
    encoder.projector.train()
    broken = {c.name: c.detail for c in study.at(8).checks if not c.ok}
    assert broken["BN statistics untouched"].startswith("trunk.layer1.0.bn1.running_mean, by 0.0003")
    assert "training mode" in broken["modes restored"]


def test_eps_0_is_the_clean_image(encoder, batch):
    result = perturb(encoder, batch, 0.0)
    assert all(result.perturbed[kind].equal(batch) for kind in KINDS)
    assert float(result.table["change"].abs().max()) < 1e-6


def test_the_table_and_its_file(encoder, batch, tmp_path):
    pool = torch.randn(50, encoder.feature_dim)
    result = perturb(encoder, batch, 8 / 255, pool=pool, pool_index=torch.arange(8), provenance={"run": "tiny"})
    table = result.table
    assert len(table) == 8 * 5 and list(table["kind"].unique()) == ["clean", *KINDS]
    clean = table[table.kind == "clean"]
    assert (clean.kept == 5).all() and (clean.change == 0).all()
    assert all(i not in row for i, row in enumerate(clean.neighbours))  # an image is not its own neighbour
    one = table[(table.kind == "adversary") & (table.image == 3)].iloc[0]
    assert one.l2 == pytest.approx(float(result.delta[3].norm())) and one.loss == float(result.loss[1, 3])
    again = Perturbation.load(result.save(tmp_path / "some" / "result"))
    assert again.table.equals(table) and again.checks == result.checks and again.provenance["run"] == "tiny"
    with pytest.raises(UserError, match="There is no file"):
        Perturbation.load(tmp_path / "none")


def test_the_losses_are_nt_xent(encoder, batch):
    from explore import nt_xent

    result, study = perturb(encoder, batch, 8 / 255), PerturbationStudy(encoder, batch)
    wanted = nt_xent(study.objective.z, encoder(result.x_adv), 0.5).detach()
    torch.testing.assert_close(result.loss[1], wanted)


@pytest.mark.parametrize("loss", ["uel", "softmax"])
def test_the_study_measures_and_attacks_the_loss_it_is_given(encoder, batch, loss):
    from explore.attacks import gradient
    from explore.losses import LOSSES

    study = PerturbationStudy(encoder, batch, temperature=0.2, loss=loss)
    result, objective = study.at(8), contrast(encoder, study.reference, temperature=0.2, loss=loss)
    for row, kind in enumerate(("clean", *KINDS)):
        images = batch if kind == "clean" else study.images(kind, 8)
        with torch.no_grad():
            wanted = LOSSES[loss](objective.z, encoder(images), 0.2)
        torch.testing.assert_close(result.loss[row], wanted)
    assert result.x_adv.equal(Attack.fgsm(8 / 255)(batch, objective)) and result.provenance["loss"] == loss
    assert not result.x_adv.equal(perturb(encoder, batch, 8 / 255, temperature=0.2).x_adv)

    def rest(x):  # the loss without its cosine to the partner, written out
        z, a, n = objective.z, encoder(x), len(x)
        if loss == "softmax":  # candidates are the attacked images
            return (z @ a.T / 0.2).logsumexp(1)
        itself = torch.eye(2 * n, dtype=torch.bool)
        both = torch.cat([z, a])
        logits = (both @ both.detach().T / 0.2).masked_fill(itself, -torch.inf)
        p = logits.softmax(1).masked_fill(itself | itself.roll(n, 0), 0)
        each = logits.logsumexp(1) - torch.log1p(-p).sum(1)
        return (each[:n] + each[n:]) / 2

    positive = gradient(lambda x: objective(x) - rest(x), batch)
    parts = [g.flatten(1).norm(dim=1) for g in (positive, gradient(rest, batch))]
    torch.testing.assert_close(study.share(), parts[0] / (parts[0] + parts[1]), rtol=1e-3, atol=1e-4)


def test_bad_settings_are_one_sentence(encoder, batch):
    cases = (
        ({"attack": "fgms"}, "fgsm"),
        ({"match": "l1"}, "linf"),
        ({"reference": "x"}, "view"),
        ({"loss": "uell"}, "uel"),
    )
    for bad, word in cases:
        with pytest.raises(UserError, match=word):
            PerturbationStudy(encoder, batch, **bad)


def test_a_batch_holds_networks_still_and_counts_its_gradients(encoder, batch):
    from explore.studies import Batch, contrast_with

    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    calls: list[int] = []
    moved = Batch(batch, contrast_with(encoder, batch, seed=2), steps=2)
    assert moved.at("fgsm", [0.0, 4 / 255])[0].equal(batch) and moved.at("pgd", [0.0, 4 / 255], calls.append)[0].equal(
        batch
    )
    assert calls == [0, 1] and encoder.training
    assert all(v.equal(before[k]) for k, v in encoder.state_dict().items())
    full = Batch(batch, moved.objective, match="l2", guide=None).at("gaussian", [2 / 255])[0] - batch
    assert full.flatten(1).norm(dim=1).tolist() == pytest.approx([2 / 255 * 3072**0.5] * 8, rel=1e-4)
    with pytest.raises(UserError, match="Did you mean fgsm"):
        moved.at("fgsn", [4 / 255])


# the panel
def test_the_lab_shows_the_loss_a_run_was_trained_with(run, panel):
    from explore.losses import uel
    from explore.panels import Perturbation as Lab
    from explore.runfolder import Run

    config = run.config.with_(loss="uel", temperature=0.2)
    trained = Run.create(config, name="with uel")
    trained.save_encoder(run.encoder(), 0)
    lab = Lab(trained)
    assert lab.wait(60) and lab.error is None, lab.error
    with torch.no_grad():
        wanted = uel(lab._outcome.study.objective.z, trained.encoder()(lab.result.x_adv), 0.2)
    torch.testing.assert_close(lab.result.loss[1], wanted)
    assert lab.result.provenance["loss"] == "uel" and panel.result.provenance["loss"] == "nt_xent"
    lab.close()


def test_the_panel_follows_its_traits(panel):
    assert panel.state == "ready" and panel.result.eps == pytest.approx(8 / 255)
    assert "FGSM lifts" in panel.pixels.reading or "FGSM lowers" in panel.pixels.reading
    panel.k = 3
    assert panel.result.eps == pytest.approx(3 / 255) and len(panel.result.table) == 160
    panel.set_trait("match", "L2")
    assert panel.result.match == "l2"
    panel.page = 1
    assert panel.result.index.tolist() == panel.pixels.meta["ids"] and panel.pixels.meta["first"] == 32
    panel.images = "fashion · train"
    assert panel.result.provenance["images"] == "fashion · train" and panel.page == 0


def test_picking_an_image_moves_the_reading_not_the_result(panel):
    result, reading = panel.result, panel.pixels.reading
    panel.picked = 5
    assert panel.pixels.reading != reading and panel.result is result
    loss = float(result.loss[1, 5])
    assert f"<b>{loss:.2f}</b>" in panel.pixels.reading
    assert f"<td>{loss:.2f}</td>" in panel._table.value


def test_attacks_of_several_steps_send_one_frame_an_eps(panel, monkeypatch):
    sent = []
    monkeypatch.setattr(panel.pixels, "send", lambda content, buffers=None: sent.append((content["k"], buffers)))
    panel.attack, panel.steps = "PGD", 2
    result = panel.result
    k, (x_adv, scales) = sent[0]
    assert k == 8 and len(scales) == 3 * 32 * 4
    assert x_adv == result.x_adv[:, :1].permute(0, 2, 3, 1).contiguous().numpy().tobytes()  # gray: one channel
    end = time.monotonic() + 60
    while len({k for k, _ in sent}) < len(GRID) and time.monotonic() < end:
        time.sleep(0.05)
    assert {k for k, _ in sent} == set(GRID)  # the other eps came while nothing was asked


def test_the_result_is_that_of_the_present_traits_however_long_it_takes(panel, monkeypatch):
    monkeypatch.setattr(panel, "wait", lambda: type(panel).wait(panel, 0.001))
    panel.images = "fashion · train"
    assert panel.result.provenance["images"] == "fashion · train"


def test_the_newest_wish_wins(panel):
    for k in range(17):
        panel.k = k
    assert panel.result.eps == pytest.approx(16 / 255)


def test_an_unknown_run_is_refused_and_a_broken_one_becomes_a_banner(panel, run):
    with pytest.raises(ValueError, match=r"There is no run 'tinny'\. Did you mean tiny"):
        panel.run = "tinny"
    good = panel.result
    (run.path / "encoder.safetensors").write_bytes(b"cut")
    panel.shelf._encoders.clear()
    panel.seed = 1
    assert panel.wait(30) and panel.state == "error" and isinstance(panel.error, UserError)
    assert "encoder.safetensors is not a complete safetensors file" in panel._message.value
    assert panel._banner.layout.display == "" and "shows tiny, FGSM, ε = 8/255" in panel._state.value
    assert panel.result is good  # the last good result stays
    panel._details.click()
    assert panel._trace.layout.display == "" and "Traceback" in panel._trace.value
    panel.seed = 0
    assert panel.wait(30) and panel.state == "ready" and panel.error is None
    assert panel._banner.layout.display == "none"


def test_stop_keeps_the_last_result_and_marks_it(panel):
    def stop(what, done, total):
        panel.stop()
        raise Superseded

    from explore.panels.base import Job, Superseded

    original, Job.progress = Job.progress, lambda self, *a: stop(*a)
    try:
        panel.attack = "PGD"
        assert panel.wait(30)
    finally:
        Job.progress = original
    assert panel.pixels.hold == 8  # the picture stays with the last result
    assert panel.state == "stale" and "shows tiny, FGSM, ε = 8/255" in panel._state.value
    panel._again.click()
    assert panel.wait(30) and panel.state == "ready" and panel.result.attack == "pgd"


def test_without_a_run_the_panel_says_what_to_do(run):
    from explore.panels import Perturbation as Lab

    panel = Lab()
    assert panel.wait(30) and panel.state == "empty" and panel.result is None
    assert "no run chosen" in panel._state.value and "ex-none" in panel.view._dom_classes
    panel.run = "tiny"
    assert panel.result.provenance["run"] == "tiny" and "ex-none" not in panel.view._dom_classes
    panel.close()


def test_the_foot_says_what_was_measured_and_where_it_came_from(panel):
    foot = panel._foot.value
    assert foot.count("ex-ok") + foot.count("ex-bad") == 5 and "tiny" in foot and "seed 0 · cpu · torch" in foot


def test_a_panel_that_goes_ends_its_thread(panel):
    panel.wait()
    thread = panel._thread
    panel.close()
    assert thread is None or not thread.is_alive()


def test_axis_ticks_are_round():
    from explore.panels.html import ticks

    assert ticks((4.42, 6.6)) == [4.5, 5.0, 5.5, 6.0, 6.5]
    assert ticks((0.0, 1.0)) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_the_sheet_and_the_script_name_the_same_roles():
    from explore.panels.base import STYLE
    from explore.panels.widgets.pixels import Pixels

    for role in re.findall(r'\["(\w+)", "[\w ]+"\]', str(Pixels._esm)[:2000]):
        assert f".ex .{role}{{--c" in STYLE or f" .{role}{{--c" in STYLE


XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))  # of linear sRGB
# colour blindness of full severity: Machado, Oliveira & Fernandes 2009
BLIND = {
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "tritan": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}


@pytest.mark.parametrize("kind", BLIND)
def test_colour_alone_tells_no_two_roles_apart(kind):
    """Roles that look alike to a colour-blind reader (CIELAB, nearer than 20) have other marks."""
    from explore.figures.base import COLOURS, MARKS

    def lab(role):
        rgb = torch.tensor([int(COLOURS[role][i : i + 2], 16) / 255 for i in (1, 3, 5)])
        rgb = (
            torch.tensor(BLIND[kind]) @ torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        ).clamp(0, 1)
        x, y, z = (torch.tensor(XYZ) @ rgb / torch.tensor([0.9505, 1, 1.089])).clamp(min=1e-4) ** (1 / 3)
        return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for a, b in itertools.combinations(COLOURS, 2):
        assert (lab(a) - lab(b)).norm() > 20 or MARKS[a] != MARKS[b], f"{a} and {b}"


def test_the_former_name_of_k_works_with_a_warning(run):
    from explore.panels import Perturbation as Lab

    with pytest.warns(FutureWarning, match=r"use panel\.k"):
        panel = Lab(run, eps=4)
    try:
        assert panel.k == 4
        with pytest.warns(FutureWarning, match=r"use panel\.k"):
            panel.eps = 5
        with pytest.warns(FutureWarning, match=r"use panel\.k"):
            assert panel.eps == panel.k == 5
        assert panel.result.eps == pytest.approx(5 / 255)
    finally:
        panel.close()


def test_a_setting_that_does_not_exist_is_one_sentence(panel):
    from explore.panels import Perturbation as Lab

    with pytest.raises(UserError, match=r"^Perturbation takes k as an int from 0 to 16, got 99; choose another value"):
        Lab(k=99)
    with pytest.raises(UserError, match="takes steps as an int from 1 to 100, got 'x'"):
        panel.steps = "x"
    with pytest.raises(UserError, match=r"takes attack as one of FGSM, .*got 'FGMS'.* Did you mean FGSM"):
        panel.attack = "FGMS"
    assert (panel.steps, panel.attack) == (3, "FGSM")


def test_a_mended_drawing_shows_what_is_true(panel, monkeypatch):
    """Computing while a request is computed, stale where it was stopped; a failed computation's banner stays."""

    def broken(page):
        raise OSError("no screen")

    def bad_then_good():
        with monkeypatch.context() as patch:
            patch.setattr(panel, "draw", broken, raising=False)
            panel.redraw()
            assert panel.state == "error"
        panel.redraw()

    panel.wait()
    ended = panel._state.value
    bad_then_good()
    assert panel.state == "ready" and panel._state.value == ended
    panel._serial += 1  # a request is under way
    bad_then_good()
    assert panel.state == "busy" and "computing" in panel._state.value
    panel._serial -= 1
    panel._settle("stale", panel._stale_tag())
    bad_then_good()
    assert panel.state == "stale"
    panel._show_error(ValueError("computing failed"))
    bad_then_good()
    assert panel.state == "error" and "computing failed" in panel._message.value


def test_compute_sets_nothing_on_the_panel(panel):
    """What `draw` needs is in what `compute` returns: drawn again later, an outcome shows the same."""
    first, reading, images = panel._outcome, panel.pixels.reading, panel.pixels.images
    panel.page = 1
    assert panel.result is not first.result and panel.pixels.reading != reading and panel.pixels.images != images
    panel.draw(first)
    assert panel.pixels.reading == reading and panel.pixels.images == images


def test_no_panel_hides_a_method_of_its_base(run):
    """An attribute that `body` sets must not have the name of a method that the frame calls."""
    from explore import panels

    made = [panels.Scorecard(), panels.Perturbation(run), panels.WhatItSees(run), panels.NoiseOrAdversary()]
    try:
        for panel in made:
            methods = {name for name in dir(panels.Panel) if callable(getattr(panels.Panel, name))}
            assert not [name for name in vars(panel) if name in methods], type(panel).__name__
            assert panel.wait(60) and panel.state == "ready" and "up to date" in panel._state.value
    finally:
        for panel in made:
            panel.close()


@pytest.mark.parametrize("name", ["Perturbation", "Training", "Scorecard", "NoiseOrAdversary"])
def test_a_setting_that_a_panel_does_not_have_is_refused(name):
    with pytest.raises(UserError, match=f"{name} has no setting 'epoch_s'; it has .*"):
        getattr(panels, name)(epoch_s=3)


def test_a_misspelt_setting_is_told_what_was_meant():
    with pytest.raises(UserError, match=r"no setting 'epoch'; .* Did you mean epochs"):
        panels.Training(epoch=3)
