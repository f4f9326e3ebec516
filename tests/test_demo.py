"""The shipped runs: loaded as a user does, their numbers measured again."""

import re

import pytest
import torch

import explore as ex
from explore.paths import shipped
from explore.training import KNNProbe

NAMES = ("simclr", "clae", "gaussian")


@pytest.fixture(scope="module")
def data():
    return ex.load("fashion")


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_run_md_are_measured_again(name, data):
    run = ex.open_run(f"demo/{name}")
    page = (run.path / "RUN.md").read_text()
    stated, untrained = (float(v) for v in re.findall(r"\| (\d+\.\d) %", page))
    probe = KNNProbe(run.config, data)
    assert 100 * probe(run.encoder()) == pytest.approx(
        stated, abs=0.16
    )  # three of 2,000 images, for another CPU's rounding
    assert 100 * probe(run.untrained()) == pytest.approx(untrained, abs=0.16)
    assert stated > untrained + 2
    assert 100 * run.metrics.knn.dropna().iloc[-1] == pytest.approx(stated, abs=0.5)  # before the weights were halved


def test_they_differ_in_the_method_alone():
    configs = [ex.open_run(f"demo/{name}").config for name in NAMES]
    assert [c.method for c in configs] == ["SimCLR", "CLAE (fgsm)", "SimCLR + gaussian noise"]
    assert len({c.with_(attack="none", eps=0.0) for c in configs}) == 1
    assert configs[1].eps == configs[2].eps


@pytest.mark.parametrize("name", NAMES)
def test_an_adversary_beats_every_noise_on_the_shipped_encoders(name, data):
    """Claim 1 (rebuttal, line 23): the loss rises far more under FGSM than under noise, for every batch."""
    encoder = ex.open_run(f"demo/{name}").encoder()
    for seed in range(3):
        x, _ = data.test.take(100, ex.seeded(seed))[:]
        apart = ex.contrast(encoder, ex.Views(scale=(0.5, 1)).for_gray()(x, ex.seeded(seed)), temperature=0.2)
        with torch.no_grad():
            clean = float(apart(x).mean())
            noise = max(
                float(apart(n(8 / 255)(x, generator=ex.seeded(seed))).mean()) for n in (ex.Noise.uniform, ex.Noise.sign)
            )
            adversary = float(apart(ex.Attack.fgsm(8 / 255)(x, apart)).mean())
        assert adversary - clean > 5 * max(noise - clean, 0) and adversary > clean


def test_they_are_small_and_listed_first():
    folder = shipped() / "demo"
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 10e6
    assert list(ex.runs().run[:3]) == [f"demo/{name}" for name in NAMES]
    assert not list(folder.rglob("*.pt")) and not list(folder.rglob("*.pkl"))
