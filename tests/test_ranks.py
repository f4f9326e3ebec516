"""One process with a batch of 2B against two with B each, by gloo: images, draws, statistics, losses, gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks_worker
import torch
from ranks_worker import CONFIG, STEPS

import explore as ex
from explore.distributed import ALONE, Ranks
from explore.random import draw
from explore.runfolder import Run
from explore.serialization import load_tensors
from explore.training import train

ROOT = Path(__file__).resolve().parent.parent
WORKER = str(ROOT / "tests" / "ranks_worker.py")


def launched(*words: str) -> subprocess.CompletedProcess:
    """Run a script or module under torchrun, in two processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What two processes wrote: the steps, and a training that was stopped."""
    folder = tmp_path_factory.mktemp("ranks")
    launched(WORKER, str(folder))
    return folder


@pytest.fixture(scope="module")
def steps(out):
    with torch.random.fork_rng(devices=[]):
        ranks_worker.steps(ALONE, out)
    return {name: [load_tensors(out / f"{name}-{n}.safetensors")[0] for n in (1, 2)] for name in STEPS}


@pytest.mark.parametrize("name", STEPS)
def test_two_ranks_make_the_step_of_one_with_twice_the_batch(steps, name):
    one, two = steps[name]
    assert one.keys() == two.keys() and any(k.startswith("grad.") for k in one)
    for key, value in one.items():
        assert value.dtype == torch.float64 or not value.is_floating_point() or key in ("buffer.mean", "buffer.std")
        torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")
    moved = one["buffer.trunk.bn1.running_mean"]
    assert moved.abs().min() > 1e-6  # the statistics are of images, not of nothing


def test_the_parts_of_a_batch_alone_would_be_another_step(steps):
    """What the exchange is for: half of the negatives and half of the statistics give another loss."""
    halves = [torch.rand(16, 3, 32, 32, generator=ex.seeded(i), dtype=torch.float64)[::2] for i in range(2)]
    torch.manual_seed(0)
    net = ex.Encoder("resnet10", width=8, stem="small", proj_dim=16).double().train()
    loss = ex.nt_xent(*(net(v) for v in halves)).mean()
    assert abs(float(loss.detach()) - float(steps["simclr"][0]["losses"][0])) > 0.1


def timeless(run):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in run.rows()]


def test_a_training_of_two_ranks_goes_on_with_one(out, tmp_path):
    whole = Run.create(CONFIG, name="whole", root=tmp_path)
    list(train(CONFIG, ex.load("fashion"), run=whole, log_every=1))
    parts = Run(out / "parts")
    assert parts.status["state"] == "stopped" and parts.rows()[-1]["step"] == 5 and parts.env["ranks"] == 2
    list(train(CONFIG, ex.load("fashion"), run=parts, log_every=1, resume=True))
    assert parts.status["state"] == "done"
    ours, theirs = timeless(parts), timeless(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(9))
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=0.02) and a["lr"] == b["lr"]
        assert a["loss_adv"] == pytest.approx(b["loss_adv"], abs=0.02)
    assert theirs[1]["loss"] - theirs[-1]["loss"] > 0.1  # the tolerance is far below what training changes


def test_the_command_line_under_torchrun(tmp_path):
    done = launched("-m", "explore", "train", "--smoke", "--runs-dir", str(tmp_path), "--device", "cpu")
    run = Run(next(tmp_path.iterdir()))
    assert run.status["state"] == "done" and done.stdout.count("kNN of the untrained encoder") == 1
    steps = [row["step"] for row in run.rows()]
    assert steps == sorted(set(steps)) and run.rows()[-1]["step"] == 10
    assert json.loads((run.path / "env.json").read_text())["ranks"] == 2


@pytest.mark.parametrize("sample", [torch.rand, torch.randn])
def test_shares_of_a_draw_are_rows_of_the_whole_draw(sample):
    whole = draw(sample, (12, 5), ex.seeded(3))
    for rank in range(3):
        assert torch.equal(draw(sample, (4, 5), Ranks(rank, 3).seeded(3)), whole[rank::3])


def test_shares_of_views_and_batches(generator):
    x = torch.rand(12, 3, 32, 32, generator=generator)
    whole = ex.Views()(x, ex.seeded(1))
    for rank in range(2):
        assert torch.equal(ex.Views()(x[rank::2], Ranks(rank, 2).seeded(1)), whole[rank::2])
    data = ex.load("fashion").train
    both = zip(*(data.batches(64, ex.seeded(2), True, True, start=3, part=(rank, 2)) for rank in range(2)), strict=True)
    for (x, y), (first, second) in zip(data.batches(64, ex.seeded(2), True, True, start=3), both, strict=True):
        assert torch.equal(torch.stack([first[0], second[0]], 1).flatten(0, 1), x)
        assert torch.equal(torch.stack([first[1], second[1]], 1).flatten(), y)


def test_alone_nothing_changes(encoder, generator):
    x = torch.rand(4, 3, generator=generator)
    assert ALONE.gather(x) is x and ALONE.share(7, "images") == 7 and ALONE.rows(4) == slice(0, 4)
    ALONE.join(encoder)
    assert encoder.trunk.bn1.over is None
    kept = x.clone()
    ALONE.average([x])
    assert torch.equal(x, kept) and ALONE.any(True, x.device) and not ALONE.any(False, x.device)


def test_what_does_not_divide_in_one_sentence(generator):
    with pytest.raises(
        ex.UserError, match="batch_size \\(129\\) must be a multiple of the number of processes \\(2\\)"
    ):
        Ranks(0, 2).share(129, "batch_size")
    with pytest.raises(ex.UserError, match="1 of 4 images of a batch could not be read"):
        Ranks(0, 2).complete(torch.rand(3, 3, generator=generator), 4)
