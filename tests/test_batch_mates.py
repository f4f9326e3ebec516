"""Lesson 10: what couples the pictures of a batch, batch norm in tiny trainings, and the panel 'batch mates' without a browser."""

import json
from pathlib import Path

import pytest
import torch
from lesson_numbers import words
from torch.nn.functional import normalize

import explore as ex
from explore.attacks import gradient
from explore.results import BatchMates
from explore.results.base import fixed
from explore.studies import BatchMateStudy, compare_batch_norms, in_mode, statistics_gap


@pytest.fixture
def study(encoder):
    x = torch.rand(6, 3, 16, 16, generator=ex.seeded(0))
    return BatchMateStudy(encoder, x, x.flip(3), temperature=0.3, gray=False, labels=torch.arange(6))


def exchanged(study, mate: int, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x, reference = study.x.clone(), study.reference.clone()
    x[mate], reference[mate] = new, new.flip(2)
    return x, reference


def test_the_gradients_are_the_attacks_own(study, encoder):
    """By the library's objective in the encoder's mode, before and after the exchange; nothing of the encoder changes."""
    new = torch.rand(3, 16, 16, generator=ex.seeded(1))
    found = study.exchange(2, 4, new, new.flip(2))
    assert all(check.ok for check in found.checks) and not encoder.training
    for part, (x, reference) in enumerate([(study.x, study.reference), exchanged(study, 4, new)]):
        signs = found.signs[part]
        for row, mode in ((0, "eval"), (1, "train")):
            with in_mode(encoder, mode):
                objective = ex.contrast(encoder, reference, temperature=0.3)
                x_adv = ex.Attack.fgsm(4 / 255, clamp=None)(x, objective)
                own = gradient(objective, x)
            torch.testing.assert_close((found.before, found.after)[part][row], own[2])
            assert ((x_adv - x)[2].sign() == signs[row]).float().mean() > 0.999
            assert float(found.loss[part, row]) == pytest.approx(
                float(objective_of(encoder, mode, x, reference)[2]), rel=1e-4
            )


def objective_of(encoder, mode, x, reference):
    with in_mode(encoder, mode), torch.no_grad():
        return ex.contrast(encoder, reference, temperature=0.3)(x)


def test_without_negatives_and_batch_statistics_a_mate_changes_nothing(study, encoder):
    new = torch.zeros(3, 16, 16)
    found = study.exchange(0, 1, new, new)
    contrastive_eval, contrastive_train, alone_eval, alone_train = found.differs.tolist()
    assert alone_eval < 0.001 and float(found.cosine[2]) == pytest.approx(1, abs=1e-4)
    assert min(contrastive_eval, contrastive_train, alone_train) > 0.001
    assert float(found.loss[0, 2]) == pytest.approx(float(found.loss[1, 2]), rel=1e-4)
    with torch.no_grad():
        z, other = (normalize(encoder(images), dim=1) for images in (study.x, study.reference))
    assert float(found.loss[0, 2]) == pytest.approx(-float(z[0] @ other[0]) / 0.3, rel=1e-4)


def test_the_table_the_file_and_gray_images(study, encoder, tmp_path):
    new = torch.rand(3, 16, 16, generator=ex.seeded(1))
    found = study.exchange(2, 4, new, new)
    table = found.table
    assert table.loss.tolist() == ["contrastive"] * 2 + ["positive alone"] * 2
    assert table["mode"].tolist() == ["eval", "train"] * 2
    signs = found.signs
    assert table.signs_differ.tolist() == pytest.approx(
        [float((a != b).float().mean()) for a, b in zip(*signs, strict=True)]
    )
    again = BatchMates.load(found.save(tmp_path / "mates"))
    assert again.table.equals(table) and (again.anchor, again.mate) == (2, 4)
    gray = BatchMateStudy(encoder, study.x, study.reference, temperature=0.3, gray=True).exchange(2, 4, new, new)
    assert gray.signs.shape == (2, 4, 1, 16, 16) and gray.signs[0, 0].equal(found.before[0].sum(0, keepdim=True).sign())


def test_what_cannot_be_is_refused(study, encoder):
    with pytest.raises(ex.UserError, match="two different images of the 6"):
        study.exchange(1, 1, study.x[0], study.x[0])
    with pytest.raises(ex.UserError, match="got 6 and 5"):
        BatchMateStudy(encoder, study.x, study.x[:5], temperature=0.3, gray=False)
    with pytest.raises(ex.UserError, match="Did you mean shared"):
        compare_batch_norms(["share"])


def test_the_gap_of_statistics(encoder):
    """0 for the images that made the running statistics, larger for others; each branch has its own."""
    x = torch.rand(32, 3, 16, 16, generator=ex.seeded(0))
    with torch.no_grad():
        for _ in range(100):
            encoder.train()(x)
    encoder.eval()
    assert statistics_gap(encoder, x) < 0.01 < statistics_gap(encoder, x * 0.3)
    assert statistics_gap(encoder, x, "adv") > 0.01 and not encoder.training


def test_a_tiny_training_is_repeatable_and_tells_its_settings():
    config = ex.TrainConfig(width=4, proj_dim=8, batch_size=16, eps=8 / 255, knn_every=0)
    first, again = (compare_batch_norms(["dual"], config=config, steps=2, images=64) for _ in range(2))
    row = first.iloc[0]
    assert first.batch_norm.tolist() == ["dual"] and 0.1 < row.knn < 1 and row.loss_adv > 0
    assert again.iloc[0].loss == pytest.approx(row.loss, rel=1e-4)
    assert (first.attrs["steps"], first.attrs["images"], first.attrs["seed"]) == (2, 64, 0)


# the panel
@pytest.fixture
def panel(encoder, tmp_path, monkeypatch):
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    config = TrainConfig(arch="resnet10", width=4, proj_dim=8)
    run = Run.create(config, name="tiny")
    run.save_encoder(build_encoder(config), 0)
    made = ex.panels.BatchMates(run, n=4)
    assert made.wait(60) and made.error is None, made.error
    yield made
    made.close()


def test_the_panel_exchanges_what_is_picked(panel):
    from explore.training import make_views

    first = panel.result
    data, run = ex.load("fashion"), ex.open_run("tiny")
    x, _ = data.test[torch.randperm(len(data.test), generator=ex.seeded(0))[: 4 + 16]]
    reference = make_views(run.config, data)(x, ex.seeded(0))
    own = BatchMateStudy(run.encoder(), x[:4], reference[:4], temperature=run.config.temperature, gray=True)
    wanted = own.exchange(0, 1, x[4], reference[4])
    assert first.x.equal(x[:4]) and first.new.equal(x[4])
    torch.testing.assert_close(first.after, wanted.after)
    panel.mates.picked = "2"  # of the batch without the anchor
    assert panel.mate == 3 and panel.result.mate == 3
    panel.spares.picked = "5"
    assert panel.result.new.equal(x[9])
    panel.anchor = 3
    assert panel.wait() and panel.error is None and (panel.result.anchor, panel.result.mate) == (3, 0)
    assert panel.mates.picked == "0"


def test_a_cell_of_the_table_chooses_what_is_shown(panel):
    shown = panel._pictures.value
    panel.table.picked = "2"
    assert panel.coupling == 2 and panel._pictures.value != shown and "positive alone" in panel._pictures.value.lower()
    for share in panel.result.differs.tolist():
        assert f"{100 * share:.1f}\xa0%" in panel._reading.value and f"{100 * share:.1f}\xa0%" in panel.table.html


# the lesson's text, rounded as it is written, with the room that two kinds of CPU need; what its cells
# show by themselves is compared with it where they run, in test_browser.py
ROOT = Path(__file__).resolve().parents[1]
BOOK = json.loads((ROOT / "notebooks" / "10_batch_and_batchnorm.ipynb").read_text())
TEXT = words(BOOK)


@pytest.fixture(scope="module")
def lesson():
    """The names that the lesson's cells define, up to the first that attacks."""
    code = ["".join(cell["source"]) for cell in BOOK["cells"] if cell["cell_type"] == "code"]
    place: dict = {"ex": ex, "torch": torch}
    for cell in code[code.index(next(c for c in code if c.startswith("from explore.training"))) :]:
        if cell.startswith(("from ", "def ")):
            exec(cell.split("\n\n\nfor ")[0], place)
    return place


def test_the_lessons_question_has_its_answer(lesson):
    assert lesson["changed"](12, "train") < 0.12 and lesson["changed"](8, "train") > 0.14  # it asks for 12.5 %


def test_the_lesson_says_what_each_attack_reaches(lesson):
    adversary, loss, x = lesson["adversary"], lesson["mean_loss"], lesson["x"]
    reference, modes, branches = lesson["reference"], ("eval", "train"), ("clean", "adv")
    made = {mode: adversary(x, reference, mode) for mode in modes}
    differ = ((made["eval"] - x).sign() != (made["train"] - x).sign()).float().mean()
    assert 100 * float(differ) == pytest.approx(26, abs=1.5) and "About 26 % of the signs differ" in TEXT
    found = [[loss(images, mode) for mode in modes] for images in (x, *made.values())]
    wanted = [[1.72, 1.70], [2.99, 2.64], [2.79, 2.79]]
    assert torch.tensor(found).flatten().tolist() == pytest.approx(torch.tensor(wanted).flatten().tolist(), abs=0.04)
    assert "from 1.72 to 2.99 under the attack made in eval mode, and to 2.79" in TEXT
    assert "in train mode from 1.70 to 2.64 and to 2.79" in TEXT
    through = [adversary(x, reference, branch=branch) for branch in branches]
    seen = [loss(images, branch=branch) for images in through for branch in branches]
    assert seen == pytest.approx([2.99, 1.87, 1.86, 4.51], abs=0.06)
    assert "has 1.87 on the adversaries" in TEXT and "goes to 4.51" in TEXT and "those images (1.86)" in TEXT


def test_the_lesson_says_where_chance_is():
    assert round(ex.chance(64), 2) == 4.84 and "stays near chance, about 4.8" in TEXT
    assert round(ex.chance(32), 2) == 4.14


def test_the_lesson_says_what_the_shipped_table_says():
    claim = ex.studies.scorecard("cpu").claim(8)
    gap = claim.findings[0]
    mean, low, high = (fixed(value, 1, sign=True) for value in (gap.mean, gap.low, gap.high))
    assert f"a difference of {mean} points, with an interval from {low} to {high}" in TEXT
    assert "not settled" in claim.verdict and gap.n == 3 and "three seeds" in TEXT


def test_the_lessons_exercise_is_the_courses():
    cells = ["".join(cell["source"]) for cell in BOOK["cells"] if cell["cell_type"] == "code"]
    exercise = ex.course.exercise("dual_batch_norm")
    assert exercise.stub in cells and exercise.test in cells
