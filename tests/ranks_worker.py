"""What every process of tests/test_ranks.py runs under torchrun: `ranks_worker.py FOLDER`."""

import sys
from pathlib import Path

import torch

import explore as ex
from explore.distributed import Ranks, together
from explore.runfolder import Run
from explore.serialization import save_tensors
from explore.steps import Stepper
from explore.training import train

EPS = 8 / 255
STEPS = {
    "simclr": {"attack": None},
    "fgsm": {"attack": ex.Attack.fgsm(EPS)},
    "fgsm, self": {"attack": ex.Attack.fgsm(EPS), "reference": "self", "attack_branch": "adv"},
    "fgsm in chunks": {"attack": ex.Attack.fgsm(EPS), "chunk": 4},
    "l2": {"attack": ex.Attack.fgsm(EPS, norm="l2")},
    "ffgsm": {"attack": ex.Attack.ffgsm(EPS)},
    "pgd": {"attack": ex.Attack.pgd(EPS, steps=2)},
    "gaussian": {"attack": ex.Noise.gaussian(EPS)},
    "softmax": {"attack": ex.Attack.fgsm(EPS), "loss": "softmax"},
    "uel": {"attack": ex.Attack.fgsm(EPS), "loss": "uel"},
    "ifm": {"attack": ex.Attack.fgsm(EPS), "loss": "ifm", "loss_options": {"eps": 0.2}},
    "hcl in chunks": {"attack": ex.Attack.fgsm(EPS), "loss": "hcl", "loss_options": {"beta": 0.7}, "chunk": 4},
    "authors": {"attack": ex.Attack.fgsm(EPS, clamp=None, gray=False), "authors": True},
}
CONFIG = ex.TrainConfig(
    width=8, epochs=2, batch_size=64, train_images=256, knn_images=200, precision="fp32", knn_every=0, attack="gaussian"
)


def steps(here: Ranks, out: Path) -> None:
    """One step of every kind on this rank's part of 16 pairs of float64 images; the first rank writes what came out."""
    whole = [torch.rand(16, 3, 32, 32, generator=ex.seeded(i), dtype=torch.float64) for i in range(2)]
    for name, settings in STEPS.items():
        torch.manual_seed(here.rank)  # `join` must make them equal
        if here.first:
            torch.manual_seed(0)
        net = ex.Encoder("resnet10", width=8, stem="small", proj_dim=16).double().train()
        here.join(net)
        settings = dict(settings)
        if "chunk" in settings:
            settings["chunk"] = here.share(settings["chunk"], "chunk")
        v1, v2 = (v[here.rank :: here.world] for v in whole)
        done = Stepper(net, ranks=here, **settings)(v1, v2, here.seeded(5))
        here.average(p.grad for p in net.parameters() if p.grad is not None)
        losses = [done.loss, torch.zeros_like(done.loss) if done.loss_adv is None else done.loss_adv]
        here.average(losses)
        found = {f"grad.{k}": p.grad for k, p in net.named_parameters() if p.grad is not None}
        found |= {f"buffer.{k}": b for k, b in net.named_buffers()} | {"losses": torch.stack(losses)}
        if done.x_adv is not None:
            n = here.share(16, "images")
            found["x_adv"] = here.gather(done.x_adv).view(here.world, n, -1).transpose(0, 1).reshape(16, -1)
        if here.first:
            save_tensors(out / f"{name}-{here.world}.safetensors", found)


def stopped(here: Ranks, out: Path) -> None:
    """A training that is stopped after five steps of eight."""
    if here.first:
        Run.create(CONFIG, name="parts", root=out)
    with here.in_turn():
        run = Run(out / "parts")
    asked = iter(range(1, 99))
    list(train(CONFIG, ex.load("fashion"), run=run, log_every=1, ranks=here, should_stop=lambda: next(asked) == 5))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with together("cpu") as here:
        for part in (steps, stopped):
            part(here, Path(sys.argv[1]))
