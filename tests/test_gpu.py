"""What runs on a GPU: on the machine's own where there is one, else on one that is pretended (`pretended_gpu`)."""

from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from dataset_files import write_images
from pretended_gpu import pretended
from transfer_files import write_dtd

import explore as ex
from explore import studies
from explore.datasets import folder
from explore.evaluate import Probe
from explore.experiments.metrics import Measure, measured
from explore.runfolder import Run
from explore.studies.reproduction import diagnostics

E = 8 / 255
REAL = torch.cuda.is_available()
CONFIG = ex.TrainConfig(
    arch="resnet10",
    width=4,
    proj_dim=8,
    image_size=28,
    batch_size=16,
    precision="fp32",
    train_images=32,
    epochs=1,
    knn_images=100,
    attack="none",
)
EMOJI = CONFIG.with_(dataset="emoji", image_size=32)


@contextmanager
def gpu():
    if REAL:
        yield None
    else:
        with pretended() as mode:
            yield mode


def agree(answer, abs: float = 0.0):
    """`answer(device)` says the same on the CPU and on the GPU."""
    on_cpu = answer("cpu")
    with gpu():
        on_gpu = answer("cuda")
    assert on_gpu == pytest.approx(on_cpu, rel=0.05 if REAL else 5e-3, abs=max(abs, 0.05 if REAL else 0.0))


def net(device: str):
    return ex.open_run("demo/clae").encoder(device)


def images(device: str, n: int = 32):
    x, y = ex.load("fashion").test[torch.arange(n)]
    return x.to(device), y.to(device)


@cache
def small():
    """Fashion-MNIST with 600 training images and 300 to test."""
    whole = ex.load("fashion")
    train = whole.train.take(600, ex.seeded(0))
    return replace(whole, train=train, test=whole.test.take(300, ex.seeded(0)), labelled=train)


def data(device: str):
    return small().to(device)


@pytest.mark.skipif(REAL, reason="this machine has a GPU of its own")
def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    a = torch.arange(6.0).view(2, 3)
    with pretended() as mode:
        b = a.to("cuda")
        assert b.is_cuda and str(b.device) == "cuda:0"
        assert torch.equal((b + 1).cpu(), a + 1) and (b * 2).sum().item() == 30
        for wrong in (
            lambda: b + a,
            lambda: torch.cat([a, b]),
            lambda: b.new_zeros(2, 3).add_(a),
            lambda: b.numpy(),
            lambda: a[b[:, 0] > 0],
            lambda: torch.rand(2, device="cuda", generator=ex.seeded(0)),
            lambda: torch.nn.Linear(3, 1)(b),
        ):
            with pytest.raises((RuntimeError, TypeError), match=r"device|cuda"):
                wrong()
        layer = torch.nn.Linear(3, 1).to("cuda")
        layer(b).sum().backward()
        assert layer.weight.grad.is_cuda and torch.equal(layer.weight.grad.cpu(), a.sum(0)[None])
        mode.reads.clear()
        float(b[0, 1]), b.cpu(), b.nonzero()
        assert mode.reads == ["_local_scalar_dense", "to the cpu", "nonzero"]
    assert torch.cuda.is_available() == REAL


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attack": "fgsm"},
        {"attack": "ffgsm"},
        {"attack": "pgd", "steps": 2},
        {"attack": "gaussian"},
        {"attack": "fgsm", "authors_step": True},
        {"attack": "fgsm", "adv_reference": "self", "optimizer": "sgd"},
        {"attack": "fgsm", "chunk": 8},
        {"attack": "fgsm", "dataset": "emoji", "image_size": 32},
        {"attack": "fgsm", "loss": "uel", "validation": 200},
        {"attack": "fgsm", "loss": "ifm"},
        {"attack": "fgsm", "loss": "hcl"},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values())) or "none",
)
def test_training(changes):
    config = CONFIG.with_(eps=E if changes.get("attack") else 0.0, **changes)
    images = small() if config.dataset == "fashion" else None

    def losses(device):
        last = list(ex.train(config, images, device=device))[-1]
        return {name: last[name] for name in ("loss", "loss_adv") if name in last}

    agree(losses)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while inductor loads
@pytest.mark.skipif(not REAL, reason="a pretended GPU has no CUDA graphs")
@pytest.mark.parametrize("attack", ["none", "fgsm", "pgd", "gaussian"])
def test_a_recorded_step_is_the_step(attack):
    """Compiled and replayed as a CUDA graph: the same losses, step by step; the draws of an attack are others."""
    config = CONFIG.with_(attack=attack, steps=2, optimizer="sgd", lr=0.05, epochs=3, train_images=64)
    found = [
        [
            (row["loss"], row.get("loss_adv", 0.0))
            for row in ex.train(c, small(), device="cuda", log_every=1)
            if row["step"]
        ]
        for c in (config, config.with_(compile=True))
    ]
    assert len(found[1]) == 12 and found[1] == [pytest.approx(pair, rel=0.03) for pair in found[0]]


def test_a_training_goes_on_where_it_was_stopped(tmp_path):
    def stopped(device):
        run, steps = (
            Run.create(CONFIG.with_(attack="fgsm", eps=E, train_images=64), name=device, root=tmp_path),
            iter(range(99)),
        )
        list(
            ex.train(run.config, small(), device=device, run=run, monitored=True, should_stop=lambda: next(steps) == 2)
        )
        last = list(ex.train(run.config, small(), device=device, run=run, resume=True, monitored=True))[-1]
        return {
            "loss": last["loss"],
            "loss_adv": last["loss_adv"],
            "encoder": run.encoder(device)(images(device)[0]).sum().item(),
        }

    agree(stopped)


@pytest.mark.skipif(REAL, reason="only the pretended GPU notes what a host waits for")
@pytest.mark.parametrize("attack", ["fgsm", "gaussian"])
def test_an_epoch_reads_nothing_back(attack):
    """However many steps it has: its one row of metrics is read, and nothing else (the last epoch measures kNN)."""
    found = []
    for batch in (16, 8):  # 2 steps, 4 steps
        config = CONFIG.with_(attack=attack, eps=E, batch_size=batch, knn_every=0, epochs=2)
        with pretended() as mode:
            rows = ex.train(config, small(), device="cuda", log_every=99)
            next(rows)  # kNN of the untrained network
            mode.reads.clear()
            next(rows)
            found.append(list(mode.reads))
    assert found == [["to the cpu"]] * 2


@pytest.mark.parametrize("name", ["fgsm", "rfgsm", "ffgsm", "pgd", "gaussian", "uniform", "sign"])
def test_attacks_and_noise(name):
    def moved(device):
        x, _ = images(device)
        attack, objective = ex.attack_named(name, E), ex.contrast(net(device), x.flip(-1))
        out = attack(x, objective, generator=ex.seeded(0))
        assert out.device.type == device
        return [
            ex.norms(out - x)["l2"].mean().item(),
            ex.match(out - x, x, l2=1.0).abs().mean().item(),
            objective(out).mean().item(),
        ]

    agree(moved)


def test_features_neighbours_probes_and_robustness(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path))

    def judged(device):
        few = data(device).test
        h, y = ex.embed(net(device), few, cache=True)
        assert torch.equal(ex.embed(net(device), few, cache=True)[0].cpu(), h.cpu())
        probe, adam = Probe(l2=1.0).fit(h, y), Probe(protocol="authors", epochs=1).fit(h, y, test=(h, y))
        found = ex.robust_accuracy(net(device), probe, few.take(50, ex.seeded(1)), steps=2, eps=[0, E], check=False)
        rows = measured(net(device), data(device), Measure(l2=1.0, robust=E, attacked=50, z=True, neighbours=300))
        return [probe.score(h, y).top1, adam.best_, *found.table.accuracy, *(row["value"] for row in rows)]

    agree(judged, abs=0.03)


def test_transfer_and_streamed_images(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    write_dtd(tmp_path / "sets")
    write_images(tmp_path / "folder" / "cat", 30)
    write_images(tmp_path / "folder" / "dog", 20, seed=2)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    streamed = ex.load(f"folder:{tmp_path / 'folder'}", size=28)
    assert streamed.train.streamed

    def judged(device):
        found = ex.transfer("demo/clae", datasets=["dtd"], root=tmp_path / "sets", device=device)
        assert len(found.rows) == 1
        last = list(ex.train(CONFIG.with_(batch_size=8, train_images=None), streamed, device=device))[-1]
        return [*(row["value"] for row in found.rows), last["loss"], last["knn"]]

    agree(judged, abs=0.02)


QUESTIONS = {
    "perturb": lambda d: ex.perturb(net(d), images(d)[0], E, match="l2").table.loss.tolist(),
    "loss over eps": lambda d: studies.loss_vs_eps(
        "demo/clae", images=64, eps=[0, E], data=small(), device=d
    ).table.value.tolist(),
    "accuracy over eps": lambda d: studies.accuracy_vs_test_eps(
        "demo/clae", images=64, eps=[0, E], neighbours=500, data=small(), device=d
    ).table.value.tolist(),
    "atlas": lambda d: studies.atlas(
        "demo/clae", images=64, method="pca", data=small(), device=d
    ).figures.moved.tolist(),
    "probes attacked": lambda d: studies.compare_probes(
        "demo/simclr", "demo/clae", images=data(d), share=0.1, test="attacked", attack="fgsm"
    ).table.accuracy.tolist(),
    "every batch": lambda d: diagnostics.every_batch(
        "demo/clae", images=300, data=small(), device=d
    ).table.value.tolist(),
    "gradient parts": lambda d: diagnostics.gradient_parts(
        "demo/clae", images=300, data=small(), device=d
    ).table.value.tolist(),
    "reporting": lambda d: diagnostics.reporting("demo/clae", epochs=2, data=small(), device=d).table.value.tolist(),
    "a study's cells": lambda d: studies.run_grid(
        "x", studies.train_eps_cells(EMOJI, ("fgsm",), eps=[E], seeds=1, measure=Measure(l2=1.0)), device=d
    ).table.value.tolist(),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_studies(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))

    def answer(device):
        monkeypatch.setenv("CLAE_RUNS", str(tmp_path / device))
        return QUESTIONS[name](device)

    agree(answer, abs=0.03)


@pytest.mark.parametrize("method", ["integrated_gradients", "gradcam"])
def test_attribution(method):
    pytest.importorskip("captum")

    def maps(device):
        (x, y), encoder = images(device, 4), net(device)
        probe = Probe(l2=1.0).fit(*ex.embed(encoder, data(device).test))
        targets = (ex.similarity(encoder, x.flip(-1)), ex.logit(encoder, probe, y), ex.contrast(encoder, x.flip(-1)))
        return [float(ex.attribute(encoder, x, f, method, steps=8, tolerance=None).maps.abs().sum()) for f in targets]

    agree(maps)
